"""What leaves the process: no value of an argument or of the context, and no exception's text, but by its name."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from langchain_core.tools import tool
from mcp_sessions import connected, recording_server
from opentelemetry.sdk._logs import LoggerProvider, export
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mcp_policy_middleware import Guard, StoreError, Telemetry, ToolCall, ToolDenied, parse_policy
from mcp_policy_middleware.adapters.langchain import guard_tools
from mcp_policy_middleware.adapters.mcp import guard_session
from mcp_policy_middleware.stores import MemoryStore

CANARY = "canary-91af"
NAMED = "opted-in-3c"
EVENTS = hasattr(export, "InMemoryLogRecordExporter")
"""Whether the installed OpenTelemetry has events: the oldest that the package takes has none."""
POLICY = parse_policy(
    json.dumps(
        {
            "version": "1",
            "default": "deny",
            "tools": {
                "pay": {
                    "require": [{"conditions": [{"path": "args.amount", "op": "lte", "value": 10}]}],
                    "deny_if": [{"conditions": [{"path": "context.customer", "op": "eq", "value": "nobody"}]}],
                },
                "send": {"only_arguments": ["to", "note"]},
                "count": {"limits": [{"counter": "c", "window": "hour", "max": 1, "increment_from": "args.amount"}]},
                "ask": {"action": "require_approval"},
            },
        }
    )
)
VALUES: list[dict[str, Any]] = [
    {"amount": CANARY},
    {"amount": 5, "to": CANARY, "note": NAMED},
    {"amount": {"deep": [CANARY]}, "note": NAMED},
    {"to": CANARY, "note": NAMED},
    {"to": CANARY, "surplus": CANARY},
]
SIGNALS = {"span", "event"} if EVENTS else {"span"}


class Failing(MemoryStore):
    """A store that quotes what it was given."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__()
        self.error = error

    def reserve(self, charges: Any, now: float) -> Any:
        raise self.error(CANARY)


@dataclass
class Outside:
    """All that anybody but the tools and the person who is asked gets to see."""

    spans: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    reader: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tracing, logs = TracerProvider(), LoggerProvider()
        self.tracing.add_span_processor(SimpleSpanProcessor(self.spans))
        self.events: Any = export.InMemoryLogRecordExporter() if EVENTS else None
        if EVENTS:
            logs.add_log_record_processor(export.SimpleLogRecordProcessor(self.events))
        self.providers: dict[str, Any] = {
            "tracer_provider": self.tracing,
            "meter_provider": MeterProvider(metric_readers=[self.reader]),
            "logger_provider": logs,
            "events": EVENTS,
            "arguments": ["note"],
        }

    def signals(self) -> Iterator[tuple[str, str]]:
        for span in self.spans.get_finished_spans():
            yield "span", span.to_json()
        metrics = self.reader.get_metrics_data()
        yield "metrics", "" if metrics is None else metrics.to_json()
        for event in self.events.get_finished_logs() if EVENTS else ():
            yield "event", event.log_record.to_json() if hasattr(event.log_record, "to_json") else event.to_json()

    def said(self) -> list[tuple[str, str]]:
        return [*self.signals(), *(("text", text) for text in self.texts)]


def quoting(*_: Any) -> Any:
    raise RuntimeError(f"{CANARY} {NAMED}")


def guards(outside: Outside) -> Iterator[Guard]:
    """A guard as it is meant, and some that fail in every place where an exception may quote a value."""
    context = {"customer": CANARY, "other": CANARY}
    for telemetry, settings in (
        ({}, {"approver": lambda _: False}),
        ({}, {"approver": quoting}),
        ({"redact": quoting}, {}),
        ({"parent": quoting}, {}),
    ):
        given: dict[str, Any] = {**outside.providers, **telemetry}
        yield Guard(POLICY, context=context, telemetry=Telemetry(**given), **settings)


async def through_the_adapters(guard: Guard, outside: Outside) -> None:
    """Every call over every way, and what the agent and the application hear of it."""

    @tool
    def pay(amount: Any = 0, to: str = "", note: str = "") -> str:
        """Pay."""
        return "paid"

    (guarded,) = guard_tools([pay], guard)
    for arguments in VALUES:
        for name in ("pay", "send", "count", "ask", "invented"):
            call = ToolCall(name, dict(arguments), call_id="c")
            try:
                guard.run(call, lambda: None)
            except ToolDenied as denied:
                outside.texts += [str(denied), repr(denied), json.dumps(denied.decision.as_dict())]
            outside.texts.append(repr(guard.explain(call)))
        message = guarded.invoke({"type": "tool_call", "name": "pay", "id": "c", "args": dict(arguments)})
        outside.texts.append(message.model_dump_json())
    reached: list[Any] = []
    async with connected(recording_server(reached)) as session:
        guard_session(session, guard)
        for arguments in VALUES:
            for name in ("pay", "wipe", "ask"):
                result = await session.call_tool(name, dict(arguments))
                if getattr(result, "isError", getattr(result, "is_error", False)):
                    outside.texts.append(result.model_dump_json())


def test_no_value_leaves_but_by_its_name(caplog: pytest.LogCaptureFixture) -> None:
    """Over all signals, adapters, logs, exceptions and messages; what is opted in is in its one attribute."""
    caplog.set_level(logging.DEBUG, "mcp_policy_middleware")
    outside = Outside()
    for guard in guards(outside):
        with outside.tracing.get_tracer("application").start_as_current_span("caller"):
            anyio.run(through_the_adapters, guard, outside)
    ours = [record for record in caplog.records if record.name.startswith("mcp_policy_middleware")]
    logged = [("log", caplog.handler.format(record)) for record in ours]
    assert {kind for kind, _ in [*outside.said(), *logged]} == {"metrics", "text", "log"} | SIGNALS
    assert [(kind, text) for kind, text in [*outside.said(), *logged] if CANARY in text] == []
    named = {kind for kind, text in [*outside.said(), *logged] if NAMED in text}
    assert named == SIGNALS
    for kind, text in outside.signals():
        assert NAMED not in text.replace(f'\\"note\\": \\"{NAMED}\\"', ""), kind


@pytest.mark.parametrize("error", [RuntimeError, StoreError])
def test_what_a_store_raises_is_told_to_the_log_alone(error: type[Exception]) -> None:
    """An evaluation that fails is logged with its traceback (PL-4.3), and its text is nowhere else."""
    outside = Outside()
    guard = Guard(POLICY, store=Failing(error), telemetry=Telemetry(**outside.providers))
    anyio.run(through_the_adapters, guard, outside)
    assert [(kind, text) for kind, text in outside.said() if CANARY in text] == []
