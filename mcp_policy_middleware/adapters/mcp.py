"""MCP client sessions: every `tools/call` is decided before it leaves, on mcp 1.x and 2.x (adapters A-2).

The choke point is `ClientSession.send_request`, through which every typed helper of the SDK and every raw request
goes; `list_tools` loses the hidden tools. A session does not know which server it talks to, and what a server says
of itself is no identity, so the application gives the name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..calls import UNNAMED, Decision, Layer, ServerName, ToolCall
from ..errors import PolicyError, ToolDenied
from ..guard import Guard
from .identity import IdentityOf, identified_call
from .mcp_sdk import (
    ClientSession,
    SdkError,
    outcome_of,
    sdk_error,
    tool_call_params,
    tool_error,
    unwrapped_request,
)

__all__ = ["DECISION_KEY", "GuardedClientSession", "PolicyDeniedError", "guard_session"]

SessionT = TypeVar("SessionT", bound=ClientSession)

DECISION_KEY: Final = "io.github.mcp-policy-middleware/decision"
"""The `_meta` key under which a denied call's result carries its decision (A-1.9)."""

DENIED_CODE: Final = 4031
"""Outside the range that JSON-RPC reserves, so that it is never mistaken for a server's answer."""


class PolicyDeniedError(SdkError):  # type: ignore[misc]  # the SDK's class goes by two names
    """A denial where the awaited result type cannot hold a tool error, such as a task's.

    Attributes:
        decision: The `Decision`.
    """

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        super().__init__(*sdk_error(DENIED_CODE, decision.text, _shareable(decision)))


@dataclass(slots=True)
class _Binding:
    """Which guard decides for a session, and as whose calls."""

    guard: Guard
    server: ServerName
    identity_of: IdentityOf | None

    def call(self, request: Any) -> ToolCall:
        params = tool_call_params(request)
        tool, arguments = params.get("name", ""), params.get("arguments")
        return identified_call(tool, arguments, server=self.server, identity_of=self.identity_of, seen=request)


def _guarded_class(base: Any) -> Any:
    """A subclass with the two methods of a session that matter.

    A plain subclass, and not a mixin in front, because a live session can change to it.
    """

    class Guarded(base):  # type: ignore[misc]  # the session's own class, whatever it is
        _policy_binding: _Binding

        async def send_request(self, request: Any, result_type: Any, *args: Any, **kwargs: Any) -> Any:
            """Send a request; a tool call only where the policy admits it."""
            forward = super().send_request  # looked up at each call: others may have wrapped it since
            inner = unwrapped_request(request)
            if getattr(inner, "method", None) != "tools/call":
                return await forward(request, result_type, *args, **kwargs)
            binding = self._policy_binding
            call = binding.call(inner)
            try:
                return await binding.guard.arun(
                    call, lambda: forward(request, result_type, *args, **kwargs), outcome_of, layer=Layer.SESSION
                )
            except ToolDenied as denied:
                if denied.decision.call is not call:  # raised by what was called, in this process
                    raise
                return _denial(denied.decision, result_type)

        async def list_tools(self, *args: Any, **kwargs: Any) -> Any:
            """List the server's tools without the hidden ones, page by page."""
            page = await super().list_tools(*args, **kwargs)
            binding = self._policy_binding
            return page.model_copy(update={"tools": binding.guard.visible(page.tools, server=binding.server)})

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
        self._policy_binding = _Binding(guard, UNNAMED if server is None else server, identity_of)


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
    binding = _Binding(guard, UNNAMED if server is None else server, identity_of)
    guarded: Any = session
    known: _Binding | None = vars(guarded).get("_policy_binding")
    if known is None:
        vars(guarded)["_policy_binding"] = binding
        guarded.__class__ = _guarded_class(type(session))
    elif known != binding:
        raise PolicyError(f"the session is guarded already, as server {known.server!r}: guard each session once")
    return session


def _denial(decision: Decision, result_type: Any) -> Any:
    result = tool_error(result_type, decision.text, {DECISION_KEY: _shareable(decision)})
    if result is None:
        raise PolicyDeniedError(decision)
    return result


def _shareable(decision: Decision) -> dict[str, Any]:
    """PL-6.2 without the message: several frameworks show `_meta` to the model."""
    return {key: value for key, value in decision.as_dict().items() if key != "message"}
