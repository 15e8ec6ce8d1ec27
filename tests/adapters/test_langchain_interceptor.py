"""The policy as an interceptor of langchain-mcp-adapters, in front of a real MCP server over stdio (A-1, A-2, A-4)."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_mcp_adapters")

from langchain_cases import Desk, called, reason
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool, ToolException
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.interceptors import MCPToolCallRequest, ToolCallInterceptor
from langchain_mcp_adapters.tools import load_mcp_tools
from langgraph.prebuilt import ToolNode
from mcp.types import CallToolResult, TextContent
from mcp_sessions import sdk_error

from mcp_policy_middleware import UNNAMED, Guard, Reason, ToolCall, ToolDenied, parse_policy
from mcp_policy_middleware.adapters.langchain import PolicyInterceptor, PolicyMiddleware, guard_tools
from mcp_policy_middleware.adapters.mcp import DECISION_KEY, guard_session
from mcp_policy_middleware.approvals import ApprovalRequest
from mcp_policy_middleware.testing import FakeToolCallingModel

SERVER = Path(__file__).parents[1] / "servers" / "ledger_server.py"
POLICY: dict[str, Any] = {
    "version": "1",
    "default": "allow",
    "hide": ["secret"],
    "tools": {
        "pay": {
            "require": [{"conditions": [{"path": "args.amount", "op": "lte", "value": 10}]}],
            "limits": [{"counter": "payments", "window": "hour", "max": 100}],
        },
        "fail": {"limits": [{"counter": "payments", "window": "hour", "max": 100}]},
    },
}

Tools = dict[str, BaseTool]


def ledger_in(tmp_path: Path) -> Path:
    """An empty file in which the server notes what it carries out."""
    ledger = tmp_path / "ledger.jsonl"
    ledger.touch()
    return ledger


def with_tools(
    tmp_path: Path, use: Callable[[Tools], Awaitable[None]], *interceptors: Any, **options: Any
) -> list[list[Any]]:
    """Connect to server `stripe`, use its tools, and tell what it has carried out."""
    ledger = ledger_in(tmp_path)
    connection: Any = {"transport": "stdio", "command": sys.executable, "args": [str(SERVER), str(ledger)]}
    client = MultiServerMCPClient({"stripe": connection}, tool_interceptors=list(interceptors), **options)

    async def main() -> None:
        await use({tool.name: tool for tool in await client.get_tools()})

    asyncio.run(main())
    return [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]


async def run_node(tools: Tools, *calls: dict[str, Any]) -> dict[str, ToolMessage]:
    """What a tool node of a graph answers to these calls, by call id."""
    from langgraph.graph import MessagesState, StateGraph

    builder = StateGraph(MessagesState)
    builder.add_node("tools", ToolNode(list(tools.values())))
    builder.set_entry_point("tools")
    state = await builder.compile().ainvoke({"messages": [AIMessage("", tool_calls=list(calls))]})
    return {message.tool_call_id: message for message in state["messages"][1:]}


def test_it_is_an_interceptor() -> None:
    assert isinstance(PolicyInterceptor(Desk().guard), ToolCallInterceptor)


def test_each_parallel_call_of_a_graph_is_decided_and_answered_by_itself(tmp_path: Path) -> None:
    desk = Desk(POLICY, by_server=True)

    async def use(tools: Tools) -> None:
        answers = await run_node(
            tools, *(called("stripe_pay", str(amount), amount=amount) for amount in (1, 50, 2)), called("stripe_secret")
        )
        assert {key: reason(each) for key, each in answers.items()} == {
            "1": None,
            "50": Reason.REQUIREMENT_UNMET,
            "2": None,
            "call-1": Reason.HIDDEN,
        }
        denied = answers["50"]
        assert (denied.status, denied.name) == ("error", "stripe_pay")
        assert denied.artifact["policy"]["rule"] == "/tools/pay/require/args.amount-lte"

    assert sorted(with_tools(tmp_path, use, PolicyInterceptor(desk.guard), tool_name_prefix=True)) == [
        ["pay", 1],
        ["pay", 2],
    ]
    assert desk.used(server="stripe") == 2
    assert len(desk.decisions()) == 4


def test_outside_a_graph_a_denial_is_a_tool_error_of_the_call(tmp_path: Path) -> None:
    desk = Desk(POLICY)

    async def use(tools: Tools) -> None:
        message = await tools["pay"].ainvoke(called(amount=50))
        assert (message.status, message.tool_call_id, message.name) == ("error", "call-1", "pay")
        assert message.content[0]["text"].startswith("[POLICY DENIED]")
        content = await tools["pay"].ainvoke({"amount": 50})
        assert content[0]["text"].startswith("[POLICY DENIED]")
        assert (await tools["pay"].coroutine(amount=5))[0][0]["text"] == "paid 5"
        with pytest.raises(ToolException):
            await tools["pay"].coroutine(amount=50)

    assert with_tools(tmp_path, use, PolicyInterceptor(desk.guard)) == [["pay", 5]]


def test_without_error_handling_the_bridge_raises_the_denial(tmp_path: Path) -> None:
    desk = Desk(POLICY)

    async def use(tools: Tools) -> None:
        with pytest.raises(ToolException):
            await tools["pay"].ainvoke(called(amount=50))
        answers = await run_node(tools, called(amount=50))
        assert reason(answers["call-1"]) == Reason.REQUIREMENT_UNMET

    assert with_tools(tmp_path, use, PolicyInterceptor(desk.guard), handle_tool_errors=False) == []


def test_batches_are_decided_call_by_call(tmp_path: Path) -> None:
    desk = Desk(POLICY)

    async def use(tools: Tools) -> None:
        answers = await tools["pay"].abatch([called("pay", "1", amount=3), called("pay", "2", amount=50)])
        assert [answer.status for answer in answers] == ["success", "error"]

    assert with_tools(tmp_path, use, PolicyInterceptor(desk.guard)) == [["pay", 3]]


class Redirecting:
    """Sends another call than the one that was made."""

    def __init__(self, **changes: Any) -> None:
        self.changes = changes

    async def __call__(self, request: Any, handler: Any) -> Any:
        return await handler(request.override(**self.changes))


@pytest.mark.parametrize("changes", [{"name": "secret", "args": {}}, {"args": {"amount": 99}}])
def test_it_sees_what_an_interceptor_before_it_made_of_the_call(tmp_path: Path, changes: dict[str, Any]) -> None:
    desk = Desk(POLICY)

    async def use(tools: Tools) -> None:
        guarded = {tool.name: tool for tool in guard_tools(tools.values(), desk.guard, server="stripe")}
        answers = await run_node(guarded, called(amount=1))
        assert reason(answers["call-1"]) in (Reason.HIDDEN, Reason.REQUIREMENT_UNMET)

    assert with_tools(tmp_path, use, Redirecting(**changes), PolicyInterceptor(desk.guard)) == []


def test_a_redirecting_interceptor_beneath_it_meets_the_guarded_session(tmp_path: Path) -> None:
    desk = Desk(POLICY)
    ledger = ledger_in(tmp_path)

    async def main() -> None:
        async with session_of(ledger) as session:
            tools = await load_mcp_tools(
                guard_session(session, desk.guard, server="stripe"),
                tool_interceptors=[PolicyInterceptor(desk.guard), Redirecting(name="secret", args={})],
                server_name="stripe",
            )
            (pay,) = [tool for tool in tools if tool.name == "pay"]
            message = await pay.ainvoke(called(amount=1))
            assert message.status == "error"

    asyncio.run(main())
    assert desk.decisions() == [("pay", "allowed"), ("secret", "hidden")]
    assert ledger.read_text(encoding="utf-8") == ""


@pytest.mark.parametrize("last", [True, False])
def test_it_says_so_when_it_is_not_the_last(tmp_path: Path, last: bool, caplog: pytest.LogCaptureFixture) -> None:
    policy, other = PolicyInterceptor(Desk(POLICY).guard), Redirecting()

    async def use(tools: Tools) -> None:
        for _ in range(2):
            await tools["pay"].ainvoke(called(amount=1))

    with_tools(tmp_path, use, *([other, policy] if last else [policy, other]))
    named = [record for record in caplog.records if record.name.startswith("mcp_policy_middleware")]
    assert len(named) == (0 if last else 1)


@asynccontextmanager
async def session_of(ledger: Path) -> AsyncIterator[Any]:
    """A live session with the server, as the bridge makes it."""
    connection: Any = {"transport": "stdio", "command": sys.executable, "args": [str(SERVER), str(ledger)]}
    async with MultiServerMCPClient({"stripe": connection}).session("stripe") as session:
        yield session


# --- the request, by itself -----------------------------------------------------------------------------------------


def ask(interceptor: PolicyInterceptor, answer: Any = None, /, **request: Any) -> Any:
    """One request through the interceptor to a bridge that answers so."""

    async def send(sent: MCPToolCallRequest) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    fields: dict[str, Any] = {"name": "pay", "args": {"amount": 1}, "server_name": "stripe", **request}
    return asyncio.run(interceptor(MCPToolCallRequest(**fields), send))


def denied_for(result: Any) -> str:
    assert isinstance(result, CallToolResult)
    assert result.isError
    decision = (result.meta or {})[DECISION_KEY]
    assert "message" not in decision
    return str(decision["reason"])


OK = CallToolResult(content=[TextContent(type="text", text="paid")])


@pytest.mark.parametrize(
    ("ended", "charged"),
    [
        (OK, 1),
        (CallToolResult(content=[], isError=True), 1),
        (ToolMessage("no", status="error", tool_call_id="1"), 1),
        *((sdk_error(code), 0) for code in (-32700, -32600, -32601, -32602)),
        (sdk_error(-32603), 1),
        (TimeoutError(), 1),
        (asyncio.CancelledError(), 1),
    ],
)
def test_a_charge_is_settled_by_what_became_of_the_call(ended: Any, charged: int) -> None:
    desk = Desk(POLICY)
    if isinstance(ended, BaseException):
        with pytest.raises(type(ended)):
            ask(PolicyInterceptor(desk.guard), ended)
    else:
        assert ask(PolicyInterceptor(desk.guard), ended) is ended
    assert desk.used(server="stripe") == charged


def test_charge_on_success_is_released_on_an_error_result() -> None:
    limit = {"counter": "payments", "window": "hour", "max": 100, "charge_on": "success"}
    desk = Desk({"version": "1", "default": "deny", "tools": {"pay": {"limits": [limit]}}})
    ask(PolicyInterceptor(desk.guard), CallToolResult(content=[], isError=True))
    assert desk.used(server="stripe") == 0


def test_a_denial_of_another_call_passes() -> None:
    foreign = ToolDenied(Desk().guard.explain(ToolCall("pay", {"amount": 50})))
    with pytest.raises(ToolDenied) as caught:
        ask(PolicyInterceptor(Desk(POLICY).guard), foreign)
    assert caught.value is foreign


def test_a_server_without_a_name_is_unnamed() -> None:
    desk = Desk(POLICY, by_server=True)
    assert denied_for(ask(PolicyInterceptor(desk.guard), OK, server_name="unknown")) == Reason.NO_POLICY
    ask(PolicyInterceptor(Desk(POLICY).guard), OK, server_name="unknown")
    named = PolicyInterceptor(desk.guard, server_of=lambda request: "stripe")
    assert ask(named, OK, server_name="unknown") is OK
    assert desk.used(server="stripe") == 1
    open_desk = Desk(POLICY)
    ask(PolicyInterceptor(open_desk.guard, server_of=lambda request: None), OK)
    assert open_desk.used(server=UNNAMED) == 1


def test_a_name_of_the_application_s_own() -> None:
    desk = Desk(POLICY)
    interceptor = PolicyInterceptor(desk.guard, name_of=lambda request: request.name.removeprefix("v2_"))
    assert denied_for(ask(interceptor, OK, name="v2_secret")) == Reason.HIDDEN


@pytest.mark.parametrize(
    "options",
    [
        {"server_of": lambda request: request.nothing},
        {"server_of": lambda request: ""},
        {"server_of": lambda request: 5},
        {"name_of": lambda request: None},
        {"identity_of": lambda request: request.runtime.context.user},
        {"identity_of": lambda request: {"grant": ""}},
    ],
)
def test_a_call_that_cannot_be_placed_is_denied(options: dict[str, Any]) -> None:
    desk = Desk({"version": "1", "default": "allow"})
    assert denied_for(ask(PolicyInterceptor(desk.guard, **options), OK)) == Reason.INVALID_CALL


@pytest.mark.parametrize("args", [[1], "amount", 5])
def test_arguments_that_are_no_object_are_denied(args: Any) -> None:
    assert (
        denied_for(ask(PolicyInterceptor(Desk({"version": "1", "default": "allow"}).guard), OK, args=args))
        == Reason.INVALID_CALL
    )


def test_a_runtime_that_a_model_made_up_tells_nothing() -> None:
    seen: list[Any] = []

    def identity_of(request: Any) -> dict[str, Any]:
        seen.append(request.runtime)
        return {"grant": "alice"}

    desk = Desk(POLICY)
    forged = {"tool_call_id": "call-9", "context": {"user": "admin"}}
    result = ask(PolicyInterceptor(desk.guard, identity_of=identity_of), OK, runtime=forged, args={"amount": 50})
    assert seen == [None]
    assert denied_for(result) == Reason.REQUIREMENT_UNMET


def test_identity_comes_from_the_graph_s_runtime(tmp_path: Path) -> None:
    desk = Desk(POLICY)
    interceptor = PolicyInterceptor(
        desk.guard, identity_of=lambda request: {"grant": request.runtime.config["configurable"]["user"]}
    )

    async def use(tools: Tools) -> None:
        from langchain.agents import create_agent

        model = FakeToolCallingModel(tool_calls=[[called(amount=1)]])
        agent = create_agent(model, list(tools.values()))
        state = await agent.ainvoke({"messages": [("user", "go")]}, {"configurable": {"user": "alice"}})
        assert [each.status for each in state["messages"] if each.type == "tool"] == ["success"]

    assert with_tools(tmp_path, use, interceptor) == [["pay", 1]]
    assert (desk.used(server="stripe", grant="alice"), desk.used(server="stripe")) == (1, 0)


# --- one call, one decision -----------------------------------------------------------------------------------------


def test_a_whole_stack_takes_one_charge_and_makes_one_span_for_each_parallel_call(tmp_path: Path) -> None:
    from langchain.agents import create_agent

    desk = Desk(POLICY, by_server=True)
    ledger = ledger_in(tmp_path)
    calls = [called("stripe_pay", str(amount), amount=amount) for amount in (1, 50, 2, 3)]
    calls.append(called("stripe_fail", "fail"))

    async def main() -> None:
        async with session_of(ledger) as session:
            plain = await load_mcp_tools(
                guard_session(session, desk.guard, server="stripe"),
                tool_interceptors=[PolicyInterceptor(desk.guard)],
                server_name="stripe",
                tool_name_prefix=True,
            )
            tools = guard_tools(
                plain, desk.guard, server="stripe", name_of=lambda tool: tool.name.removeprefix("stripe_")
            )
            model = FakeToolCallingModel(tool_calls=[calls])
            agent = create_agent(model, tools, middleware=[PolicyMiddleware(desk.guard)])
            state = await agent.ainvoke({"messages": [("user", "go")]})
            assert model.offered[0] == ["stripe_pay", "stripe_fail"]
            answers = {each.tool_call_id: each for each in state["messages"] if each.type == "tool"}
            assert {key: (each.status, reason(each)) for key, each in answers.items()} == {
                "1": ("success", None),
                "50": ("error", Reason.REQUIREMENT_UNMET),
                "2": ("success", None),
                "3": ("success", None),
                "fail": ("error", None),
            }

    asyncio.run(main())
    done = sorted(json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines())
    assert done == [["fail"], ["pay", 1], ["pay", 2], ["pay", 3]]
    assert desk.used(server="stripe") == 4
    assert sorted(desk.decisions()) == [("fail", "allowed"), *[("pay", "allowed")] * 3, ("pay", "requirement_unmet")]


def test_a_rejected_call_gives_its_charge_back_through_the_whole_stack(tmp_path: Path) -> None:
    desk = Desk(POLICY)

    class Refusing:
        async def __call__(self, request: Any, handler: Any) -> Any:
            raise sdk_error(-32602)

    async def use(plain: Tools) -> None:
        (pay, *_) = guard_tools(plain.values(), desk.guard, server="stripe")
        with pytest.raises(type(sdk_error(0))):
            await pay.ainvoke(called(amount=1))

    assert with_tools(tmp_path, use, PolicyInterceptor(desk.guard), Refusing()) == []
    assert (desk.used(server="stripe"), desk.decisions()) == (0, [("pay", "allowed")])


def test_two_guards_both_decide(tmp_path: Path) -> None:
    desk, other = Desk(POLICY), Desk({**POLICY, "tools": {"pay": {"action": "deny"}}})

    async def use(tools: Tools) -> None:
        assert reason((await run_node(tools, called(amount=1)))["call-1"]) == Reason.RULE_DENIED

    assert with_tools(tmp_path, use, PolicyInterceptor(desk.guard), PolicyInterceptor(other.guard)) == []


def test_the_request_it_was_given_goes_on() -> None:
    sent: list[Any] = []
    request = MCPToolCallRequest(name="pay", args={"amount": 1}, server_name="stripe", runtime={"forged": 1})

    async def send(each: Any) -> Any:
        sent.append(each)
        return OK

    assert asyncio.run(PolicyInterceptor(Desk(POLICY).guard)(request, send)) is OK
    assert len(sent) == 1
    assert sent[0] is request


def test_arguments_that_change_while_a_person_is_asked_are_not_sent() -> None:
    def say(asked: ApprovalRequest) -> bool:
        request.args["amount"] = 99
        return True

    async def send(each: Any) -> Any:
        raise AssertionError("it was sent")

    policy = parse_policy('{"version": "1", "default": "deny", "tools": {"pay": {"action": "require_approval"}}}')
    request = MCPToolCallRequest(name="pay", args={"amount": 1}, server_name="stripe")
    answer = asyncio.run(PolicyInterceptor(Guard(policy, approver=say))(request, send))
    assert denied_for(answer) == Reason.APPROVAL_FAILED
