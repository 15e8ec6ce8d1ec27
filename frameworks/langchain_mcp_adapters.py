"""langchain-mcp-adapters, for mcp 1.x: its tools on a LangChain agent, driven by this package's scripted chat model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from langchain.agents import create_agent
from langchain_mcp_adapters.client import MultiServerMCPClient

from mcp_policy_middleware.testing import FakeToolCallingModel

from .trial import TakeTurn, Turn, attempt


@asynccontextmanager
async def connect(command: str, arguments: list[str]) -> AsyncIterator[TakeTurn]:
    """The agent on one server; the tools open a session for each call."""
    client = MultiServerMCPClient({"ledger": {"transport": "stdio", "command": command, "args": arguments}})
    tools = await client.get_tools()

    async def turn(amount: int) -> Turn:
        model = FakeToolCallingModel(tool_calls=[[{"name": "charge", "args": {"amount": amount}, "id": "1"}]])
        result = await create_agent(model, tools).ainvoke({"messages": ["Charge the customer."]})
        message = result["messages"][2]
        return Turn(model.offered[0], str(message.content), f"`ToolMessage`, `status={message.status!r}`")

    yield turn


if __name__ == "__main__":
    attempt(
        connect,
        "langchain-mcp-adapters",
        "langchain",
        driven_by="`FakeToolCallingModel` of this package",
        named="always",
    )
