"""The policy as a middleware of `create_agent` (adapters A-1, A-2, A-4)."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_cases import KINDS, POLICY, Desk, called, reason, single
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, StructuredTool, tool

from mcp_policy_middleware import Reason, ToolCall, ToolDenied
from mcp_policy_middleware.adapters.langchain import PolicyMiddleware, guard_tool, guard_tools
from mcp_policy_middleware.testing import FakeToolCallingModel, FrozenClock

WAYS = pytest.mark.parametrize("way", ["sync", "async"])


def act(
    way: str, calls: list[dict[str, Any]], tools: list[Any], middleware: list[Any], **options: Any
) -> tuple[dict[str, ToolMessage], FakeToolCallingModel]:
    """Let an agent make these calls at once; its answers by call id, and the model."""
    model = FakeToolCallingModel(tool_calls=[calls] if calls else [])
    context = options.pop("context", None)
    agent = create_agent(model, tools, middleware=middleware, **options)
    asked: Any = {"messages": [("user", "go")]}
    state = (
        asyncio.run(agent.ainvoke(asked, context=context)) if way == "async" else agent.invoke(asked, context=context)
    )
    assert state["messages"][-1].content == "done"
    return {each.tool_call_id: each for each in state["messages"] if each.type == "tool"}, model


def pay_tool(ran: list[Any], name: str = "pay") -> BaseTool:
    """A tool that runs both ways."""
    made = KINDS["sync and async"](ran)
    made.name = name
    return made


class Changing(AgentMiddleware):
    """Pays more than was asked for, or with another tool."""

    def __init__(self, amount: int = 99, other: BaseTool | None = None) -> None:
        super().__init__()
        self.amount = amount
        self.other = other

    def change(self, request: Any) -> Any:
        args = {**request.tool_call["args"], "amount": self.amount}
        return request.override(tool_call={**request.tool_call, "args": args}, tool=self.other or request.tool)

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        return handler(self.change(request))

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        return await handler(self.change(request))


# --- calls ----------------------------------------------------------------------------------------------------------


@WAYS
def test_each_parallel_call_is_decided_and_answered_by_itself(way: str) -> None:
    ran: list[Any] = []
    desk = Desk()
    calls = [called("pay", str(amount), amount=amount) for amount in (1, 50, 2)]
    answers, _ = act(way, calls, [pay_tool(ran)], [PolicyMiddleware(desk.guard)])
    assert {key: reason(each) for key, each in answers.items()} == {"1": None, "50": "requirement_unmet", "2": None}
    denied = answers["50"]
    assert (denied.status, denied.name) == ("error", "pay")
    assert denied.artifact["policy"]["rule"] == "/tools/pay/require/args.amount-lte"
    assert (sorted(ran), desk.used()) == ([1, 2], 2)
    assert sorted(why for _, why in desk.decisions()) == ["allowed", "allowed", "requirement_unmet"]


@WAYS
def test_names_that_no_tool_has_are_decided_by_name(way: str) -> None:
    desk = Desk()
    calls = [called("wipe", "1"), called("secret", "2"), called("look", "3")]
    answers, _ = act(way, calls, [pay_tool([])], [PolicyMiddleware(desk.guard)])
    assert [reason(answers[key]) for key in "123"] == [Reason.DEFAULT_DENY, Reason.HIDDEN, None]
    assert answers["3"].status == "error"  # allowed by the policy, and unknown to the agent


@WAYS
def test_a_call_that_would_run_another_tool_than_it_names_is_denied(way: str) -> None:
    ran: list[Any] = []
    other = pay_tool(ran, "look")
    answers, _ = act(way, [called(amount=1)], [pay_tool([])], [Changing(1, other), PolicyMiddleware(Desk().guard)])
    assert reason(answers["call-1"]) == Reason.INVALID_CALL
    assert ran == []


@WAYS
def test_it_sees_what_the_middleware_before_it_made_of_the_call(way: str) -> None:
    ran: list[Any] = []
    answers, _ = act(way, [called(amount=1)], [pay_tool(ran)], [Changing(), PolicyMiddleware(Desk().guard)])
    assert reason(answers["call-1"]) == Reason.REQUIREMENT_UNMET
    assert ran == []


@WAYS
def test_it_says_so_when_it_is_not_the_last(way: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "mcp_policy_middleware")
    calls = [called("pay", str(each), amount=1) for each in range(3)]
    act(way, calls, [pay_tool([])], [Changing(1), PolicyMiddleware(Desk().guard)])
    assert not caplog.records
    act(way, calls, [pay_tool([])], [PolicyMiddleware(Desk().guard), Changing(1)])
    assert len(caplog.records) == 1


def test_arguments_that_a_model_forges_for_the_application_are_not_seen() -> None:
    ran: list[Any] = []
    boss = {"require": [{"conditions": [{"path": "args.payer", "op": "eq", "value": "boss"}]}]}
    desk = Desk({"version": "1", "default": "allow", "tools": {"pay": boss}})
    answers, _ = act(
        "sync", [called(amount=1, payer="boss")], [KINDS["injected argument"](ran)], [PolicyMiddleware(desk.guard)]
    )
    assert reason(answers["call-1"]) == Reason.REQUIREMENT_UNMET
    assert ran == []


@WAYS
@pytest.mark.parametrize("guarded", [False, True])
def test_the_oldest_kind_of_tool_has_its_argument_under_one_name(way: str, guarded: bool) -> None:
    ran: list[Any] = []
    cats = {"require": [{"conditions": [{"path": "args.tool_input", "op": "eq", "value": "cats"}]}]}
    desk = Desk({"version": "1", "default": "allow", "tools": {"search": cats}})
    tools = guard_tools([single(ran)], desk.guard) if guarded else [single(ran)]
    calls = [called("search", "1", __arg1="cats"), called("search", "2", __arg1="dogs")]
    answers, _ = act(way, calls, tools, [PolicyMiddleware(desk.guard)])
    assert [reason(answers[key]) for key in "12"] == [None, Reason.REQUIREMENT_UNMET]
    assert (ran, len(desk.decisions())) == (["cats"], 2)


def test_a_model_s_own_spelling_of_a_value_is_undecidable() -> None:
    ran: list[Any] = []
    answers, _ = act("sync", [called(amount="7")], [pay_tool(ran)], [PolicyMiddleware(Desk().guard)])
    assert reason(answers["call-1"]) == Reason.UNDECIDABLE
    assert ran == []


@WAYS
def test_denials_and_errors_that_are_the_tool_s_own_pass(way: str) -> None:
    foreign = ToolDenied(Desk().guard.explain(ToolCall("pay", {"amount": 50})))
    desk = Desk()

    def pay(amount: int) -> str:
        """Pay."""
        raise foreign

    pay.__annotations__["amount"] = int
    with pytest.raises(ToolDenied) as caught:
        act(way, [called(amount=1)], [StructuredTool.from_function(pay)], [PolicyMiddleware(desk.guard)])
    assert caught.value is foreign
    assert desk.used() == 1


@WAYS
def test_an_interrupted_call_is_charged_once(way: str) -> None:
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.types import Command, interrupt

    ran: list[Any] = []
    desk = Desk()

    @tool
    def pay(amount: int) -> str:
        """Pay."""
        answer = interrupt("really?")
        ran.append(amount)
        return f"paid {amount}: {answer}"

    agent = create_agent(
        FakeToolCallingModel(tool_calls=[[called(amount=1)]]),
        guard_tools([pay], desk.guard),
        middleware=[PolicyMiddleware(desk.guard)],
        checkpointer=InMemorySaver(),
    )
    thread: Any = {"configurable": {"thread_id": "1"}}

    def step(value: Any) -> Any:
        return asyncio.run(agent.ainvoke(value, thread)) if way == "async" else agent.invoke(value, thread)

    assert step({"messages": [("user", "go")]})["__interrupt__"]
    assert (ran, desk.used()) == ([], 0)
    assert step(Command(resume="yes"))["messages"][-1].content == "done"
    assert (ran, desk.used()) == ([1], 1)


# --- whose call, of which tool --------------------------------------------------------------------------------------


@dataclass
class Caller:
    user: str


@WAYS
def test_identity_comes_from_the_request(way: str) -> None:
    desk = Desk()
    middleware = PolicyMiddleware(desk.guard, identity_of=lambda request: {"grant": request.runtime.context.user})
    tools = guard_tools([pay_tool([])], desk.guard)
    answers, _ = act(way, [called(amount=1)], tools, [middleware], context_schema=Caller, context=Caller("alice"))
    assert reason(answers["call-1"]) is None
    assert (desk.used(grant="alice"), desk.used(), len(desk.decisions())) == (1, 0, 1)


@pytest.mark.parametrize("identity", [{"user": "x"}, {"grant": ""}, None])
def test_a_call_whose_identity_cannot_be_told_is_denied(identity: Any) -> None:
    ran: list[Any] = []
    middleware = PolicyMiddleware(Desk().guard, identity_of=lambda request: identity)
    answers, _ = act("sync", [called(amount=1)], [pay_tool(ran)], [middleware])
    assert reason(answers["call-1"]) == Reason.INVALID_CALL
    assert ran == []


@WAYS
def test_a_tool_meets_the_rules_of_its_server_under_its_own_name(way: str) -> None:
    ran: list[Any] = []
    desk = Desk(by_server=True)
    middleware = PolicyMiddleware(
        desk.guard,
        name_of=lambda each: each.name.partition("_")[2] or each.name,
        server_of=lambda each: "stripe" if each.name.startswith("stripe_") else None,
    )
    calls = [called("stripe_pay", "1", amount=50), called("stripe_pay", "2", amount=5), called("local", "3", amount=1)]
    answers, _ = act(way, calls, [pay_tool(ran, "stripe_pay"), pay_tool(ran, "local")], [middleware])
    assert [reason(answers[key]) for key in "123"] == [Reason.REQUIREMENT_UNMET, None, Reason.NO_POLICY]
    assert (ran, desk.used(server="stripe")) == ([5], 1)


# --- around guarded tools -------------------------------------------------------------------------------------------


@WAYS
def test_with_guarded_tools_there_is_one_decision_one_charge_and_one_span(way: str) -> None:
    ran: list[Any] = []
    desk = Desk()
    tools = guard_tools(
        [pay_tool(ran, "stripe_pay")],
        desk.guard,
        server="stripe",
        name_of=lambda each: each.name.removeprefix("stripe_"),
        identity_of=lambda config: {"grant": "alice"},
    )
    calls = [called("stripe_pay", "1", amount=5), called("stripe_pay", "2", amount=50)]
    answers, _ = act(way, calls, tools, [PolicyMiddleware(desk.guard)])
    assert [reason(answers[key]) for key in "12"] == [None, Reason.REQUIREMENT_UNMET]
    assert (ran, desk.used(server="stripe", grant="alice")) == ([5], 1)
    assert sorted(desk.decisions()) == [("pay", "allowed"), ("pay", "requirement_unmet")]


@WAYS
def test_a_guarded_tool_denies_what_a_later_middleware_made_of_the_call(way: str) -> None:
    ran: list[Any] = []
    desk = Desk()
    tools = guard_tools([pay_tool(ran)], desk.guard)
    answers, _ = act(way, [called(amount=1)], tools, [PolicyMiddleware(desk.guard), Changing()])
    assert reason(answers["call-1"]) == Reason.REQUIREMENT_UNMET
    assert (ran, desk.used()) == ([], 0)


@WAYS
def test_a_tool_guarded_by_another_guard_is_decided_by_both(way: str) -> None:
    ran: list[Any] = []
    desk, other = Desk(), Desk()
    answers, _ = act(way, [called(amount=1)], guard_tools([pay_tool(ran)], other.guard), [PolicyMiddleware(desk.guard)])
    assert reason(answers["call-1"]) is None
    assert (ran, desk.used(), other.used()) == ([1], 1, 1)


# --- what a model is offered ----------------------------------------------------------------------------------------

PROVIDED: list[dict[str, Any]] = [
    {"type": "web_search"},
    {"type": "code_interpreter"},
    {"type": "computer_20250124", "name": "computer"},
    {"google_search": {}},
    {"type": "function", "function": {"name": "secret"}},
]


@WAYS
def test_a_model_is_offered_nothing_that_is_hidden_or_denied_as_a_whole(way: str) -> None:
    ran: list[Any] = []
    desk = Desk()
    tools = [pay_tool(ran), pay_tool(ran, "secret"), pay_tool(ran, "unlisted"), *PROVIDED]
    answers, model = act(way, [called("secret", "1")], tools, [PolicyMiddleware(desk.guard)])
    assert model.offered[0] == ["pay", "unlisted", "web_search"]
    assert reason(answers["1"]) == Reason.HIDDEN
    assert (ran, len(desk.decisions())) == ([], 1)


def test_a_provider_s_tool_that_a_person_must_agree_to_is_withheld() -> None:
    """Nobody is asked about a call that the provider makes, so the model is not offered it."""
    desk = Desk({"version": "1", "default": "allow", "tools": {"web_search": {"action": "require_approval"}}})
    _, model = act("sync", [], [pay_tool([]), *PROVIDED[:2]], [PolicyMiddleware(desk.guard)])
    assert model.offered[0] == ["pay", "code_interpreter"]


def test_shadow_mode_withholds_nothing() -> None:
    desk = Desk({**POLICY, "mode": "shadow"})
    _, model = act("sync", [], [pay_tool([]), pay_tool([], "secret"), *PROVIDED[:2]], [PolicyMiddleware(desk.guard)])
    assert model.offered[0] == ["pay", "secret", "web_search", "code_interpreter"]


def test_a_guarded_tool_is_hidden_under_its_server_s_name() -> None:
    desk = Desk()
    hidden = guard_tool(pay_tool([], "x_secret"), desk.guard, name_of=lambda each: "secret")
    _, model = act("sync", [], [hidden, pay_tool([])], [PolicyMiddleware(desk.guard)])
    assert model.offered[0] == ["pay"]


def test_two_of_them_need_two_names() -> None:
    ran: list[Any] = []
    first, second = Desk(), Desk({"version": "1", "default": "deny"})
    middleware = [PolicyMiddleware(first.guard), PolicyMiddleware(second.guard, name="ByDepartment")]
    answers, _ = act("sync", [called(amount=1)], [pay_tool(ran)], middleware)
    assert reason(answers["call-1"]) == Reason.DEFAULT_DENY
    assert ran == []


# --- what helps to test ---------------------------------------------------------------------------------------------


def test_the_clock_stands_still_until_it_is_told_to_move() -> None:
    clock = FrozenClock()
    start = clock()
    clock.tick(90)
    assert clock() - start == timedelta(seconds=90)
    clock.set(datetime.fromisoformat("2026-05-01T12:00:00+02:00"))
    assert (clock(), clock().tzinfo) == (datetime(2026, 5, 1, 10, tzinfo=UTC), UTC)
    with pytest.raises(ValueError, match="time zone"):
        clock.set(datetime(2026, 5, 1))


def test_a_limit_frees_up_when_the_clock_moves() -> None:
    limit = {"counter": "payments", "window": "minute", "max": 1}
    desk = Desk({"version": "1", "default": "deny", "tools": {"pay": {"limits": [limit]}}})
    guarded = guard_tool(pay_tool([]), desk.guard)
    reasons = []
    for wait in (0, 0, 60):
        desk.clock.tick(wait)
        reasons.append(reason(guarded.invoke(called(amount=1))))
    assert reasons == [None, Reason.LIMIT_EXCEEDED, None]


def test_the_model_replays_its_script_batch_by_batch() -> None:
    model = FakeToolCallingModel(tool_calls=[[called("a", "1")], [called("b", "2"), called("c", "3")]], answer="end")
    bound = model.bind_tools([pay_tool([]), {"type": "web_search"}])
    batches = [bound.invoke("go"), model.invoke("go"), asyncio.run(bound.ainvoke("go"))]
    assert [[each["name"] for each in batch.tool_calls] for batch in batches] == [["a"], ["b", "c"], []]
    assert batches[-1].content == "end"
    assert model.offered == [["pay", "web_search"], [], ["pay", "web_search"]]
    assert FakeToolCallingModel().offered == []
