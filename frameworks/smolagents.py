"""smolagents: MCP tools, through mcpadapt, on an agent, driven by a model class of the framework's protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mcp import StdioServerParameters
from smolagents import MCPClient, Model, ToolCallingAgent
from smolagents.models import ChatMessage, ChatMessageToolCall, ChatMessageToolCallFunction

from .trial import TakeTurn, Turn, attempt


class Scripted(Model):
    """Asks for one charge, then for the final answer."""

    def __init__(self, amount: int) -> None:
        super().__init__(model_id="scripted")
        self.calls = [("charge", {"amount": amount}), ("final_answer", {"answer": "done"})]
        self.offered: list[list[str]] = []

    def generate(self, messages: Any, *, tools_to_call_from: list[Any], **_: Any) -> ChatMessage:
        """The next call of the script."""
        name, arguments = self.calls[len(self.offered)]
        self.offered.append([tool.name for tool in tools_to_call_from if tool.name != "final_answer"])
        function = ChatMessageToolCallFunction(name=name, arguments=arguments)
        return ChatMessage("assistant", tool_calls=[ChatMessageToolCall(function=function, id="1", type="function")])


@asynccontextmanager
async def connect(command: str, arguments: list[str]) -> AsyncIterator[TakeTurn]:
    """The agent on one server."""
    with MCPClient(StdioServerParameters(command=command, args=arguments), structured_output=False) as tools:

        async def turn(amount: int) -> Turn:
            model = Scripted(amount)
            agent = ToolCallingAgent(tools, model, verbosity_level=-1)
            agent.run("Charge the customer.")
            step = agent.memory.steps[1]
            return Turn(model.offered[0], str(step.observations), f"`ActionStep.observations`, `error={step.error}`")

        yield turn


if __name__ == "__main__":
    attempt(connect, "smolagents", "mcpadapt", driven_by="a `Model`", named="always")
