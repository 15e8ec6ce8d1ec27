"""One guard for every MCP session of the process, whoever opens it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any

import pytest

pytest.importorskip("mcp")

import anyio
from mcp import ClientSession, types
from mcp_sessions import POLICY, V2, connected, is_error, reason, recording_server

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


@pytest.mark.skipif(not V2, reason="the SDK calls servers in the caller's context from 2.0 on")
def test_a_server_in_this_process_has_names_of_its_own() -> None:
    """The name around a call is not that of the sessions that the called server uses meanwhile."""
    nested: list[str] = []

    async def main() -> None:
        from mcp import Client
        from mcp.server.lowlevel import Server

        install(Guard({"bank": POLICY}))
        async with connected(recording_server([])) as inner:

            async def call_tool(context: Any, params: Any) -> Any:
                nested.append(reason(await inner.call_tool("add", {"a": 1})))
                return types.CallToolResult(content=[])

            async def list_tools(context: Any, params: Any) -> Any:
                return types.ListToolsResult(tools=[])

            async with Client(Server("relay", on_call_tool=call_tool, on_list_tools=list_tools)) as outer:
                with server("bank"):
                    assert not is_error(await inner.call_tool("add", {"a": 1}))
                    assert not is_error(await outer.call_tool("add", {"a": 1}))

    anyio.run(main)
    assert nested == ["no_policy"]


def test_a_server_of_that_fails_denies() -> None:
    """Where the application cannot tell the server, no call is made, whatever the policy."""
    reached: Reached = []

    async def main() -> None:
        async with connected(recording_server(reached)) as session:
            for answer in (lambda session: {}["unknown"], lambda session: "", lambda session: 5):
                with install(Guard(POLICY), server_of=answer):
                    assert reason(await session.call_tool("add", {"a": 1})) == "invalid_call"
                    assert "wipe" not in [tool.name for tool in (await session.list_tools()).tools]

    anyio.run(main)
    assert reached == []


def test_identity_comes_from_the_application() -> None:
    """Grants are counted apart, process-wide too."""
    grants = iter(["alice", "alice", "alice", "bob"])

    async def main() -> None:
        install(Guard(POLICY), identity_of=lambda request: {"grant": next(grants)})
        async with connected(recording_server([])) as session:
            answers = [is_error(await session.call_tool("pay", {"amount": 1})) for _ in range(4)]
            assert answers == [False, False, True, False]

    anyio.run(main)


def test_wrappers_of_others_come_and_go() -> None:
    """What others wrap around the patch outlives `uninstall`, and then only passes on."""
    seen: list[str] = []

    async def main() -> None:
        async with connected(recording_server([])) as session:
            install(Guard(POLICY))
            patched = ClientSession.send_request

            async def traced(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
                seen.append(getattr(request, "root", request).method)
                return await patched(self, request, *args, **kwargs)

            ClientSession.send_request = traced  # type: ignore[method-assign]
            uninstall()
            assert ClientSession.send_request is traced
            assert not is_error(await session.call_tool("wipe", {}))
            install(Guard(POLICY))
            for _ in range(2):
                assert not is_error(await session.call_tool("pay", {"amount": 1}))
            assert reason(await session.call_tool("pay", {"amount": 1})) == "limit_exceeded"
            uninstall()
            assert ClientSession.send_request is traced

    try:
        anyio.run(main)
    finally:
        if BEFORE["send_request"] is None:
            del ClientSession.send_request
        else:
            ClientSession.send_request = BEFORE["send_request"]  # type: ignore[method-assign]
    assert seen.count("tools/call") == 3


def test_threads_install_once() -> None:
    """Many threads that install the same guard make one patch, which one `uninstall` undoes."""
    guard = Guard(POLICY)
    before = threading.Barrier(8)

    def work() -> None:
        before.wait()
        for _ in range(50):
            with install(guard):
                assert vars(ClientSession).get("send_request") is not BEFORE["send_request"]

    threads = [threading.Thread(target=work) for _ in range(8)]
    with ExitStack() as stack:
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
    assert vars(ClientSession).get("send_request") is BEFORE["send_request"]


def test_a_session_on_another_thread_goes_by_the_callers_name() -> None:
    """Frameworks keep sessions on a thread of their own, where no block surrounds their making."""
    answers: list[str] = []

    def sessions() -> None:
        async def main() -> None:
            async with connected(recording_server([])) as session:
                ready.set_result((asyncio.get_running_loop(), session))
                await anyio.to_thread.run_sync(done.wait)

        anyio.run(main)

    install(Guard({"bank": POLICY}))
    ready: Future[tuple[asyncio.AbstractEventLoop, ClientSession]] = Future()
    done = threading.Event()
    thread = threading.Thread(target=sessions)
    thread.start()
    try:
        loop, session = ready.result(timeout=30)
        for name in ("bank", "shop"):
            with server(name):
                result = asyncio.run_coroutine_threadsafe(session.call_tool("add", {"a": 1}), loop).result(30)
                answers.append(reason(result) if is_error(result) else "allowed")
    finally:
        done.set()
        thread.join()
    assert answers == ["allowed", "no_policy"]
