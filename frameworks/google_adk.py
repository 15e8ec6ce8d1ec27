"""google-adk: an MCP toolset on an agent, driven by a model class of the framework's protocol."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from google.adk.agents import LlmAgent
from google.adk.models import BaseLlm, LlmRequest, LlmResponse
from google.adk.runners import InMemoryRunner
from google.adk.tools.mcp_tool import McpToolset, StdioConnectionParams
from google.genai.types import Content, Part
from mcp import StdioServerParameters

from .trial import TakeTurn, Turn, attempt


class Scripted(BaseLlm):
    """Asks for one charge, then is done."""

    amount: int
    requests: list[LlmRequest] = []

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        """The call first, text afterwards."""
        self.requests.append(llm_request)
        asked = len(self.requests) > 1
        part = Part(text="done") if asked else Part.from_function_call(name="charge", args={"amount": self.amount})
        yield LlmResponse(content=Content(role="model", parts=[part]))


@asynccontextmanager
async def connect(command: str, arguments: list[str]) -> AsyncIterator[TakeTurn]:
    """The agent on one server."""
    server = StdioServerParameters(command=command, args=arguments)
    ledger = McpToolset(connection_params=StdioConnectionParams(server_params=server, timeout=30))
    await ledger.get_tools()  # this connects

    async def turn(amount: int) -> Turn:
        model = Scripted(model="scripted", amount=amount)
        runner = InMemoryRunner(LlmAgent(name="clerk", model=model, tools=[ledger]))
        await runner.run_debug("Charge the customer.", quiet=True)
        first, last = model.requests
        answer = last.contents[-1].parts[0].function_response.response
        return Turn(list(first.tools_dict), str(answer), f"`function_response`, `isError: {answer.get('isError')}`")

    yield turn
    await ledger.close()


if __name__ == "__main__":
    attempt(connect, "google-adk", driven_by="a `BaseLlm`")
