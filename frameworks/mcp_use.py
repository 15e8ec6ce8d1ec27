"""mcp-use: its agent on its client, driven by this package's scripted chat model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mcp_use import MCPAgent, MCPClient

from mcp_policy_middleware.testing import FakeToolCallingModel

from .trial import TakeTurn, Turn, attempt


@asynccontextmanager
async def connect(command: str, arguments: list[str]) -> AsyncIterator[TakeTurn]:
    """The agent on one server."""
    client = MCPClient({"mcpServers": {"ledger": {"command": command, "args": arguments}}})
    await client.create_all_sessions()

    async def turn(amount: int) -> Turn:
        model = FakeToolCallingModel(tool_calls=[[{"name": "charge", "args": {"amount": amount}, "id": "1"}]])
        agent = MCPAgent(llm=model, client=client, memory_enabled=True)
        await agent.run("Charge the customer.")
        message = agent.get_conversation_history()[2]
        mark = ", JSON with `error`" if str(message.content).startswith('{"error"') else ""
        return Turn(model.offered[0], str(message.content), f"`ToolMessage`{mark}")

    yield turn
    await client.close_all_sessions()


if __name__ == "__main__":
    attempt(connect, "mcp-use", "langchain", driven_by="`FakeToolCallingModel` of this package")
