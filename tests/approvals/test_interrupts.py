"""People asked by pausing a graph: create_agent and ToolNode, sync and async, siblings, and answers that count not."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

pytest.importorskip("langgraph")
pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_cases import called, reason
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, create_react_agent
from langgraph.types import Command
from pausing import THREAD, WAYS, Desk, answers_of, paused, resumed, step

from mcp_policy_middleware import PolicyError, Reason, ToolCall, ToolDenied
from mcp_policy_middleware.adapters.langchain import PolicyCallbackHandler, PolicyMiddleware, guard_tools
from mcp_policy_middleware.adapters.langgraph import (
    InterruptApprover,
    approve,
    deny,
    policy_tool_node,
    tool_node_wrappers,
)
from mcp_policy_middleware.testing import FakeToolCallingModel

ASK = {"messages": [("user", "pay")]}


def agent_of(
    desk: Desk, *batches: list[dict[str, Any]], middleware: Any = None, tools: Any = None, **options: Any
) -> Any:
    """An agent of guarded tools whose model makes these calls."""
    options = {"checkpointer": InMemorySaver(), **options}
    return create_agent(
        FakeToolCallingModel(tool_calls=list(batches)),
        guard_tools([desk.pay()], desk.guard) if tools is None else tools,
        middleware=[PolicyMiddleware(desk.guard)] if middleware is None else middleware,
        **options,
    )


def node_of(desk: Desk, **options: Any) -> Any:
    """A graph of one `policy_tool_node`."""
    builder = StateGraph(MessagesState)
    builder.add_node("tools", policy_tool_node([desk.pay()], desk.guard, **options))
    builder.set_entry_point("tools")
    return builder.compile(checkpointer=InMemorySaver())


def by_agent(desk: Desk, way: str, calls: list[dict[str, Any]]) -> tuple[Any, Any]:
    graph = agent_of(desk, calls)
    return graph, step(graph, ASK, way)


def by_node(desk: Desk, way: str, calls: list[dict[str, Any]]) -> tuple[Any, Any]:
    graph = node_of(desk)
    return graph, step(graph, {"messages": [AIMessage("", tool_calls=calls)]}, way)


HOSTS = pytest.mark.parametrize("start", [by_agent, by_node])


@WAYS
@HOSTS
def test_a_call_waits_for_a_person_and_is_made_once(way: str, start: Any) -> None:
    desk = Desk()
    graph, state = start(desk, way, [called("pay", "a", amount="50")])
    [question] = paused(state)
    assert question.value == {
        "id": question.value["id"],
        "server": None,
        "tool": "pay",
        "arguments": {"amount": 50, "note": "none"},
        "grant": "default",
        "rule": "/tools/pay/require_approval_if/args.amount-gt",
        "text": "big",
        "expires_at": desk.clock().timestamp() + 1800,
    }
    assert (desk.ran, desk.used(), desk.states()) == ([], 0, ["pending"])
    state = resumed(graph, approve(question, by="ann", why="fine"), way)
    assert answers_of(state)["a"].content == "paid 50"
    assert (desk.ran, desk.used(), desk.states()) == ([50], 1, ["consumed"])
    [request] = desk.approvals.requests(0)
    assert (request.by, request.why) == ("ann", "fine")
    assert desk.reasons()[-1] == "allowed"


@WAYS
@HOSTS
def test_each_question_has_its_spans_and_no_argument_is_in_them(way: str, start: Any, caplog: Any) -> None:
    desk = Desk()
    graph, state = start(desk, way, [called("pay", "a", amount=50, note="canary-77")])
    resumed(graph, approve(paused(state)[0], by="ann"), way)
    spans = [span for span in desk.spans.get_finished_spans() if span.name == "policy_approval pay"]
    assert [span.attributes["mcp_policy.approval.outcome"] for span in spans] == ["pending", "approved"]
    assert desk.reasons() == ["allowed"]
    assert not any("canary-77" in str(span.attributes) for span in desk.spans.get_finished_spans())
    assert "canary-77" not in caplog.text


@WAYS
def test_a_callback_that_enforces_pauses_as_well(way: str) -> None:
    desk = Desk()
    handler = PolicyCallbackHandler(desk.guard, "enforce")
    graph = agent_of(desk, [called("pay", "a", amount=50)], middleware=[], tools=[desk.pay()])
    graph = graph.with_config(callbacks=[handler])
    [question] = paused(step(graph, ASK, way))
    assert desk.ran == []
    resumed(graph, approve(question), way)
    assert (desk.ran, desk.used()) == ([50], 1)


@WAYS
@HOSTS
def test_a_no_is_told_to_the_agent_and_takes_nothing(way: str, start: Any) -> None:
    desk = Desk()
    graph, state = start(desk, way, [called("pay", "a", amount=50)])
    state = resumed(graph, deny(paused(state)[0].value, by="ann", why="too much"), way)
    answer = answers_of(state)["a"]
    assert (reason(answer), answer.status) == ("approval_denied", "error")
    assert "too much" in answer.content
    assert (desk.ran, desk.used(), desk.states()) == ([], 0, ["denied"])


@WAYS
def test_siblings_of_an_agent_run_once_and_are_answered_together(way: str) -> None:
    desk = Desk()
    graph, state = by_agent(desk, way, [called("pay", str(n), amount=n) for n in (1, 50, 2, 60)])
    questions = paused(state)
    assert [each.value["arguments"]["amount"] for each in questions] == [50, 60]
    assert (sorted(desk.ran), desk.used()) == ([1, 2], 2)
    no, yes = questions
    state = resumed(graph, {no.id: deny(no), yes.id: approve(yes)}, way)
    assert {key: reason(each) for key, each in answers_of(state).items()} == {
        "1": None, "50": "approval_denied", "2": None, "60": None,
    }  # fmt: skip
    assert (sorted(desk.ran), desk.used()) == ([1, 2, 60], 3)


@WAYS
def test_siblings_of_an_agent_are_answered_one_by_one(way: str) -> None:
    desk = Desk()
    graph, state = by_agent(desk, way, [called("pay", str(n), amount=n) for n in (1, 50, 60)])
    first, second = paused(state)
    state = resumed(graph, {second.id: approve(second)}, way)
    assert [each.value["id"] for each in paused(state)] == [first.value["id"]]
    assert (sorted(desk.ran), desk.used()) == ([1, 60], 2)
    state = resumed(graph, approve(first), way)
    assert (sorted(desk.ran), desk.used(), desk.states()) == ([1, 50, 60], 3, ["consumed", "consumed"])


@WAYS
def test_siblings_of_a_node_wait_until_all_are_answered(way: str) -> None:
    desk = Desk()
    graph, state = by_node(desk, way, [called("pay", str(n), amount=n) for n in (1, 50, 2, 60)])
    [first] = paused(state)
    assert (first.value["arguments"]["amount"], desk.ran, desk.used()) == (50, [], 0)
    state = resumed(graph, approve(first), way)
    [second] = paused(state)
    assert (second.value["arguments"]["amount"], desk.ran, desk.used()) == (60, [], 0)
    state = resumed(graph, {second.id: deny(second)}, way)
    assert {key: reason(each) for key, each in answers_of(state).items()} == {
        "1": None, "50": None, "2": None, "60": "approval_denied",
    }  # fmt: skip
    assert (sorted(desk.ran), desk.used(), desk.states()) == ([1, 2, 50], 3, ["consumed", "denied"])


@WAYS
def test_siblings_of_a_node_may_be_answered_from_outside(way: str) -> None:
    desk = Desk()
    graph, state = by_node(desk, way, [called("pay", str(n), amount=n) for n in (1, 50, 60)])
    [first] = paused(state)
    now = desk.clock().timestamp()
    desk.approvals.move(first.value["id"], "approve", now, "ann")
    [second] = paused(step(graph, None, way))
    desk.approvals.move(second.value["id"], "approve", now, "ann")
    step(graph, None, way)
    assert (sorted(desk.ran), desk.used()) == ([1, 50, 60], 3)


@WAYS
@HOSTS
def test_two_calls_that_are_the_same_need_two_answers(way: str, start: Any) -> None:
    desk = Desk()
    graph, state = start(desk, way, [called("pay", each, amount=50) for each in "ab"])
    [question] = paused(state)
    state = resumed(graph, approve(question), way)
    reasons = sorted(str(reason(each)) for each in answers_of(state).values())
    assert reasons in (["None", "approval_failed"], ["None", "approval_pending"])
    assert (desk.ran, desk.used(), desk.states()) == ([50], 1, ["consumed"])


@WAYS
@HOSTS
def test_an_answer_that_is_there_already_lets_the_graph_go_on(way: str, start: Any) -> None:
    """Whatever the graph is resumed with."""
    for value in (None, Command(resume="go on")):
        desk = Desk()
        graph, state = start(desk, way, [called("pay", str(n), amount=n) for n in (1, 50)])
        desk.approvals.move(paused(state)[0].value["id"], "approve", desk.clock().timestamp(), "ann")
        step(graph, value, way)
        assert (sorted(desk.ran), desk.used(), desk.states()) == ([1, 50], 2, ["consumed"])


@WAYS
@pytest.mark.parametrize("messages_key", ["messages", "said"])
def test_a_node_of_other_shapes_asks_first_too(way: str, messages_key: str) -> None:
    """A list of calls sent to the node, and a state that calls its messages otherwise."""
    desk = Desk()
    calls = [called("pay", str(n), amount=n) for n in (1, 50)]
    from typing import Annotated, TypedDict

    from langgraph.graph.message import add_messages
    from langgraph.types import Send

    State = TypedDict("State", {messages_key: Annotated[list[Any], add_messages]})
    builder = StateGraph(State)
    builder.add_node("tools", policy_tool_node([desk.pay()], desk.guard, messages_key=messages_key))
    if messages_key == "said":
        builder.set_entry_point("tools")
    else:
        builder.set_conditional_entry_point(lambda state: [Send("tools", calls)], ["tools"])
    graph = builder.compile(checkpointer=InMemorySaver())
    [question] = paused(step(graph, {messages_key: [AIMessage("", tool_calls=calls)]}, way))
    assert desk.ran == []
    resumed(graph, approve(question), way)
    assert (sorted(desk.ran), desk.used()) == ([1, 50], 2)


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_tool_node_of_ones_own_makes_the_calls_beside_it_again(wrapped: bool) -> None:
    """LangGraph runs the node again, and nothing there can ask before calls are made; the paused call is made once."""
    desk = Desk()
    tools = [desk.pay()] if wrapped else guard_tools([desk.pay()], desk.guard)
    builder = StateGraph(MessagesState)
    builder.add_node("tools", ToolNode(tools, **(tool_node_wrappers(desk.guard) if wrapped else {})))
    builder.set_entry_point("tools")
    graph = builder.compile(checkpointer=InMemorySaver())
    calls = [called("pay", str(n), amount=n) for n in (1, 50)]
    [question] = paused(step(graph, {"messages": [AIMessage("", tool_calls=calls)]}))
    assert desk.ran == [1]
    resumed(graph, approve(question))
    assert (sorted(desk.ran), desk.used(), desk.states()) == ([1, 1, 50], 3, ["consumed"])


@WAYS
@pytest.mark.filterwarnings("ignore:create_react_agent")
def test_the_older_agent_pauses_as_well(way: str) -> None:
    desk = Desk()
    model = FakeToolCallingModel(tool_calls=[[called("pay", str(n), amount=n) for n in (1, 50, 60)]])
    graph = create_react_agent(model, policy_tool_node([desk.pay()], desk.guard), checkpointer=InMemorySaver())
    first, second = paused(step(graph, ASK, way))
    resumed(graph, {one.id: approve(one) for one in (first, second)}, way)
    assert (sorted(desk.ran), desk.used()) == ([1, 50, 60], 3)


@WAYS
@HOSTS
@pytest.mark.parametrize("value", [True, "approve", {"approved": True}, {"id": 1, "approved": True}, [1], 0])
def test_a_value_that_answers_no_request_denies(way: str, start: Any, value: Any, caplog: Any) -> None:
    desk = Desk()
    graph, state = start(desk, way, [called("pay", "a", amount=50)])
    with caplog.at_level(logging.ERROR):
        state = resumed(graph, value, way)
    assert reason(answers_of(state)["a"]) == "approval_failed"
    assert (desk.ran, desk.used(), desk.states()) == ([], 0, ["cancelled"])
    assert any("approve(interrupt)" in record.getMessage() for record in caplog.records)


def test_an_answer_must_say_yes_or_no_in_so_many_words() -> None:
    desk = Desk()
    graph, state = by_agent(desk, "sync", [called("pay", "a", amount=50)])
    state = resumed(graph, {**approve(paused(state)[0]), "approved": "yes"})
    assert reason(answers_of(state)["a"]) == "approval_failed"


@WAYS
@HOSTS
def test_an_answer_to_another_request_counts_for_nothing(way: str, start: Any) -> None:
    desk = Desk()
    _, state = start(desk, way, [called("pay", "a", amount=40)])
    foreign = approve(paused(state)[0])
    other = Desk(approvals=desk.approvals, clock=desk.clock)
    graph, state = start(other, way, [called("pay", "b", amount=50)])
    [question] = paused(state)
    [again] = paused(resumed(graph, foreign, way))
    assert again.value == question.value
    assert (other.ran, other.states()) == ([], ["pending", "pending"])
    resumed(graph, approve(again), way)
    assert (other.ran, other.states()) == ([50], ["pending", "consumed"])


@WAYS
def test_an_answer_that_was_used_does_not_count_again(way: str) -> None:
    """The same call, by another call id and by the same one."""
    desk = Desk()
    batches = [[called("pay", "a", amount=50)], [called("pay", "b", amount=50)], [called("pay", "a", amount=50)]]
    graph = agent_of(desk, *batches)
    [question] = paused(step(graph, ASK, way))
    answer = approve(question)
    for expected in (1, 1, 1):
        [question] = paused(resumed(graph, answer, way))
        assert (desk.used(), len(desk.ran)) == (expected, expected)
    resumed(graph, approve(question), way)
    assert desk.used() == 2


@WAYS
def test_a_late_answer_counts_for_nothing(way: str) -> None:
    """Also where a process forgot the request and asks anew, with new time for it."""
    for forgetful in (False, True):
        desk = Desk()
        graph, state = by_agent(desk, way, [called("pay", "a", amount=50)])
        answer = approve(paused(state)[0])
        desk.clock.tick(1801)
        if forgetful:
            desk.approvals._requests.clear()
        [again] = paused(resumed(graph, answer, way))
        assert again.value["expires_at"] > answer["expires_at"]
        resumed(graph, approve(again), way)
        assert desk.used() == 1


@WAYS
def test_a_process_that_forgot_the_request_finds_it_again(way: str) -> None:
    desk = Desk()
    saver = InMemorySaver()
    calls = [called("pay", str(n), amount=n) for n in (1, 50)]
    [question] = paused(step(agent_of(desk, calls, checkpointer=saver), ASK, way))
    fresh = Desk(clock=desk.clock)
    resumed(agent_of(fresh, checkpointer=saver), approve(question), way)
    assert (desk.ran, fresh.ran, fresh.states()) == ([1], [50], ["consumed"])


@WAYS
def test_a_node_that_forgot_hears_all_answers_again(way: str) -> None:
    desk = Desk()
    saver = InMemorySaver()
    calls = [called("pay", str(n), amount=n) for n in (50, 60)]

    def graph_at(desk: Desk) -> Any:
        builder = StateGraph(MessagesState)
        builder.add_node("tools", policy_tool_node([desk.pay()], desk.guard))
        builder.set_entry_point("tools")
        return builder.compile(checkpointer=saver)

    [first] = paused(step(graph_at(desk), {"messages": [AIMessage("", tool_calls=calls)]}, way))
    [second] = paused(resumed(graph_at(desk), approve(first), way))
    fresh = Desk(clock=desk.clock)
    resumed(graph_at(fresh), approve(second), way)
    assert (desk.ran, sorted(fresh.ran), fresh.used()) == ([], [50, 60], 2)


@WAYS
def test_a_state_that_is_edited_while_waiting_needs_a_new_approval(way: str) -> None:
    desk = Desk()
    graph, state = by_node(desk, way, [called("pay", "a", amount=50)])
    [question] = paused(state)
    said = state["messages"][0]
    edited = AIMessage("", tool_calls=[called("pay", "a", amount=70)], id=said.id)
    graph.update_state(THREAD, {"messages": [edited]}, as_node="__start__")
    [again] = paused(resumed(graph, approve(question), way))
    assert (again.value["arguments"]["amount"], desk.ran) == (70, [])
    assert again.value["id"] != question.value["id"]
    resumed(graph, approve(again), way)
    assert (desk.ran, desk.used()) == ([70], 1)


@WAYS
def test_human_edits_inside_the_policy_are_what_is_asked_about(way: str) -> None:
    """The policy is last: it sees what the person made of the call."""
    desk = Desk()
    person = HumanInTheLoopMiddleware(interrupt_on={"pay": True})
    graph = agent_of(desk, [called("pay", "a", amount=1)], middleware=[person, PolicyMiddleware(desk.guard)])
    assert step(graph, ASK, way)["__interrupt__"]
    decision = {"type": "edit", "edited_action": {"name": "pay", "args": {"amount": 99}}}
    [question] = paused(resumed(graph, {"decisions": [decision]}, way))
    assert (question.value["arguments"]["amount"], desk.ran) == (99, [])
    resumed(graph, approve(question), way)
    assert (desk.ran, desk.used()) == ([99], 1)


@WAYS
def test_edits_after_an_approval_are_asked_about_by_the_tool(way: str) -> None:
    """The policy is not last: the guarded tool beneath sees another call than the approved one."""
    from langchain.agents.middleware import AgentMiddleware

    class Edits(AgentMiddleware[Any, Any, Any]):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            return handler(request.override(tool_call={**request.tool_call, "args": {"amount": 99}}))

        async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
            return await handler(request.override(tool_call={**request.tool_call, "args": {"amount": 99}}))

    desk = Desk()
    graph = agent_of(desk, [called("pay", "a", amount=50)], middleware=[PolicyMiddleware(desk.guard), Edits()])
    asked = []
    state = step(graph, ASK, way)
    while questions := paused(state):
        assert desk.ran == []
        asked.append(questions[0].value["arguments"]["amount"])
        assert len(asked) < 5
        state = resumed(graph, approve(questions[0]), way)
    assert asked == [50, 99, 50]  # the first was used up when the tool paused
    assert (desk.ran, desk.used()) == ([99], 1)


@WAYS
def test_a_sub_agent_pauses_its_callers_graph(way: str) -> None:
    desk = Desk()
    inner = agent_of(desk, [called("pay", "in", amount=50)], [called("pay", "in", amount=50)], checkpointer=None)

    @tool
    def assist(task: str) -> str:
        """Have somebody pay."""
        return str(inner.invoke(ASK)["messages"][-1].content)

    async def alater(task: str) -> str:
        return str((await inner.ainvoke(ASK))["messages"][-1].content)

    assist.coroutine = alater
    graph = agent_of(desk, [called("assist", "out", task="t")], tools=guard_tools([assist], desk.guard))
    [question] = paused(step(graph, ASK, way))
    assert (question.value["tool"], desk.ran) == ("pay", [])
    resumed(graph, approve(question), way)
    assert (desk.ran, desk.used()) == ([50], 1)


@WAYS
def test_a_stream_shows_the_question(way: str) -> None:
    desk = Desk()
    graph = agent_of(desk, [called("pay", "a", amount=50)])

    async def astreamed(value: Any) -> list[Any]:
        return [chunk async for chunk in graph.astream(value, THREAD)]

    def streamed(value: Any) -> list[Any]:
        return list(graph.stream(value, THREAD)) if way == "sync" else asyncio.run(astreamed(value))

    [question] = streamed(ASK)[-1]["__interrupt__"]
    assert graph.get_state(THREAD).interrupts == (question,)
    chunks = streamed(Command(resume=approve(question)))
    assert chunks[0]["tools"]["messages"][0].content == "paid 50"
    assert desk.used() == 1


@WAYS
def test_an_answer_holds_for_the_identity_it_was_asked_for(way: str) -> None:
    desk = Desk()
    middleware = [
        PolicyMiddleware(desk.guard, identity_of=lambda seen: {"grant": seen.runtime.config["configurable"]["user"]})
    ]
    graph = agent_of(desk, [called("pay", "a", amount=50)], middleware=middleware)
    [question] = paused(step(graph, ASK, way))
    assert question.value["grant"] == "alice"
    bob = {"configurable": {**THREAD["configurable"], "user": "bob"}}
    [again] = paused(resumed(graph, approve(question), way, bob))
    assert (again.value["grant"], desk.ran) == ("bob", [])


@WAYS
def test_outside_of_a_graph_and_without_a_checkpointer_the_call_is_denied(way: str, caplog: Any) -> None:
    desk = Desk()
    guarded = guard_tools([desk.pay()], desk.guard)[0]
    call = called("pay", "a", amount=50)
    message = guarded.invoke(call) if way == "sync" else asyncio.run(guarded.ainvoke(call))
    assert reason(message) == "approval_failed"
    with pytest.raises(ToolDenied) as denial:
        desk.guard.run(ToolCall("pay", {"amount": 51}), list)
    assert denial.value.decision.reason is Reason.APPROVAL_FAILED
    state = step(agent_of(desk, [called("pay", "a", amount=52)], checkpointer=None), ASK, way)
    assert reason(answers_of(state)["a"]) == "approval_failed"
    assert desk.states() == ["cancelled"] * 3
    assert sum("checkpointer" in record.getMessage() for record in caplog.records) == 3
    assert (desk.ran, desk.used()) == ([], 0)


def test_a_graph_that_cannot_be_paused_after_all_is_denied(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Whatever LangGraph raises where it has no task to pause is no crash and no pass."""
    from mcp_policy_middleware.adapters import langgraph_interrupt

    def broken(value: Any) -> Any:
        raise KeyError("__pregel_scratchpad")

    monkeypatch.setattr(langgraph_interrupt, "interrupt", broken)
    desk = Desk()
    _, state = by_agent(desk, "sync", [called("pay", "a", amount=50)])
    assert reason(answers_of(state)["a"]) == "approval_failed"


def test_helpers_refuse_what_is_no_question() -> None:
    from langgraph.types import Interrupt

    for pending in (Interrupt("really?"), {"id": "x"}, "x"):
        with pytest.raises(PolicyError):
            approve(pending)


@pytest.mark.parametrize("state", ["none", "pending", "approved"])
def test_tools_that_a_provider_runs_stay_withheld(state: str) -> None:
    """Whatever a person said of a call of that name: a provider would use no approval up."""
    desk = Desk()
    if state != "none":
        call = ToolCall("web_search", {})
        builder = StateGraph(MessagesState)
        builder.add_node("n", lambda _: desk.guard.ask([call]) and None)
        builder.set_entry_point("n")
        [question] = builder.compile(checkpointer=InMemorySaver()).invoke({"messages": []}, THREAD)["__interrupt__"]
        if state == "approved":
            desk.approvals.move(question.value["id"], "approve", desk.clock().timestamp())
        assert desk.states() == [state]
    model = FakeToolCallingModel()
    tools = [{"type": "web_search"}, {"type": "code_interpreter"}]
    create_agent(model, tools, middleware=[PolicyMiddleware(desk.guard)]).invoke(ASK)
    assert model.offered == [["code_interpreter"]]


def test_tasks_that_never_end_are_forgotten() -> None:
    approver = InterruptApprover()
    for n in range(2000):
        approver._heard_in({"thread_id": str(n)})["x"] = "y"
    assert len(approver._heard) <= 1024
    assert approver._heard_in({"thread_id": "1999"}) == {"x": "y"}
