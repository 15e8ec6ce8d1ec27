"""A guarded MCP session beside a bare one, over memory streams, on mcp 1.x and 2.x."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import anyio
from mcp import ClientSession
from mcp.shared.memory import create_client_server_memory_streams

from mcp_policy_middleware import Guard, parse_policy
from mcp_policy_middleware.adapters.mcp import guard_session

try:
    from mcp.server.mcpserver import MCPServer as Server  # mcp 2.x
except ImportError:
    from mcp.server.fastmcp import FastMCP as Server  # mcp 1.x

CALLS = 1500
WARM_UP = 150
ARGUMENTS = {"amount": 120, "currency": "usd", "customer": "cus_abcdEF1234", "note": "thanks"}
POLICY = """
version: "1"
default: deny
tools:
  create_charge:
    require:
      - conditions: [{path: args.amount, op: lte, value: 500}]
      - conditions: [{path: args.currency, op: in, value: [usd, eur]}]
    limits: [{counter: charges, window: minute, max: 1000000000}]
"""


class SessionRatio(NamedTuple):
    """Median times in microseconds, and the median of the ratios pair by pair."""

    bare: float
    guarded: float
    ratio: float


def _server() -> Any:
    server: Any = Server("bench")

    @server.tool()
    def create_charge(amount: int, currency: str, customer: str, note: str) -> str:
        return "charged"

    return getattr(server, "_mcp_server", None) or getattr(server, "_lowlevel_server")  # noqa: B009  1.x, 2.x


@asynccontextmanager
async def _session() -> AsyncIterator[ClientSession]:
    server = _server()
    async with create_client_server_memory_streams() as (client, served), anyio.create_task_group() as tasks:
        options = server.create_initialization_options()
        tasks.start_soon(lambda: server.run(served[0], served[1], options))
        async with ClientSession(client[0], client[1]) as session:
            await session.initialize()
            await session.list_tools()
            yield session
        tasks.cancel_scope.cancel()


async def session_ratio() -> SessionRatio:
    """Call the same tool through both sessions in turn."""
    logging.disable(logging.INFO)
    async with _session() as bare, _session() as guarded:
        guard_session(guarded, Guard(parse_policy(POLICY)), server="bench")
        times: tuple[list[float], list[float]] = ([], [])
        for number in range(WARM_UP + CALLS):
            for session, kept in zip((bare, guarded), times, strict=True):
                started = time.perf_counter_ns()
                result = await session.call_tool("create_charge", ARGUMENTS)
                if number >= WARM_UP:
                    kept.append((time.perf_counter_ns() - started) / 1000)
                if getattr(result, "is_error", getattr(result, "isError", True)):
                    raise SystemExit("the benchmark's call is not admitted")
    bare_times, guarded_times = times
    # a call is either quick or waits for the machine: the ratio of medians is steadier than single pairs
    return SessionRatio(
        statistics.median(bare_times),
        statistics.median(guarded_times),
        statistics.median(guarded_times) / statistics.median(bare_times),
    )
