"""MCP client sessions: every `tools/call` is decided before it leaves, on mcp 1.x and 2.x (adapters A-2).

The choke point is `ClientSession.send_request`, through which every typed helper of the SDK and every raw request
goes; lists lose the hidden tools. A session does not know which server it talks to, and what a server says of itself
is no identity, so the application gives the name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import PolicyError
from ..guard import Guard
from .identity import IdentityOf
from .mcp_calls import DECISION_KEY, Binding, PolicyDeniedError, server_name
from .mcp_process import install, server, uninstall
from .mcp_sdk import ClientSession

__all__ = [
    "DECISION_KEY",
    "GuardedClientSession",
    "PolicyDeniedError",
    "guard_session",
    "install",
    "server",
    "uninstall",
]

SessionT = TypeVar("SessionT", bound=ClientSession)


def _guarded_class(base: Any) -> Any:
    """A subclass with the methods of a session that matter.

    A plain subclass, and not a mixin in front, because a live session can change to it.
    """

    class Guarded(base):  # type: ignore[misc]  # the session's own class, whatever it is
        _policy_binding: Binding

        async def send_request(self, request: Any, result_type: Any, *args: Any, **kwargs: Any) -> Any:
            """Send a request; a tool call only where the policy admits it."""
            forward = super().send_request  # looked up at each call: others may have wrapped it since
            return await self._policy_binding.send(
                request, result_type, lambda: forward(request, result_type, *args, **kwargs)
            )

        async def list_tools(self, *args: Any, **kwargs: Any) -> Any:
            """List the server's tools without the hidden ones, page by page."""
            return self._policy_binding.without_hidden(await super().list_tools(*args, **kwargs))

        if hasattr(base, "_absorb_tool_listing"):  # 2.x: lists that its client has cached pass here

            def _absorb_tool_listing(self, *args: Any, **kwargs: Any) -> Any:
                return self._policy_binding.without_hidden(super()._absorb_tool_listing(*args, **kwargs))

    Guarded.__name__, Guarded.__qualname__ = base.__name__, base.__qualname__
    Guarded.__module__, Guarded.__doc__ = base.__module__, base.__doc__
    return Guarded


if TYPE_CHECKING:
    _GuardedSession = ClientSession
else:
    _GuardedSession = _guarded_class(ClientSession)


class GuardedClientSession(_GuardedSession):
    """A `ClientSession` whose tool calls are decided by a guard.

    Args:
        guard: Decides each call.
        server: The name by which policies and counters know the server; the application's choice.
        identity_of: Takes the request of a call and returns any of `grant`, `session` and `context`.
        *args, **kwargs: As for `ClientSession`.
    """

    def __init__(
        self,
        *args: Any,
        guard: Guard,
        server: str | None = None,
        identity_of: IdentityOf | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._policy_binding = Binding(guard, server_name(server), identity_of)


def guard_session(
    session: SessionT, guard: Guard, *, server: str | None = None, identity_of: IdentityOf | None = None
) -> SessionT:
    """Guard a live session; doing so again with the same guard and server changes nothing.

    Args:
        session: A `ClientSession` or an instance of a subclass, before or after `initialize`.
        guard: Decides each call.
        server: The name by which policies and counters know the server. Without one, a guard that holds policies
            by server denies every call with `(no policy)` (PL-9.2).
        identity_of: Takes the request of a call and returns any of `grant`, `session` and `context`.

    Returns:
        The same session; it stays an instance of its class.

    Raises:
        PolicyError: The session is guarded already, by another guard or under another name.
        TypeError: It is no `ClientSession`.
    """
    if not isinstance(session, ClientSession):
        raise TypeError(f"guard_session takes a ClientSession, not {type(session).__name__}: pass `client.session`")
    binding = Binding(guard, server_name(server), identity_of)
    guarded: Any = session
    known: Binding | None = vars(guarded).get("_policy_binding")
    if known is None:
        vars(guarded)["_policy_binding"] = binding
        guarded.__class__ = _guarded_class(type(session))
    elif known != binding:
        raise PolicyError(f"the session is guarded already, as server {known.server!r}: guard each session once")
    return session
