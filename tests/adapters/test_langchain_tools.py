"""Guarded LangChain tools (adapters A-1, A-2, A-4; PL-5.6)."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import enum
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterable
from datetime import date
from functools import partial
from typing import Annotated, Any

import pytest

pytest.importorskip("langchain_core")

from langchain_cases import ASYNC_ONLY, KINDS, NEEDS_CALL_ID, Both, Desk, called, reason, single
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, StructuredTool, ToolException, tool
from pydantic import BaseModel

from mcp_policy_middleware import MissingDependency, PolicyError, Reason, ToolCall, ToolDenied
from mcp_policy_middleware.adapters.langchain import guard_tool, guard_tools


def policy(**tools: Any) -> dict[str, Any]:
    """A policy under which these tools alone are denied or limited."""
    return {"version": "1", "default": "allow", "tools": tools}


def rule(op: str, value: Any, path: str = "args.value") -> dict[str, Any]:
    """A requirement of one condition."""
    return {"require": [{"conditions": [{"path": path, "op": op, "value": value}]}]}


def without(*names: str) -> dict[str, Any]:
    """Rules that deny a call in which one of these arguments is seen."""
    paths = [f"args.{name}" for name in names]
    return {"deny_if": [{"conditions": [{"path": path, "op": "exists", "value": True}]} for path in paths]}


def invoke(a_tool: BaseTool, value: Any, way: str) -> Any:
    """Run a tool sync or async."""
    return asyncio.run(a_tool.ainvoke(value)) if way == "async" else a_tool.invoke(value)


WAYS = [(kind, way) for kind in KINDS for way in ("sync", "async") if way == "async" or kind not in ASYNC_ONLY]


# --- every kind of tool, both ways -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_an_allowed_call_runs_once_and_is_charged_once(kind: str, way: str) -> None:
    ran: list[Any] = []
    desk = Desk()
    plain = KINDS[kind]([])
    guarded = guard_tool(KINDS[kind](ran), desk.guard)
    message = invoke(guarded, called(amount=7), way)
    assert message == invoke(plain, called(amount=7), way)
    assert ran == [7]
    assert desk.used() == 1
    assert desk.decisions() == [("pay", "allowed")]


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_a_denied_call_never_reaches_the_body(kind: str, way: str) -> None:
    ran: list[Any] = []
    desk = Desk()
    guarded = guard_tool(KINDS[kind](ran), desk.guard)
    message = invoke(guarded, called(amount=50), way)
    assert isinstance(message, ToolMessage)
    assert (message.status, message.name, message.tool_call_id) == ("error", "pay", "call-1")
    assert message.artifact["policy"]["rule"] == "/tools/pay/require/args.amount-lte"
    assert message.artifact["policy"]["effect"] == "deny"
    assert reason(message) == Reason.REQUIREMENT_UNMET
    assert message.content.startswith("[POLICY DENIED] ")
    assert (ran, desk.used()) == ([], 0)
    assert desk.decisions() == [("pay", "requirement_unmet")]


@pytest.mark.parametrize(("kind", "way"), [each for each in WAYS if each[0] not in NEEDS_CALL_ID])
def test_without_a_tool_call_id_a_denial_is_text(kind: str, way: str) -> None:
    ran: list[Any] = []
    guarded = guard_tool(KINDS[kind](ran), Desk().guard)
    answer = invoke(guarded, {"amount": 50}, way)
    assert isinstance(answer, str)
    assert answer.startswith("[POLICY DENIED] ")
    assert invoke(guarded, {"amount": 3}, way) is not None
    assert ran == [3]


@pytest.mark.parametrize("kind", KINDS)
def test_a_guarded_tool_looks_like_the_tool(kind: str) -> None:
    plain = KINDS[kind]([])
    plain.tags, plain.metadata, plain.extras = ["t"], {"readOnlyHint": True}, {"defer_loading": True}
    before = {name: getattr(plain, name) for name in type(plain).model_fields}
    guarded = guard_tool(plain, Desk().guard)
    assert {name: getattr(plain, name) for name in before} == before
    assert isinstance(guarded, type(plain))
    assert type(plain) is not type(guarded)
    assert (type(guarded).__name__, type(guarded).__module__) == (type(plain).__name__, type(plain).__module__)
    assert {name for name, value in before.items() if getattr(guarded, name) != value} <= {"func", "coroutine"}
    assert guarded.args == plain.args
    assert guarded.get_input_schema().model_json_schema() == plain.get_input_schema().model_json_schema()
    assert (type(guarded)._arun is BaseTool._arun) == (type(plain)._arun is BaseTool._arun)


def test_the_oldest_kind_of_tool_has_one_argument_named_by_its_schema() -> None:
    ran: list[Any] = []
    guarded = guard_tool(single(ran), Desk(policy(search=rule("eq", "cats", "args.tool_input"))).guard)
    assert guarded.invoke("cats") == "found cats"
    assert guarded.invoke({"__arg1": "cats"}) == "found cats"
    assert guarded.invoke("dogs").startswith("[POLICY DENIED]")
    assert guarded.func("cats") == "found cats"
    with pytest.raises(ToolDenied):
        guarded.func("dogs")
    assert ran == ["cats", "cats", "cats"]


def test_a_text_given_to_a_structured_tool_is_seen_by_name() -> None:
    ran: list[Any] = []

    @tool
    def echo(value: str) -> str:
        """Echo."""
        ran.append(value)
        return value

    guarded = guard_tool(echo, Desk(policy(echo=rule("eq", "yes"))).guard)
    assert guarded.invoke("yes") == "yes"
    assert guarded.invoke("no").startswith("[POLICY DENIED]")
    assert ran == ["yes"]


# --- what the policy sees --------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Address(BaseModel):
    city: str


JSON_FORMS = [
    (int, "7", "eq", 7),
    (date, "2026-01-02", "eq", "2026-01-02"),
    (Colour, "red", "eq", "red"),
    (uuid.UUID, "12345678123456781234567812345678", "eq", "12345678-1234-5678-1234-567812345678"),
    (Address, {"city": "Rome"}, "eq", {"city": "Rome"}),
    (tuple[int, int], [1, 2], "eq", [1, 2]),
]


@pytest.mark.parametrize(("kind", "sent", "op", "seen"), JSON_FORMS)
def test_the_policy_sees_validated_values_as_json(kind: Any, sent: Any, op: str, seen: Any) -> None:
    got: list[Any] = []

    def act(value: Any) -> str:
        """Act."""
        got.append(value)
        return "done"

    act.__annotations__["value"] = kind
    guarded = guard_tool(tool(act), Desk(policy(act=rule(op, seen))).guard)
    assert guarded.invoke({"value": sent}) == "done"
    assert isinstance(got[0], getattr(kind, "__origin__", kind))


def test_defaults_are_seen_where_they_are_left_out() -> None:
    @tool
    def act(value: int = 5) -> str:
        """Act."""
        return "done"

    guarded = guard_tool(act, Desk(policy(act=rule("eq", 5))).guard)
    assert guarded.invoke({}) == "done"
    assert guarded.func() == "done"
    assert guarded.invoke({"value": 6}).startswith("[POLICY DENIED]")


def test_arguments_nobody_asked_for_are_seen() -> None:
    ran: list[Any] = []
    closed = policy(pay=without("callbacks", "run_manager", "extra"))
    guarded = guard_tool(KINDS["like MCP"](ran), Desk(closed).guard)
    for extra in ("callbacks", "extra"):
        message = asyncio.run(guarded.ainvoke(called(amount=1, **{extra: "https://evil.example"})))
        assert reason(message) == Reason.RULE_DENIED
    assert asyncio.run(guarded.ainvoke(called(amount=1))).content == "paid 1"
    assert ran == [1]


def test_what_json_cannot_say_is_undecidable_and_passes_unused() -> None:
    got: list[Any] = []

    def act(value: Any, numbers: Iterable[int]) -> str:
        """Act."""
        got.append((value, list(numbers)))
        return "done"

    act.__annotations__ = {"value": Any, "numbers": Iterable[int]}
    strange = object()
    unruled = guard_tool(tool(act), Desk(policy()).guard)
    assert unruled.invoke({"value": strange, "numbers": [1, 2]}) == "done"
    assert got == [(strange, [1, 2])]
    message = guard_tool(tool(act), Desk(policy(act=rule("eq", 1))).guard).invoke(
        called("act", value=strange, numbers=[1, 2])
    )
    assert reason(message) == Reason.UNDECIDABLE


@pytest.mark.parametrize("kind", ["injected argument", "class, injected by schema"])
def test_an_injected_argument_is_the_application_s_and_cannot_satisfy_a_rule(kind: str) -> None:
    ran: list[Any] = []
    desk = Desk(policy(pay=rule("eq", "boss", "args.payer")))
    guarded = guard_tool(KINDS[kind](ran), desk.guard)
    assert reason(guarded.invoke(called(amount=1, payer="boss"))) == Reason.REQUIREMENT_UNMET
    closed = guard_tool(KINDS[kind](ran), Desk(policy(pay=without("payer"))).guard)
    assert closed.invoke(called(amount=1, payer="house")).content == "paid 1"


# --- which tool, on whose behalf ------------------------------------------------------------------------------------


def test_a_tool_meets_the_rules_of_its_server_under_its_own_name() -> None:
    ran: list[Any] = []
    shown = KINDS["function"](ran)
    shown.name = "stripe_pay"
    desk = Desk(by_server=True)
    bare = guard_tool(shown, desk.guard, server="stripe")
    assert reason(bare.invoke(called("stripe_pay", amount=1))) == Reason.DEFAULT_DENY
    local = guard_tool(shown, desk.guard)
    assert reason(local.invoke(called("stripe_pay", amount=1))) == Reason.NO_POLICY
    (guarded,) = guard_tools(
        [shown], desk.guard, server="stripe", name_of=lambda each: each.name.removeprefix("stripe_")
    )
    message = guarded.invoke(called("stripe_pay", amount=50))
    assert (message.name, reason(message)) == ("stripe_pay", Reason.REQUIREMENT_UNMET)
    assert guarded.invoke(called("stripe_pay", amount=5)).content == "paid 5"
    assert (ran, desk.used(server="stripe")) == ([5], 1)


def test_hidden_tools_are_left_out_and_denied_all_the_same() -> None:
    ran: list[Any] = []
    hidden, kept = KINDS["function"](ran), KINDS["function"](ran)
    hidden.name = "x_secret"
    desk = Desk()
    listed = guard_tools([hidden, kept], desk.guard, name_of=lambda each: each.name.removeprefix("x_"))
    assert [each.name for each in listed] == ["pay"]
    called_all_the_same = guard_tool(hidden, desk.guard, name_of=lambda each: each.name.removeprefix("x_"))
    assert reason(called_all_the_same.invoke(called("x_secret", amount=1))) == Reason.HIDDEN
    assert ran == []


def test_only_tools_are_guarded() -> None:
    with pytest.raises(TypeError):
        guard_tool(len, Desk().guard)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"name_of": lambda each: None}, {"server": ""}])
def test_a_tool_needs_a_name_and_a_server_that_can_be_looked_up(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        guard_tool(KINDS["function"]([]), Desk().guard, **options)


@pytest.mark.parametrize("way", ["sync", "async"])
def test_identity_comes_from_the_run_s_configuration(way: str) -> None:
    desk = Desk()
    guarded = guard_tool(
        KINDS["function"]([]), desk.guard, identity_of=lambda config: {"grant": config["configurable"]["user"]}
    )
    config: Any = {"configurable": {"user": "alice"}}
    message = asyncio.run(guarded.ainvoke(called(amount=1), config)) if way == "async" else None
    message = message or guarded.invoke(called(amount=1), config)
    assert message.content == "paid 1"
    assert (desk.used(grant="alice"), desk.used()) == (1, 0)


@pytest.mark.parametrize(
    "identity_of",
    [
        lambda config: config["configurable"]["user"],
        lambda config: {"user": "alice"},
        lambda config: {"grant": ""},
        lambda config: {"session": None},
        lambda config: None,
    ],
)
def test_a_call_whose_identity_cannot_be_told_is_denied(identity_of: Any) -> None:
    ran: list[Any] = []
    desk = Desk()
    guarded = guard_tool(KINDS["function"](ran), desk.guard, identity_of=identity_of)
    assert reason(guarded.invoke(called(amount=1))) == Reason.INVALID_CALL
    with pytest.raises(ToolDenied):
        guarded.func(1)
    assert (ran, desk.used()) == ([], 0)


# --- one call, one decision -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_guarding_twice_is_harmless(kind: str) -> None:
    ran: list[Any] = []
    desk = Desk()
    guarded = guard_tool(guard_tool(KINDS[kind](ran), desk.guard), desk.guard)
    asyncio.run(guarded.ainvoke(called(amount=2)))
    assert (ran, desk.used(), desk.decisions()) == ([2], 1, [("pay", "allowed")])


def test_guarding_twice_with_two_identities_is_refused() -> None:
    guard = Desk().guard
    with pytest.raises(PolicyError):
        guard_tool(guard_tool(KINDS["function"]([]), guard), guard, identity_of=lambda config: {})


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("kind", ["sync and async", "class, both"])
@pytest.mark.parametrize("denying", ["outer", "inner"])
def test_two_guards_both_decide_and_either_denial_is_a_tool_error(kind: str, way: str, denying: str) -> None:
    ran: list[Any] = []
    outer, inner = Desk(), Desk(policy())
    if denying == "inner":
        outer, inner = inner, outer
    guarded = guard_tool(guard_tool(KINDS[kind](ran), inner.guard), outer.guard)
    assert reason(invoke(guarded, called(amount=50), way)) == Reason.REQUIREMENT_UNMET
    assert invoke(guarded, called(amount=5), way).content == "paid 5"
    assert ran == [5]
    assert len(outer.decisions()) == 2


def test_a_tool_that_calls_itself_is_decided_each_time() -> None:
    ran: list[Any] = []
    desk = Desk()

    @tool
    def pay(amount: int) -> str:
        """Pay."""
        ran.append(amount)
        return "paid" if len(ran) > 2 else guarded.invoke({"amount": amount})

    guarded = guard_tool(pay, desk.guard)
    assert guarded.invoke({"amount": 4}) == "paid"
    assert (ran, desk.used()) == ([4, 4, 4], 3)


@pytest.mark.parametrize("through", ["func", "_run"])
def test_a_body_that_calls_itself_directly_is_decided_again(through: str) -> None:
    ran: list[Any] = []
    desk = Desk()

    @tool
    def pay(amount: int) -> Any:
        """Pay."""
        ran.append(amount)
        if len(ran) == 1:
            again = guarded.func if through == "func" else guarded._run
            return again(amount=amount, **({} if through == "func" else {"config": {}}))
        return "paid"

    guarded = guard_tool(pay, desk.guard)
    assert guarded.invoke({"amount": 4}) == "paid"
    assert (ran, desk.used()) == ([4, 4], 2)


def test_a_body_that_changes_the_arguments_on_its_way_is_decided_again() -> None:
    class Raising(Both):
        async def _arun(self, amount: int, note: str = "none") -> str:
            return self._run(amount * 10, note=note)

    ran: list[Any] = []
    guarded = guard_tool(Raising(ran=ran), Desk().guard)
    with pytest.raises(ToolDenied):  # of another call than the one made: the tool's own exception
        asyncio.run(guarded.ainvoke(called(amount=5)))
    assert ran == []


def test_a_nested_call_of_another_tool_is_decided_by_itself() -> None:
    ran: list[Any] = []
    desk = Desk()
    inner = guard_tool(KINDS["function"](ran), desk.guard)

    @tool
    def look(amount: int) -> str:
        """Look."""
        return str(inner.invoke({"amount": amount}))

    outer = guard_tool(look, desk.guard)
    assert outer.invoke({"amount": 50}).startswith("[POLICY DENIED]")
    assert outer.invoke({"amount": 5}) == "paid 5"
    assert ran == [5]
    assert [name for name, _ in desk.decisions()] == ["look", "pay", "look", "pay"]


def test_what_outlives_a_call_is_decided_by_itself() -> None:
    ran: list[Any] = []
    desk = Desk()
    left: list[contextvars.Context] = []

    class Leaving(Both):
        async def _arun(self, amount: int, note: str = "none") -> str:
            left.append(contextvars.copy_context())
            return "paid"

    guarded = guard_tool(Leaving(ran=ran), desk.guard)
    amount = 5
    asyncio.run(guarded.ainvoke({"amount": amount}))
    left[0].run(guarded._run, amount=amount, note="none")
    assert (ran, desk.used()) == ([5], 2)


@pytest.mark.parametrize(("kind", "attribute"), [("function", "func"), ("coroutine", "coroutine")])
def test_the_tool_s_function_decides_for_whoever_calls_it_directly(kind: str, attribute: str) -> None:
    ran: list[Any] = []
    desk = Desk()
    function = getattr(guard_tool(KINDS[kind](ran), desk.guard), attribute)

    def run(*args: Any, **kwargs: Any) -> Any:
        answer = function(*args, **kwargs)
        return asyncio.run(answer) if asyncio.iscoroutine(answer) else answer

    assert run(5) == "paid 5"
    assert run(amount=6) == "paid 6"
    for denied in (lambda: run(50), lambda: run(amount=50)):
        with pytest.raises(ToolDenied) as caught:
            denied()
        assert caught.value.decision.reason is Reason.REQUIREMENT_UNMET
    assert (ran, desk.used()) == ([5, 6], 2)


def test_copies_of_a_guarded_tool_stay_guarded() -> None:
    ran: list[Any] = []
    guarded = guard_tool(KINDS["class, sync"](ran), Desk().guard)
    for each in (guarded.model_copy(update={"name": "other"}), copy.copy(guarded), copy.deepcopy(guarded)):
        assert reason(each.invoke(called(amount=50))) == Reason.REQUIREMENT_UNMET
    assert ran == []


def test_batches_and_threads_decide_each_call() -> None:
    ran: list[Any] = []
    desk = Desk()
    guarded = guard_tool(KINDS["function"](ran), desk.guard)
    answers = guarded.batch([{"amount": 1}, {"amount": 50}, {"amount": 2}])
    assert [answer.startswith("paid") for answer in answers] == [True, False, True]
    answers = asyncio.run(guarded.abatch([called("pay", "a", amount=3), called("pay", "b", amount=50)]))
    assert [reason(answer) for answer in answers] == [None, Reason.REQUIREMENT_UNMET]
    thread = threading.Thread(target=lambda: ran.append(guarded.invoke({"amount": 60})))
    thread.start()
    thread.join()
    assert ran[-1].startswith("[POLICY DENIED]")
    assert (sorted(ran[:-1]), desk.used()) == ([1, 2, 3], 3)


# --- how a call ends ------------------------------------------------------------------------------------------------


def ending(error: BaseException | None, result: Any = "paid", **options: Any) -> Any:
    """A tool `pay` that ends in one way."""

    def pay(amount: int) -> Any:
        """Pay."""
        if error is not None:
            raise error
        return result

    pay.__annotations__["amount"] = int
    return StructuredTool.from_function(pay, **options)


@pytest.mark.parametrize("error", [ValueError("x"), ToolException("x"), KeyboardInterrupt(), StopIteration("x")])
def test_exceptions_pass_unchanged_and_keep_the_charge(error: BaseException) -> None:
    desk = Desk()
    guarded = guard_tool(ending(error), desk.guard)
    with pytest.raises(type(error)) as caught:
        guarded.invoke(called(amount=1))
    assert caught.value is error
    assert desk.used() == 1


@pytest.mark.parametrize(
    "result",
    ["paid", ToolMessage("no", status="error", tool_call_id="call-1"), ["a", "b"], None],
)
def test_results_pass_unchanged_and_keep_the_charge(result: Any) -> None:
    desk = Desk()
    message = guard_tool(ending(None, result), desk.guard).invoke(called(amount=1))
    assert message == ending(None, result).invoke(called(amount=1))
    assert desk.used() == 1


def test_a_handled_tool_error_stays_the_tool_s_own() -> None:
    desk = Desk()
    guarded = guard_tool(ending(ToolException("no funds"), handle_tool_error=True), desk.guard)
    message = guarded.invoke(called(amount=1))
    assert (message.content, message.status, message.artifact) == ("no funds", "error", None)
    assert reason(guarded.invoke(called(amount=50))) == Reason.REQUIREMENT_UNMET
    assert desk.used() == 1


def test_an_error_handler_that_raises_what_it_does_not_know_does_not_see_denials() -> None:
    def only_mine(error: ToolException) -> str:
        raise error

    guarded = guard_tool(ending(None, handle_tool_error=only_mine), Desk().guard)
    assert reason(guarded.invoke(called(amount=50))) == Reason.REQUIREMENT_UNMET


def test_a_foreign_denial_is_the_tool_s_own_exception() -> None:
    foreign = ToolDenied(Desk().guard.explain(ToolCall("pay", {"amount": 50})))
    desk = Desk()
    with pytest.raises(ToolDenied) as caught:
        guard_tool(ending(foreign), desk.guard).invoke(called(amount=1))
    assert caught.value is foreign
    assert desk.used() == 1


def test_arguments_that_do_not_validate_are_not_charged() -> None:
    desk = Desk()
    with pytest.raises(ValueError, match="amount"):
        guard_tool(KINDS["function"]([]), desk.guard).invoke(called(amount="many"))
    assert (desk.used(), desk.decisions()) == (0, [])


def test_a_cancelled_call_keeps_its_charge() -> None:
    desk = Desk()
    began = asyncio.Event()

    @tool
    async def pay(amount: int) -> str:
        """Pay."""
        began.set()
        await asyncio.sleep(60)
        return "paid"

    async def main() -> None:
        task = asyncio.create_task(guard_tool(pay, desk.guard).ainvoke(called(amount=1)))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert desk.used() == 1


def test_tracers_see_the_denied_call_begin_and_end() -> None:
    class Watching(BaseCallbackHandler):
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def on_tool_start(self, serialized: Any, input_str: str, **kwargs: Any) -> None:
            self.seen.append(kwargs["inputs"])

        def on_tool_error(self, error: BaseException, **kwargs: Any) -> None:
            self.seen.append(type(error))

    watching = Watching()
    guard_tool(KINDS["function"]([]), Desk().guard).invoke(called(amount=50), {"callbacks": [watching]})
    assert watching.seen == [{"amount": 50}, ToolDenied]


# --- LangGraph ------------------------------------------------------------------------------------------------------


def graph_of(tools: list[BaseTool], state: Any = None) -> Any:
    """A graph of one ToolNode, which remembers."""
    pytest.importorskip("langgraph")
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.graph import MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode

    builder = StateGraph(state or MessagesState)
    builder.add_node("tools", ToolNode(tools))
    builder.set_entry_point("tools")
    return builder.compile(checkpointer=InMemorySaver())


def asked(*calls: dict[str, Any], **state: Any) -> dict[str, Any]:
    """The state in which a model has asked for calls."""
    from langchain_core.messages import AIMessage

    return {"messages": [AIMessage("", tool_calls=list(calls))], **state}


THREAD: Any = {"configurable": {"thread_id": "1"}}


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_tool_node_gives_each_parallel_call_its_own_answer(way: str) -> None:
    ran: list[Any] = []
    desk = Desk()
    graph = graph_of([guard_tool(KINDS["function"](ran), desk.guard)])
    calls = asked(*(called("pay", str(amount), amount=amount) for amount in (1, 50, 2)))
    state = asyncio.run(graph.ainvoke(calls, THREAD)) if way == "async" else graph.invoke(calls, THREAD)
    answers = {message.tool_call_id: reason(message) for message in state["messages"][1:]}
    assert answers == {"1": None, "50": Reason.REQUIREMENT_UNMET, "2": None}
    assert (sorted(ran), desk.used()) == ([1, 2], 2)


def test_injected_state_and_runtime_reach_the_tool_and_not_the_policy() -> None:
    pytest.importorskip("langgraph")
    from langgraph.prebuilt import InjectedState, ToolRuntime

    got: list[Any] = []

    def pay(amount: int, state: Any, runtime: Any) -> str:
        """Pay."""
        got.append((len(state["messages"]), type(runtime), runtime.tool_call_id))
        return "paid"

    pay.__annotations__ = {"amount": int, "state": Annotated[dict, InjectedState], "runtime": ToolRuntime}
    closed = Desk(policy(pay=without("state", "runtime")))
    graph = graph_of([guard_tool(tool(pay), closed.guard)])
    forged = called(amount=1, state={"messages": [1, 2, 3]}, runtime="forged")
    state = graph.invoke(asked(forged), THREAD)
    assert state["messages"][-1].content == "paid"
    assert got == [(1, ToolRuntime, "call-1")]
    assert closed.decisions() == [("pay", "allowed")]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_an_interrupted_call_is_charged_once(way: str) -> None:
    pytest.importorskip("langgraph")
    from langgraph.types import Command, interrupt

    desk = Desk()
    ran: list[Any] = []

    @tool
    def pay(amount: int) -> str:
        """Pay."""
        answer = interrupt("really?")
        ran.append(amount)
        return f"paid {amount}: {answer}"

    graph = graph_of([guard_tool(pay, desk.guard)])

    def step(value: Any) -> Any:
        return asyncio.run(graph.ainvoke(value, THREAD)) if way == "async" else graph.invoke(value, THREAD)

    assert step(asked(called(amount=1)))["__interrupt__"]
    assert (ran, desk.used()) == ([], 0)
    assert step(Command(resume="yes"))["messages"][-1].content == "paid 1: yes"
    assert (ran, desk.used()) == ([1], 1)


def test_a_coroutine_that_is_a_plain_function_is_settled_when_it_ends() -> None:
    pytest.importorskip("langgraph")
    from langgraph.errors import GraphInterrupt

    desk = Desk()

    async def later() -> str:
        raise GraphInterrupt

    def pay(amount: int) -> Any:
        """Pay."""
        return later()

    pay.__annotations__["amount"] = int
    with pytest.raises(GraphInterrupt):
        asyncio.run(guard_tool(StructuredTool.from_function(coroutine=pay), desk.guard).coroutine(1))
    assert (desk.used(), desk.decisions()) == (0, [("pay", "allowed")])


def test_a_command_for_the_parent_graph_passes_and_keeps_the_charge() -> None:
    pytest.importorskip("langgraph")
    from langgraph.errors import ParentCommand
    from langgraph.types import Command

    desk = Desk()
    bubbling = ParentCommand(Command(goto="elsewhere"))
    with pytest.raises(ParentCommand) as caught:
        guard_tool(ending(bubbling), desk.guard).invoke(called(amount=1))
    assert caught.value is bubbling
    assert desk.used() == 1


# --- what an import costs -------------------------------------------------------------------------------------------


def run_python(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_tools_need_langchain_core_alone() -> None:
    code = (
        "import sys\n"
        "sys.modules['langchain'] = sys.modules['langgraph'] = None\n"
        "from mcp_policy_middleware.adapters.langchain import guard_tools\n"
        "try:\n"
        "    from mcp_policy_middleware.adapters.langchain import PolicyMiddleware\n"
        "except ImportError as error:\n"
        "    print(type(error).__name__, error.extra)\n"
    )
    assert run_python(code) == "MissingDependency agents"


@pytest.mark.parametrize("name", ["adapters.langchain import guard_tool", "testing import FakeToolCallingModel"])
def test_a_missing_framework_is_named_by_its_extra(name: str) -> None:
    code = (
        "import sys\n"
        "sys.modules['langchain_core'] = None\n"
        "import mcp_policy_middleware.testing\n"
        "try:\n"
        f"    from mcp_policy_middleware.{name}\n"
        "except ImportError as error:\n"
        "    print(type(error).__name__, error.extra)\n"
    )
    assert run_python(code) == "MissingDependency langchain"


def test_an_unknown_name_is_no_missing_dependency() -> None:
    import mcp_policy_middleware.adapters.langchain as adapter
    import mcp_policy_middleware.testing as testing

    for module in (adapter, testing):
        with pytest.raises(AttributeError):
            module.nothing  # noqa: B018
    assert issubclass(MissingDependency, ImportError)


def test_testing_imports_no_framework() -> None:
    code = "import mcp_policy_middleware.testing, sys; print('langchain_core' in sys.modules)"
    assert run_python(code) == "False"


def test_a_function_that_is_an_object_is_decided_too() -> None:
    """A tool made of a partial function or a callable object has no undecided `func`."""
    ran: list[Any] = []

    class Amount(BaseModel):
        amount: int

    def pay(to: str, amount: int) -> str:
        """Pay somebody."""
        ran.append((to, amount))
        return "paid"

    made = StructuredTool(name="pay", description="Pay.", args_schema=Amount, func=partial(pay, "ann"))
    guarded = guard_tool(made, Desk({"version": "1", "default": "deny"}).guard)
    assert isinstance(guarded, StructuredTool)
    with pytest.raises(ToolDenied):
        guarded.func(amount=1)  # type: ignore[misc]
    assert ran == []
