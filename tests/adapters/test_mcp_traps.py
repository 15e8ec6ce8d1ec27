"""Traps between a client and its server (adapters A-4): what fails after the server has acted, and broken lists."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")
pytest.importorskip("langchain")

import anyio
from contract_adapters import SERVER, SETUPS, Bench
from contract_server import V2, build, sdk_error
from mcp import ClientSession, StdioServerParameters, stdio_client, types
from mcp_sessions import connected, reason
from plain_server import schema
from pydantic import ValidationError

from mcp_policy_middleware.adapters.mcp import guard_session, install, server

BY_NAME = {each.name: each for each in SETUPS}


def test_a_server_that_dies_after_it_acted_keeps_the_charge(tmp_path: Path) -> None:
    """The client knows only that the connection is gone."""
    bench = Bench(tmp_path)

    async def main() -> None:
        async with BY_NAME["session over stdio"].opened(bench) as line:
            with anyio.fail_after(20):
                answer = await line.call("die")
            assert answer.error is not None

    anyio.run(main)
    assert (bench.arrived(), bench.used(), bench.decisions()) == (["die"], 1, [("die", "allowed")])


def test_a_call_that_times_out_keeps_the_charge(tmp_path: Path) -> None:
    """The client gives up waiting; the server may be at it still."""
    bench = Bench(tmp_path)
    patience: Any = 0.05 if V2 else timedelta(seconds=0.05)

    async def main() -> None:
        async with BY_NAME["session"].opened(bench) as line:
            with pytest.raises(type(sdk_error(0))):
                await line.session.call_tool("hang", {}, read_timeout_seconds=patience)

    anyio.run(main)
    assert (bench.arrived(), bench.used(), bench.decisions()) == (["hang"], 1, [("hang", "allowed")])


@pytest.fixture(params=["session", "install"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def guarded(session: ClientSession, bench: Bench, way: str) -> Iterator[None]:
    """The session is guarded by itself, or with all of the process."""
    if way == "session":
        guard_session(session, bench.guard, server="stripe")
        yield
        return
    with install(bench.guard), server("stripe"):
        yield


def test_an_answer_that_the_client_refuses_keeps_the_charge(way: str, tmp_path: Path) -> None:
    """The client checks structured content against the listed schema, after the server has acted."""
    bench = Bench(tmp_path)
    wants = {"type": "object", "properties": {"seen": {"type": "string"}}}
    keys = ("input_schema", "output_schema") if V2 else ("inputSchema", "outputSchema")
    look = types.Tool(name="look", **dict(zip(keys, (schema("look"), wants), strict=True)))

    async def main() -> None:
        async with connected(build(bench.note, types.ListToolsResult(tools=[look]))) as session:
            with guarded(session, bench, way), pytest.raises(RuntimeError):
                await session.call_tool("look", {})

    anyio.run(main)
    assert (bench.arrived(), bench.used(), bench.decisions()) == (["look"], 1, [("look", "allowed")])


def test_a_list_that_the_client_refuses_as_a_whole_opens_nothing(way: str, tmp_path: Path) -> None:
    """One bad tool spoils the list; calls are decided all the same, and one that fails by it keeps its charge."""
    bench = Bench(tmp_path)
    broken = StdioServerParameters(command=sys.executable, args=[str(SERVER), str(bench.ledger), "broken"])

    async def main() -> None:
        async with stdio_client(broken) as streams, ClientSession(*streams) as session:
            await session.initialize()
            with guarded(session, bench, way):
                with pytest.raises(ValidationError):
                    await session.list_tools()
                assert reason(await session.call_tool("secret", {})) == "hidden"
                assert reason(await session.call_tool("pay", {"amount": 50})) == "requirement_unmet"
                assert bench.arrived() == []
                with pytest.raises(ValidationError):  # the client lists the tools once it has the answer
                    await session.call_tool("look", {})

    anyio.run(main)
    assert (bench.arrived(), bench.used()) == (["look"], 1)
