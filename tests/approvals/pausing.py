"""What the suites of paused graphs share: a desk where payments above 10 need a person, and agents that pay."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

pytest.importorskip("langgraph")

from langchain_core.tools import BaseTool, tool
from langgraph.types import Command, Interrupt
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mcp_policy_middleware import Guard, Telemetry, ToolCall, parse_policy
from mcp_policy_middleware.adapters.langgraph import InterruptApprover
from mcp_policy_middleware.approvals import ApprovalStore, MemoryApprovals
from mcp_policy_middleware.stores import MemoryStore
from mcp_policy_middleware.testing import FrozenClock

POLICY = {
    "version": "1",
    "default": "deny",
    "tools": {
        "pay": {
            "require_approval_if": [
                {"conditions": [{"path": "args.amount", "op": "gt", "value": 10}], "on_deny": "big"}
            ],
            "limits": [{"counter": "payments", "window": "hour", "max": 100}],
        },
        "assist": {},
        "web_search": {"action": "require_approval"},
        "code_interpreter": {},
    },
}
THREAD: Any = {"configurable": {"thread_id": "1", "user": "alice"}}
WAYS = pytest.mark.parametrize("way", ["sync", "async"])


@dataclass
class Desk:
    """A guard that asks by pausing, the payments that were made, and everything that tells what it did."""

    approvals: ApprovalStore = field(default_factory=MemoryApprovals)
    clock: FrozenClock = field(default_factory=FrozenClock)
    store: MemoryStore = field(default_factory=MemoryStore)
    spans: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    ran: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.approver = InterruptApprover(store=self.approvals)
        self.guard = Guard(
            parse_policy(json.dumps(POLICY), name="desk"),
            store=self.store,
            clock=self.clock,
            approver=self.approver,
            telemetry=Telemetry(tracer_provider=provider),
        )

    def pay(self) -> BaseTool:
        @tool
        def pay(amount: int, note: str = "none") -> str:
            """Pay."""
            self.ran.append(amount)
            return f"paid {amount}"

        return pay

    def used(self) -> int:
        """How much of `payments` is charged."""
        charges = self.guard.explain(ToolCall("pay", {"amount": 1})).charges
        return self.store.peek(charges, self.clock().timestamp()).used[0] // 1_000_000

    def states(self) -> list[str]:
        """How all requests stand."""
        return [request.state.value for request in self.approvals.requests(self.clock().timestamp())]

    def reasons(self) -> list[str]:
        """The reason of every decision with a span."""
        found = [span.attributes or {} for span in self.spans.get_finished_spans()]
        return [str(each["mcp_policy.reason.code"]) for each in found if "mcp_policy.reason.code" in each]


def step(graph: Any, value: Any, way: str = "sync", config: Any = THREAD) -> Any:
    """Run a graph until it ends or pauses."""
    return asyncio.run(graph.ainvoke(value, config)) if way == "async" else graph.invoke(value, config)


def paused(state: Any) -> list[Interrupt]:
    """The questions for which a graph waits, in the order of the amounts."""
    return sorted(state.get("__interrupt__", ()), key=lambda each: each.value["arguments"]["amount"])


def resumed(graph: Any, answers: Any, way: str = "sync", config: Any = THREAD) -> Any:
    """Run a paused graph on."""
    return step(graph, Command(resume=answers), way, config)


def answers_of(state: Any) -> dict[str, Any]:
    """The tool messages by call id."""
    return {message.tool_call_id: message for message in state["messages"] if message.type == "tool"}
