"""Guarded LangChain tools in front of a real MCP server over stdio: a denied call never arrives there.

Runs through langchain-mcp-adapters where it is installed (mcp 1.x), and through `langchain.mcp` elsewhere (mcp 2.x).
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_core")

from langchain_cases import Desk, called, reason
from langchain_core.tools import BaseTool

from mcp_policy_middleware import Reason
from mcp_policy_middleware.adapters.langchain import guard_tool, guard_tools

SERVER = Path(__file__).parents[1] / "servers" / "ledger_server.py"
LIMITED: dict[str, Any] = {
    "version": "1",
    "default": "allow",
    "hide": ["secret"],
    "tools": {
        "pay": {
            "require": [{"conditions": [{"path": "args.amount", "op": "lte", "value": 10}]}],
            "limits": [{"counter": "payments", "window": "hour", "max": 100}],
        },
        "fail": {"limits": [{"counter": "payments", "window": "hour", "max": 100}]},
    },
}

pytestmark = pytest.mark.skipif(
    not (importlib.util.find_spec("langchain_mcp_adapters") or importlib.util.find_spec("fastmcp")),
    reason="neither bridge between LangChain and MCP is installed",
)


@asynccontextmanager
async def connected(ledger: Path) -> AsyncIterator[list[BaseTool]]:
    """The server's tools, through the bridge that is installed."""
    arguments = [str(SERVER), str(ledger)]
    if importlib.util.find_spec("langchain_mcp_adapters"):
        from langchain_mcp_adapters.client import MultiServerMCPClient

        connection: Any = {"transport": "stdio", "command": sys.executable, "args": arguments}
        yield await MultiServerMCPClient({"stripe": connection}).get_tools()
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `langchain.mcp` says that it is in beta
        from langchain.mcp import MCPAdapter
    from fastmcp.client.transports import StdioTransport

    async with MCPAdapter(StdioTransport(sys.executable, arguments)) as adapter:
        yield await adapter.list_tools()


def with_tools(tmp_path: Path, use: Callable[[dict[str, BaseTool]], Awaitable[None]]) -> list[list[Any]]:
    """Connect, use the tools, and tell what the server has carried out."""
    ledger = tmp_path / "ledger.jsonl"
    ledger.touch()

    async def main() -> None:
        async with connected(ledger) as tools:
            await use({tool.name: tool for tool in tools})

    asyncio.run(main())
    return [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]


def test_a_denied_call_never_arrives_at_the_server(tmp_path: Path) -> None:
    desk = Desk(LIMITED)

    async def use(plain: dict[str, BaseTool]) -> None:
        tools = {tool.name: tool for tool in guard_tools(plain.values(), desk.guard, server="stripe")}
        assert set(tools) == {"pay", "fail"}
        pay, secret = tools["pay"], guard_tool(plain["secret"], desk.guard, server="stripe")
        assert reason(await pay.ainvoke(called(amount=50))) == Reason.REQUIREMENT_UNMET
        assert reason(await pay.ainvoke(called(amount="5000"))) == Reason.UNDECIDABLE
        assert reason(await secret.ainvoke(called("secret"))) == Reason.HIDDEN
        assert (await pay.ainvoke({"amount": 60})).startswith("[POLICY DENIED]")
        assert reason(pay.invoke(called(amount=50))) == Reason.REQUIREMENT_UNMET
        for denied in await pay.abatch([called(amount=70), called(amount=80)]):
            assert reason(denied) == Reason.REQUIREMENT_UNMET
        with pytest.raises(NotImplementedError):  # the bridge's tools are async; the guard does not change that
            pay.invoke(called(amount=1))

    assert with_tools(tmp_path, use) == []


def test_an_allowed_call_passes_as_without_a_guard(tmp_path: Path) -> None:
    desk = Desk(LIMITED)

    async def use(plain: dict[str, BaseTool]) -> None:
        pay = guard_tool(plain["pay"], desk.guard, server="stripe")
        assert (pay.description, pay.args, pay.metadata) == (
            plain["pay"].description,
            plain["pay"].args,
            plain["pay"].metadata,
        )
        message, bare = await pay.ainvoke(called(amount=5)), await plain["pay"].ainvoke(called(amount=5))
        assert [block["text"] for block in message.content] == [block["text"] for block in bare.content] == ["paid 5"]
        assert (message.status, message.artifact) == (bare.status, bare.artifact)

    assert with_tools(tmp_path, use) == [["pay", 5], ["pay", 5]]
    assert desk.used(server="stripe") == 1
    assert desk.decisions() == [("pay", "allowed")]


def test_a_server_s_own_error_is_no_denial_and_keeps_its_charge(tmp_path: Path) -> None:
    desk = Desk(LIMITED)

    async def use(plain: dict[str, BaseTool]) -> None:
        message = await guard_tool(plain["fail"], desk.guard, server="stripe").ainvoke(called("fail"))
        assert (message.status, reason(message)) == ("error", None)

    assert with_tools(tmp_path, use) == [["fail"]]
    assert desk.used(server="stripe") == 1


def test_an_agent_s_parallel_calls_are_decided_one_by_one(tmp_path: Path) -> None:
    pytest.importorskip("langchain")
    from langchain.agents import create_agent

    from mcp_policy_middleware.adapters.langchain import PolicyMiddleware
    from mcp_policy_middleware.testing import FakeToolCallingModel

    desk = Desk(LIMITED)
    model = FakeToolCallingModel(tool_calls=[[called("pay", str(amount), amount=amount) for amount in (1, 50, 2)]])

    async def use(plain: dict[str, BaseTool]) -> None:
        tools = guard_tools(plain.values(), desk.guard, server="stripe")
        agent = create_agent(model, tools, middleware=[PolicyMiddleware(desk.guard)])
        state = await agent.ainvoke({"messages": [("user", "go")]})
        answers = {each.tool_call_id: reason(each) for each in state["messages"] if each.type == "tool"}
        assert answers == {"1": None, "50": Reason.REQUIREMENT_UNMET, "2": None}

    assert sorted(with_tools(tmp_path, use)) == [["pay", 1], ["pay", 2]]
    assert desk.used(server="stripe") == 2
    assert len(desk.decisions()) == 3


def test_a_whole_stack_of_langchain_mcp_takes_one_charge_and_makes_one_span_for_a_call(tmp_path: Path) -> None:
    pytest.importorskip("fastmcp")
    from fastmcp.client.transports import StdioTransport
    from langchain.agents import create_agent

    from mcp_policy_middleware.adapters.langchain import PolicyMiddleware
    from mcp_policy_middleware.adapters.mcp import guard_session
    from mcp_policy_middleware.testing import FakeToolCallingModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `langchain.mcp` says that it is in beta
        from langchain.mcp import MCPAdapter

    desk = Desk(LIMITED, by_server=True)
    ledger = tmp_path / "ledger.jsonl"
    ledger.touch()
    calls = [called("pay", str(amount), amount=amount) for amount in (1, 50, 2)] + [called("fail", "fail")]

    async def main() -> None:
        async with MCPAdapter(StdioTransport(sys.executable, [str(SERVER), str(ledger)])) as adapter:
            guard_session(adapter.client.session, desk.guard, server="stripe")
            tools = guard_tools(await adapter.list_tools(), desk.guard, server="stripe")
            model = FakeToolCallingModel(tool_calls=[calls])
            agent = create_agent(model, tools, middleware=[PolicyMiddleware(desk.guard)])
            state = await agent.ainvoke({"messages": [("user", "go")]})
            answers = {each.tool_call_id: each for each in state["messages"] if each.type == "tool"}
            assert {key: (each.status, reason(each)) for key, each in answers.items()} == {
                "1": ("success", None),
                "50": ("error", Reason.REQUIREMENT_UNMET),
                "2": ("success", None),
                "fail": ("error", None),
            }
            assert (await adapter.client.session.call_tool("pay", {"amount": 60})).is_error

    asyncio.run(main())
    done = sorted(json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines())
    assert done == [["fail"], ["pay", 1], ["pay", 2]]
    assert desk.used(server="stripe") == 3
    expected = [("fail", "allowed"), *[("pay", "allowed")] * 2, *[("pay", "requirement_unmet")] * 2]
    assert sorted(desk.decisions()) == expected
