"""strands-agents: an MCP client on an agent, driven by a model class of the framework's protocol."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mcp import StdioServerParameters, stdio_client
from strands import Agent
from strands.models import Model
from strands.tools.mcp import MCPClient

from .trial import TakeTurn, Turn, attempt


class Scripted(Model):
    """Asks for one charge, then is done."""

    def __init__(self, amount: int) -> None:
        self.amount = amount
        self.offered: list[list[str]] = []

    async def stream(self, messages: Any, tool_specs: Any = None, *_: Any, **__: Any) -> AsyncIterator[dict[str, Any]]:
        """The call first, text afterwards."""
        self.offered.append([tool["name"] for tool in tool_specs or ()])
        asked = len(self.offered) > 1
        start = {} if asked else {"toolUse": {"toolUseId": "1", "name": "charge"}}
        delta = {"text": "done"} if asked else {"toolUse": {"input": json.dumps({"amount": self.amount})}}
        yield {"messageStart": {"role": "assistant"}}
        yield {"contentBlockStart": {"start": start}}
        yield {"contentBlockDelta": {"delta": delta}}
        yield {"contentBlockStop": {}}
        yield {"messageStop": {"stopReason": "end_turn" if asked else "tool_use"}}

    def get_config(self) -> dict[str, Any]:
        """Nothing is configured."""
        return {}

    def update_config(self, **_: Any) -> None:
        """Nothing is configured."""

    async def structured_output(self, *_: Any, **__: Any) -> AsyncIterator[dict[str, Any]]:
        """Not asked for."""
        raise NotImplementedError  # the base class asks for it, and the trial's agent does not
        yield


@asynccontextmanager
async def connect(command: str, arguments: list[str]) -> AsyncIterator[TakeTurn]:
    """The agent on one server."""
    with MCPClient(lambda: stdio_client(StdioServerParameters(command=command, args=arguments))) as ledger:
        tools = ledger.list_tools_sync()

        async def turn(amount: int) -> Turn:
            model = Scripted(amount)
            agent = Agent(model=model, tools=tools, callback_handler=None)
            await agent.invoke_async("Charge the customer.")
            result = agent.messages[2]["content"][0]["toolResult"]
            return Turn(model.offered[0], str(result["content"]), f"`toolResult`, `status: {result['status']}`")

        yield turn


if __name__ == "__main__":
    attempt(connect, "strands-agents", driven_by="a `Model`")
