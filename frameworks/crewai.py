"""crewai: the tools of an MCP server on an agent, driven by a model class of the framework's protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from crewai import Agent, BaseLLM
from crewai.mcp import MCPServerStdio
from crewai.utilities.string_utils import sanitize_tool_name

from .trial import TakeTurn, Turn, attempt


class Scripted(BaseLLM):
    """Asks for the first tool it is offered, then is done."""

    amount: int
    offered: list[list[str]] = []

    def call(self, messages: Any, tools: Any = None, *_: Any, **__: Any) -> Any:
        """The call first, text afterwards."""
        self.offered.append([tool["function"]["name"] for tool in tools or ()])
        if len(self.offered) > 1:
            return f"I was told: {messages[-1]['content']}"
        function = {"name": self.offered[0][0], "arguments": {"amount": self.amount}}
        return [{"id": "1", "type": "function", "function": function}]

    def supports_function_calling(self) -> bool:
        """It does."""
        return True


@asynccontextmanager
async def connect(command: str, arguments: list[str]) -> AsyncIterator[TakeTurn]:
    """The agent on one server; its tools open a session for each call."""
    server = MCPServerStdio(command=command, args=arguments)
    clerk = {"role": "clerk", "goal": "charge", "backstory": "none"}
    tools = Agent(llm=Scripted(model="scripted", amount=0), **clerk).get_mcp_tools([server])
    known = {sanitize_tool_name(tool.name): tool.original_tool_name for tool in tools}  # named after the command

    async def turn(amount: int) -> Turn:
        model = Scripted(model="scripted", amount=amount)
        agent = Agent(llm=model, tools=tools, **clerk)
        output = await agent.kickoff_async("Charge the customer.")
        failures = [f", `ToolFailure` with `{record.failure.reason.name}`" for record in agent.last_tool_failures]
        return Turn([known[name] for name in model.offered[0]], output.raw, f"tool message{''.join(failures)}")

    yield turn


if __name__ == "__main__":
    attempt(connect, "crewai", driven_by="a `BaseLLM`", named="always")
