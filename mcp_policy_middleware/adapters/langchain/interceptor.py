"""The policy as an interceptor of langchain-mcp-adapters, which knows the server and the final arguments (A-2)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from langchain_core.messages import ToolMessage
from mcp.types import CallToolResult

from ...calls import UNNAMED, Decision, Outcome, ServerName, ToolCall, Unreadable
from ...errors import ToolDenied, log_failure
from ...guard import Guard
from ...handover import Layer
from ..identity import identified_call
from ..mcp_calls import DECISION_KEY, shareable
from ..mcp_sdk import outcome_of as outcome_of_mcp
from ..mcp_sdk import tool_error
from .answers import denial_message, outcome_of
from .arguments import as_json

__all__ = ["PolicyInterceptor"]

_LOG: Final = logging.getLogger(__name__)
_NOBODY: Final = "unknown"
"""What the bridge calls a server that the application gave it no name for."""
_NOT_LAST: Final = (
    "the policy is not the last interceptor: one after it can change a call that was already decided, put it last"
)


class PolicyInterceptor:
    """Decides every tool call that langchain-mcp-adapters sends; give it as the last of `tool_interceptors`.

    The last one is innermost: it sees the name and the arguments as they leave, whatever interceptors before it made
    of them. One after it can change a call that was already decided, which the log tells. It does not see calls that
    the application makes on a session itself: guard the session for those.

    A denied call gives an agent an ordinary tool error with the decision in its artifact. Where the bridge does not
    say which call it is, as outside an agent or a graph, the denial is an MCP result that the bridge makes a tool
    error of; with the bridge's `handle_tool_errors=False` it raises that one.

    Args:
        guard: Who decides.
        server_of: Tells a call's server from the request; left out, the name that the application gave the bridge.
            A server without a name is `UNNAMED`, and so is one of the name `unknown`, which the bridge puts there.
        name_of: Tells a tool's name from the request; left out, the name that is sent.
        identity_of: Tells `grant`, `session` and `context` of a call from the request, such as from its
            `runtime.context`; what it leaves out is the guard's. A call for which it fails is denied.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        server_of: Callable[[Any], str | None] | None = None,
        name_of: Callable[[Any], str] | None = None,
        identity_of: Callable[[Any], Mapping[str, Any]] | None = None,
    ) -> None:
        self._guard = guard
        self._server_of = server_of
        self._name_of = name_of
        self._identity_of = identity_of
        self._warned = False

    async def __call__(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """Decide the call; a denied one is answered with a tool error, and `handler` is not called."""
        if not self._warned and getattr(handler, "__name__", "") == "wrapped_handler":
            self._warned = True  # the bridge's name for what leads to a further interceptor
            _LOG.warning(_NOT_LAST)
        call = self._call(request)
        try:
            return await self._guard.arun(call, lambda: handler(request), _outcome, layer=Layer.INTERCEPTOR)
        except ToolDenied as denial:
            if denial.decision.call is not call:  # of another call, made by what was called
                raise
            return _answer(denial.decision, request)

    def _call(self, request: Any) -> ToolCall:
        runtime = _runtime(request)
        seen = request if runtime is request.runtime else replace(request, runtime=None)
        call_id = None if runtime is None else runtime.tool_call_id
        server: ServerName = UNNAMED
        name = request.name
        try:
            told = _named(request.server_name) if self._server_of is None else self._server_of(seen)
            server = UNNAMED if told is None else _text(told)
            name = _text(request.name if self._name_of is None else self._name_of(seen))
            arguments = as_json(request.args) if isinstance(request.args, dict) else request.args
        except Exception as error:  # the application's own code may raise anything
            log_failure(_LOG, "a call was denied because its server or its tool could not be told", error)
            arguments = Unreadable("it is not known which tool of which server this is")
        return identified_call(
            name,
            arguments,
            server=server,
            identity_of=self._identity_of,
            seen=seen,
            call_id=call_id,
            as_sent=lambda: as_json(request.args),  # again after a wait
        )


def _named(server: str) -> str | None:
    return None if server == _NOBODY else server


def _text(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise TypeError("the name of a server or a tool is a text that is not empty")
    return name


def _runtime(request: Any) -> Any:
    """The graph's own runtime; anything else was passed for it as an argument, and may come from a model."""
    tool_node = sys.modules.get("langgraph.prebuilt.tool_node")  # nobody has one without having loaded it
    return request.runtime if tool_node and isinstance(request.runtime, tool_node.ToolRuntime) else None


def _answer(decision: Decision, request: Any) -> ToolMessage | CallToolResult:
    """The denial as the bridge takes it: a message where it can be matched to the call, else a result of MCP."""
    runtime = _runtime(request)
    if runtime is not None and runtime.tool_call_id:
        return denial_message(decision, _asked_name(runtime) or request.name, runtime.tool_call_id)
    result: CallToolResult = tool_error(CallToolResult, decision.text, {DECISION_KEY: shareable(decision)})
    return result


def _asked_name(runtime: Any) -> str | None:
    """The tool's name as the model knows it, which may have the server's before it."""
    state = runtime.state
    messages = state.get("messages", ()) if isinstance(state, dict) else ()
    for message in reversed(messages):
        for asked in getattr(message, "tool_calls", ()):
            if asked["id"] == runtime.tool_call_id:
                return str(asked["name"])
    return None


def _outcome(ended: Any) -> Outcome:
    return outcome_of(ended) if isinstance(ended, (BaseException, ToolMessage)) else outcome_of_mcp(ended)
