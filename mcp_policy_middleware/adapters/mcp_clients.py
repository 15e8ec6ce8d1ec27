"""What opens sessions for its user: the SDK's `Client` (2.x) and `ClientSessionGroup`, and clients made like them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from ..errors import PolicyError
from ..guard import Guard
from .identity import IdentityOf
from .mcp_attach import attach, named_after
from .mcp_calls import Binding, server_name
from .mcp_process import named_here
from .mcp_sdk import ClientSession, ClientSessionGroup

__all__ = ["ServerOfInfo", "guard_client", "guard_group"]

ClientT = TypeVar("ClientT")
GroupT = TypeVar("GroupT", bound=ClientSessionGroup)
ServerOfInfo: TypeAlias = Callable[[Any], str | None]
"""Takes what a server says of itself; returns the name that the application knows it by, or None."""


def guard_client(
    client: ClientT, guard: Guard, *, server: str | None = None, identity_of: IdentityOf | None = None
) -> ClientT:
    """Guard a client that holds one session at a time, whenever it connects; doing so again changes nothing.

    Tools that become hidden while it is connected vanish from its lists at once, cached ones too. Tools that become
    visible may need `cache_mode="refresh"`, for a client of 2.x keeps lists as they were shown.

    Args:
        client: An `mcp.Client`, or any object with a `session` property that it works through, as fastmcp's has;
            connected or not.
        guard: Decides each call.
        server: The name by which policies and counters know the server, as for `guard_session`.
        identity_of: Takes the request of a call and returns any of `grant`, `session` and `context`.

    Returns:
        The same client; it stays an instance of its class.

    Raises:
        PolicyError: The client, or its session, is guarded already, by another guard or under another name.
        TypeError: It has no `session` property, or that gives no `ClientSession`.
    """
    if not isinstance(getattr(type(client), "session", None), property):
        raise TypeError(f"guard_client takes a client with a `session` property, not {type(client).__name__}")
    binding = Binding(guard, server_name(server), identity_of)
    guarded: Any = client
    known: Binding | None = vars(guarded).get("_policy_binding")
    if known is None:
        session = _session_now(client)
        if session is not None:
            attach(_checked(session), binding)
        guarded.__class__ = _guarded_client_class(type(client))  # first: what has a binding is guarded
        vars(guarded)["_policy_binding"] = binding
    elif known != binding:
        raise PolicyError(f"the client is guarded already, as server {known.server!r}: guard each client once")
    return client


def guard_group(
    group: GroupT, guard: Guard, *, server_of: ServerOfInfo | None = None, identity_of: IdentityOf | None = None
) -> GroupT:
    """Guard every session that a group will connect; hidden tools are not among its `tools`.

    Args:
        group: A `ClientSessionGroup` that has not connected yet.
        guard: Decides each call.
        server_of: Takes what a server says of itself; returns its name, or None, and then the name counts that
            `server` gave around connecting. Servers may say anything: prefer `with server("stripe"):`.
        identity_of: Takes the request of a call and returns any of `grant`, `session` and `context`.

    Returns:
        The same group; it stays an instance of its class.

    Raises:
        PolicyError: The group has connected, or is guarded, already.
        TypeError: It is no `ClientSessionGroup`.
    """
    if not isinstance(group, ClientSessionGroup):
        raise TypeError(f"guard_group takes a ClientSessionGroup, not {type(group).__name__}")
    guarded: Any = group
    settings = (Binding(guard, server_name(None), identity_of), server_of)
    if vars(guarded).get("_policy_settings") == settings:
        return group
    if "_policy_settings" in vars(guarded):
        raise PolicyError("the group is guarded already: guard each group once")
    if group.sessions:
        raise PolicyError("the group has connected already: guard it before it does")
    guarded.__class__ = _guarded_group_class(type(group))
    vars(guarded)["_policy_settings"] = settings
    return group


def _session_now(client: Any) -> Any:
    try:
        return client.session
    except RuntimeError:  # not connected
        return None


def _checked(session: Any) -> Any:
    """The session, which has the one method that every call goes through."""
    if not isinstance(session, ClientSession):
        raise TypeError(f"the client's session is no ClientSession but {type(session).__name__}: it cannot be guarded")
    return session


def _guarded_client_class(base: Any) -> Any:
    class Guarded(base):  # type: ignore[misc]  # the client's own class, whatever it is
        @property
        def session(self) -> Any:
            """The session of now, guarded."""
            return attach(_checked(super().session), self._policy_binding)

    return named_after(base, Guarded)


def _guarded_group_class(base: Any) -> Any:
    class Guarded(base):  # type: ignore[misc]  # the group's own class, whatever it is
        async def connect_with_session(self, server_info: Any, session: Any) -> Any:
            """Take a session in, guarded before its tools are listed."""
            binding, server_of = self._policy_settings
            name = None if server_of is None else server_of(server_info)
            attach(session, binding.named(server_name(named_here() if name is None else name)))
            return await super().connect_with_session(server_info, session)

    return named_after(base, Guarded)
