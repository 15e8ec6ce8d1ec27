"""Every MCP session of the process, whichever framework opens it, under one guard (adapters A-2).

The SDK's `ClientSession` itself is patched, by an explicit call only: this is the one part of the package that is
process-wide, and so is what it remembers.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, TypeAlias

from ..calls import UNNAMED
from ..errors import PolicyError, log_failure
from ..guard import Guard
from .identity import IdentityOf
from .mcp_calls import Binding, server_name
from .mcp_sdk import ClientSession

__all__ = ["Installation", "ServerOf", "install", "named_here", "server", "uninstall"]

ServerOf: TypeAlias = Callable[[Any], str | None]
"""Takes a `ClientSession`; returns the name of its server, or None where it knows none."""

_LOG: Final = logging.getLogger(__name__)
_LOCK: Final = threading.RLock()
_NAME: Final[ContextVar[str | None]] = ContextVar("mcp_policy_server", default=None)
_INSTALLED: Final[list[Installation]] = []
"""None, or one."""


class Installation:
    """The guard of every session, until `uninstall()` or the end of a `with install(...):` block.

    Blocks may be nested or overlap in time: the last to end uninstalls, and none does after an `install` without one.
    """

    def __init__(self, guard: Guard, server_of: ServerOf | None, identity_of: IdentityOf | None) -> None:
        self._guard = guard
        self._server_of = server_of
        self._identity_of = identity_of
        self._binding = Binding(guard, UNNAMED, identity_of)
        self._active = True
        self._before: dict[str, Any] = {}
        self._patches: dict[str, Any] = {}
        self.holders = 0

    def __enter__(self) -> Installation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _LOCK:
            self.holders -= 1
            if self.holders == 0 and self._active:
                uninstall()

    def settles_for(self, guard: Guard, server_of: ServerOf | None, identity_of: IdentityOf | None) -> bool:
        """Whether installing these would change nothing."""
        return (
            guard is self._guard
            and (server_of is None or server_of == self._server_of)
            and (identity_of is None or identity_of == self._identity_of)
        )

    def put(self) -> None:
        """Put the guard before the methods of the SDK's class."""
        for name, patch in _PATCHES.items():
            if hasattr(ClientSession, name):
                before = vars(ClientSession).get(name)
                made = functools.wraps(getattr(ClientSession, name))(patch(self, _late(name, before)))
                self._before[name], self._patches[name] = before, made
                setattr(ClientSession, name, made)

    def remove(self) -> None:
        """Leave the class as it was; a method that others have wrapped since stays there, and only passes on."""
        self._active = False
        for name, before in self._before.items():
            if vars(ClientSession).get(name) is not self._patches[name]:
                continue
            if before is None:  # it was inherited
                delattr(ClientSession, name)
            else:
                setattr(ClientSession, name, before)

    def binding(self, session: Any) -> Binding | None:
        """How the session is guarded here; None where it is not, or where the same guard sees to it already."""
        own: Binding | None = vars(session).get("_policy_binding")
        if not self._active or (own is not None and own.guard is self._guard):
            return None
        try:
            name = None if self._server_of is None else self._server_of(session)
            if name is not None:
                return self._binding.named(server_name(name))
        except Exception as error:  # the application's own code may raise anything
            log_failure(_LOG, "calls of a session are denied because `server_of` failed", error)
            return self._binding.named(UNNAMED, "it is not known which server this session talks to")
        if own is not None:
            return self._binding.named(own.server)
        return self._binding.named(server_name(vars(session).get("_policy_server") or _NAME.get()))


def install(guard: Guard, *, server_of: ServerOf | None = None, identity_of: IdentityOf | None = None) -> Installation:
    """Guard every `ClientSession` of the process from now on: those that exist, and those that any framework opens.

    Doing so again with the same guard is harmless. A session that `guard_session` has given a guard keeps it: the same
    guard decides once, another one decides as well.

    Args:
        guard: Decides each call.
        server_of: Takes a session; returns the name of its server, or None, and then the name counts that `server`
            gave. A session without a name is denied with `(no policy)` by a guard that holds policies by server.
        identity_of: Takes the request of a call and returns any of `grant`, `session` and `context`.

    Returns:
        A context manager, for those who want to uninstall at the end of a block.

    Raises:
        PolicyError: Another guard, or other functions, are installed already.
    """
    with _LOCK:
        if not _INSTALLED:
            installation = Installation(guard, server_of, identity_of)
            installation.put()
            _INSTALLED.append(installation)
        elif not _INSTALLED[0].settles_for(guard, server_of, identity_of):
            raise PolicyError("the process is guarded already, otherwise: call `uninstall()` first")
        _INSTALLED[0].holders += 1
        return _INSTALLED[0]


def uninstall() -> None:
    """Undo `install`; without one, do nothing. Sessions of `guard_session` stay guarded."""
    with _LOCK:
        while _INSTALLED:
            _INSTALLED.pop().remove()


@contextmanager
def server(name: str) -> Iterator[None]:
    """Name the server of the sessions that are made inside the block; for `install` and `guard_group`.

    A session that has no name when it is called goes by the block around the call, for frameworks that make their
    sessions on a thread of their own. Sessions that a server in this process uses meanwhile do not.

    Args:
        name: The name by which policies and counters know the server.

    Raises:
        PolicyError: The name is no text, or empty.
    """
    if server_name(name) is UNNAMED:
        raise PolicyError("a server's name is a text that is not empty")
    token = _NAME.set(name)
    try:
        yield
    finally:
        _NAME.reset(token)


def named_here() -> str | None:
    """The name that the innermost `server` block gives."""
    return _NAME.get()


def _late(name: str, before: Any) -> Callable[..., Any]:
    """The method beneath a patch; an inherited one is looked up at each call, for others may wrap it later."""
    if before is not None:
        return before  # type: ignore[no-any-return]
    return lambda session, *args, **kwargs: getattr(super(ClientSession, session), name)(*args, **kwargs)


def _init(installation: Installation, beneath: Callable[..., Any]) -> Callable[..., Any]:
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        name = _NAME.get()
        if name is not None:
            vars(self)["_policy_server"] = name
        beneath(self, *args, **kwargs)

    return init


def _send_request(installation: Installation, beneath: Callable[..., Any]) -> Callable[..., Any]:
    async def send_request(self: Any, request: Any, result_type: Any, *args: Any, **kwargs: Any) -> Any:
        binding = installation.binding(self)

        async def forward(sent: Any) -> Any:
            token = _NAME.set(None)  # a server in this process sees the caller's context, and has servers of its own
            try:
                return await beneath(self, sent, result_type, *args, **kwargs)
            finally:
                _NAME.reset(token)

        return await (forward(request) if binding is None else binding.send(request, result_type, forward))

    return send_request


def _list_tools(installation: Installation, beneath: Callable[..., Any]) -> Callable[..., Any]:
    async def list_tools(self: Any, *args: Any, **kwargs: Any) -> Any:
        page = await beneath(self, *args, **kwargs)
        binding = installation.binding(self)
        return page if binding is None else binding.without_hidden(page)

    return list_tools


def _absorb_tool_listing(installation: Installation, beneath: Callable[..., Any]) -> Callable[..., Any]:
    def absorb(self: Any, *args: Any, **kwargs: Any) -> Any:
        page = beneath(self, *args, **kwargs)
        binding = installation.binding(self)
        return page if binding is None else binding.without_hidden(page)

    return absorb


_PATCHES: Final[dict[str, Callable[[Installation, Callable[..., Any]], Callable[..., Any]]]] = {
    "__init__": _init,
    "send_request": _send_request,
    "list_tools": _list_tools,
    "_absorb_tool_listing": _absorb_tool_listing,  # 2.x: lists that its client has cached pass here
}
