"""A program that a test kills: a graph that pays, with checkpoints, counters and approvals in files of one directory.

    python paying_agent.py DIRECTORY agent|node sync|async start|go|RESUME [die]

`start` makes two payments, of which one needs a person; `go` runs the graph on, and so does the JSON to resume with.
With `die`, the tool kills its process once it has paid. Prints one JSON line, and waits to be killed where a person is
to be asked.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import MessagesState, StateGraph
from langgraph.types import Command

from mcp_policy_middleware import Guard, ToolCall, parse_policy
from mcp_policy_middleware.adapters.langchain import PolicyMiddleware, guard_tools
from mcp_policy_middleware.adapters.langgraph import InterruptApprover, policy_tool_node
from mcp_policy_middleware.approvals import SQLiteApprovals
from mcp_policy_middleware.stores import SQLiteStore
from mcp_policy_middleware.testing import FakeToolCallingModel

POLICY = """
version: "1"
default: deny
tools:
  pay:
    require_approval_if: [{conditions: [{path: args.amount, op: gt, value: 10}]}]
    limits: [{counter: payments, window: day, max: 100}]
"""
THREAD: Any = {"configurable": {"thread_id": "1"}}
CALLS: list[Any] = [{"name": "pay", "args": {"amount": n}, "id": str(n), "type": "tool_call"} for n in (1, 50)]


def main() -> None:
    """Run the graph as far as it goes."""
    place, host, way, what = sys.argv[1:5]
    folder = Path(place)
    store = SQLiteStore(folder / "counters.db")
    approver = InterruptApprover(store=SQLiteApprovals(folder / "approvals.db"))
    guard = Guard(parse_policy(POLICY, name="p"), store=store, approver=approver)

    @tool
    def pay(amount: int) -> str:
        """Pay."""
        with (folder / "paid.txt").open("a") as paid:
            paid.write(f"{amount}\n")
        if amount == 50 and "die" in sys.argv:
            os.kill(os.getpid(), signal.SIGKILL)
        return "paid"

    def graph_with(saver: Any) -> Any:
        if host == "agent":
            model = FakeToolCallingModel(tool_calls=[CALLS] if what == "start" else [])
            tools = guard_tools([pay], guard)
            return create_agent(model, tools, middleware=[PolicyMiddleware(guard)], checkpointer=saver)
        builder = StateGraph(MessagesState)
        builder.add_node("tools", policy_tool_node([pay], guard))
        builder.set_entry_point("tools")
        return builder.compile(checkpointer=saver)

    if what == "start":
        value: Any = {"messages": ["pay"] if host == "agent" else [AIMessage("", tool_calls=CALLS)]}
    else:
        value = None if what == "go" else Command(resume=json.loads(what))

    async def ainvoked() -> Any:
        async with AsyncSqliteSaver.from_conn_string(str(folder / "graph.db")) as saver:
            return await graph_with(saver).ainvoke(value, THREAD)

    def invoked() -> Any:
        with SqliteSaver.from_conn_string(str(folder / "graph.db")) as saver:
            return graph_with(saver).invoke(value, THREAD)

    state = invoked() if way == "sync" else asyncio.run(ainvoked())
    charges = guard.explain(ToolCall("pay", {"amount": 1})).charges
    told = {
        "used": store.peek(charges, time.time()).used[0] // 1_000_000,
        "questions": [each.value for each in state.get("__interrupt__", ())],
        "answers": {each.tool_call_id: reason(each) for each in state["messages"] if each.type == "tool"},
    }
    print(json.dumps(told), flush=True)
    if told["questions"]:
        sys.stdin.read()


def reason(message: Any) -> str | None:
    """Why a call was denied."""
    return message.artifact["policy"]["reason"] if isinstance(message.artifact, dict) else None


if __name__ == "__main__":
    main()
