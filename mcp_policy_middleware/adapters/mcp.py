"""MCP client sessions: every `tools/call` is decided before it leaves, on mcp 1.x and 2.x (adapters A-2).

The choke point is `ClientSession.send_request`, through which every typed helper of the SDK and every raw request
goes; lists lose the hidden tools. A session does not know which server it talks to, and what a server says of itself
is no identity, so the application gives the name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from ..guard import Guard
from .identity import IdentityOf
from .mcp_attach import attach, guarded_class
from .mcp_calls import DECISION_KEY, Binding, PolicyDeniedError, server_name
from .mcp_clients import guard_client, guard_group
from .mcp_process import install, server, uninstall
from .mcp_sdk import ClientSession

__all__ = [
    "DECISION_KEY",
    "GuardedClientSession",
    "PolicyDeniedError",
    "guard_client",
    "guard_group",
    "guard_session",
    "install",
    "server",
    "uninstall",
]

SessionT = TypeVar("SessionT", bound=ClientSession)


if TYPE_CHECKING:
    _GuardedSession = ClientSession
else:
    _GuardedSession = guarded_class(ClientSession)


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
        raise TypeError(f"guard_session takes a ClientSession, not {type(session).__name__}: see `guard_client`")
    return attach(session, Binding(guard, server_name(server), identity_of))
