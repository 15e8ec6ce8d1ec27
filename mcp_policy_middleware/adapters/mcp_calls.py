"""What every guarded MCP session does with a request: a tool call is decided, a list loses its hidden tools."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from ..calls import UNNAMED, Decision, Layer, ServerName, ToolCall, Unreadable
from ..errors import PolicyError, ToolDenied
from ..guard import Guard
from .identity import IdentityOf, identified_call
from .mcp_sdk import SdkError, outcome_of, sdk_error, tool_call_params, tool_error, unwrapped_request

__all__ = ["DECISION_KEY", "Binding", "PolicyDeniedError", "server_name"]

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
class Binding:
    """Which guard decides for a session, under which name, and as whose calls.

    Attributes:
        guard: Decides each call.
        server: The name by which policies and counters know the server.
        identity_of: Tells whose call a request is.
        fault: Why the server's name is not known, where it should be: every call is denied.
    """

    guard: Guard
    server: ServerName
    identity_of: IdentityOf | None
    fault: str | None = None

    def named(self, server: ServerName, fault: str | None = None) -> Binding:
        """The same, for a session of another server."""
        return self if server == self.server and fault is None else replace(self, server=server, fault=fault)

    async def send(self, request: Any, result_type: Any, forward: Callable[[], Awaitable[Any]]) -> Any:
        """Send a request on, a tool call only where the policy admits it; else its denial as a tool error.

        Raises:
            PolicyDeniedError: The call is denied, and the awaited type cannot hold a tool error.
        """
        inner = unwrapped_request(request)
        method = getattr(inner, "method", None)
        if method == "tools/list":
            return self.without_hidden(await forward())
        if method != "tools/call":
            return await forward()
        call = self._call(inner)
        try:
            return await self.guard.arun(call, forward, outcome_of, layer=Layer.SESSION)
        except ToolDenied as denied:
            if denied.decision.call is not call:  # raised by what was called, in this process
                raise
            return _denial(denied.decision, result_type)

    def without_hidden(self, page: Any) -> Any:
        """A page of a list without the hidden tools; its cursor stays, even where the page becomes empty."""
        tools = getattr(page, "tools", None)
        if not isinstance(tools, list):  # a result type of the caller's own
            return page
        kept = self.guard.visible(tools, server=self.server)
        return page if len(kept) == len(tools) else page.model_copy(update={"tools": kept})

    def _call(self, request: Any) -> ToolCall:
        params = tool_call_params(request)
        tool, arguments = params.get("name", ""), params.get("arguments")
        if self.fault is not None:
            return ToolCall(tool, Unreadable(self.fault), server=self.server)
        return identified_call(tool, arguments, server=self.server, identity_of=self.identity_of, seen=request)


def server_name(name: str | None) -> ServerName:
    """The name that the application gave, or `UNNAMED`.

    Raises:
        PolicyError: It is no text, or empty.
    """
    if name is None:
        return UNNAMED
    if not isinstance(name, str) or not name:
        raise PolicyError("a server's name is a text that is not empty: leave it out where there is none")
    return name


def _denial(decision: Decision, result_type: Any) -> Any:
    result = tool_error(result_type, decision.text, {DECISION_KEY: _shareable(decision)})
    if result is None:
        raise PolicyDeniedError(decision)
    return result


def _shareable(decision: Decision) -> dict[str, Any]:
    """PL-6.2 without the message: several frameworks show `_meta` to the model."""
    return {key: value for key, value in decision.as_dict().items() if key != "message"}
