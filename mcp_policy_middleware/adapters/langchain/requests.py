"""Tool calls as LangGraph's `ToolNode` passes them to a wrapper: what each is to a policy, and its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langgraph.prebuilt.tool_node import ToolCallRequest

from ...calls import Decision, ToolCall, Unreadable
from ...errors import ToolDenied
from ...guard import Guard
from ...handover import Layer
from .answers import denial_message, outcome_of
from .arguments import as_sent, as_written
from .binding import Binding, Identity, bindings_of

__all__ = ["Requests"]


@dataclass(frozen=True, slots=True)
class Requests:
    """Decides requests, each a call of one tool; for the arguments see `PolicyMiddleware`."""

    guard: Guard
    server: str | None
    name_of: Callable[[BaseTool], str] | None
    identity_of: Callable[[ToolCallRequest], Identity] | None
    server_of: Callable[[BaseTool], str | None] | None

    def run(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        """Decide the call; a denied one is answered with a tool error, and `handler` is not called."""
        call = self._call(request)
        try:
            return self.guard.run(call, lambda: handler(request), outcome_of, layer=Layer.MIDDLEWARE)
        except ToolDenied as denial:
            return _answer(denial, call, request)

    async def arun(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]) -> Any:
        """`run` for async graphs."""
        call = self._call(request, awaited=True)
        try:
            return await self.guard.arun(call, lambda: handler(request), outcome_of, layer=Layer.MIDDLEWARE)
        except ToolDenied as denial:
            return _answer(denial, call, request)

    def ask(self, requests: Sequence[ToolCallRequest]) -> dict[str | None, ToolMessage]:
        """Ask people about calls ahead of them; the answers to those that are denied for it, by call id."""
        calls = [self._call(request) for request in requests]
        return _answers(requests, self.guard.ask(calls))

    async def aask(self, requests: Sequence[ToolCallRequest]) -> dict[str | None, ToolMessage]:
        """`ask` for async graphs."""
        calls = [self._call(request, awaited=True) for request in requests]
        return _answers(requests, await self.guard.aask(calls))

    def binding(self, tool: BaseTool) -> Binding:
        """A tool's place in the policy: its own, where this guard guards it."""
        for binding in bindings_of(tool):
            if binding.guard is self.guard:
                return binding
        server = self.server if self.server_of is None else self.server_of(tool)
        return Binding(self.guard, server, tool.name if self.name_of is None else self.name_of(tool), None)

    def _call(self, request: ToolCallRequest, *, awaited: bool = False) -> ToolCall:
        """What is about to be called: by the tool that will run, where there is one."""
        tool, asked = request.tool, request.tool_call
        binding = Binding(self.guard, self.server, asked["name"], None) if tool is None else self.binding(tool)
        arguments: object = asked["args"]
        sent = None
        if tool is not None and tool.name != asked["name"]:
            arguments = Unreadable("the call names one tool and would run another, and it was not made")
        elif tool is not None and isinstance(arguments, dict):
            sent = partial(_as_sent, request, tool, awaited=awaited)
            arguments = as_written(tool, arguments)
        if self.identity_of is not None:
            return binding.call_for(self.identity_of, request, arguments, asked["id"], sent)
        return binding.call_for(binding.identity_of, request.runtime.config, arguments, asked["id"], sent)


def _as_sent(request: ToolCallRequest, tool: BaseTool, *, awaited: bool) -> dict[str, Any]:
    """The arguments as the tool would get them now: others may be put in while a person is asked."""
    asked = request.tool_call
    return as_sent(tool, asked["args"], asked["id"], awaited=awaited)


def _answers(requests: Sequence[ToolCallRequest], denials: Sequence[Decision | None]) -> dict[str | None, ToolMessage]:
    both = zip(requests, denials, strict=True)
    return {request.tool_call["id"]: _message(denial, request) for request, denial in both if denial is not None}


def _answer(denial: ToolDenied, call: ToolCall, request: ToolCallRequest) -> ToolMessage:
    """The tool error of a denied call; a denial of another call is an exception of the tool's own."""
    if denial.decision.call is not call:
        raise denial
    return _message(denial.decision, request)


def _message(denial: Decision, request: ToolCallRequest) -> ToolMessage:
    return denial_message(denial, request.tool_call["name"], request.tool_call["id"] or "")
