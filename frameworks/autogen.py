"""autogen: an MCP workbench on an agent, driven by the framework's own replay client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.messages import ToolCallExecutionEvent
from autogen_core import FunctionCall
from autogen_core.models import CreateResult, ModelInfo, RequestUsage
from autogen_ext.models.replay import ReplayChatCompletionClient
from autogen_ext.tools.mcp import McpWorkbench, StdioServerParams

from .trial import TakeTurn, Turn, attempt


class Recording(ReplayChatCompletionClient):
    """Notes what tools it is offered."""

    offered: list[str] = []

    async def create(self, messages: Any, *, tools: Any = (), **kwargs: Any) -> CreateResult:
        """Replay the next answer."""
        self.offered = [tool["name"] for tool in tools]
        return await super().create(messages, tools=tools, **kwargs)


@asynccontextmanager
async def connect(command: str, arguments: list[str]) -> AsyncIterator[TakeTurn]:
    """The agent on one server."""
    async with McpWorkbench(StdioServerParams(command=command, args=arguments)) as ledger:

        async def turn(amount: int) -> Turn:
            call = FunctionCall(id="call_1", name="charge", arguments=json.dumps({"amount": amount}))
            asks = CreateResult(finish_reason="function_calls", content=[call], usage=RequestUsage(0, 0), cached=False)
            info = ModelInfo(
                vision=False, function_calling=True, json_output=False, family="unknown", structured_output=False
            )
            model = Recording([asks, "done"], model_info=info)
            result = await AssistantAgent("clerk", model, workbench=ledger).run(task="Charge the customer.")
            (event,) = (message for message in result.messages if isinstance(message, ToolCallExecutionEvent))
            (execution,) = event.content
            return Turn(model.offered, execution.content, f"`FunctionExecutionResult`, `is_error={execution.is_error}`")

        yield turn


if __name__ == "__main__":
    attempt(connect, "autogen-agentchat", "autogen-ext", driven_by="`ReplayChatCompletionClient`")
