"""langchain.mcp, for mcp 2.x: its tools on a LangChain agent, driven by this package's scripted chat model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastmcp.client.transports import StdioTransport
from langchain.agents import create_agent
from langchain.mcp import MCPAdapter

from mcp_policy_middleware.testing import FakeToolCallingModel

from .trial import TakeTurn, Turn, attempt


@asynccontextmanager
async def connect(command: str, arguments: list[str]) -> AsyncIterator[TakeTurn]:
    """The agent on one server."""
    async with MCPAdapter(StdioTransport(command, arguments)) as adapter:
        tools = await adapter.list_tools()

        async def turn(amount: int) -> Turn:
            model = FakeToolCallingModel(tool_calls=[[{"name": "charge", "args": {"amount": amount}, "id": "1"}]])
            result = await create_agent(model, tools).ainvoke({"messages": ["Charge the customer."]})
            message = result["messages"][2]
            return Turn(model.offered[0], str(message.content), f"`ToolMessage`, `status={message.status!r}`")

        yield turn


if __name__ == "__main__":
    attempt(connect, "langchain", "fastmcp", driven_by="`FakeToolCallingModel` of this package")
