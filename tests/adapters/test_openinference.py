"""Decisions nest under the tool's span of OpenInference's LangChain instrumentation, or of what answers like it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("langchain")

from langchain_core.tools import tool
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mcp_policy_middleware import Guard, Telemetry, ToolCall, parse_policy
from mcp_policy_middleware.adapters.langchain import PolicyMiddleware, guard_tools
from mcp_policy_middleware.errors import MissingDependency
from mcp_policy_middleware.telemetry import langchain_parent
from mcp_policy_middleware.testing import FakeToolCallingModel

POLICY = parse_policy(
    """
version: "1"
default: deny
tools:
  refund:
    require: [{conditions: [{path: args.amount, op: lte, value: 100}]}]
"""
)
MODULE = "openinference.instrumentation.langchain"


@tool
def refund(amount: int) -> str:
    """Refund an amount."""
    return f"refunded {amount}"


class Traced:
    """A provider, and what it was told."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def ancestry(self, span: ReadableSpan) -> list[str]:
        """The names of the spans around one, the innermost first."""
        known = {one.context.span_id: one for one in self.exporter.get_finished_spans()}
        names = []
        while span.parent is not None and span.parent.span_id in known:
            span = known[span.parent.span_id]
            names.append(span.name)
        return names

    def decisions(self) -> list[tuple[str, list[str]]]:
        """Each decision's effect and the spans around it."""
        spans = [span for span in self.exporter.get_finished_spans() if span.name.startswith("policy_decision")]
        return [(str((span.attributes or {})["mcp_policy.effect"]), self.ancestry(span)) for span in spans]


@pytest.fixture
def traced() -> Iterator[Traced]:
    pytest.importorskip(MODULE)
    from openinference.instrumentation.langchain import LangChainInstrumentor

    found = Traced()
    instrumentor = LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=found.provider)
    yield found
    instrumentor.uninstrument()


@pytest.mark.parametrize(("way", "around"), [("tools", "refund"), ("middleware", "tools")])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_decisions_are_under_the_run_that_makes_the_call(traced: Traced, way: str, around: str) -> None:
    """A guarded tool's decision is under the tool's span, and the middleware's under the tool node's."""
    create_agent = pytest.importorskip("langchain.agents").create_agent
    guard = Guard(POLICY, telemetry=Telemetry(traced.provider, parent=langchain_parent()))
    calls = [{"name": "refund", "args": {"amount": amount}, "id": str(amount)} for amount in (5, 500)]
    model = FakeToolCallingModel(tool_calls=[[call] for call in calls])
    if way == "tools":
        agent = create_agent(model, guard_tools([refund], guard))
    else:
        agent = create_agent(model, [refund], middleware=[PolicyMiddleware(guard)])
    agent.invoke({"messages": [("user", "refund")]})
    (allowed, outer), (denied, _) = traced.decisions()
    assert (allowed, denied) == ("allow", "deny")
    assert outer[0] == around
    assert outer[-1] == "LangGraph"
    assert not guard.telemetry.errors  # type: ignore[union-attr]


def test_a_run_that_is_none_leaves_the_current_span(monkeypatch: pytest.MonkeyPatch) -> None:
    """The documented function tells the run's span, or None outside of any run."""
    found = Traced()
    tracer = found.provider.get_tracer("application")
    answers = iter([tracer.start_span("tool"), None])
    module: Any = ModuleType(MODULE)
    module.get_current_span = lambda: next(answers)
    for name in ("openinference", "openinference.instrumentation"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, MODULE, module)
    guard = Guard(POLICY, telemetry=Telemetry(found.provider, parent=langchain_parent()))
    with tracer.start_as_current_span("current") as current:
        for _ in range(2):
            guard.begin(ToolCall("refund", {"amount": 1}))
    first, second, _ = found.exporter.get_finished_spans()
    assert first.parent is not None
    assert second.parent is not None
    assert first.parent.span_id != second.parent.span_id == current.get_span_context().span_id
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_without_openinference_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("openinference", MODULE):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency) as missing:
        langchain_parent()
    assert missing.value.extra == "openinference"
