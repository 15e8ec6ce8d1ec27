"""agno: MCP tools on an agent, driven by a model class of the framework's protocol."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

from agno.agent import Agent
from agno.models.base import Model
from agno.models.response import ModelResponse
from agno.tools.mcp import MCPTools
from mcp import StdioServerParameters

from .trial import TakeTurn, Turn, attempt


@dataclass
class Scripted(Model):
    """Asks for one charge, then is done."""

    id: str = "scripted"
    amount: int = 0
    offered: list[list[str]] = field(default_factory=list)

    async def ainvoke(self, *, tools: list[dict[str, Any]], **_: Any) -> ModelResponse:
        """The call first, text afterwards."""
        self.offered.append([tool["function"]["name"] for tool in tools])
        if len(self.offered) > 1:
            return ModelResponse(role="assistant", content="done")
        function = {"name": "charge", "arguments": json.dumps({"amount": self.amount})}
        return ModelResponse(role="assistant", tool_calls=[{"id": "1", "type": "function", "function": function}])

    def _unused(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError  # the base class asks for these, and the trial's agent does not

    invoke = invoke_stream = ainvoke_stream = _unused
    _parse_provider_response = _parse_provider_response_delta = _unused


@asynccontextmanager
async def connect(command: str, arguments: list[str]) -> AsyncIterator[TakeTurn]:
    """The agent on one server."""
    async with MCPTools(server_params=StdioServerParameters(command=command, args=arguments)) as ledger:

        async def turn(amount: int) -> Turn:
            model = Scripted(amount=amount)
            run = await Agent(model=model, tools=[ledger], telemetry=False).arun("Charge the customer.")
            (tool,) = run.tools
            mark = ", text `Error from MCP tool ...`" if tool.result.startswith("Error from MCP tool") else ""
            return Turn(model.offered[0], tool.result, f"`ToolExecution`{mark}")

        yield turn


if __name__ == "__main__":
    attempt(connect, "agno", driven_by="a `Model`")
