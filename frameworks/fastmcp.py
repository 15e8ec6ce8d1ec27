"""fastmcp: the client itself, which other frameworks build on; it has no agent and no model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastmcp import Client
from fastmcp.client.transports import StdioTransport
from fastmcp.exceptions import ToolError

from .trial import TakeTurn, Turn, attempt


@asynccontextmanager
async def connect(command: str, arguments: list[str]) -> AsyncIterator[TakeTurn]:
    """The client on one server."""
    async with Client(StdioTransport(command, arguments)) as client:

        async def turn(amount: int) -> Turn:
            offered = [tool.name for tool in await client.list_tools()]
            try:
                result = await client.call_tool("charge", {"amount": amount})
            except ToolError as error:
                return Turn(offered, str(error), "`ToolError`, raised")
            return Turn(offered, str(result.content), "`CallToolResult`")

        yield turn


if __name__ == "__main__":
    attempt(connect, "fastmcp", driven_by="`Client.call_tool`: it has no agent")
