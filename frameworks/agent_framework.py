"""agent-framework: an MCP tool on an agent, driven by a chat client of the framework's protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from agent_framework import Agent, BaseChatClient, ChatResponse, Content, FunctionInvocationLayer, MCPStdioTool, Message

from .trial import TakeTurn, Turn, attempt


class Scripted(FunctionInvocationLayer, BaseChatClient):
    """Asks for one charge, then is done."""

    def __init__(self, amount: int) -> None:
        super().__init__(function_invocation_configuration={"include_detailed_errors": True})
        self.amount = amount
        self.offered: list[list[str]] = []

    async def _inner_get_response(self, *, options: Any, **_: Any) -> ChatResponse:
        self.offered.append([tool.name for tool in options["tools"]])
        if len(self.offered) > 1:
            return ChatResponse(messages=[Message("assistant", ["done"])])
        call = Content.from_function_call("1", "charge", arguments={"amount": self.amount})
        return ChatResponse(messages=[Message("assistant", [call])])


@asynccontextmanager
async def connect(command: str, arguments: list[str]) -> AsyncIterator[TakeTurn]:
    """The agent on one server."""
    async with MCPStdioTool("ledger", command, args=arguments, load_prompts=False) as ledger:

        async def turn(amount: int) -> Turn:
            model = Scripted(amount)
            response = await Agent(model, tools=ledger).run("Charge the customer.")
            (result,) = response.messages[1].contents
            return Turn(
                model.offered[0],
                str(result.result),
                f"`function_result`{', with `exception`' if result.exception else ''}",
            )

        yield turn


if __name__ == "__main__":
    attempt(connect, "agent-framework-core", driven_by="a `BaseChatClient`")
