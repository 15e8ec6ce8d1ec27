"""The policy as a middleware of `create_agent` (adapters A-2)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from langchain.agents.middleware import AgentMiddleware
from langchain.agents.middleware.types import ModelRequest
from langchain_core.tools import BaseTool
from langgraph.prebuilt.tool_node import ToolCallRequest

from ...calls import Decision, Reason, ToolCall
from ...guard import Guard
from .binding import Identity
from .requests import Requests

__all__ = ["PolicyMiddleware"]

_LOG: Final = logging.getLogger(__name__)
_STANDING: Final = frozenset(
    {Reason.HIDDEN, Reason.DEFAULT_DENY, Reason.NO_POLICY, Reason.SUSPENDED, Reason.DEFINITION_CHANGED}
)
_BY_ACTION: Final = frozenset({Reason.RULE_DENIED, Reason.APPROVAL_REQUIRED})
_NOT_LAST: Final = (
    "`%s` is not the last middleware: one after it can change a call that was already decided, put it last in the list"
)


class PolicyMiddleware(AgentMiddleware[Any, Any, Any]):
    """Decides every tool call of an agent, and keeps tools that are not to be used from the model.

    Beside guarded tools it adds what they cannot see: calls of names that no tool has, tools that another middleware
    brings, and tools that the model's provider runs. A call of a tool that this guard guards is decided once for both.

    Put it last in the list of middleware. The last one is innermost and sees a call as it is made; one that is not
    last decides calls which those after it may still change, and says so in the log. It sees the arguments as the
    model wrote them: where a rule needs a number and the model wrote `"7"`, the call is denied as undecidable, and
    a call that the tool then refuses because its arguments do not validate keeps its charge.

    A tool that the model's provider runs never passes here: it is withheld where the policy hides or denies it as a
    whole, or wants an approval, and no rule about its arguments can be enforced. It goes by its `name`, or else its
    `type`.

    Args:
        guard: Who decides.
        server: The name the application gave the MCP server the tools come from; None for tools of no server.
        name_of: Tells a tool's name as its server knows it, where LangChain shows another.
        identity_of: Tells `grant`, `session` and `context` of a call from the request, such as from its
            `runtime.context`; what it leaves out is the guard's. A call for which it fails is denied.
        server_of: Tells a tool's server, where an agent has tools of several; used instead of `server`.
        name: The middleware's name, which must differ from every other's in the same agent.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        server: str | None = None,
        name_of: Callable[[BaseTool], str] | None = None,
        identity_of: Callable[[ToolCallRequest], Identity] | None = None,
        server_of: Callable[[BaseTool], str | None] | None = None,
        name: str = "PolicyMiddleware",
    ) -> None:
        super().__init__()
        self._guard = guard
        self._requests = Requests(guard, server, name_of, identity_of, server_of)
        self._name = name
        self._warned = False

    @property
    def name(self) -> str:
        """The middleware's name in its agent."""
        return self._name

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        """Decide the call; a denied one is answered with a tool error, and `handler` is not called."""
        self._expect_last(handler)
        return self._requests.run(request, handler)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        """`wrap_tool_call` for async agents."""
        self._expect_last(handler)
        return await self._requests.arun(request, handler)

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]) -> Any:
        """Keep from the model what the policy hides, and what its provider would run although it is denied."""
        guard = self._guard
        withheld = [tool for tool in _provided(request) if _stands(guard.explain(_provider_call(tool)))]
        return handler(self._without(request, withheld))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]]
    ) -> Any:
        """`wrap_model_call` for async agents."""
        guard = self._guard
        withheld = [tool for tool in _provided(request) if _stands(await guard.aexplain(_provider_call(tool)))]
        return await handler(self._without(request, withheld))

    def _expect_last(self, handler: Callable[..., Any]) -> None:
        if not self._warned and (getattr(handler, "__module__", None) or "").startswith("langchain.agents"):
            self._warned = True  # the innermost middleware is handed a function of langgraph's `ToolNode`
            _LOG.warning(_NOT_LAST, self._name)

    def _without(self, request: ModelRequest[Any], withheld: list[dict[str, Any]]) -> ModelRequest[Any]:
        """The request without these tools, and without those that are hidden."""
        offered = [tool for tool in request.tools if tool not in withheld and not self._hides(tool)]
        return request if len(offered) == len(request.tools) else request.override(tools=offered)

    def _hides(self, tool: BaseTool | dict[str, Any]) -> bool:
        if isinstance(tool, dict):
            return False
        binding = self._requests.binding(tool)
        return not self._guard.visible([binding.name], server=binding.server)


def _provided(request: ModelRequest[Any]) -> list[dict[str, Any]]:
    """Tools that are described to the model and are none of the agent's; mostly, its provider runs them."""
    return [tool for tool in request.tools if isinstance(tool, dict)]


def _provider_call(tool: dict[str, Any]) -> ToolCall:
    """A call of a provider's tool, which goes by its name, its type, or the one key that describes it."""
    function = tool.get("function")
    described = function if isinstance(function, dict) else tool
    name = described.get("name") or tool.get("type") or next(iter(tool), "")
    return ToolCall(str(name), {})


def _stands(decision: Decision) -> bool:
    """Whether a call was denied whatever its arguments are, by a rule about the tool as a whole."""
    by_action = decision.reason in _BY_ACTION and decision.rule.endswith("/action")
    asked = decision.approval is not None  # a provider would use no approval up
    return asked or (not decision.allowed and (by_action or decision.reason in _STANDING))
