"""openai-agents: an MCP server on an agent, driven by the SDK's own scripted model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agents import Agent, Runner
from agents.mcp import MCPServerStdio
from agents.testing import ScriptedModel, assistant_message, function_call

from .trial import TakeTurn, Turn, attempt


@asynccontextmanager
async def connect(command: str, arguments: list[str]) -> AsyncIterator[TakeTurn]:
    """The agent on one server."""
    async with MCPServerStdio({"command": command, "args": arguments}) as ledger:

        async def turn(amount: int) -> Turn:
            asks = function_call("charge", {"amount": amount}, call_id="call_1")
            model = ScriptedModel([[asks], [assistant_message("done")]])
            await Runner.run(Agent("clerk", model=model, mcp_servers=[ledger]), "Charge the customer.")
            first, last = model.calls
            output = last.input[-1]
            return Turn([tool.name for tool in first.tools], str(output["output"]), f"`{output['type']}`")

        yield turn


if __name__ == "__main__":
    attempt(connect, "openai-agents", driven_by="`agents.testing.ScriptedModel`")
