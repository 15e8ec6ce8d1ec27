"""The policy as a callback: a hard stop, or an audit (adapters A-1, A-2, A-4)."""

from __future__ import annotations

import asyncio
import threading
import uuid
from contextvars import Context, copy_context
from typing import Any

import pytest

pytest.importorskip("langchain_core")

from langchain_cases import ASYNC_ONLY, KINDS, NEEDS_CALL_ID, POLICY, Desk, called, reason, single
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.tools import BaseTool, tool

from mcp_policy_middleware import PolicyError, Reason, ToolDenied
from mcp_policy_middleware.adapters.langchain import PolicyCallbackHandler, guard_tool
from mcp_policy_middleware.adapters.langchain import callbacks as callbacks_module
from mcp_policy_middleware.calls import ToolCall
from mcp_policy_middleware.handover import Layer

WAYS = [(kind, way) for kind in KINDS for way in ("sync", "async") if way == "async" or kind not in ASYNC_ONLY]
BOTH = pytest.mark.parametrize("way", ["sync", "async"])


def enforcing(desk: Desk, **options: Any) -> PolicyCallbackHandler:
    return PolicyCallbackHandler(desk.guard, "enforce", **options)


def invoke(a_tool: BaseTool, value: Any, way: str, *handlers: Any, **config: Any) -> Any:
    """Run a tool with these callbacks, sync or async."""
    settings: Any = {"callbacks": list(handlers), **config}
    return asyncio.run(a_tool.ainvoke(value, settings)) if way == "async" else a_tool.invoke(value, settings)


def pay_tool(ran: list[Any]) -> BaseTool:
    return KINDS["sync and async"](ran)


# --- enforce --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_a_denied_call_ends_the_run_before_the_body(kind: str, way: str) -> None:
    ran: list[Any] = []
    desk = Desk()
    with pytest.raises(ToolDenied) as caught:
        invoke(KINDS[kind](ran), called(amount=50), way, enforcing(desk))
    decision = caught.value.decision
    assert (decision.reason, decision.call.call_id) == (Reason.REQUIREMENT_UNMET, "call-1")
    assert (ran, desk.used()) == ([], 0)
    assert desk.decisions() == [("pay", "requirement_unmet")]


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_an_allowed_call_runs_once_and_is_charged_once(kind: str, way: str) -> None:
    ran: list[Any] = []
    desk = Desk()
    handler = enforcing(desk)
    message = invoke(KINDS[kind](ran), called(amount=7), way, handler)
    assert message == invoke(KINDS[kind]([]), called(amount=7), way)
    assert (ran, desk.used(), desk.decisions()) == ([7], 1, [("pay", "allowed")])
    assert not handler._open


@BOTH
def test_without_a_tool_call_id_it_is_the_same(way: str) -> None:
    ran: list[Any] = []
    desk = Desk()
    with pytest.raises(ToolDenied):
        invoke(pay_tool(ran), {"amount": 50}, way, enforcing(desk))
    invoke(pay_tool(ran), {"amount": 5}, way, enforcing(desk))
    assert (ran, desk.used()) == ([5], 1)


@BOTH
def test_a_tool_s_own_callbacks_decide_in_threads_too(way: str) -> None:
    ran: list[Any] = []
    caught: list[BaseException] = []
    guarded = pay_tool(ran)
    guarded.callbacks = [enforcing(Desk())]

    def run() -> None:
        try:
            invoke(guarded, {"amount": 50}, way)
        except ToolDenied as denial:
            caught.append(denial)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert (len(caught), ran) == (1, [])


def test_batches_end_at_the_denied_call() -> None:
    ran: list[Any] = []
    desk = Desk()
    config: Any = {"callbacks": [enforcing(desk)], "max_concurrency": 1}
    answers = pay_tool(ran).batch([{"amount": 1}, {"amount": 50}, {"amount": 2}], config, return_exceptions=True)
    assert [isinstance(answer, ToolDenied) for answer in answers] == [False, True, False]
    assert (sorted(ran), desk.used()) == ([1, 2], 2)


@BOTH
def test_a_model_s_own_spelling_of_a_value_is_undecidable(way: str) -> None:
    with pytest.raises(ToolDenied) as caught:
        invoke(pay_tool([]), called(amount="7"), way, enforcing(Desk()))
    assert caught.value.decision.reason is Reason.UNDECIDABLE


def test_a_text_goes_by_the_name_that_a_guarded_tool_shows_or_is_denied() -> None:
    ran: list[Any] = []
    cats = {"require": [{"conditions": [{"path": "args.tool_input", "op": "eq", "value": "cats"}]}]}
    handler = enforcing(Desk({"version": "1", "default": "allow", "tools": {"search": cats}}))
    assert invoke(single(ran), {"__arg1": "cats"}, "sync", handler) == "found cats"
    for given, why in (({"__arg1": "dogs"}, Reason.REQUIREMENT_UNMET), ("cats", Reason.INVALID_CALL)):
        with pytest.raises(ToolDenied) as caught:
            invoke(single(ran), given, "sync", handler)
        assert caught.value.decision.reason is why
    assert ran == ["cats"]


def test_injected_arguments_are_not_seen() -> None:
    closed = {"deny_if": [{"conditions": [{"path": "args.payer", "op": "exists", "value": True}]}]}
    desk = Desk({"version": "1", "default": "allow", "tools": {"pay": closed}})
    ran: list[Any] = []
    invoke(KINDS["injected argument"](ran), called(amount=1, payer="house"), "sync", enforcing(desk))
    assert ran == [1]


# --- what must not fail open ----------------------------------------------------------------------------------------


def test_whether_it_raises_cannot_be_changed() -> None:
    handler = enforcing(Desk())
    assert (handler.raise_error, handler.run_inline, handler.ignore_agent) == (True, True, False)
    for name in ("raise_error", "run_inline", "ignore_agent"):
        with pytest.raises(AttributeError):
            setattr(handler, name, False)


@pytest.mark.parametrize(
    ("bases", "members"),
    [
        ((PolicyCallbackHandler, AsyncCallbackHandler), {}),
        ((AsyncCallbackHandler, PolicyCallbackHandler), {}),
        ((PolicyCallbackHandler,), {"raise_error": False}),
        ((PolicyCallbackHandler,), {"run_inline": False}),
        ((PolicyCallbackHandler,), {"ignore_agent": True}),
        ((PolicyCallbackHandler,), {"on_tool_start": lambda self, *args, **kwargs: None}),
    ],
)
def test_a_subclass_that_could_let_calls_pass_is_refused(bases: tuple[type, ...], members: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        type("Mine", bases, members)
    type("Fine", (PolicyCallbackHandler,), {"on_llm_start": lambda self, *args, **kwargs: None})


def test_a_mode_is_one_of_two() -> None:
    with pytest.raises(PolicyError):
        PolicyCallbackHandler(Desk().guard, "warn")  # type: ignore[arg-type]


@BOTH
@pytest.mark.parametrize("option", ["server_of", "name_of", "identity_of"])
@pytest.mark.parametrize("error", [NotImplementedError(), ValueError()])
def test_what_fails_while_deciding_is_a_denial(way: str, option: str, error: Exception) -> None:
    def fail(seen: Any) -> Any:
        raise error

    ran: list[Any] = []
    with pytest.raises(ToolDenied) as caught:
        invoke(pay_tool(ran), called(amount=1), way, enforcing(Desk(), **{option: fail}))
    assert caught.value.decision.reason is Reason.INVALID_CALL
    assert ran == []


@BOTH
def test_a_store_that_is_not_implemented_is_a_denial(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> Any:
        raise NotImplementedError

    ran: list[Any] = []
    desk = Desk()
    monkeypatch.setattr(desk.store, "reserve", fail)
    with pytest.raises(ToolDenied) as caught:
        invoke(pay_tool(ran), called(amount=1), way, enforcing(desk))
    assert (caught.value.decision.reason, ran) == (Reason.EVALUATION_ERROR, [])


@BOTH
def test_a_guard_that_is_not_implemented_is_not_swallowed(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> Any:
        raise NotImplementedError

    ran: list[Any] = []
    desk = Desk()
    monkeypatch.setattr(desk.guard, "begin", fail)
    with pytest.raises(PolicyError):
        invoke(pay_tool(ran), called(amount=1), way, enforcing(desk))
    assert ran == []


# --- whose call, of which tool --------------------------------------------------------------------------------------


@BOTH
def test_a_tool_meets_the_rules_of_its_server_under_its_own_name(way: str) -> None:
    desk = Desk(by_server=True)
    shown = pay_tool([])
    shown.name = "stripe_pay"
    names = {"name_of": lambda name: name.partition("_")[2], "server_of": lambda name: name.partition("_")[0]}
    invoke(shown, called("stripe_pay", amount=1), way, enforcing(desk, **names))
    assert desk.used(server="stripe") == 1
    fixed = enforcing(desk, server="stripe", name_of=names["name_of"])
    with pytest.raises(ToolDenied) as caught:
        invoke(shown, called("stripe_pay", amount=50), way, fixed)
    assert caught.value.decision.reason is Reason.REQUIREMENT_UNMET


@BOTH
def test_identity_comes_from_the_surrounding_run_and_not_from_metadata(way: str) -> None:
    pytest.importorskip("langgraph")
    from langchain_core.messages import AIMessage
    from langgraph.graph import MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode

    desk = Desk()
    pay = pay_tool([])
    pay.metadata = {"user": "admin"}  # as a server's annotations arrive
    builder = StateGraph(MessagesState)
    builder.add_node("tools", ToolNode([pay]))
    builder.set_entry_point("tools")
    graph = builder.compile()
    handler = enforcing(desk, identity_of=lambda config: {"grant": config["configurable"]["user"]})
    asked: Any = {"messages": [AIMessage("", tool_calls=[called(amount=1)])]}
    config: Any = {"callbacks": [handler], "configurable": {"user": "alice"}}
    asyncio.run(graph.ainvoke(asked, config)) if way == "async" else graph.invoke(asked, config)
    assert (desk.used(grant="alice"), desk.used(grant="admin"), desk.used()) == (1, 0, 0)


# --- how a call ends ------------------------------------------------------------------------------------------------


@BOTH
def test_a_failed_call_keeps_its_charge_and_an_interrupted_one_does_not(way: str) -> None:
    pytest.importorskip("langgraph")
    from langgraph.errors import GraphInterrupt

    for error, used in ((ValueError("x"), 1), (GraphInterrupt(), 0)):
        desk = Desk()
        handler = enforcing(desk)

        @tool
        def pay(amount: int, error: Exception = error) -> str:
            """Pay."""
            raise error

        with pytest.raises(type(error)):
            invoke(pay, called(amount=1), way, handler)
        assert (desk.used(), handler._open) == (used, {})


def test_calls_whose_end_is_never_told_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks_module, "_MOST_OPEN", 3)
    desk = Desk()
    handler = enforcing(desk)

    def run() -> None:
        for _ in range(10):
            handler.on_tool_start({"name": "pay"}, "", run_id=uuid.uuid4(), inputs={"amount": 1})
        last = callbacks_module.current(desk.guard)
        length = 0
        while last is not None:
            length, last = length + 1, last.outer
        assert length <= 4

    copy_context().run(run)
    assert len(handler._open) == 3
    assert desk.used() == 10  # whatever became of them, they were charged


def test_a_call_that_another_callback_stopped_keeps_its_charge() -> None:
    class Stopping(BaseCallbackHandler):
        raise_error = True

        def on_tool_start(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("stopped")

    ran: list[Any] = []
    desk = Desk()
    with pytest.raises(RuntimeError):
        invoke(pay_tool(ran), called(amount=1), "sync", enforcing(desk), Stopping())
    assert (ran, desk.used()) == ([], 1)


# --- one call, one decision -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "way"), [each for each in WAYS if each[0] not in NEEDS_CALL_ID])
@pytest.mark.parametrize("mode", ["enforce", "observe"])
def test_a_guarded_tool_decides_for_itself(kind: str, way: str, mode: Any) -> None:
    ran: list[Any] = []
    desk = Desk()
    guarded = guard_tool(KINDS[kind](ran), desk.guard)
    handler = PolicyCallbackHandler(desk.guard, mode)
    assert reason(invoke(guarded, called(amount=50), way, handler)) == Reason.REQUIREMENT_UNMET
    invoke(guarded, called(amount=5), way, handler)
    assert (ran, desk.used()) == ([5], 1)
    assert desk.decisions() == [("pay", "requirement_unmet"), ("pay", "allowed")]


@BOTH
def test_a_tool_that_another_guard_guards_is_decided_by_both(way: str) -> None:
    desk, other = Desk(), Desk()
    invoke(guard_tool(pay_tool([]), other.guard), called(amount=1), way, enforcing(desk))
    assert (desk.used(), other.used()) == (1, 1)


@BOTH
def test_of_two_guards_around_a_tool_its_own_decides_inside(way: str) -> None:
    desk, other = Desk(), Desk()
    twice = guard_tool(guard_tool(pay_tool([]), other.guard), desk.guard)
    invoke(twice, called(amount=1), way, enforcing(desk), enforcing(other))
    assert (desk.used(), other.used(), len(desk.decisions()), len(other.decisions())) == (1, 1, 1, 1)


@BOTH
def test_a_tool_that_a_guarded_tool_runs_is_decided(way: str) -> None:
    ran: list[Any] = []
    desk = Desk()
    inner = pay_tool(ran)

    @tool
    def look(amount: int) -> str:
        """Look."""
        return str(inner.invoke({"amount": amount}))

    with pytest.raises(ToolDenied):
        invoke(guard_tool(look, desk.guard), {"amount": 50}, way, enforcing(desk))
    assert ran == []


def test_a_guarded_tool_that_starts_another_on_its_way_does_not_answer_for_it() -> None:
    ran: list[Any] = []
    desk = Desk()
    inner = pay_tool(ran)

    class Early(type(single([]))):  # type: ignore[misc]
        def run(self, *args: Any, **kwargs: Any) -> Any:
            inner.run({"amount": 50}, callbacks=kwargs["callbacks"])
            return super().run(*args, **kwargs)

    early = Early(name="look", func=lambda text: text, description="Look.")
    with pytest.raises(ToolDenied):
        invoke(guard_tool(early, desk.guard), {"__arg1": "x"}, "sync", enforcing(desk))
    assert ran == []


@BOTH
def test_a_decision_made_here_is_handed_to_what_lies_beneath(way: str) -> None:
    desk = Desk()
    sent: list[Any] = []

    async def asend() -> None:
        sent.append("async")

    @tool
    def pay(amount: int) -> str:
        """Pay."""
        desk.guard.run(ToolCall("pay", {"amount": amount}), lambda: sent.append("sync"), layer=Layer.SESSION)
        return "paid"

    async def apay(amount: int) -> str:
        await desk.guard.arun(ToolCall("pay", {"amount": amount}), asend, layer=Layer.SESSION)
        return "paid"

    if way == "async":
        pay.func, pay.coroutine = None, apay
    handler = enforcing(desk)

    async def several() -> None:
        config: Any = {"callbacks": [handler]}
        await pay.ainvoke({"amount": 1}, config)
        await asyncio.gather(*(pay.ainvoke({"amount": 2}, config) for _ in range(3)))

    if way == "async":
        asyncio.run(several())
    else:
        for _ in range(4):
            invoke(pay, {"amount": 1}, way, handler)
    assert sent == [way] * 4
    assert (desk.used(), desk.decisions()) == (4, [("pay", "allowed")] * 4)
    assert callbacks_module.current(desk.guard) is None


@BOTH
def test_a_decision_is_over_when_its_call_is(way: str) -> None:
    desk = Desk()

    async def main() -> None:
        await pay_tool([]).ainvoke({"amount": 1}, {"callbacks": [enforcing(desk)]})
        desk.guard.run(ToolCall("pay", {"amount": 1}), lambda: None, layer=Layer.SESSION)

    if way == "async":
        asyncio.run(main())
    else:
        invoke(pay_tool([]), {"amount": 1}, way, enforcing(desk))
        desk.guard.run(ToolCall("pay", {"amount": 1}), lambda: None, layer=Layer.SESSION)
    assert (desk.used(), len(desk.decisions())) == (2, 2)


@BOTH
@pytest.mark.parametrize("around", [True, False])
def test_two_callbacks_of_one_guard_decide_a_call_once(way: str, around: bool) -> None:
    ran: list[Any] = []
    desk = Desk()
    config: Any = {"callbacks": [enforcing(desk), enforcing(desk), PolicyCallbackHandler(desk.guard)]}

    async def acall() -> Any:
        return await pay_tool(ran).ainvoke(called(amount=1), config)

    call = ToolCall("pay", {"amount": 1})
    if way == "async":
        asyncio.run(desk.guard.arun(call, acall, layer=Layer.MIDDLEWARE) if around else acall())
    elif around:
        desk.guard.run(call, lambda: pay_tool(ran).invoke(called(amount=1), config), layer=Layer.MIDDLEWARE)
    else:
        pay_tool(ran).invoke(called(amount=1), config)
    assert (ran, desk.used(), desk.decisions()) == ([1], 1, [("pay", "allowed")])


@BOTH
@pytest.mark.parametrize("nested", [True, False])
def test_a_run_s_id_that_is_used_again_does_not_stand_for_another_call(way: str, nested: bool) -> None:
    ran: list[Any] = []
    desk = Desk()
    config: Any = {"callbacks": [enforcing(desk)], "run_id": uuid.uuid4()}

    @tool
    def look(amount: int) -> str:
        """Look."""
        return str(pay_tool(ran).invoke({"amount": amount}, config)) if nested else "looked"

    async def main() -> None:
        await look.ainvoke({"amount": 50}, config)
        await pay_tool(ran).ainvoke({"amount": 50}, config)

    def run() -> None:
        look.invoke({"amount": 50}, config)
        pay_tool(ran).invoke({"amount": 50}, config)

    with pytest.raises(ToolDenied):
        asyncio.run(main()) if way == "async" else run()
    assert (ran, [why for _, why in desk.decisions()]) == ([], ["allowed", "requirement_unmet"])


def test_a_tool_that_runs_itself_under_one_run_s_id_is_charged_each_time() -> None:
    ran: list[Any] = []
    desk = Desk()
    config: Any = {"callbacks": [enforcing(desk), enforcing(desk)], "run_id": uuid.uuid4()}

    @tool
    def pay(amount: int) -> str:
        """Pay."""
        ran.append(amount)
        return "paid" if len(ran) > 2 else str(pay.invoke({"amount": amount}, config))

    pay.invoke({"amount": 1}, config)
    assert (len(ran), desk.used()) == (3, 3)


@BOTH
def test_what_outlives_a_call_is_decided_by_itself(way: str) -> None:
    desk = Desk()
    left: list[Context] = []

    @tool
    def pay(amount: int) -> str:
        """Pay."""
        left.append(copy_context())
        return "paid"

    invoke(pay, {"amount": 1}, way, enforcing(desk))
    left[0].run(desk.guard.run, ToolCall("pay", {"amount": 1}), lambda: None, layer=Layer.SESSION)
    assert (desk.used(), len(desk.decisions())) == (2, 2)


@BOTH
@pytest.mark.parametrize(("amount", "seen", "mode"), [(1, 1, "enforce"), (1, 50, "enforce"), (1, 50, "observe")])
def test_a_middleware_s_decision_is_taken_up(way: str, amount: int, seen: int, mode: Any) -> None:
    ran: list[Any] = []
    desk = Desk()
    handler = PolicyCallbackHandler(desk.guard, mode)
    call = ToolCall("pay", {"amount": amount})

    def run() -> Any:
        return desk.guard.run(
            call, lambda: invoke(pay_tool(ran), called(amount=seen), "sync", handler), layer=Layer.MIDDLEWARE
        )

    async def arun() -> Any:
        config: Any = {"callbacks": [handler]}
        return await desk.guard.arun(
            call, lambda: pay_tool(ran).ainvoke(called(amount=seen), config), layer=Layer.MIDDLEWARE
        )

    go = run if way == "sync" else lambda: asyncio.run(arun())
    if mode == "enforce" and seen > 10:
        with pytest.raises(ToolDenied):
            go()
        assert (ran, desk.used()) == ([], 0)
    else:
        go()
        assert (ran, desk.used(), len(desk.decisions())) == ([seen], 1, 1)


# --- observe --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_an_observer_records_and_lets_pass(kind: str, way: str) -> None:
    ran: list[Any] = []
    desk = Desk()
    invoke(KINDS[kind](ran), called(amount=50), way, PolicyCallbackHandler(desk.guard))
    assert (ran, desk.used()) == ([50], 0)
    assert desk.decisions() == [("pay", "requirement_unmet")]
    (span,) = desk.spans.get_finished_spans()
    assert span.attributes["mcp_policy.enforced"] is False
    assert span.attributes["mcp_policy.effect"] == "deny"


@BOTH
def test_an_observer_charges_nothing(way: str) -> None:
    desk = Desk()
    for _ in range(3):
        invoke(pay_tool([]), called(amount=5), way, PolicyCallbackHandler(desk.guard))
    assert (desk.used(), desk.decisions()) == (0, [("pay", "allowed")] * 3)


@BOTH
def test_an_observer_never_raises(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> Any:
        raise NotImplementedError

    ran: list[Any] = []
    desk = Desk(POLICY)
    monkeypatch.setattr(desk.store, "peek", fail)
    invoke(pay_tool(ran), called(amount=5), way, PolicyCallbackHandler(desk.guard, server_of=fail))
    invoke(pay_tool(ran), called(amount=5), way, PolicyCallbackHandler(desk.guard))
    monkeypatch.setattr(desk.guard, "observe", fail)
    invoke(pay_tool(ran), called(amount=5), way, PolicyCallbackHandler(desk.guard))
    desk.guard.suspend("closed")
    invoke(pay_tool(ran), called(amount=5), way, PolicyCallbackHandler(desk.guard))
    assert ran == [5, 5, 5, 5]


# --- agents ---------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("mode", ["enforce", "observe"])
def test_an_agent_s_run_ends_or_goes_on(way: str, mode: Any) -> None:
    pytest.importorskip("langchain")
    from langchain.agents import create_agent

    from mcp_policy_middleware.testing import FakeToolCallingModel

    ran: list[Any] = []
    desk = Desk()
    agent = create_agent(FakeToolCallingModel(tool_calls=[[called(amount=50)]]), [pay_tool(ran)])
    asked: Any = {"messages": [("user", "go")]}
    config: Any = {"callbacks": [PolicyCallbackHandler(desk.guard, mode)]}

    def go() -> Any:
        return asyncio.run(agent.ainvoke(asked, config)) if way == "async" else agent.invoke(asked, config)

    if mode == "enforce":
        with pytest.raises(ToolDenied):
            go()
    else:
        assert go()["messages"][-1].content == "done"
    assert ran == ([] if mode == "enforce" else [50])
    assert len(desk.decisions()) == 1


@BOTH
def test_a_sub_agent_s_calls_are_seen(way: str) -> None:
    pytest.importorskip("langchain")
    from langchain.agents import create_agent

    from mcp_policy_middleware.testing import FakeToolCallingModel

    ran: list[Any] = []
    inner = create_agent(FakeToolCallingModel(tool_calls=[[called(amount=50)]]), [pay_tool(ran)])

    @tool
    def look(task: str) -> str:
        """Ask another agent."""
        return str(inner.invoke({"messages": [("user", task)]})["messages"][-1].content)

    agent = create_agent(FakeToolCallingModel(tool_calls=[[called("look", task="pay")]]), [look])
    config: Any = {"callbacks": [enforcing(Desk())]}
    asked: Any = {"messages": [("user", "go")]}
    with pytest.raises(ToolDenied):
        asyncio.run(agent.ainvoke(asked, config)) if way == "async" else agent.invoke(asked, config)
    assert ran == []
