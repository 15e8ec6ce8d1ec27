"""A guarded MCP session beside a bare one: over memory streams, and through the in-process client of mcp 2.x.

Each of the two is measured without a telemetry SDK and with a recorded span a decision. All sessions are called in
turn, so that whatever the machine does meanwhile happens to all of them.
"""

from __future__ import annotations

import gc
import logging
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import anyio
import mcp
from mcp import ClientSession
from mcp.shared.memory import create_client_server_memory_streams
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from mcp_policy_middleware import Guard, Telemetry, parse_policy
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
    """One way to call: the median time in microseconds, and its ratio to the bare call's; and the most it may be."""

    name: str
    microseconds: float
    ratio: float
    most: float | None


def _server() -> Any:
    server: Any = Server("bench")

    @server.tool()
    def create_charge(amount: int, currency: str, customer: str, note: str) -> str:
        return "charged"

    return getattr(server, "_mcp_server", None) or getattr(server, "_lowlevel_server")  # noqa: B009  1.x, 2.x


@asynccontextmanager
async def _over_streams() -> AsyncIterator[ClientSession]:
    server = _server()
    async with create_client_server_memory_streams() as (client, served), anyio.create_task_group() as tasks:
        options = server.create_initialization_options()
        tasks.start_soon(lambda: server.run(served[0], served[1], options))
        async with ClientSession(client[0], client[1]) as session:
            await session.initialize()
            await session.list_tools()
            yield session
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def _in_process() -> AsyncIterator[ClientSession]:
    async with mcp.Client(_server()) as client:
        await client.session.list_tools()
        yield client.session


def _guard(telemetry: Telemetry | None = None) -> Guard:
    return Guard(parse_policy(POLICY), telemetry=telemetry)


def _recording_guard() -> Guard:
    """Its spans are recorded whole; exporting them is the application's own, on another thread."""
    provider = TracerProvider()
    provider.add_span_processor(SpanProcessor())
    return _guard(Telemetry(provider))


async def session_ratios() -> list[SessionRatio]:
    """Call the same tool through all sessions in turn."""
    logging.disable(logging.INFO)
    ratios = await _compared("memory streams", _over_streams, 1.10, 1.35)
    if hasattr(mcp, "Client"):
        ratios += await _compared("in-process", _in_process, 1.25, 1.60)
    return ratios


async def _compared(name: str, connect: Callable[[], Any], quiet: float, recorded: float) -> list[SessionRatio]:
    async with AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(connect()) for _ in range(3)]
        guard_session(sessions[1], _guard(), server="bench")
        guard_session(sessions[2], _recording_guard(), server="bench")
        times: list[list[float]] = [[] for _ in sessions]
        gc.collect()
        gc.disable()
        try:
            for number in range(WARM_UP + CALLS):
                order = number % len(sessions)  # nobody is always first
                for index in (*range(order, len(sessions)), *range(order)):
                    started = time.perf_counter_ns()
                    result = await sessions[index].call_tool("create_charge", ARGUMENTS)
                    if number >= WARM_UP:
                        times[index].append((time.perf_counter_ns() - started) / 1000)
                    if getattr(result, "is_error", getattr(result, "isError", True)):
                        raise SystemExit("the benchmark's call is not admitted")
        finally:
            gc.enable()
    # a call is either quick or waits for the machine: the ratio of medians is steadier than single pairs
    bare, *guarded = map(statistics.median, times)
    return [
        SessionRatio(f"MCP call, bare, {name}", bare, 1, None),
        SessionRatio(f"MCP call, guarded, {name}", guarded[0], guarded[0] / bare, quiet),
        SessionRatio(f"MCP call, with a span, {name}", guarded[1], guarded[1] / bare, recorded),
    ]
