"""Ways around a hook, and what stands in them (adapters A-3, A-4): edits, sub-agents, threads, swapped tools, loops."""

from __future__ import annotations

import asyncio
import threading
from typing import Annotated, Any

import pytest

pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, HumanInTheLoopMiddleware
from langchain_cases import KINDS, Desk, called, reason
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, InjectedToolArg, StructuredTool, ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from mcp_policy_middleware import Reason, ToolDenied
from mcp_policy_middleware.adapters.langchain import PolicyMiddleware, guard_tool, guard_tools, strip_injected
from mcp_policy_middleware.testing import FakeToolCallingModel

WAYS = pytest.mark.parametrize("way", ["sync", "async"])
THREAD: Any = {"configurable": {"thread_id": "1"}}


def pay_tool(ran: list[Any], name: str = "pay") -> BaseTool:
    made = KINDS["sync and async"](ran)
    made.name = name
    return made


def step(agent: Any, value: Any, way: str) -> Any:
    return asyncio.run(agent.ainvoke(value, THREAD)) if way == "async" else agent.invoke(value, THREAD)


def answers(state: Any) -> list[ToolMessage]:
    return [each for each in state["messages"] if each.type == "tool"]


GO: Any = {"messages": [("user", "go")]}


# --- a person changes the call after it was approved ----------------------------------------------------------------


def edited(amount: int) -> Command[Any]:
    """A person's answer: do it, with another amount."""
    decision = {"type": "edit", "edited_action": {"name": "pay", "args": {"amount": amount}}}
    return Command(resume={"decisions": [decision]})


@WAYS
@pytest.mark.parametrize("last", ["middleware", "guarded tool"])
@pytest.mark.parametrize(("amount", "why", "done"), [(99, Reason.REQUIREMENT_UNMET, []), (2, None, [2])])
def test_what_a_person_made_of_a_call_is_decided(way: str, last: str, amount: int, why: Any, done: list[int]) -> None:
    ran: list[Any] = []
    desk = Desk()
    person = HumanInTheLoopMiddleware(interrupt_on={"pay": True})
    guarded = guard_tools([pay_tool(ran)], desk.guard) if last == "guarded tool" else [pay_tool(ran)]
    agent = create_agent(
        FakeToolCallingModel(tool_calls=[[called(amount=1)]]),
        guarded,
        middleware=[person] if last == "guarded tool" else [person, PolicyMiddleware(desk.guard)],
        checkpointer=InMemorySaver(),
    )
    assert step(agent, GO, way)["__interrupt__"]
    assert (ran, desk.used()) == ([], 0)
    (message,) = answers(step(agent, edited(amount), way))
    assert reason(message) == why
    assert (ran, desk.used()) == (done, len(done))


# --- agents within agents, and threads ------------------------------------------------------------------------------


@WAYS
@pytest.mark.parametrize("guarded", [True, False])
def test_a_sub_agent_s_tools_are_decided_where_they_are_guarded(way: str, guarded: bool) -> None:
    ran: list[Any] = []
    desk = Desk()
    pay = guard_tool(pay_tool(ran), desk.guard) if guarded else pay_tool(ran)
    inner = create_agent(FakeToolCallingModel(tool_calls=[[called(amount=50)]]), [pay])

    @tool
    def look(task: str) -> str:
        """Ask another agent."""
        return str(inner.invoke({"messages": [("user", task)]})["messages"][-1].content)

    model = FakeToolCallingModel(tool_calls=[[called("look", task="pay")]])
    state = step(create_agent(model, [look], middleware=[PolicyMiddleware(desk.guard)]), GO, way)
    assert [each.status for each in answers(state)] == ["success"]
    assert ran == ([] if guarded else [50])  # an agent's middleware does not see what another agent does


@pytest.mark.parametrize("through", ["invoke", "func", "run"])
def test_a_guarded_tool_decides_in_a_thread_of_one_s_own(through: str) -> None:
    ran: list[Any] = []
    denied: list[Any] = []
    desk = Desk()
    pay = guard_tool(pay_tool(ran), desk.guard)

    def work() -> None:
        try:
            denied.append(pay.func(50) if through == "func" else getattr(pay, through)({"amount": 50}))
        except ToolDenied as denial:
            denied.append(denial.decision.text)

    @tool
    def look() -> str:
        """Work elsewhere."""
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return "looked"

    guard_tool(look, desk.guard).invoke({})
    assert [each.startswith("[POLICY DENIED]") for each in denied] == [True]
    assert (ran, desk.decisions()[-1]) == ([], ("pay", "requirement_unmet"))


# --- tools that a middleware brings or swaps ------------------------------------------------------------------------


class Bringing(AgentMiddleware):
    """Runs a tool of its own for a name that the agent has no tool for."""

    def __init__(self, brought: BaseTool) -> None:
        super().__init__()
        self.brought = brought

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(tool=self.brought))

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        return await handler(request.override(tool=self.brought))


@WAYS
@pytest.mark.parametrize("place", ["last", "first"])
def test_a_tool_that_a_middleware_brings_is_decided_by_the_last(way: str, place: str) -> None:
    ran: list[Any] = []
    desk = Desk({"version": "1", "default": "deny", "tools": {"look": {}}})
    middleware: list[Any] = [Bringing(pay_tool(ran)), PolicyMiddleware(desk.guard)]
    agent = create_agent(
        FakeToolCallingModel(tool_calls=[[called(amount=5)]]),
        [pay_tool([], "look")],
        middleware=middleware if place == "last" else middleware[::-1],
    )
    (message,) = answers(step(agent, GO, way))
    assert (reason(message), ran) == (Reason.DEFAULT_DENY, [])


@WAYS
def test_a_swap_after_the_policy_meets_a_guarded_tool(way: str) -> None:
    ran: list[Any] = []
    desk = Desk({"version": "1", "default": "deny", "tools": {"look": {}}})
    swapped = guard_tool(pay_tool(ran), desk.guard)
    agent = create_agent(
        FakeToolCallingModel(tool_calls=[[called("look", amount=5)]]),
        [pay_tool([], "look")],
        middleware=[PolicyMiddleware(desk.guard), Bringing(swapped)],
    )
    (message,) = answers(step(agent, GO, way))
    assert (message.status, reason(message), ran) == ("error", Reason.DEFAULT_DENY, [])


# --- error handlers that know only their own ------------------------------------------------------------------------


@WAYS
def test_a_handler_that_raises_foreign_tool_exceptions_again_does_not_see_a_denial(way: str) -> None:
    seen: list[Any] = []

    def only_mine(error: ToolException) -> str:
        seen.append(error)
        raise error

    def pay(amount: int) -> str:
        """Pay."""
        raise ToolException("foreign")

    pay.__annotations__["amount"] = int
    desk = Desk()
    handled = StructuredTool.from_function(pay, handle_tool_error=only_mine)
    agent = create_agent(
        FakeToolCallingModel(tool_calls=[[called(amount=50)], [called(amount=5)]]), guard_tools([handled], desk.guard)
    )
    with pytest.raises(ToolException):
        step(agent, GO, way)
    assert len(seen) == 1  # the tool's own, of the second call
    assert [why for _, why in desk.decisions()] == ["requirement_unmet", "allowed"]


# --- loops that run tools by hand -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["injected argument", "class, injected by schema"])
@pytest.mark.parametrize("guarded", [True, False])
def test_a_forged_argument_is_stripped_from_a_call(kind: str, guarded: bool) -> None:
    payer = KINDS[kind]([])
    payer = guard_tool(payer, Desk().guard) if guarded else payer
    forged = called(amount=1, payer="boss", note="mine")
    stripped = strip_injected(payer, forged)
    assert stripped == called(amount=1, note="mine")
    assert forged["args"]["payer"] == "boss"
    assert strip_injected(payer, stripped) == stripped


def test_a_stripped_call_takes_the_application_s_value() -> None:
    payers: list[str] = []

    @tool
    def pay(amount: int, payer: Annotated[str, InjectedToolArg] = "house") -> str:
        """Pay."""
        payers.append(payer)
        return "paid"

    guarded = guard_tool(pay, Desk().guard)
    forged = called(amount=1, payer="boss")
    guarded.invoke(forged)  # nothing tells a forged value from the application's
    call = strip_injected(guarded, forged)
    guarded.invoke(call)
    guarded.invoke({**call, "args": {**call["args"], "payer": "alice"}})
    assert payers == ["boss", "house", "alice"]


def test_what_a_tool_never_asked_for_stays_and_is_seen() -> None:
    like_mcp = KINDS["like MCP"]([])
    call = strip_injected(like_mcp, called(amount=1, runtime={"user": "admin"}, callbacks="x"))
    assert call == called(amount=1, callbacks="x")


def test_the_classic_executor_s_way_of_running_a_tool_is_decided() -> None:
    ran: list[Any] = []
    desk = Desk()
    pay = guard_tool(pay_tool(ran), desk.guard)
    options: Any = {"verbose": False, "color": "green", "callbacks": [], "llm_prefix": "", "observation_prefix": ""}
    assert pay.run({"amount": 50}, **options).startswith("[POLICY DENIED]")
    assert asyncio.run(pay.arun({"amount": 50}, **options)).startswith("[POLICY DENIED]")
    assert pay.run({"amount": 5}, **options) == "paid 5"
    assert (ran, desk.used()) == ([5], 1)
