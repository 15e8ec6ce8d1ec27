"""Real MCP sessions over memory streams, on both SDK lines, whose server notes what reaches it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp
from mcp import ClientSession, types
from mcp.shared.memory import create_client_server_memory_streams

from mcp_policy_middleware import parse_policy
from mcp_policy_middleware.adapters.mcp import DECISION_KEY

V2 = hasattr(mcp, "MCPError")
if V2:
    from mcp.server.mcpserver import Context
    from mcp.server.mcpserver import MCPServer as Server
else:
    from mcp.server.fastmcp import Context
    from mcp.server.fastmcp import FastMCP as Server


POLICY = parse_policy(
    """
version: "1"
default: deny
hide: [wipe]
tools:
  add: {}
  fail: {limits: [{counter: fails, window: minute, max: 1}]}
  pay:
    require:
      - conditions: [{path: args.amount, op: lte, value: 100}]
    deny_if:
      - conditions: [{path: args.to, op: regex, value: "^2026-"}]
    limits: [{counter: payments, window: minute, max: 2}]
""",
    "tests.yaml",
)


def recording_server(reached: list[tuple[str, dict[str, Any]]]) -> Any:
    """A server with `add`, `pay`, `fail` and `wipe`, which appends every executed call to `reached`."""
    server: Any = Server("recorder", log_level="WARNING")

    @server.tool()
    async def add(a: int, ctx: Context, b: int = 2) -> int:  # type: ignore[type-arg]
        reached.append(("add", {"a": a, "b": b}))
        await ctx.report_progress(1, 2)
        return a + b

    @server.tool()
    def pay(amount: float, to: str = "") -> str:
        reached.append(("pay", {"amount": amount, "to": to}))
        return f"paid {amount}"

    @server.tool()
    def fail() -> str:
        reached.append(("fail", {}))
        raise RuntimeError("the effect may have happened")

    @server.tool()
    def wipe() -> str:
        reached.append(("wipe", {}))
        return "wiped"

    return getattr(server, "_mcp_server", None) or server._lowlevel_server


@asynccontextmanager
async def connected(
    server: Any, make: Callable[..., ClientSession] = ClientSession, **kwargs: Any
) -> AsyncIterator[ClientSession]:
    """A session of the given class on a low-level server."""
    async with create_client_server_memory_streams() as (client, served), anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: server.run(*served, server.create_initialization_options()))
        async with make(*client, **kwargs) as session:
            await session.initialize()
            yield session
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def stubbed(answer: Callable[[], Any]) -> AsyncIterator[ClientSession]:
    """A session that talks to nobody: each tool call gets what `answer` returns or raises."""

    class Stub(ClientSession):
        async def send_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
            if getattr(request, "root", request).method == "tools/list":
                return types.ListToolsResult(tools=[])
            result = answer()
            return await result if hasattr(result, "__await__") else result

    async with create_client_server_memory_streams() as (client, _):
        yield Stub(*client)


def sdk_error(code: int) -> Exception:
    """The SDK's error for a JSON-RPC error with that code."""
    if V2:
        return mcp.MCPError(code, "refused")
    return mcp.McpError(types.ErrorData(code=code, message="refused"))


def is_error(result: Any) -> bool:
    """Whether a tool's result is an error, on either line."""
    return bool(result.is_error if V2 else result.isError)


def tool_call(name: str, arguments: dict[str, Any] | None) -> Any:
    """A raw `tools/call` request as the SDK's own helpers send it."""
    request = types.CallToolRequest(
        **({} if V2 else {"method": "tools/call"}), params=types.CallToolRequestParams(name=name, arguments=arguments)
    )
    return request if V2 else types.ClientRequest(request)


def reason(result: Any) -> str:
    """The reason code that rides along with a denied call's result (A-1.9)."""
    assert is_error(result)
    decision = result.meta[DECISION_KEY]
    assert sorted(decision) == ["approval", "decision_id", "effect", "reason", "retry_after", "rule"]
    (block,) = result.content
    assert block.text.startswith("[POLICY DENIED] ")
    return decision["reason"]
