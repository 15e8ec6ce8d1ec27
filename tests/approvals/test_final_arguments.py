"""A person agrees to the arguments that the tool will get, and is asked once for all layers of a call (PL-7.1, A-2)."""

from __future__ import annotations

import asyncio
import json
from datetime import date
from typing import Annotated, Any
from uuid import uuid4

import pytest

pytest.importorskip("langgraph")

from langchain_cases import ASYNC_ONLY, KINDS, called, reason, single
from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool, InjectedToolArg, InjectedToolCallId, StructuredTool, tool
from langgraph.graph import MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode, ToolRuntime
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mcp_policy_middleware import Guard, parse_policy
from mcp_policy_middleware.adapters.langchain import guard_tools
from mcp_policy_middleware.adapters.langgraph import policy_tool_node, tool_node_wrappers
from mcp_policy_middleware.approvals import ApprovalRequest

WAYS = pytest.mark.parametrize("way", ["sync", "async"])
UNVALIDATED = {"like MCP", "class, no schema"}
ASKED = {"action": "require_approval"}
DOCUMENT = {"version": "1", "default": "deny", "tools": {"pay": ASKED, "search": ASKED}}


class Desk:
    """A guard whose person says yes to everything, and what they were shown."""

    def __init__(self) -> None:
        self.shown: list[Any] = []
        self.guard = Guard(parse_policy(json.dumps(DOCUMENT), name="desk"), approver=self.say)

    def say(self, request: ApprovalRequest) -> bool:
        self.shown.append(request.arguments)
        return True


def act(node: ToolNode, way: str, call: dict[str, Any] | AIMessage) -> Any:
    """What a graph of the node answers to a call, or to a message with one."""
    builder = StateGraph(MessagesState)
    builder.add_node("tools", node)
    builder.set_entry_point("tools")
    graph = builder.compile()
    given = {"messages": [call if isinstance(call, AIMessage) else AIMessage("", tool_calls=[call])]}
    state = asyncio.run(graph.ainvoke(given)) if way == "async" else graph.invoke(given)
    return state["messages"][-1]


def both_layers(made: BaseTool, desk: Desk) -> ToolNode:
    return policy_tool_node([made], desk.guard)


def outer_layer(made: BaseTool, desk: Desk) -> ToolNode:
    return ToolNode([made], **tool_node_wrappers(desk.guard))


def inner_layer(made: BaseTool, desk: Desk) -> ToolNode:
    return ToolNode(guard_tools([made], desk.guard))


LAYERS = (both_layers, outer_layer, inner_layer)


def shown_by_each(made_of: Any, way: str, **args: Any) -> list[Any]:
    """What a person is shown of a call by both layers of a node, and by each alone; the call is made each time."""
    shown = []
    for layers in LAYERS:
        ran: list[Any] = []
        desk = Desk()
        answer = act(layers(made_of(ran), desk), way, called("pay", **args))
        assert (answer.status, len(ran)) == ("success", 1), answer
        shown += desk.shown
    return shown


@WAYS
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tool_is_asked_about_once_as_it_will_be_called(kind: str, way: str) -> None:
    if way == "sync" and kind in ASYNC_ONLY:
        way = "async"
    shown = shown_by_each(KINDS[kind], way, amount="7")
    assert len(shown) == len(LAYERS)
    assert all(each == shown[0] for each in shown)
    assert shown[0]["amount"] == ("7" if kind in UNVALIDATED else 7)
    assert shown[0].keys() <= {"amount", "note"}


@WAYS
def test_a_tool_of_one_text_is_asked_about_by_the_name_of_its_argument(way: str) -> None:
    for layers in LAYERS:
        desk = Desk()
        act(layers(single([]), desk), way, called("search", __arg1="tea"))
        assert desk.shown == [{"tool_input": "tea"}]


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")

    amount: int
    due: date = date(2026, 1, 2)
    labels: list[str] = Field(default_factory=list)
    payer: Annotated[str, InjectedToolArg] = "house"
    call: Annotated[str, InjectedToolCallId]
    state: Annotated[dict[str, Any], InjectedState]

    @field_validator("labels")
    @classmethod
    def lower(cls, labels: list[str]) -> list[str]:
        return [label.lower() for label in labels]


def ordering(ran: list[Any]) -> BaseTool:
    @tool(args_schema=Order)
    def pay(amount: int, due: date, labels: list[str], payer: str, call: str, state: dict[str, Any]) -> str:
        """Pay."""
        ran.append((amount, due, labels))
        assert (payer, call, len(state["messages"])) == ("house", "call-1", 1)
        return "paid"

    return pay


@WAYS
def test_validators_and_injected_fields_are_the_tools_own(way: str) -> None:
    shown = shown_by_each(ordering, way, amount="3", labels=["A"], payer="mallory")
    assert shown == [{"amount": 3, "due": "2026-01-02", "labels": ["a"]}] * len(LAYERS)


@WAYS
def test_a_runtime_is_not_shown(way: str) -> None:
    def made(ran: list[Any]) -> BaseTool:
        @tool
        def pay(amount: int, runtime: ToolRuntime, note: str = "none") -> str:
            """Pay."""
            ran.append(runtime.tool_call_id)
            return "paid"

        return pay

    assert shown_by_each(made, way, amount="3") == [{"amount": 3, "note": "none"}] * len(LAYERS)


def with_v1_schema(ran: list[Any]) -> BaseTool:
    from pydantic.v1 import BaseModel as OldModel

    class Old(OldModel):
        amount: int
        note: str = "none"
        payer: Annotated[str, InjectedToolArg] = "house"

    @tool(args_schema=Old)
    def pay(amount: int, note: str, payer: str) -> str:
        """Pay."""
        ran.append(amount)
        return "paid"

    return pay


@WAYS
def test_models_of_pydantic_1_are_validated_too(way: str) -> None:
    assert shown_by_each(with_v1_schema, way, amount="3") == [{"amount": 3, "note": "none"}] * len(LAYERS)


@WAYS
def test_what_does_not_validate_is_shown_as_written_and_refused_by_the_tool(way: str) -> None:
    ran: list[Any] = []
    desk = Desk()
    answer = act(outer_layer(KINDS["function"](ran), desk), way, called("pay", amount="seven"))
    assert (answer.status, reason(answer), ran) == ("error", None, [])
    assert desk.shown == [{"amount": "seven"}]


def test_a_validator_that_fails_without_what_is_injected_leaves_the_call_as_written() -> None:
    class Strict(BaseModel):
        amount: int
        call: Annotated[str, InjectedToolCallId] = ""
        payer: Annotated[str, InjectedToolArg] = "house"

        @model_validator(mode="after")
        def paid_by(self) -> Strict:
            if self.payer is None:
                raise ValueError("somebody pays")
            return self

    @tool(args_schema=Strict)
    def pay(amount: int, call: str, payer: str) -> str:
        """Pay."""
        return "paid"

    desk = Desk()
    assert act(outer_layer(pay, desk), "sync", called("pay", amount="7")).content == "paid"
    assert desk.shown == [{"amount": "7"}]


def test_values_that_validation_makes_up_are_not_what_a_person_agrees_to() -> None:
    class Unique(BaseModel):
        amount: int
        key: str = Field(default_factory=lambda: uuid4().hex)

    ran: list[Any] = []

    @tool(args_schema=Unique)
    def pay(amount: int, key: str) -> str:
        """Pay."""
        ran.append(key)
        return "paid"

    desk = Desk()
    assert act(outer_layer(pay, desk), "sync", called("pay", amount=7)).content == "paid"
    assert (desk.shown, len(ran)) == ([{"amount": 7}], 1)


def test_values_that_json_cannot_say_are_shown_as_written() -> None:
    class Amount:
        def __init__(self, number: int) -> None:
            self.number = number

    class Odd(BaseModel):
        amount: Any

        @field_validator("amount")
        @classmethod
        def of(cls, amount: Any) -> Any:
            return Amount(amount)

    @tool(args_schema=Odd)
    def pay(amount: Any) -> str:
        """Pay."""
        return f"paid {amount.number}"

    desk = Desk()
    assert act(outer_layer(pay, desk), "sync", called("pay", amount=7)).content == "paid 7"
    assert desk.shown == [{"amount": 7}]


def test_nothing_is_validated_for_a_person_who_is_not_asked() -> None:
    checked: list[int] = []

    class Checked(BaseModel):
        amount: int

        @field_validator("amount")
        @classmethod
        def note(cls, amount: int) -> int:
            checked.append(amount)
            return amount

    @tool(args_schema=Checked)
    def pay(amount: int) -> str:
        """Pay."""
        return "paid"

    guard = Guard(parse_policy('{"version": "1", "default": "allow"}', name="open"), approver=Desk().say)
    assert act(policy_tool_node([pay], guard), "sync", called("pay", amount=7)).content == "paid"
    assert checked == [7]


@WAYS
def test_a_call_that_is_edited_between_two_layers_needs_a_new_approval(way: str) -> None:
    ran: list[Any] = []
    desk = Desk()
    wrappers = tool_node_wrappers(desk.guard)

    def edited(request: Any) -> Any:
        return request.override(tool_call={**request.tool_call, "args": {"amount": 99}})

    async def alater(request: Any, handler: Any) -> Any:
        return await wrappers["awrap_tool_call"](request, lambda seen: handler(edited(seen)))

    node = ToolNode(
        guard_tools([KINDS["sync and async"](ran)], desk.guard),
        wrap_tool_call=lambda request, handler: wrappers["wrap_tool_call"](request, lambda seen: handler(edited(seen))),
        awrap_tool_call=alater,
    )
    assert act(node, way, called("pay", amount=1)).status == "success"
    assert desk.shown == [{"amount": 1, "note": "none"}, {"amount": 99, "note": "none"}]
    assert ran == [99]


def _put_in(call: dict[str, Any]) -> None:
    call["args"] = {"order": {"amount": 99}}


def _written_over(call: dict[str, Any]) -> None:
    call["args"]["order"]["amount"] = 99


@pytest.mark.parametrize("change", [_put_in, _written_over])
@pytest.mark.parametrize("layers", LAYERS)
@WAYS
def test_what_is_changed_while_a_person_is_asked_is_not_sent(way: str, layers: Any, change: Any) -> None:
    """The message with the call is in the state of the graph, where whatever runs beside it can change it."""
    ran: list[Any] = []
    call = called("pay", order={"amount": 1})

    def pay(**arguments: Any) -> str:
        ran.append(json.loads(json.dumps(arguments)))
        return "paid"

    def say(request: ApprovalRequest) -> bool:
        change(message.tool_calls[0])
        return True

    desk = Desk()
    desk.guard = Guard(parse_policy(json.dumps(DOCUMENT), name="desk"), approver=say)
    schema = {"type": "object", "title": "pay", "properties": {"order": {"type": "object"}}, "required": ["order"]}
    made = StructuredTool(name="pay", description="Pay.", args_schema=schema, func=pay)
    message = AIMessage("", tool_calls=[call])
    act(layers(made, desk), way, message)
    assert ran in ([], [{"order": {"amount": 1}}])
