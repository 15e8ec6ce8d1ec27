"""LangGraph: the policy in a `ToolNode`, on its sync and its async path alike (adapters A-2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from ..errors import MissingDependency, PolicyError
from ..guard import Guard

try:
    from langchain_core.messages import ToolMessage
    from langchain_core.runnables import RunnableConfig
    from langchain_core.tools import BaseTool
    from langchain_core.tools import tool as tool_of
    from langgraph.prebuilt import ToolNode
    from langgraph.prebuilt.tool_node import ToolCallRequest
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("langchain_core", "langgraph"):
        raise
    raise MissingDependency("guarding LangGraph", "agents") from error

from .langchain.binding import Identity
from .langchain.requests import Requests
from .langchain.tools import guard_tool
from .langgraph_interrupt import InterruptApprover, approve, deny

__all__ = ["InterruptApprover", "approve", "deny", "policy_tool_node", "tool_node_wrappers"]


def tool_node_wrappers(
    guard: Guard,
    *,
    server: str | None = None,
    name_of: Callable[[BaseTool], str] | None = None,
    identity_of: Callable[[ToolCallRequest], Identity] | None = None,
    server_of: Callable[[BaseTool], str | None] | None = None,
) -> dict[str, Any]:
    """Both wrappers of a `ToolNode`: `ToolNode(tools, **tool_node_wrappers(guard))`.

    Both, because a node that has only the async one runs tools unchecked when the graph is invoked sync. They decide
    each call as the model made it, calls of names that no tool has too; a denied one is answered with a tool error and
    those beside it run. With any wrapper, `ToolNode` makes tool errors of exceptions that a `handle_tool_errors` of
    types alone would let through; guarded tools without wrappers leave that as it is.

    Where a call pauses the graph, LangGraph runs the node again, with the calls beside it: `policy_tool_node` does not.

    Args:
        guard: Who decides.
        server: The name the application gave the MCP server the tools come from; None for tools of no server.
        name_of: Tells a tool's name as its server knows it, where LangChain shows another.
        identity_of: Tells `grant`, `session` and `context` of a call from the request, such as from its
            `runtime.context`; what it leaves out is the guard's. A call for which it fails is denied.
        server_of: Tells a tool's server, where a node has tools of several; used instead of `server`.
    """
    return _both(Requests(guard, server, name_of, identity_of, server_of))


def policy_tool_node(
    tools: Sequence[BaseTool | Callable[..., Any]],
    guard: Guard,
    *,
    server: str | None = None,
    name_of: Callable[[BaseTool], str] | None = None,
    identity_of: Callable[[ToolCallRequest], Identity] | None = None,
    server_of: Callable[[BaseTool], str | None] | None = None,
    **options: Any,
) -> ToolNode:
    """A `ToolNode` of guarded tools, with both wrappers: one decision for a call, on what the tool will get.

    Where people are asked by pausing the graph, all calls that need one are asked about before any call is made: so
    none is made twice when the graph resumes. Calls made at once are asked about one after the other.

    Args:
        tools: LangChain tools, or functions to make tools of.
        guard: Who decides.
        server: As for `tool_node_wrappers`.
        name_of: As for `tool_node_wrappers`.
        identity_of: As for `tool_node_wrappers`.
        server_of: As for `tool_node_wrappers`.
        **options: As for `ToolNode`, without wrappers of your own.

    Raises:
        PolicyError: A wrapper is among the options, where it would replace the policy's.
    """
    requests = Requests(guard, server, name_of, identity_of, server_of)
    wrappers = _both(requests)
    if mine := wrappers.keys() & options.keys():
        raise PolicyError(f"`{min(mine)}` is the policy's here: give your own to a `ToolNode` of guarded tools")
    return _AskingNode([_guarded(each, requests) for each in tools], requests, **options)


_Answers: TypeAlias = Mapping[str | None, ToolMessage]

_ANSWERS: Final[ContextVar[_Answers | None]] = ContextVar("mcp_policy_langgraph", default=MappingProxyType({}))
"""What calls of a node are answered with instead of being made, by call id; None while they are only looked at."""


class _AskingNode(ToolNode):
    """Asks people about all its calls before it makes one of them, where asking pauses the graph.

    To learn what the calls are, it runs once with wrappers that make none and give the request for an answer.
    """

    def __init__(self, tools: Sequence[BaseTool], requests: Requests, **options: Any) -> None:
        super().__init__(tools, wrap_tool_call=self._wrap, awrap_tool_call=self._awrap, **options)
        self._requests = requests

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Make the calls."""
        answers: _Answers = {}
        if self._requests.guard.pauses:
            with _answering(None):
                looked = super().invoke(input, config, **kwargs)
            answers = self._requests.ask(_requests_in(looked))
        with _answering(answers):
            return super().invoke(input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """`invoke` for async graphs."""
        answers: _Answers = {}
        if self._requests.guard.pauses:
            with _answering(None):
                looked = await super().ainvoke(input, config, **kwargs)
            answers = await self._requests.aask(_requests_in(looked))
        with _answering(answers):
            return await super().ainvoke(input, config, **kwargs)

    def _wrap(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        answer = _answer_to(request)
        return self._requests.run(request, handler) if answer is None else answer

    async def _awrap(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]) -> Any:
        answer = _answer_to(request)
        return await self._requests.arun(request, handler) if answer is None else answer


@contextmanager
def _answering(answers: _Answers | None) -> Iterator[None]:
    token = _ANSWERS.set(answers)
    try:
        yield
    finally:
        _ANSWERS.reset(token)


def _answer_to(request: ToolCallRequest) -> ToolMessage | None:
    """What a call is answered with instead of being made."""
    answers = _ANSWERS.get()
    if answers is None:
        return ToolMessage("", tool_call_id=request.tool_call["id"] or "", artifact=request)
    return answers.get(request.tool_call["id"])


def _requests_in(looked: Any) -> list[ToolCallRequest]:
    """The requests of a run that only looked, in the order of the calls."""
    messages = looked if isinstance(looked, list) else next(iter(looked.values()))
    return [message.artifact for message in messages]


def _both(requests: Requests) -> dict[str, Any]:
    return {"wrap_tool_call": requests.run, "awrap_tool_call": requests.arun}


def _guarded(tool: BaseTool | Callable[..., Any], requests: Requests) -> BaseTool:
    made = tool if isinstance(tool, BaseTool) else tool_of(tool)
    mine = requests.binding(made)
    return guard_tool(made, mine.guard, server=mine.server, name_of=lambda _: mine.name, identity_of=mine.identity_of)
