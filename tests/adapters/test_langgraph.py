"""The policy in LangGraph's `ToolNode`: both wrappers, on the sync and the async path (adapters A-1, A-2, A-4)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Annotated, Any

import pytest

pytest.importorskip("langgraph")

from langchain_cases import KINDS, POLICY, Desk, called, reason
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool, InjectedToolArg, StructuredTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode, ToolRuntime
from langgraph.types import Command, interrupt

from mcp_policy_middleware import PolicyError, Reason
from mcp_policy_middleware.adapters.langchain import guard_tools
from mcp_policy_middleware.adapters.langgraph import policy_tool_node, tool_node_wrappers

WAYS = pytest.mark.parametrize("way", ["sync", "async"])
THREAD: Any = {"configurable": {"thread_id": "1", "user": "alice"}}


def with_wrappers(tools: list[BaseTool], desk: Desk, **options: Any) -> ToolNode:
    """A node that has the wrappers alone."""
    return ToolNode(tools, **tool_node_wrappers(desk.guard, **options))


def whole(tools: list[BaseTool], desk: Desk, **options: Any) -> ToolNode:
    """A node of guarded tools with the wrappers."""
    return policy_tool_node(tools, desk.guard, **options)


NODES = pytest.mark.parametrize("node_of", [with_wrappers, whole])


def graph_of(node: ToolNode) -> Any:
    """A graph of one node, which remembers."""
    builder = StateGraph(MessagesState)
    builder.add_node("tools", node)
    builder.set_entry_point("tools")
    return builder.compile(checkpointer=InMemorySaver())


def step(graph: Any, value: Any, way: str) -> Any:
    return asyncio.run(graph.ainvoke(value, THREAD)) if way == "async" else graph.invoke(value, THREAD)


def act(node: ToolNode, way: str, *calls: dict[str, Any]) -> dict[str, ToolMessage]:
    """What a graph of the node answers to these calls, by call id."""
    state = step(graph_of(node), {"messages": [AIMessage("", tool_calls=list(calls))]}, way)
    return {message.tool_call_id: message for message in state["messages"][1:]}


def pay_tool(ran: list[Any], name: str = "pay") -> BaseTool:
    made = KINDS["sync and async"](ran)
    made.name = name
    return made


@WAYS
@NODES
def test_each_parallel_call_is_decided_and_answered_by_itself(way: str, node_of: Any) -> None:
    ran: list[Any] = []
    desk = Desk()
    calls = [called("pay", str(amount), amount=amount) for amount in (1, 50, 2)]
    answers = act(node_of([pay_tool(ran)], desk), way, *calls)
    assert {key: reason(each) for key, each in answers.items()} == {"1": None, "50": "requirement_unmet", "2": None}
    assert (answers["50"].status, answers["50"].name) == ("error", "pay")
    assert (sorted(ran), desk.used()) == ([1, 2], 2)
    assert sorted(why for _, why in desk.decisions()) == ["allowed", "allowed", "requirement_unmet"]


@NODES
def test_a_tool_that_is_async_alone_runs(node_of: Any) -> None:
    ran: list[Any] = []
    desk = Desk()
    calls = [called("pay", "1", amount=1), called("pay", "2", amount=50)]
    answers = act(node_of([KINDS["coroutine"](ran)], desk), "async", *calls)
    assert ([reason(answers[key]) for key in "12"], ran) == ([None, Reason.REQUIREMENT_UNMET], [1])


@WAYS
@NODES
def test_names_that_no_tool_has_are_decided_by_name(way: str, node_of: Any) -> None:
    desk = Desk()
    answers = act(node_of([pay_tool([])], desk), way, called("wipe", "1"), called("secret", "2"), called("look", "3"))
    assert [reason(answers[key]) for key in "123"] == [Reason.DEFAULT_DENY, Reason.HIDDEN, None]
    assert answers["3"].status == "error"  # allowed by the policy, and unknown to the node
    assert len(desk.decisions()) == 3


@WAYS
@NODES
def test_a_hidden_tool_is_denied(way: str, node_of: Any) -> None:
    ran: list[Any] = []
    answers = act(node_of([pay_tool(ran, "secret")], Desk()), way, called("secret", amount=1))
    assert (reason(answers["call-1"]), ran) == (Reason.HIDDEN, [])


def payer_tool(got: list[Any]) -> BaseTool:
    def pay(amount: int, payer: str, state: Any, runtime: Any) -> str:
        """Pay."""
        got.append((amount, payer, len(state["messages"]), type(runtime)))
        return "paid"

    pay.__annotations__ = {
        "amount": int,
        "payer": Annotated[str, InjectedToolArg],
        "state": Annotated[dict, InjectedState],
        "runtime": ToolRuntime,
    }
    pay.__defaults__ = ("house", None, None)
    return tool(pay)


@WAYS
@NODES
def test_what_is_injected_is_not_seen_and_what_is_forged_is_not_honoured(way: str, node_of: Any) -> None:
    got: list[Any] = []
    paths = [f"args.{name}" for name in ("payer", "state", "runtime")]
    closed = {"deny_if": [{"conditions": [{"path": path, "op": "exists", "value": True}]} for path in paths]}
    desk = Desk({"version": "1", "default": "allow", "tools": {"pay": closed}})
    forged = called(amount=1, payer="boss", state={"messages": [1, 2, 3]}, runtime="forged")
    answers = act(node_of([payer_tool(got)], desk), way, forged)
    assert answers["call-1"].content == "paid"
    assert got == [(1, "house", 1, ToolRuntime)]
    assert desk.decisions() == [("pay", "allowed")]


@WAYS
def test_a_default_that_the_model_left_out_is_seen_by_the_guarded_tool(way: str) -> None:
    ran: list[Any] = []
    costly = {"deny_if": [{"conditions": [{"path": "args.amount", "op": "gt", "value": 10}]}]}
    desk = Desk({"version": "1", "default": "allow", "tools": {"pay": costly}})

    def pay(amount: int = 50) -> str:
        """Pay."""
        ran.append(amount)
        return "paid"

    pay.__annotations__["amount"] = int
    answers = act(policy_tool_node([pay], desk.guard), way, called())
    assert (reason(answers["call-1"]), ran) == (Reason.RULE_DENIED, [])


@WAYS
@NODES
def test_an_interrupted_call_is_charged_once(way: str, node_of: Any) -> None:
    ran: list[Any] = []
    desk = Desk()

    @tool
    def pay(amount: int) -> str:
        """Pay."""
        answer = interrupt("really?")
        ran.append(amount)
        return f"paid {amount}: {answer}"

    graph = graph_of(node_of([pay], desk))
    assert step(graph, {"messages": [AIMessage("", tool_calls=[called(amount=1)])]}, way)["__interrupt__"]
    assert (ran, desk.used()) == ([], 0)
    assert step(graph, Command(resume="yes"), way)["messages"][-1].content == "paid 1: yes"
    assert (ran, desk.used()) == ([1], 1)


@WAYS
@NODES
def test_a_command_and_exceptions_of_a_tool_pass(way: str, node_of: Any) -> None:
    desk = Desk()

    @tool
    def pay(amount: int) -> Any:
        """Pay."""
        if amount == 1:
            raise KeyError("the tool's own")
        return Command(update={"messages": [ToolMessage("moved", tool_call_id="call-1")]})

    with pytest.raises(KeyError):
        act(node_of([pay], desk), way, called(amount=1))
    assert act(node_of([pay], desk), way, called(amount=2))["call-1"].content == "moved"
    assert desk.used() == 2


@WAYS
@NODES
def test_identity_comes_from_the_request(way: str, node_of: Any) -> None:
    desk = Desk()
    node = node_of(
        [pay_tool([])],
        desk,
        identity_of=lambda request: {"grant": request.runtime.config["configurable"]["user"]},
    )
    assert reason(act(node, way, called(amount=1))["call-1"]) is None
    assert (desk.used(grant="alice"), desk.used(), len(desk.decisions())) == (1, 0, 1)


@WAYS
@NODES
def test_a_tool_meets_the_rules_of_its_server_under_its_own_name(way: str, node_of: Any) -> None:
    ran: list[Any] = []
    desk = Desk(by_server=True)
    node = node_of(
        [pay_tool(ran, "stripe_pay"), pay_tool(ran, "local")],
        desk,
        name_of=lambda each: each.name.partition("_")[2] or each.name,
        server_of=lambda each: "stripe" if each.name.startswith("stripe_") else None,
    )
    calls = [called("stripe_pay", "1", amount=50), called("stripe_pay", "2", amount=5), called("local", "3", amount=1)]
    answers = act(node, way, *calls)
    assert [reason(answers[key]) for key in "123"] == [Reason.REQUIREMENT_UNMET, None, Reason.NO_POLICY]
    assert (ran, desk.used(server="stripe")) == ([5], 1)


@WAYS
def test_tools_that_this_guard_guards_keep_their_own_place(way: str) -> None:
    ran: list[Any] = []
    desk = Desk(by_server=True)
    tools = guard_tools(
        [pay_tool(ran, "x_pay")],
        desk.guard,
        server="stripe",
        name_of=lambda each: "pay",
        identity_of=lambda config: {"grant": config["configurable"]["user"]},
    )
    node = policy_tool_node(tools, desk.guard)
    assert node.tools_by_name["x_pay"] is tools[0]
    assert reason(act(node, way, called("x_pay", amount=5))["call-1"]) is None
    assert (ran, desk.used(server="stripe", grant="alice"), len(desk.decisions())) == ([5], 1, 1)


def test_the_pair_covers_both_paths() -> None:
    wrappers = tool_node_wrappers(Desk().guard)
    assert wrappers.keys() == {"wrap_tool_call", "awrap_tool_call"}
    assert asyncio.iscoroutinefunction(wrappers["awrap_tool_call"])
    assert not asyncio.iscoroutinefunction(wrappers["wrap_tool_call"])


@pytest.mark.parametrize("given", [["wrap_tool_call"], ["awrap_tool_call"], ["wrap_tool_call", "awrap_tool_call"]])
def test_a_node_with_another_s_wrapper_is_not_built(given: list[str]) -> None:
    with pytest.raises(PolicyError):
        policy_tool_node([], Desk().guard, **dict.fromkeys(given, lambda request, execute: execute(request)))


def test_other_options_are_the_node_s() -> None:
    node = policy_tool_node([pay_tool([])], Desk().guard, name="desk", tags=["t"], messages_key="asked")
    assert (node.name, node.tags, node._messages_key) == ("desk", ["t"], "asked")


@WAYS
def test_a_rejected_mcp_call_gives_its_charge_back(way: str) -> None:
    pytest.importorskip("mcp")
    from mcp_sessions import sdk_error

    desk = Desk()

    def refuse(amount: int) -> str:
        """Pay."""
        raise sdk_error(-32602)

    refuse.__annotations__["amount"] = int
    with pytest.raises(type(sdk_error(0))):
        act(whole([StructuredTool.from_function(refuse, name="pay")], desk), way, called(amount=1))
    assert (desk.used(), desk.decisions()) == (0, [("pay", "allowed")])


@WAYS
def test_shadow_mode_denies_nothing(way: str) -> None:
    ran: list[Any] = []
    act(whole([pay_tool(ran)], Desk({**POLICY, "mode": "shadow"})), way, called(amount=50))
    assert ran == [50]


def test_a_missing_framework_is_named_by_its_extra() -> None:
    code = (
        "import sys\n"
        "sys.modules['langgraph'] = None\n"
        "try:\n"
        "    import mcp_policy_middleware.adapters.langgraph\n"
        "except ImportError as error:\n"
        "    print(type(error).__name__, error.extra, 'langchain' in sys.modules)\n"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert printed.stdout.split() == ["MissingDependency", "agents", "False"]
