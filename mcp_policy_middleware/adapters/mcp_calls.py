"""What every guarded MCP session does with a request: a tool call is decided, a list loses its hidden tools."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ..calls import UNNAMED, Decision, Outcome, ServerName, ToolCall, Unreadable
from ..errors import PolicyError, ToolDenied
from ..guard import Guard
from ..handover import Layer
from .identity import IdentityOf, identified_call
from .mcp_rounds import OpenCall, OpenCalls, sent_again
from .mcp_sdk import (
    SdkError,
    asks_for_input,
    outcome_of,
    sdk_error,
    tool_call_params,
    tool_error,
    unwrapped_request,
    with_trace_context,
)

__all__ = ["DECISION_KEY", "Binding", "PolicyDeniedError", "server_name", "shareable"]

DECISION_KEY: Final = "io.github.mcp-policy-middleware/decision"
"""The `_meta` key under which a denied call's result carries its decision (A-1.9)."""

DENIED_CODE: Final = 4031
"""Outside the range that JSON-RPC reserves, so that it is never mistaken for a server's answer."""

_LOG: Final = logging.getLogger(__name__)
_CARRIES_DATA: Final = frozenset({"resources/read", "prompts/get", "completion/complete"})


class PolicyDeniedError(SdkError):  # type: ignore[misc]  # the SDK's class goes by two names
    """A denial where the awaited result type cannot hold a tool error, such as a task's.

    Attributes:
        decision: The `Decision`.
    """

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        super().__init__(*sdk_error(DENIED_CODE, decision.text, shareable(decision)))


@dataclass(slots=True)
class Binding:
    """Which guard decides for a session, under which name, and as whose calls.

    Attributes:
        guard: Decides each call.
        server: The name by which policies and counters know the server.
        identity_of: Tells whose call a request is.
        fault: Why the server's name is not known, where it should be: every call is denied.
        open_calls: Those whose servers wait for input.
    """

    guard: Guard
    server: ServerName
    identity_of: IdentityOf | None
    fault: str | None = None
    open_calls: OpenCalls = field(default_factory=OpenCalls, compare=False, repr=False)

    def named(self, server: ServerName, fault: str | None = None) -> Binding:
        """The same, for a session of another server."""
        return self if server == self.server and fault is None else replace(self, server=server, fault=fault)

    async def send(self, request: Any, result_type: Any, beneath: Callable[[Any], Awaitable[Any]]) -> Any:
        """Send a request on, a tool call only where the policy admits it; else its denial as a tool error.

        Args:
            request: The request.
            result_type: What is awaited.
            beneath: Sends it; a tool call carries the caller's trace context, where the SDK adds none.

        Raises:
            PolicyDeniedError: The call is denied, and the awaited type cannot hold a tool error.
        """
        inner = unwrapped_request(request)
        method = getattr(inner, "method", None)
        if method == "tools/list":
            return self.without_hidden(await beneath(request))
        if method != "tools/call":
            if method in _CARRIES_DATA:  # there is no decision to make a span of, and the SDK's 2.x makes its own
                _LOG.debug("`%s` to server %r went unchecked: policies are about tools", method, self.server)
            return await beneath(request)
        params = tool_call_params(inner)
        call = self._call(inner, params)
        opened = self.open_calls.take(call, params) if "requestState" in params or "inputResponses" in params else None

        async def forward() -> Any:
            telemetry = self.guard.telemetry
            return await beneath(request if telemetry is None else with_trace_context(request, telemetry.carried))

        try:
            if opened is None:
                return await self._first_round(call, forward)
            return await self._later_round(call, opened, forward)
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

    def _call(self, request: Any, params: Mapping[str, Any]) -> ToolCall:
        tool, arguments = params.get("name", ""), params.get("arguments")
        if self.fault is not None:
            return ToolCall(tool, Unreadable(self.fault), server=self.server)
        return identified_call(tool, arguments, server=self.server, identity_of=self.identity_of, seen=request)

    async def _first_round(self, call: ToolCall, forward: Callable[[], Awaitable[Any]]) -> Any:
        async def noted() -> Any:
            try:
                result = await forward()
            except SdkError as error:
                if outcome_of(error) is Outcome.REJECTED:
                    sent_again(self.guard, call)
                raise
            if asks_for_input(result) and (opened := OpenCall.answered(self.guard, call)):
                self.open_calls.put(opened, result.request_state)
            return result

        return await self.guard.arun(call, noted, outcome_of, layer=Layer.SESSION)

    async def _later_round(self, call: ToolCall, opened: OpenCall, forward: Callable[[], Awaitable[Any]]) -> Any:
        """Check the call again, under the charge that it has; settle it when no further round is to come."""
        try:
            with opened.resumed(self.guard):
                result = await self.guard.arun(call, forward, outcome_of, layer=Layer.SESSION)
        except BaseException as error:
            denied = isinstance(error, ToolDenied) and error.decision.call is call
            if denied or outcome_of(error) is Outcome.REJECTED:  # not sent, or refused unread: the server still waits
                self.open_calls.put_back(opened)
            else:
                await opened.end(self.guard, outcome_of(error))
            raise
        if asks_for_input(result):
            opened.rounds += 1
            self.open_calls.put(opened, result.request_state)
        else:
            await opened.end(self.guard, outcome_of(result))
        return result


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
    result = tool_error(result_type, decision.text, {DECISION_KEY: shareable(decision)})
    if result is None:
        raise PolicyDeniedError(decision)
    return result


def shareable(decision: Decision) -> dict[str, Any]:
    """PL-6.2 without the message: several frameworks show `_meta` to the model."""
    return {key: value for key, value in decision.as_dict().items() if key != "message"}
