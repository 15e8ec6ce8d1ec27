"""The MCP adapter on real sessions: what a policy denies never reaches the server."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, Literal

import pytest

pytest.importorskip("mcp")

import anyio
from mcp import ClientSession, types
from mcp_sessions import POLICY, V2, connected, is_error, reason, recording_server, sdk_error, stubbed, tool_call

from mcp_policy_middleware import Guard, PolicyError, ToolCall, parse_policy
from mcp_policy_middleware.adapters.mcp import DECISION_KEY, GuardedClientSession, PolicyDeniedError, guard_session
from mcp_policy_middleware.approvals import ApprovalRequest
from mcp_policy_middleware.stores import MemoryStore

Reached = list[tuple[str, dict[str, Any]]]


def run(test: Callable[[ClientSession, Reached], Any], guard: Guard | None = None, **options: Any) -> None:
    """Run a test on a guarded session of a recording server."""
    reached: Reached = []

    async def main() -> None:
        async with connected(recording_server(reached)) as session:
            assert guard_session(session, guard or Guard(POLICY), server="bank", **options) is session
            await test(session, reached)

    anyio.run(main)


def test_denied_calls_never_reach_the_server() -> None:
    """Every kind of denial is a tool error in the SDK's own shape, and the server saw nothing."""

    async def test(session: ClientSession, reached: Reached) -> None:
        assert reason(await session.call_tool("wipe", {})) == "hidden"
        assert reason(await session.call_tool("drop", {})) == "default_deny"
        assert reason(await session.call_tool("pay", {"amount": 101})) == "requirement_unmet"
        assert reason(await session.call_tool("pay", {"amount": "5e1"})) == "undecidable"
        # the SDK writes NaN as null, and that is what the policy is asked about
        assert reason(await session.call_tool("pay", {"amount": float("nan")})) == "requirement_unmet"
        assert reason(await session.call_tool("pay")) == "requirement_unmet"
        assert reached == []

    run(test)


def test_allowed_calls_pass_through() -> None:
    """Arguments, result, structured content, progress and the SDK's own error results are untouched."""

    async def test(session: ClientSession, reached: Reached) -> None:
        progress: list[float] = []

        async def note(done: float, total: float | None, message: str | None) -> None:
            progress.append(done)

        result = await session.call_tool("add", {"a": 3}, progress_callback=note)
        assert not is_error(result)
        assert result.content[0].text == "5"
        assert (result.structured_content if V2 else result.structuredContent) == {"result": 5}
        assert progress == [1]
        failed = await session.call_tool("fail", {})
        assert is_error(failed)
        assert DECISION_KEY not in (failed.meta or {})
        assert reached == [("add", {"a": 3, "b": 2}), ("fail", {})]

    run(test)


def test_parallel_calls_are_decided_one_by_one() -> None:
    """A denied sibling leaves the others alone, and a limit admits exactly its maximum."""

    async def test(session: ClientSession, reached: Reached) -> None:
        results: list[Any] = []

        async def pay(amount: int) -> None:
            results.append(await session.call_tool("pay", {"amount": amount}))

        async with anyio.create_task_group() as tasks:
            for amount in (1, 500, 2, 3, 4):
                tasks.start_soon(pay, amount)
        assert sorted("" if not is_error(one) else reason(one) for one in results) == [
            "",
            "",
            "limit_exceeded",
            "limit_exceeded",
            "requirement_unmet",
        ]
        assert len(reached) == 2

    run(test)


def test_hidden_tools_vanish_from_lists() -> None:
    """A hidden tool is in no list; the others keep their order."""

    async def test(session: ClientSession, reached: Reached) -> None:
        assert [tool.name for tool in (await session.list_tools()).tools] == ["add", "pay", "fail"]

    run(test)


def test_every_page_of_a_list_is_filtered() -> None:
    """Pages lose hidden tools and keep their cursor, even where a page becomes empty."""
    pages = {None: (["wipe"], "2"), "2": (["add", "wipe"], None)}

    def page(cursor: str | None) -> Any:
        names, following = pages[cursor]
        schema = {"type": "object"}
        tools = [types.Tool(name=name, **{("input_schema" if V2 else "inputSchema"): schema}) for name in names]
        return types.ListToolsResult(tools=tools, **{("next_cursor" if V2 else "nextCursor"): following})

    async def main() -> None:
        if V2:
            from mcp.server.lowlevel import Server

            async def list_tools(context: Any, params: Any) -> Any:
                return page(params.cursor if params else None)

            server: Any = Server("pages", on_list_tools=list_tools)
        else:
            from mcp.server.lowlevel import Server

            server = Server("pages")

            @server.list_tools()
            async def list_tools(request: types.ListToolsRequest) -> types.ListToolsResult:
                return page(request.params.cursor if request.params else None)

        async with connected(server) as session:
            guard_session(session, Guard(POLICY), server="bank")
            first = await session.list_tools()
            assert first.tools == []
            cursor = first.next_cursor if V2 else first.nextCursor
            second = await session.list_tools(params=types.PaginatedRequestParams(cursor=cursor))
            assert [tool.name for tool in second.tools] == ["add"]

    anyio.run(main)


def test_raw_requests_are_decided_too() -> None:
    """A request built by hand, a vendor's with plain parameters too, meets the same choke point."""

    class VendorRequest(types.Request[dict[str, Any], Literal["tools/call"]]):
        method: Literal["tools/call"] = "tools/call"
        params: dict[str, Any]

    async def test(session: ClientSession, reached: Reached) -> None:
        assert reason(await session.send_request(tool_call("wipe", {}), types.CallToolResult)) == "hidden"
        vendor = VendorRequest(params={"name": "pay", "arguments": {"amount": 101}})
        assert reason(await session.send_request(vendor, types.CallToolResult)) == "requirement_unmet"
        assert reason(await session.send_request(VendorRequest(params={}), types.CallToolResult)) == "default_deny"
        assert reached == []

    run(test)


def test_a_type_that_cannot_hold_a_tool_error_raises() -> None:
    """Where a tool error does not fit the awaited type, an error of the SDK's kind carries the decision."""

    async def test(session: ClientSession, reached: Reached) -> None:
        with pytest.raises(PolicyDeniedError) as caught:
            await session.send_request(tool_call("wipe", {}), types.EmptyResult)
        assert caught.value.decision.reason == "hidden"
        assert not -32768 <= caught.value.error.code <= -32000
        assert reached == []

    run(test)


def test_arguments_are_seen_as_they_will_be_sent() -> None:
    """Python values among the arguments are judged by the JSON that the server will get."""

    async def test(session: ClientSession, reached: Reached) -> None:
        day = dt.date(2026, 1, 2)
        assert reason(await session.call_tool("pay", {"amount": 1, "to": day})) == "rule_denied"
        assert not is_error(await session.call_tool("pay", {"amount": 1, "to": "bob"}))

    run(test)


def test_the_session_stays_what_it_was() -> None:
    """Guarding twice changes nothing, a second guard or name is refused, and the class still matches."""

    async def main() -> None:
        guard = Guard(POLICY)
        async with connected(recording_server([])) as session:
            for _ in range(2):
                assert guard_session(session, guard, server="bank") is session
            assert isinstance(session, ClientSession)
            assert type(session).__name__ == "ClientSession"
            with pytest.raises(PolicyError):
                guard_session(session, guard, server="shop")
            with pytest.raises(PolicyError):
                guard_session(session, Guard(POLICY), server="bank")
            with pytest.raises(TypeError):
                guard_session(object(), guard)  # type: ignore[type-var]
            before = guard.explain(ToolCall("pay", {"amount": 1}, server="bank")).charges
            await session.call_tool("pay", {"amount": 1})
            await session.call_tool("pay", {"amount": 1})
            assert len(before) == 1
            assert reason(await session.call_tool("pay", {"amount": 1})) == "limit_exceeded"

    anyio.run(main)


def test_wrappers_put_on_later_still_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others wrap around the SDK's own method after guarding is called for admitted calls alone."""
    seen: list[str] = []

    async def main() -> None:
        async with connected(recording_server([])) as session:
            guard_session(session, Guard(POLICY), server="bank")
            owner = next(base for base in ClientSession.__mro__ if "send_request" in vars(base))
            original = owner.send_request

            async def traced(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
                seen.append(getattr(request, "root", request).method)
                return await original(self, request, *args, **kwargs)

            monkeypatch.setattr(owner, "send_request", traced)
            await session.list_tools()
            await session.call_tool("add", {"a": 1})
            await session.call_tool("wipe", {})

    anyio.run(main)
    assert seen == ["tools/list", "tools/call"]


def test_a_guarded_session_can_be_constructed() -> None:
    """`GuardedClientSession` guards from its first request."""
    reached: Reached = []

    async def main() -> None:
        make = lambda *streams: GuardedClientSession(*streams, guard=Guard(POLICY), server="bank")  # noqa: E731
        async with connected(recording_server(reached), make) as session:
            assert [tool.name for tool in (await session.list_tools()).tools] == ["add", "pay", "fail"]
            assert reason(await session.call_tool("wipe", {})) == "hidden"
            assert not is_error(await session.call_tool("add", {"a": 1}))

    anyio.run(main)
    assert reached == [("add", {"a": 1, "b": 2})]


@pytest.mark.parametrize("server", [None, "shop"])
def test_a_session_meets_the_policy_of_its_own_name_alone(server: str | None) -> None:
    """Under policies by server, another name and no name are denied, whatever `_local` says (PL-9.2)."""
    guard = Guard({"bank": POLICY, "_local": POLICY})
    reached: Reached = []

    async def main() -> None:
        async with connected(recording_server(reached)) as session:
            guard_session(session, guard, server=server)
            assert reason(await session.call_tool("add", {"a": 1})) == "no_policy"

    anyio.run(main)
    assert reached == []


def test_identity_comes_from_the_application() -> None:
    """Grants are counted apart, and a call whose identity cannot be told is denied."""
    grant = "alice"

    def identity_of(request: Any) -> dict[str, Any]:
        return {"grant": grant} if grant else {"user": "mallory"}

    async def test(session: ClientSession, reached: Reached) -> None:
        nonlocal grant
        for _ in range(2):
            assert not is_error(await session.call_tool("pay", {"amount": 1}))
        assert reason(await session.call_tool("pay", {"amount": 1})) == "limit_exceeded"
        grant = "bob"
        assert not is_error(await session.call_tool("pay", {"amount": 1}))
        grant = ""
        assert reason(await session.call_tool("pay", {"amount": 1})) == "invalid_call"
        assert len(reached) == 3

    run(test, identity_of=identity_of)


RESULT = {"content": [], ("is_error" if V2 else "isError"): True}


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        pytest.param(lambda: types.CallToolResult(**RESULT), True, id="tool error"),
        pytest.param(lambda: (_ for _ in ()).throw(sdk_error(-32700)), False, id="-32700"),
        pytest.param(lambda: (_ for _ in ()).throw(sdk_error(-32600)), False, id="-32600"),
        pytest.param(lambda: (_ for _ in ()).throw(sdk_error(-32601)), False, id="-32601"),
        pytest.param(lambda: (_ for _ in ()).throw(sdk_error(-32602)), False, id="-32602"),
        pytest.param(lambda: (_ for _ in ()).throw(sdk_error(-32020)), False, id="header mismatch"),
        pytest.param(lambda: (_ for _ in ()).throw(sdk_error(-32603)), True, id="-32603"),
        pytest.param(lambda: (_ for _ in ()).throw(sdk_error(408)), True, id="timeout"),
        pytest.param(lambda: (_ for _ in ()).throw(OSError("reset")), True, id="connection lost"),
    ],
)
def test_the_outcome_settles_the_charge(answer: Callable[[], Any], kept: bool) -> None:
    """A rejection gives the charge back; whatever may have acted keeps it (PL-5.6)."""

    async def main() -> None:
        async with stubbed(answer) as session:
            guard_session(session, Guard(POLICY), server="bank")
            answers = []
            for _ in range(2):
                try:
                    answers.append(await session.call_tool("fail", {}))
                except Exception as error:
                    answers.append(error)
            first, again = (DECISION_KEY in (getattr(answer, "meta", None) or {}) for answer in answers)
            assert (first, again) == (False, kept)

    anyio.run(main)


def test_a_cancelled_call_keeps_its_charge_and_stays_cancelled() -> None:
    """Cancellation passes through untouched; the effect may have happened."""

    async def main() -> None:
        async with stubbed(anyio.sleep_forever) as session:
            guard_session(session, Guard(POLICY), server="bank")
            with anyio.move_on_after(0.01) as scope:
                await session.call_tool("fail", {})
            assert scope.cancelled_caught
            assert reason(await session.call_tool("fail", {})) == "limit_exceeded"

    anyio.run(main)


def test_a_nested_call_in_process_takes_its_own_charge() -> None:
    """A call made from inside an in-process server is a call of its own, although it sees the caller's context."""
    guard = Guard(POLICY)
    reached: Reached = []
    results: list[Any] = []

    async def main() -> None:
        async with connected(recording_server(reached)) as inner:
            guard_session(inner, guard, server="bank")

            async def relay() -> Any:
                results.append(await inner.call_tool("pay", {"amount": 1}))
                return types.CallToolResult(content=[])

            async with stubbed(relay) as outer:
                guard_session(outer, guard, server="bank")
                results.append(await outer.call_tool("pay", {"amount": 1}))
                results.append(await outer.call_tool("pay", {"amount": 1}))

    anyio.run(main)
    assert [is_error(result) for result in results] == [False, False, True]
    assert len(reached) == 1


def test_cancelling_the_decision_sends_nothing() -> None:
    """A call that is cancelled while its store is asked has not left."""

    class Waiting(MemoryStore):
        async def areserve(self, charges: Any, now: float) -> Any:
            asked.set()
            await anyio.sleep_forever()

    async def test(session: ClientSession, reached: Reached) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.call_tool, "pay", {"amount": 1})
            await asked.wait()
            tasks.cancel_scope.cancel()
        assert not is_error(await session.call_tool("add", {"a": 1}))
        assert reached == [("add", {"a": 1, "b": 2})]

    asked = anyio.Event()
    run(test, Guard(POLICY, store=Waiting()))


def test_deciding_takes_no_time_off_the_read_timeout() -> None:
    """The SDK's clock starts when the request leaves, so a slow decision is no slow server."""

    class Slow(MemoryStore):
        async def areserve(self, charges: Any, now: float) -> Any:
            await anyio.sleep(0.6)
            return await super().areserve(charges, now)

    async def test(session: ClientSession, reached: Reached) -> None:
        timeout: Any = 0.5 if V2 else dt.timedelta(seconds=0.5)
        assert not is_error(await session.call_tool("pay", {"amount": 1}, read_timeout_seconds=timeout))

    run(test, Guard(POLICY, store=Slow()))


def test_a_list_that_is_read_again_is_filtered_again() -> None:
    """A client that lists anew when it is told that the tools changed sees no hidden tool, by any road."""

    async def test(session: ClientSession, reached: Reached) -> None:
        request = types.ListToolsRequest(**({} if V2 else {"method": "tools/list"}))
        raw: Any = request if V2 else types.ClientRequest(request)
        for _ in range(2):
            assert "wipe" not in [tool.name for tool in (await session.list_tools()).tools]
            answer = await session.send_request(raw, types.ListToolsResult)
            assert [tool.name for tool in answer.tools] == ["add", "pay", "fail"]

    run(test)


@pytest.mark.skipif(V2, reason="tasks left the SDK with 2.0")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_task_is_a_call_too() -> None:
    """What starts as a task is decided like any call; a task's result cannot hold a tool error."""

    async def test(session: Any, reached: Reached) -> None:
        with pytest.raises(PolicyDeniedError) as caught:
            await session.experimental.call_tool_as_task("wipe", {})
        assert caught.value.decision.reason == "hidden"
        assert reached == []

    run(test)


def test_requests_about_other_things_pass() -> None:
    """What follows a task, and a vendor's own requests, go their way unchanged."""

    class VendorRequest(types.Request[dict[str, Any], str]):
        method: str = "tasks/get"
        params: dict[str, Any]

    async def main() -> None:
        sent: list[Any] = []

        class Stub(ClientSession):
            async def send_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
                sent.append((request, args, kwargs))
                return types.EmptyResult()

        async with connected(recording_server([])) as live:
            session = Stub.__new__(Stub)
            vars(session).update(vars(live))
            guard = Guard(POLICY)
            guard.suspend("a test")
            guard_session(session, guard, server="bank")
            for method in ("tasks/get", "tasks/update", "resources/read", "prompts/get", "completion/complete"):
                request: Any = VendorRequest(method=method, params={"taskId": "1"})
                await session.send_request(request, types.EmptyResult, metadata=None)
                assert sent.pop() == (request, (types.EmptyResult,), {"metadata": None})

    anyio.run(main)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_either_event_loop_will_do(backend: str) -> None:
    """The adapter uses nothing of asyncio's own."""

    async def main() -> None:
        async with stubbed(lambda: types.CallToolResult(content=[])) as session:
            guard_session(session, Guard(POLICY), server="bank")
            assert not is_error(await session.call_tool("fail", {}))
            assert reason(await session.call_tool("fail", {})) == "limit_exceeded"

    anyio.run(main, backend=backend)


def test_arguments_that_change_while_a_person_is_asked_are_not_sent() -> None:
    def say(request: ApprovalRequest) -> bool:
        order.update(a=2)
        return True

    order: dict[str, Any] = {"a": 1}
    policy = parse_policy('{"version": "1", "default": "deny", "tools": {"add": {"action": "require_approval"}}}')

    async def test(session: ClientSession, reached: Reached) -> None:
        request = tool_call("add", {})
        getattr(request, "root", request).params.arguments = order
        assert reason(await session.send_request(request, types.CallToolResult)) == "approval_failed"
        assert reached == []

    run(test, Guard(policy, approver=say))
