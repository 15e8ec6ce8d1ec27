"""Calls of several rounds on mcp 2.x (SEP-2322): each round is checked, the call is charged once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

import pytest

pytest.importorskip("mcp_types", reason="mcp 1.x asks for input by requests of the server's own")

import anyio
import mcp
from mcp import types
from mcp.client.extension import ClientExtension, ResultClaim
from mcp.server.lowlevel import Server
from mcp_sessions import is_error, reason, sdk_error

from mcp_policy_middleware import Guard, Outcome, ToolCall, parse_policy
from mcp_policy_middleware.adapters.mcp import guard_session
from mcp_policy_middleware.approvals import Event, Found, MemoryApprovals, QueueApprover
from mcp_policy_middleware.charges import MILLION
from mcp_policy_middleware.errors import StoreError
from mcp_policy_middleware.handover import Layer
from mcp_policy_middleware.stores import MemoryStore
from mcp_policy_middleware.testing import FrozenClock

POLICY = parse_policy(
    """
version: "1"
default: deny
tools:
  pay:
    limits: [{counter: payments, window: day, max: 3}]
    deny_if:
      - conditions: [{path: context.frozen, op: eq, value: true}]
    require_approval_if:
      - conditions: [{path: context.watched, op: eq, value: true}]
  lend:
    limits: [{counter: loans, window: day, max: 3, charge_on: success}]
""",
    "tests.yaml",
)
ASK = types.ElicitRequest(
    params=types.ElicitRequestFormParams(message="sure?", requested_schema={"type": "object", "properties": {}})
)
Answer = Callable[[types.CallToolRequestParams], Any]


class Bank:
    """A server whose every answer a test decides."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.seen: list[types.CallToolRequestParams] = []

    def client(self, **options: Any) -> Any:
        async def list_tools(context: Any, params: Any) -> Any:
            tools = [types.Tool(name=name, input_schema={"type": "object"}) for name in ("pay", "lend")]
            return types.ListToolsResult(tools=tools)

        async def call_tool(context: Any, params: types.CallToolRequestParams) -> Any:
            self.seen.append(params)
            result = self.answer(params)
            return await result if hasattr(result, "__await__") else result

        async def agree(context: Any, params: Any) -> Any:
            return types.ElicitResult(action="accept", content={})

        server: Any = Server("bank", on_list_tools=list_tools, on_call_tool=call_tool)
        return mcp.Client(server, elicitation_callback=agree, **options)


def asks(state: str | None = None, question: bool = True) -> Any:
    return types.InputRequiredResult(input_requests={"q": ASK} if question else None, request_state=state)


def done(error: bool = False) -> Any:
    return types.CallToolResult(content=[types.TextContent(text="done")], is_error=error)


class Session:
    """A guarded in-process client of a `Bank`, and what its calls have taken."""

    def __init__(self, answer: Answer, **settings: Any) -> None:
        self.bank = Bank(answer)
        self.context = {"frozen": False, "watched": False}
        self.store = MemoryStore()
        self.clock = FrozenClock()
        self.guard = Guard(POLICY, store=self.store, clock=self.clock, context=self.context, **settings)

    @property
    def used(self) -> int:
        return sum(total.used for total in self.store.counters(self.clock().timestamp())) // MILLION

    def run(self, test: Callable[[Any], Any], **options: Any) -> None:
        async def main() -> None:
            async with self.bank.client(**options) as client:
                guard_session(client.session, self.guard, server="bank")
                await test(client)

        anyio.run(main)


def script(*answers: Any) -> Answer:
    """These answers, one a round."""
    left = list(answers)

    def answer(params: types.CallToolRequestParams) -> Any:
        one = left.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    return answer


def test_a_call_of_several_rounds_takes_one_charge() -> None:
    """The SDK's own driver goes on with the call, with a state or without one, with a question or without one."""
    session = Session(script(asks("s1"), asks("s2", question=False), asks(), done()))

    async def test(client: Any) -> None:
        result = await client.call_tool("pay", {"amount": 1})
        assert not is_error(result)

    session.run(test)
    assert [params.request_state for params in session.bank.seen] == [None, "s1", "s2", None]
    assert session.used == 1


@pytest.mark.parametrize(("last", "used"), [(done(), 1), (done(error=True), 0), (sdk_error(-32603), 1)])
def test_the_last_outcome_settles_the_call(last: Any, used: int) -> None:
    """A charge that only success keeps is given back after the round that fails, once."""
    session = Session(script(asks("s1"), asks("s2"), last))

    async def test(client: Any) -> None:
        try:
            await client.call_tool("lend", {})
        except mcp.MCPError:
            assert isinstance(last, mcp.MCPError)
        assert session.used == used

    session.run(test)


def test_a_later_round_may_be_denied() -> None:
    """It is not sent; the charge stays, for an earlier round was answered, and the call can go on once it may."""
    session = Session(script(asks("s1"), done()))

    async def go_on(client: Any) -> Any:
        return await client.session.call_tool("pay", {}, request_state="s1", input_responses={})

    async def test(client: Any) -> None:
        await client.session.call_tool("pay", {}, allow_input_required=True)
        session.context["frozen"] = True
        assert reason(await go_on(client)) == "rule_denied"
        session.guard.suspend("a test")
        assert reason(await go_on(client)) == "suspended"
        assert (len(session.bank.seen), session.used) == (1, 1)
        session.guard.resume()
        session.context["frozen"] = False
        assert not is_error(await go_on(client))
        assert (len(session.bank.seen), session.used) == (2, 1)

    session.run(test)


def test_a_round_that_is_asked_about_anew_waits_for_its_answer_and_keeps_the_charge() -> None:
    class Failing(MemoryApprovals):
        def move(self, id: str, event: Event, now: float, by: str = "", why: str = "") -> Found:
            if event is Event.CONSUME and faults.pop():
                raise StoreError("down")
            return super().move(id, event, now, by, why)

    faults = [False, True]
    approvals = Failing()
    session = Session(script(asks("s1"), done()), approver=QueueApprover(approvals))

    async def go_on(client: Any) -> Any:
        return await client.session.call_tool("pay", {}, request_state="s1", input_responses={})

    async def test(client: Any) -> None:
        await client.session.call_tool("pay", {}, allow_input_required=True)
        session.context["watched"] = True
        assert [reason(await go_on(client)) for _ in range(2)] == ["approval_pending"] * 2
        (request,) = approvals.requests(session.clock().timestamp())
        approvals.move(request.id, Event.APPROVE, session.clock().timestamp())
        assert reason(await go_on(client)) == "approval_failed"
        assert (len(session.bank.seen), session.used) == (1, 1)
        assert not is_error(await go_on(client))
        assert (len(session.bank.seen), session.used) == (2, 1)

    session.run(test)


def test_a_state_is_good_for_one_round_of_its_own_call() -> None:
    """What was made up, used before, or given for other arguments, another tool or grant, is a call of its own."""
    session = Session(lambda params: done() if params.request_state else asks("s1"))

    async def rounds(client: Any, tool: str, arguments: dict[str, Any], state: str) -> Any:
        return await client.session.call_tool(tool, arguments, request_state=state, allow_input_required=True)

    async def test(client: Any) -> None:
        await client.session.call_tool("pay", {"to": "a"}, allow_input_required=True)
        assert session.used == 1
        await rounds(client, "pay", {"to": "b"}, "s1")
        assert session.used == 2
        await rounds(client, "lend", {"to": "a"}, "s1")
        assert session.used == 3
        await rounds(client, "pay", {"to": "a"}, "s1")
        assert session.used == 3
        await rounds(client, "pay", {"to": "a"}, "s1")
        assert session.used == 4
        assert reason(await rounds(client, "pay", {"to": "a"}, "forged")) == "limit_exceeded"
        assert reason(await client.session.call_tool("pay", {"to": "a"}, input_responses={})) == "limit_exceeded"

    session.run(test)


def test_a_state_is_good_for_its_own_grant() -> None:
    """Another user who learns a state pays for what it buys."""
    session = Session(lambda params: done() if params.request_state else asks("s1"))
    grant = "alice"

    async def main() -> None:
        nonlocal grant
        async with session.bank.client() as client:
            guard_session(client.session, session.guard, server="bank", identity_of=lambda request: {"grant": grant})
            await client.session.call_tool("pay", {}, allow_input_required=True)
            grant = "bob"
            await client.session.call_tool("pay", {}, request_state="s1")
            assert session.used == 2
            grant = "alice"
            await client.session.call_tool("pay", {}, request_state="s1")
            assert session.used == 2

    anyio.run(main)


def test_interleaved_calls_keep_apart() -> None:
    """Equal calls that wait for input at once have a charge each, even under one state."""
    session = Session(lambda params: done() if params.request_state else asks("same"))

    async def test(client: Any) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(client.call_tool, "pay", {})
        assert (session.used, len(session.bank.seen)) == (3, 6)
        assert reason(await client.call_tool("pay", {})) == "limit_exceeded"

    session.run(test)


def test_rounds_without_end_are_charged_again() -> None:
    """A server that keeps asking does not get work for nothing beyond what the SDK's own client would send."""
    session = Session(lambda params: asks("more", question=False))

    async def test(client: Any) -> None:
        for _ in range(11):
            await client.session.call_tool("pay", {}, request_state="more", allow_input_required=True)
        assert session.used == 1
        await client.session.call_tool("pay", {}, request_state="more", allow_input_required=True)
        assert session.used == 2

    session.run(test)


@pytest.fixture(scope="module")
def resending() -> None:
    """The SDK's first clients of 2.x do not send a call again: an unguarded one shows which this is."""
    bank = Bank(script(sdk_error(-32020), done()))

    async def main() -> None:
        async with bank.client(mode="2026-07-28") as client:
            with suppress(mcp.MCPError):
                await client.call_tool("pay", {})

    anyio.run(main)
    if len(bank.seen) == 1:
        pytest.skip("this SDK's client does not send a call again after a header mismatch")


@pytest.mark.usefixtures("resending")
@pytest.mark.parametrize("layered", [False, True])
@pytest.mark.parametrize("mismatch", ["first round", "later round"])
def test_a_header_mismatch_is_no_second_call(layered: bool, mismatch: str) -> None:
    """The client sends the same round once more; with a guarded tool around it as well."""
    refused = sdk_error(-32020)
    answers = [refused, asks("s1"), done()] if mismatch == "first round" else [asks("s1"), refused, done()]
    session = Session(script(*answers))

    async def test(client: Any) -> None:
        call = ToolCall("pay", {}, server="bank")
        if layered:
            result = await session.guard.arun(call, lambda: client.call_tool("pay", {}), layer=Layer.TOOL)
        else:
            result = await client.call_tool("pay", {})
        assert not is_error(result)
        assert (len(session.bank.seen), session.used) == (3, 1)

    session.run(test, mode="2026-07-28")


@pytest.mark.parametrize(("last", "used"), [(done(), 2), (done(error=True), 1)])
def test_an_outer_layer_settles_the_call(last: Any, used: int) -> None:
    """Rounds under a guarded tool share its one decision; what comes after its end is a call of its own."""
    session = Session(script(asks("s1"), asks("s2"), done(error=True), asks("s3"), last))

    async def test(client: Any) -> None:
        async def first_round() -> Any:
            return await client.session.call_tool("lend", {}, allow_input_required=True)

        call = ToolCall("lend", {}, server="bank")
        failed = lambda ended: Outcome.RETURNED_ERROR  # noqa: E731
        await session.guard.arun(call, lambda: client.call_tool("lend", {}), failed, layer=Layer.TOOL)
        assert session.used == 0
        await session.guard.arun(call, first_round, layer=Layer.TOOL)
        assert session.used == 1
        await client.session.call_tool("lend", {}, request_state="s3")
        assert session.used == used

    session.run(test)


def test_a_cancelled_round_keeps_the_charge() -> None:
    """The effect may have happened, and the state is spent."""
    session = Session(lambda params: anyio.sleep_forever() if params.request_state else asks("s1"))

    async def test(client: Any) -> None:
        await client.session.call_tool("lend", {}, allow_input_required=True)
        with anyio.move_on_after(0.01) as scope:
            await client.session.call_tool("lend", {}, request_state="s1")
        assert scope.cancelled_caught
        assert session.used == 1
        with anyio.move_on_after(0.01):
            await client.session.call_tool("lend", {}, request_state="s1")
        assert session.used == 2

    session.run(test)


def test_a_nested_call_in_a_later_round_takes_its_own_charge() -> None:
    """A call made from inside an in-process server is a call of its own, in a later round too."""

    async def main() -> None:
        async with inner.bank.client() as nested:
            guard_session(nested.session, outer.guard, server="bank")

            async def relay(params: types.CallToolRequestParams) -> Any:
                if not params.request_state:
                    return asks("s1")
                return await nested.call_tool("pay", {})

            outer.bank.answer = relay
            async with outer.bank.client() as client:
                guard_session(client.session, outer.guard, server="bank")
                assert not is_error(await client.call_tool("pay", {}))
                assert outer.used == 2

    inner, outer = Session(lambda params: done()), Session(lambda params: done())
    anyio.run(main)
    assert len(inner.bank.seen) == 1


def test_calls_that_never_go_on_are_forgotten() -> None:
    """A server that leaves calls open fills no memory: the oldest go, and their next round is a call of its own."""
    session = Session(lambda params: done() if params.input_responses is not None else asks())

    async def test(client: Any) -> None:
        session.guard.reload(parse_policy('{"version": "1", "default": "allow"}', "open.json"))
        for number in range(1025):
            await client.session.call_tool("pay", {"number": number}, allow_input_required=True)
        session.guard.reload(POLICY)
        await client.session.call_tool("pay", {"number": 1}, input_responses={})
        assert session.used == 0
        await client.session.call_tool("pay", {"number": 0}, input_responses={})
        assert session.used == 1

    session.run(test)


def test_a_denial_and_a_claimed_result_fit_the_same_call() -> None:
    """Where an extension claims results of its own shape, a denial still is a tool error, and the claim is resolved."""

    class Ticket(types.Result):
        result_type: Literal["ticket"] = "ticket"

    class Tickets(ClientExtension):
        identifier = "com.example/tickets"

        def claims(self) -> Any:
            return [ResultClaim(result_type="ticket", model=Ticket, resolve=resolve)]

    async def resolve(ticket: Any, context: Any) -> Any:
        return done()

    session = Session(lambda params: Ticket())

    async def main() -> None:
        async with session.bank.client(extensions=[Tickets()]) as client:
            guard_session(client.session, session.guard, server="bank")
            assert not is_error(await client.call_tool("pay", {}))
            assert session.used == 1
            session.guard.suspend("a test")
            assert reason(await client.call_tool("pay", {})) == "suspended"

    anyio.run(main)
