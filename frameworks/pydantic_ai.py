"""pydantic-ai: an MCP toolset on an agent, driven by the framework's own function model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent, ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.models.function import AgentInfo, FunctionModel

from .trial import TakeTurn, Turn, attempt


@asynccontextmanager
async def connect(command: str, arguments: list[str]) -> AsyncIterator[TakeTurn]:
    """The agent on one server."""
    async with MCPToolset(StdioTransport(command, arguments)) as ledger:

        async def turn(amount: int) -> Turn:
            offered: list[str] = []

            def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
                offered[:] = [tool.name for tool in info.function_tools]
                asked = len(messages) > 1
                return ModelResponse([TextPart("done") if asked else ToolCallPart("charge", {"amount": amount})])

            result = await Agent(FunctionModel(model), toolsets=[ledger]).run("Charge the customer.")
            part = result.all_messages()[2].parts[0]
            return Turn(offered, str(part.content), f"`{type(part).__name__}`, `outcome={part.outcome!r}`")

        yield turn


if __name__ == "__main__":
    attempt(connect, "pydantic-ai-slim", driven_by="`FunctionModel`")
