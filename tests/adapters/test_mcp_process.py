"""One guard for every MCP session of the process, whoever opens it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("mcp")

import anyio
from mcp import ClientSession
from mcp_sessions import POLICY, connected, is_error, reason, recording_server

from mcp_policy_middleware import Guard, PolicyError
from mcp_policy_middleware.adapters.mcp import guard_session, install, server, uninstall

METHODS = ("__init__", "send_request", "list_tools", "_absorb_tool_listing")
BEFORE = {name: vars(ClientSession).get(name) for name in METHODS}
Reached = list[tuple[str, dict[str, Any]]]


@pytest.fixture(autouse=True)
def nothing_stays_installed() -> Iterator[None]:
    """Each test leaves the SDK's class as it found it."""
    yield
    uninstall()
    assert {name: vars(ClientSession).get(name) for name in METHODS} == BEFORE


def test_every_session_is_guarded_until_uninstalled() -> None:
    """Those that exist, those that come, and those of a subclass that calls the SDK's own."""
    reached: Reached = []

    class Framework(ClientSession):
        async def call_tool(self, name: str, arguments: Any = None, **kwargs: Any) -> Any:
            async with connected(recording_server(reached)) as inner:
                return await inner.call_tool(name, arguments)

    async def main() -> None:
        async with connected(recording_server(reached)) as before:
            install(Guard(POLICY))
            async with connected(recording_server(reached)) as after, connected(recording_server([]), Framework) as own:
                for session in (before, after, own):
                    assert reason(await session.call_tool("wipe", {})) == "hidden"
                    assert [tool.name for tool in (await session.list_tools()).tools] == ["add", "pay", "fail"]
                    assert not is_error(await session.call_tool("add", {"a": 1}))
                assert len(reached) == 3
                uninstall()
                for session in (before, after, own):
                    assert not is_error(await session.call_tool("wipe", {}))
                    assert "wipe" in [tool.name for tool in (await session.list_tools()).tools]

    anyio.run(main)


def test_installing_is_idempotent_and_exclusive() -> None:
    """The same guard again is harmless; another one, or other functions, are refused."""
    guard = Guard(POLICY)
    install(guard)
    patched = ClientSession.send_request
    install(guard)
    assert ClientSession.send_request is patched
    with pytest.raises(PolicyError):
        install(Guard(POLICY))
    with pytest.raises(PolicyError):
        install(guard, server_of=lambda session: "bank")
    uninstall()
    uninstall()
    install(Guard(POLICY))


def test_blocks_uninstall_when_the_last_one_ends() -> None:
    """Nested blocks do not open a hole in the outer one, nor in an installation without a block."""
    guard = Guard(POLICY)
    with install(guard):
        with install(guard):
            assert vars(ClientSession).get("send_request") is not BEFORE["send_request"]
        assert vars(ClientSession).get("send_request") is not BEFORE["send_request"]
    assert vars(ClientSession).get("send_request") is BEFORE["send_request"]
    install(guard)
    with install(guard):
        pass
    assert vars(ClientSession).get("send_request") is not BEFORE["send_request"]


@pytest.mark.parametrize("session_first", [True, False])
def test_a_guarded_session_is_decided_once(session_first: bool) -> None:
    """The same guard takes one charge whichever came first; another guard decides as well."""
    guard, other = Guard(POLICY), Guard({"bank": POLICY})

    async def main() -> None:
        async with connected(recording_server([])) as session:
            if not session_first:
                install(guard)
            guard_session(session, guard, server="bank")
            install(guard)
            for _ in range(2):
                assert not is_error(await session.call_tool("pay", {"amount": 1}))
            assert reason(await session.call_tool("pay", {"amount": 1})) == "limit_exceeded"
            uninstall()
            install(other)
            assert not is_error(await session.call_tool("add", {"a": 1}))
            for one in (guard, other):
                one.suspend("a test")
                assert reason(await session.call_tool("add", {"a": 1})) == "suspended"
                one.resume()

    anyio.run(main)


def test_the_application_names_servers() -> None:
    """`server_of` first, then the name at construction, then the name around the call; else there is no policy."""
    guard = Guard({"bank": POLICY, "_local": POLICY})

    async def call(session: ClientSession) -> str:
        result = await session.call_tool("add", {"a": 1})
        return reason(result) if is_error(result) else "allowed"

    async def main() -> None:
        names: dict[ClientSession, str] = {}
        install(guard, server_of=names.get)
        with server("bank"):
            stack = connected(recording_server([]))
            named = await stack.__aenter__()
        async with connected(recording_server([])) as unnamed:
            assert await call(unnamed) == "no_policy"
            with server("bank"):
                assert await call(unnamed) == "allowed"
            assert await call(named) == "allowed"
            with server("shop"):
                assert await call(named) == "allowed"
                assert await call(unnamed) == "no_policy"
            names[named], names[unnamed] = "shop", "bank"
            assert await call(named) == "no_policy"
            assert await call(unnamed) == "allowed"
        await stack.__aexit__(None, None, None)

    anyio.run(main)
    for wrong in ("", None, 5):
        with pytest.raises(PolicyError), server(wrong):  # type: ignore[arg-type]
            pass
