"""llama-index: the tools of an MCP client on an agent, driven by the framework's own mock model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.llms import ChatMessage
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.tools.mcp import BasicMCPClient, McpToolSpec

from .trial import TakeTurn, Turn, attempt


@asynccontextmanager
async def connect(command: str, arguments: list[str]) -> AsyncIterator[TakeTurn]:
    """The agent on one server; the client opens a session for each call."""
    tools = await McpToolSpec(BasicMCPClient(command, arguments)).to_tool_list_async()

    async def turn(amount: int) -> Turn:
        offered: list[str] = []

        def model(messages: Sequence[ChatMessage], **kwargs: Any) -> ChatMessage:
            offered[:] = [tool.metadata.name for tool in kwargs["tools"]]
            if messages[-1].role == "tool":
                return ChatMessage(role="assistant", content="done")
            call = ToolCallBlock(tool_call_id="call_1", tool_name="charge", tool_kwargs={"amount": amount})
            return ChatMessage(role="assistant", blocks=[call])

        run = FunctionAgent(tools=tools, llm=MockFunctionCallingLLM(response_generator=model)).run("Charge.")
        outputs = [event.tool_output async for event in run.stream_events() if isinstance(event, ToolCallResult)]
        await run
        (output,) = outputs
        return Turn(offered, output.content, f"`ToolOutput`, text with `is_error={output.raw_output.is_error}`")

    yield turn


if __name__ == "__main__":
    attempt(connect, "llama-index-core", "llama-index-tools-mcp", driven_by="`MockFunctionCallingLLM`", named="always")
