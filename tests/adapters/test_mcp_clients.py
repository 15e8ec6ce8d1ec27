"""Guarded clients and groups of the SDK, which open sessions for their user."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")

import anyio
import mcp
from mcp import ClientSessionGroup, StdioServerParameters, types
from mcp_sessions import POLICY, V2, connected, is_error, reason, recording_server

from mcp_policy_middleware import Guard, PolicyError, parse_policy
from mcp_policy_middleware.adapters.mcp import guard_client, guard_group, guard_session, install, server, uninstall

Reached = list[tuple[str, dict[str, Any]]]
HIDES_PAY = parse_policy('{"version": "1", "default": "allow", "hide": ["pay", "wipe"]}', "other.json")
SERVER = """
import sys
try:
    from mcp.server.mcpserver import MCPServer
except ImportError:
    from mcp.server.fastmcp import FastMCP as MCPServer
server = MCPServer(sys.argv[1], log_level="WARNING")
@server.tool()
def pay(amount: float) -> str:
    open(sys.argv[2], "a").write(f"pay {amount}")
    return "paid"
@server.tool()
def wipe() -> str:
    open(sys.argv[2], "a").write("wiped")
    return "wiped"
server.run()
"""


class OneSession:
    """A client as frameworks write them: it works through its `session`, a new one each time it connects."""

    def __init__(self, reached: Reached) -> None:
        self._reached = reached
        self._session: Any = None

    @property
    def session(self) -> Any:
        if self._session is None:
            raise RuntimeError("not connected")
        return self._session

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        async with connected(recording_server(self._reached)) as self._session:
            yield
        self._session = None

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        return await self.session.call_tool(name, arguments)


def names(page: Any) -> list[str]:
    return [tool.name for tool in page.tools]


@pytest.mark.parametrize("already", [False, True])
def test_a_client_is_guarded_across_reconnects(already: bool) -> None:
    """Before it connects or after, and whatever session it has later; counters go on."""
    reached: Reached = []
    client, guard = OneSession(reached), Guard(POLICY)

    async def main() -> None:
        if already:
            async with client.connected():
                assert guard_client(client, guard, server="bank") is client
                assert reason(await client.call("wipe", {})) == "hidden"
        for _ in range(2):
            guard_client(client, guard, server="bank")
            async with client.connected():
                assert reason(await client.call("wipe", {})) == "hidden"
                assert not is_error(await client.call("pay", {"amount": 1}))
                assert names(await client.session.list_tools()) == ["add", "pay", "fail"]
        async with client.connected():
            assert reason(await client.call("pay", {"amount": 1})) == "limit_exceeded"

    anyio.run(main)
    assert len(reached) == 2
    assert type(client).__name__ == "OneSession"
    with pytest.raises(PolicyError):
        guard_client(client, guard, server="shop")
    with pytest.raises(TypeError):
        guard_client(object(), guard)


def test_a_session_that_another_guard_has_is_no_clients() -> None:
    """A client whose session is guarded otherwise is refused whole."""

    async def main() -> None:
        client = OneSession([])
        async with client.connected():
            guard_session(client.session, Guard(POLICY), server="bank")
            with pytest.raises(PolicyError):
                guard_client(client, Guard(POLICY), server="bank")
            assert type(client) is OneSession

    anyio.run(main)


@pytest.mark.skipif(not V2, reason="the SDK has a client from 2.0 on")
@pytest.mark.parametrize("process_wide", [False, True])
def test_a_cached_list_loses_what_is_hidden_since(process_wide: bool) -> None:
    """After a reload a hidden tool is in no list, whatever the cache mode, and is denied."""
    from mcp.server.lowlevel import Server

    asked: list[None] = []

    async def list_tools(context: Any, params: Any) -> Any:
        asked.append(None)
        tools = [types.Tool(name=name, input_schema={"type": "object"}) for name in ("add", "pay", "wipe")]
        return types.ListToolsResult(tools=tools, ttl_ms=3_600_000, cache_scope="public")

    async def call_tool(context: Any, params: Any) -> Any:
        raise AssertionError("a denied call arrived")

    async def main() -> None:
        guard = Guard(POLICY)
        client = mcp.Client(Server("cached", on_list_tools=list_tools, on_call_tool=call_tool))
        if process_wide:
            install(guard)
        else:
            assert guard_client(client, guard, server="bank") is client
        async with client:
            assert isinstance(client, mcp.Client)
            assert names(await client.list_tools()) == ["add", "pay"]
            assert names(await client.list_tools()) == ["add", "pay"]
            assert len(asked) == 1
            guard.reload(HIDES_PAY)
            for mode in ("use", "bypass", "refresh", "use"):
                assert names(await client.list_tools(cache_mode=mode)) == ["add"]
            assert len(asked) == 3
            assert reason(await client.call_tool("pay", {"amount": 1})) == "hidden"
            guard.reload(parse_policy('{"version": "1", "default": "allow"}', "open.json"))
            assert names(await client.list_tools(cache_mode="refresh")) == ["add", "pay", "wipe"]

    try:
        anyio.run(main)
    finally:
        uninstall()


def test_a_group_names_its_servers(tmp_path: Path) -> None:
    """Real servers over stdio: each meets its own policy, and what is hidden is not collected."""
    program, ledger = tmp_path / "server.py", tmp_path / "ledger"
    program.write_text(SERVER)

    def parameters(name: str) -> StdioServerParameters:
        return StdioServerParameters(command=sys.executable, args=[str(program), name, str(ledger)])

    async def main() -> None:
        guard = Guard({"bank": POLICY, "shop": HIDES_PAY})
        group = ClientSessionGroup(component_name_hook=lambda name, info: f"{info.name}_{name}")
        known = {"first": "bank"}
        assert guard_group(group, guard, server_of=lambda info: known.get(info.name)) is group
        assert guard_group(ClientSessionGroup(), guard)
        assert isinstance(group, ClientSessionGroup)
        async with group:
            await group.connect_to_server(parameters("first"))
            assert list(group.tools) == ["first_pay"]
            with server("shop"):
                await group.connect_to_server(parameters("second"))
            assert list(group.tools) == ["first_pay"]
            unnamed = await group.connect_to_server(parameters("third"))
            assert sorted(group.tools) == ["first_pay", "third_pay", "third_wipe"]
            assert not is_error(await group.call_tool("first_pay", {"amount": 1}))
            assert reason(await group.call_tool("first_pay", {"amount": 500})) == "requirement_unmet"
            assert reason(await group.call_tool("third_pay", {"amount": 1})) == "no_policy"
            assert reason(await unnamed.call_tool("wipe", {})) == "no_policy"
            assert reason(await group.sessions[0].call_tool("wipe", {})) == "hidden"

    anyio.run(main)
    assert ledger.read_text() == "pay 1.0"


def test_a_group_is_guarded_before_it_connects() -> None:
    """What it has collected before cannot be told apart, so that is refused; so is another guard."""

    async def main() -> None:
        guard = Guard(POLICY)
        info = types.Implementation(name="x", version="1")
        with pytest.raises(TypeError):
            guard_group(object(), guard)  # type: ignore[type-var]
        group = ClientSessionGroup()
        guard_group(group, guard)
        guard_group(group, guard)
        with pytest.raises(PolicyError):
            guard_group(group, Guard(POLICY))
        async with connected(recording_server([])) as session:
            late = ClientSessionGroup()
            await late.connect_with_session(info, session)
            with pytest.raises(PolicyError):
                guard_group(late, guard)

    anyio.run(main)


def test_a_client_whose_session_is_none_of_the_sdk_is_not_taken_for_guarded() -> None:
    """What cannot be guarded is refused where it is found, each time it is asked for."""

    class Proxied:
        inner: Any = None

        @property
        def session(self) -> Any:
            if self.inner is None:
                raise RuntimeError("not connected")
            return self.inner

    with_session = Proxied()
    with_session.inner = object()
    with pytest.raises(TypeError):
        guard_client(with_session, Guard(POLICY))
    later = guard_client(Proxied(), Guard(POLICY))
    later.inner = object()
    for _ in range(2):
        with pytest.raises(TypeError):
            _ = later.session


def test_a_session_that_could_not_be_guarded_is_not_taken_for_guarded() -> None:
    """Where its class refuses, the second try fails as the first did, and the process-wide guard still sees to it."""

    class Final(mcp.ClientSession):
        def __init_subclass__(cls, **_: Any) -> None:
            raise TypeError("no subclasses")

    async def main() -> None:
        reached: Reached = []
        guard = Guard(POLICY)
        async with connected(recording_server(reached), Final) as session:
            for _ in range(2):
                with pytest.raises(TypeError, match="no subclasses"):
                    guard_session(session, guard)
            with install(guard):
                assert is_error(await session.call_tool("wipe", {}))
        assert reached == []

    anyio.run(main)
