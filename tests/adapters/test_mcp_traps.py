"""Traps between a client and its server (adapters A-4): what fails after the server has acted, and broken lists."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")
pytest.importorskip("langchain")

import anyio
from contract_adapters import SETUPS, Bench
from contract_server import V2, build, schema
from mcp import types
from mcp_sessions import connected, reason
from pydantic import ValidationError

from mcp_policy_middleware.adapters.mcp import guard_session, install, server, uninstall

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


def listing(**broken: Any) -> Any:
    """A list of `look` and of `secret`, and the former's further fields as they come, checked by nobody."""
    key = "input_schema" if V2 else "inputSchema"
    fields = {"name": "look", key: schema("look"), **broken}
    bad = types.Tool.model_construct(**{name: value for name, value in fields.items() if value is not None})
    return types.ListToolsResult.model_construct(tools=[bad, types.Tool(name="secret", **{key: schema("secret")})])


@asynccontextmanager
async def guarded(bench: Bench, tools: Any, way: str) -> AsyncIterator[Any]:
    """A guarded session with a server that lists these tools."""
    async with connected(build(bench.note, tools)) as session:
        if way == "session":
            yield guard_session(session, bench.guard, server="stripe")
            return
        with install(bench.guard), server("stripe"):
            yield session


@pytest.fixture(params=["session", "install"])
def way(request: pytest.FixtureRequest) -> Any:
    yield request.param
    uninstall()


def test_an_answer_that_the_client_refuses_keeps_the_charge(way: str, tmp_path: Path) -> None:
    """The client checks structured content against the listed schema, after the server has acted."""
    bench = Bench(tmp_path)
    key = "output_schema" if V2 else "outputSchema"
    wants = {"type": "object", "properties": {"seen": {"type": "string"}}}

    async def main() -> None:
        async with guarded(bench, listing(**{key: wants}), way) as session:
            with pytest.raises(RuntimeError):
                await session.call_tool("look", {})

    anyio.run(main)
    assert (bench.arrived(), bench.used(), bench.decisions()) == (["look"], 1, [("look", "allowed")])


def test_a_list_that_the_client_refuses_as_a_whole_opens_nothing(way: str, tmp_path: Path) -> None:
    """One bad tool spoils the list; calls are decided all the same, and one that fails by it keeps its charge."""
    bench = Bench(tmp_path)
    broken = listing(**{"input_schema" if V2 else "inputSchema": "no schema"})

    async def main() -> None:
        async with guarded(bench, broken, way) as session:
            with pytest.raises(ValidationError):
                await session.list_tools()
            assert reason(await session.call_tool("secret", {})) == "hidden"
            assert reason(await session.call_tool("pay", {"amount": 50})) == "requirement_unmet"
            assert bench.arrived() == []
            with pytest.raises(ValidationError):  # the client lists the tools once it has the answer
                await session.call_tool("look", {})

    anyio.run(main)
    assert (bench.arrived(), bench.used()) == (["look"], 1)
