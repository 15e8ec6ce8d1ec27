"""Metrics, events, the note on the caller's span, and values by name: what each holds, and that none is unbounded."""

from __future__ import annotations

import gc
import json
import logging
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from mcp_policy_middleware import (
    UNNAMED,
    Guard,
    PolicyError,
    StoreError,
    Telemetry,
    ToolCall,
    ToolDenied,
    parse_policy,
)
from mcp_policy_middleware.answers import look
from mcp_policy_middleware.approvals import Answer, ApprovalRequest, Event, MemoryApprovals, QueueApprover
from mcp_policy_middleware.engine import compile_policy
from mcp_policy_middleware.engine.trace import trace as explained
from mcp_policy_middleware.steps import drive
from mcp_policy_middleware.stores import MemoryStore
from mcp_policy_middleware.telemetry.attributes import ATTRIBUTES, Signal
from mcp_policy_middleware.telemetry.metrics import INSTRUMENTS, stage_of
from mcp_policy_middleware.testing import FrozenClock

ROOT = Path(__file__).parent.parent
CANARY = "canary-5d1e"


def condition(path: str, op: str, value: Any) -> list[dict[str, Any]]:
    return [{"conditions": [{"path": path, "op": op, "value": value}]}]


DOCUMENT = json.dumps({
    "version": "1", "default": "deny", "hide": ["hidden"],
    "tools": {
        "free": {},
        "refund": {"require": condition("args.amount", "lte", 100),
                   "limits": [{"counter": "refunds", "window": "hour", "max": 4, "increment_from": "args.amount"}]},
        "send": {"deny_if": condition("args.to", "eq", "x"), "only_arguments": ["to"]},
        "never": {"action": "deny"},
        "ask": {"action": "require_approval"},
        "get_*": {"rate_limit": {"max": 100_000, "window": 60}},
    },
})  # fmt: skip
POLICY = parse_policy(DOCUMENT, "p.json")
TWO = {"s": POLICY, "_local": POLICY}


class Bench:
    """A guard, and all that it tells."""

    def __init__(self, policies: Any = POLICY, telemetry: Mapping[str, Any] | None = None, **settings: Any) -> None:
        self.spans, self.reader, self.logs = InMemorySpanExporter(), InMemoryMetricReader(), InMemoryLogRecordExporter()
        self.tracing = TracerProvider()
        self.tracing.add_span_processor(SimpleSpanProcessor(self.spans))
        self.logging = LoggerProvider()
        self.logging.add_log_record_processor(SimpleLogRecordProcessor(self.logs))
        providers: dict[str, Any] = {
            "tracer_provider": self.tracing,
            "meter_provider": MeterProvider(metric_readers=[self.reader]),
            "logger_provider": self.logging,
            "events": True,
        }
        self.telemetry = Telemetry(**{**providers, **(telemetry or {})})
        given = {"store": MemoryStore(), "clock": FrozenClock(), "telemetry": self.telemetry, **settings}
        self.guard = Guard(policies, **given)

    def say(self, tool: str, arguments: Any = None, **identity: Any) -> str:
        """Make a call; its reason."""
        return self.guard.begin(ToolCall(tool, {} if arguments is None else arguments, **identity)).reason.value

    def points(self, signal: Signal) -> list[Any]:
        """What a metric holds now."""
        data = self.reader.get_metrics_data()
        found = data.resource_metrics[0].scope_metrics[0].metrics if data else []
        return [point for metric in found if metric.name == signal for point in metric.data.data_points]

    def of(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans.get_finished_spans() if span.name.startswith(name)]

    def events(self) -> list[Any]:
        return [data.log_record for data in self.logs.get_finished_logs()]


class Broken(MemoryStore):
    """A store that raises."""

    def reserve(self, charges: Any, now: float) -> Any:
        raise StoreError(CANARY)


class Redacting:
    """Raises where it is told to."""

    def __call__(self, tool: str, name: str, value: Any) -> Any:
        raise RuntimeError(f"{CANARY} {value}")


# ---- the table, and what is told


def everything() -> dict[Signal, list[set[str]]]:
    """The keys of each thing that was told by a guard to which everything happens."""
    keys: dict[Signal, list[set[str]]] = {signal: [] for signal in Signal}
    answers = iter([True, False])
    broken: dict[str, Any] = {"store": Broken(), "on_store_failure": "allow"}
    benches = [
        Bench(
            {"s": POLICY, "_local": POLICY},
            {"arguments": ["to"]},
            approver=lambda _: Answer(next(answers), "ann", "so"),
        ),
        Bench(**broken),
        Bench(telemetry={"arguments": ["to"], "redact": Redacting()}),
    ]
    for bench in benches:
        with bench.tracing.get_tracer("application").start_as_current_span("caller"):
            known = {"server": "s", "call_id": "c", "mcp_session_id": "m"} if bench is benches[0] else {}
            for tool, arguments in (
                ("free", {}), ("refund", {"amount": 1}), ("refund", {"amount": 900}), ("send", {"to": "x"}),
                ("get_it", {}), ("invented", {}), ("hidden", {}),
            ):  # fmt: skip
                bench.say(tool, arguments, **known)
            if bench is benches[0]:
                for number in range(2):
                    bench.say("ask", {"n": number})
                bench.say("free", server=UNNAMED)
        keys[Signal.DECISION] += [set(span.attributes or {}) for span in bench.of("policy_decision")]
        keys[Signal.APPROVAL] += [set(span.attributes or {}) for span in bench.of("policy_approval")]
        keys[Signal.CURRENT] += [set(span.attributes or {}) for span in bench.of("caller")]
        keys[Signal.EVENT] += [set(event.attributes) for event in bench.events()]
        for signal in INSTRUMENTS:
            keys[signal] += [set(point.attributes) for point in bench.points(signal)]
    return keys


def test_each_signal_has_just_the_attributes_of_the_table() -> None:
    """Every attribute that the table gives a signal is met on it, no other is, and those of always are always."""
    for signal, met in everything().items():
        rows = [row for row in ATTRIBUTES if signal in row.signals]
        assert met, signal
        assert set().union(*met) == {row.key for row in rows}, signal
        steady = {row.key for row in rows if row.when == "always" or "always," in row.when}
        if signal is Signal.CURRENT:
            steady |= {"mcp_policy.rule.name"}
        for keys in met:
            assert steady - {"mcp_policy.rule.name"} <= keys, signal


def test_no_key_is_both_leaf_and_prefix() -> None:
    """Backends that unfold keys into objects would mangle one that is both; and each key stands once."""
    keys = [row.key for row in ATTRIBUTES]
    assert len(keys) == len(set(keys))
    assert not [(leaf, key) for leaf in keys for key in keys if key.startswith(leaf + ".")]


# ---- metrics


def test_ten_thousand_invented_names_are_one_series() -> None:
    """Names that no policy lists are one series, and so are those that a glob matches; counters too."""
    bench = Bench()
    for number in range(10_000):
        bench.say(f"invented_{number}")
    (point,) = bench.points(Signal.DURATION)
    assert (point.attributes["gen_ai.tool.name"], point.count) == ("_OTHER", 10_000)
    for number in range(300):
        bench.say(f"get_{number}")
    names = {point.attributes["gen_ai.tool.name"] for point in bench.points(Signal.DURATION)}
    assert names == {"_OTHER"}
    (ratio,) = bench.points(Signal.USED)
    assert dict(ratio.attributes) == {"mcp_policy.counter.name": "_OTHER", "mcp_policy.counter.scope": "session"}
    assert {span.name for span in bench.of("policy_decision")} == {"policy_decision _OTHER"}


def test_names_that_the_server_lists_are_told() -> None:
    bench = Bench()
    bench.guard.visible(["get_listed"])
    bench.say("get_listed")
    (point,) = bench.points(Signal.DURATION)
    assert point.attributes["gen_ai.tool.name"] == "get_listed"


@pytest.mark.parametrize("name", [None, 5, ["x"], {"a": CANARY}])
def test_a_tool_whose_name_is_no_text_is_other(name: Any) -> None:
    """What is called may be anything; it is denied and told all the same."""
    bench = Bench()
    assert bench.say(name) == "evaluation_error"
    (span,) = bench.of("policy_decision _OTHER")
    assert (span.attributes or {})["gen_ai.tool.name"] == "_OTHER"
    assert (bench.telemetry.errors, len(bench.points(Signal.DURATION))) == (0, 1)


def test_durations_are_those_of_deciding_in_buckets_from_a_microsecond() -> None:
    """A person's time to answer is no part of it."""
    clock = FrozenClock()

    def slow(request: ApprovalRequest) -> Answer:
        clock.tick(90)
        return Answer(True)

    bench = Bench(approver=slow, clock=clock)
    assert bench.say("ask") == "allowed"
    (point,) = bench.points(Signal.DURATION)
    assert point.explicit_bounds[0] == 1e-6
    assert 0 < point.sum < 10
    (answered,) = bench.points(Signal.ANSWERS)
    assert (dict(answered.attributes), answered.sum) == ({"mcp_policy.approval.outcome": "approved"}, 90.0)


def test_what_a_person_takes_is_left_out_of_the_duration() -> None:
    """Of the time between a call and its decision, what went by while somebody was asked does not count."""
    bench = Bench()
    decision = bench.guard.begin(ToolCall("free", {}))
    bench.telemetry.record(decision, 0, 7_000_000_000, lambda _: True, 5_000_000_000)
    assert sum(point.sum for point in bench.points(Signal.DURATION)) == pytest.approx(2.0, abs=0.5)


def test_a_gauge_tells_how_full_a_counter_is() -> None:
    """After a charge the gauge is what is used of the limit; a denial and a look leave it."""
    bench = Bench()
    for amount, part in ((1, 0.25), (2, 0.75), (3, 0.75), (1, 1.0)):
        bench.say("refund", {"amount": amount})
        (point,) = bench.points(Signal.USED)
        assert point.value == part
    assert dict(point.attributes) == {"mcp_policy.counter.name": "refunds", "mcp_policy.counter.scope": "grant"}
    fresh = Bench()
    fresh.guard.observe(ToolCall("refund", {"amount": 1}))
    assert fresh.points(Signal.USED) == []


def test_a_gauge_tells_who_waits_for_an_answer() -> None:
    """The store itself is asked when metrics are read: answers that came another way count, and time that ran out."""
    clock, store = FrozenClock(), MemoryApprovals()
    bench = Bench(approver=QueueApprover(store), clock=clock, approval_timeout=60)
    assert [point.value for point in bench.points(Signal.WAITING)] == [0]
    for number in range(3):
        assert bench.say("ask", {"n": number}) == "approval_pending"
    assert [point.value for point in bench.points(Signal.WAITING)] == [3]
    store.move(store.requests(clock().timestamp())[0].id, Event.DENY, clock().timestamp())
    assert [point.value for point in bench.points(Signal.WAITING)] == [2]
    clock.tick(61)
    assert [point.value for point in bench.points(Signal.WAITING)] == [0]


def test_guards_with_one_telemetry_have_one_gauge() -> None:
    """Stores are counted once each, and those that nobody keeps any more are not."""
    shared, other = MemoryApprovals(), MemoryApprovals()
    bench = Bench(approver=QueueApprover(shared))
    given: dict[str, Any] = {"telemetry": bench.telemetry, "clock": FrozenClock()}
    guards = [Guard(POLICY, approver=QueueApprover(store), **given) for store in (shared, other)]
    bench.say("ask")
    guards[1].begin(ToolCall("ask", {}))
    assert [point.value for point in bench.points(Signal.WAITING)] == [2]
    del other, guards
    gc.collect()
    assert [point.value for point in bench.points(Signal.WAITING)] == [1]


def test_a_store_of_approvals_that_fails_is_a_fault_of_telemetry() -> None:
    class Gone(MemoryApprovals):
        def requests(self, now: float) -> Any:
            raise StoreError(CANARY)

    bench = Bench(approver=QueueApprover(Gone()))
    assert bench.points(Signal.WAITING) == []
    assert bench.telemetry.errors > 0
    assert bench.points(Signal.ERRORS)[0].attributes == {"error.type": "StoreError"}


CASES = json.loads((ROOT / "tests" / "data" / "policylayer_cases.json").read_text(encoding="utf-8"))


def test_the_stage_is_the_one_that_explain_names() -> None:
    """Over the published cases and this file's: reason and rule tell the stage that `explain` says decided."""
    documents = [
        (case["policy"], [(call["tool"], call["args"]) for call in case["calls"]]) for case in CASES if case["calls"]
    ]
    calls = [
        ("free", {}), ("free", []), ("hidden", {}), ("no", {}), ("never", {}), ("ask", {}),
        ("refund", {"amount": 900}), ("refund", {"amount": 50}), ("refund", {"amount": "1"}),
        ("refund", {"amount": -1}),
        ("send", {"to": "x"}), ("send", {"other": 1}),
    ]  # fmt: skip
    met = set()
    for document, made in [*documents, (json.loads(DOCUMENT), calls)]:
        policy = None if document is None else compile_policy(parse_policy(json.dumps(document)))
        for tool, arguments in made:
            steps = explained(policy, ToolCall(tool, arguments), "default")
            told = drive(steps, partial(look, MemoryStore(), lambda: 1_767_000_000.0))
            (name,) = [step.name for step in told.steps if step.decides] or ["allowed"]
            assert stage_of(told.decision) == ("limits" if name.startswith("limits") else name), told.decision
            met.add(stage_of(told.decision))
    stages = {"invalid call", "no policy", "hidden", "not listed", "action deny", "require", "deny_if", "limits"}
    assert met == {*stages, "approval", "allowed"}


def test_what_denies_outside_the_stages_has_a_name_too() -> None:
    """A failed evaluation, a record that fails, and a suspended guard."""

    class Unwritable:
        def decided(self, decision: Any) -> None:
            raise OSError(CANARY)

    for stage, bench in (("evaluation error", Bench()), ("audit", Bench(audit=Unwritable())), ("suspended", Bench())):
        if stage == "suspended":
            bench.guard.suspend("now")
        bench.say(5 if stage == "evaluation error" else "free")  # type: ignore[arg-type]
        (point,) = bench.points(Signal.DURATION)
        assert point.attributes["mcp_policy.stage"] == stage


# ---- the note on the caller's span


def test_the_callers_span_tells_the_last_decision_and_no_rule_of_one_before() -> None:
    bench = Bench()
    with bench.tracing.get_tracer("application").start_as_current_span("caller"):
        bench.say("never")
        bench.say("free")
    (caller,) = bench.of("caller")
    (_, last) = bench.of("policy_decision")
    assert dict(caller.attributes or {}) == {
        "mcp_policy.effect": "allow", "mcp_policy.rule.name": "",
        "mcp_policy.decision.id": (last.attributes or {})["mcp_policy.decision.id"],
    }  # fmt: skip
    assert caller.status.status_code is StatusCode.UNSET


def test_the_note_can_be_left_out() -> None:
    bench = Bench(telemetry={"annotate": False})
    with bench.tracing.get_tracer("application").start_as_current_span("caller"):
        bench.say("free")
    assert not bench.of("caller")[0].attributes


# ---- events


def test_an_event_tells_what_the_span_does_inside_its_trace() -> None:
    """Severity: an allowed call informs, a denial warns, and only a failed evaluation is an error."""
    bench = Bench(store=Broken())
    for tool in ("free", "never", "refund"):
        bench.say(tool, {"amount": 1} if tool == "refund" else {})
    events, spans = bench.events(), bench.of("policy_decision")
    assert [event.severity_text for event in events] == ["INFO", "WARN", "ERROR"]
    assert [event.severity_number.value for event in events] == [9, 13, 17]
    for event, span in zip(events, spans, strict=True):
        told = dict(span.attributes or {})
        assert told.pop("openinference.span.kind") == "GUARDRAIL"
        assert dict(event.attributes) == told
        assert (event.event_name, event.body, event.timestamp) == ("mcp_policy.decision", None, span.end_time)
        assert (event.trace_id, event.span_id) == (span.context.trace_id, span.context.span_id)


def test_events_are_opt_in() -> None:
    bench = Bench(telemetry={"events": False})
    bench.say("free")
    assert bench.events() == []


def test_events_do_without_spans() -> None:
    bench = Bench(telemetry={"tracer_provider": trace.NoOpTracerProvider()})
    bench.say("free")
    assert len(bench.events()) == 1


def test_an_api_without_events_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the installed API has no events, whoever asks for them hears it when the guard is made."""
    from opentelemetry import _logs

    class Old:
        def emit(self, record: Any) -> None: ...

    monkeypatch.setattr(_logs, "Logger", Old)
    with pytest.raises(PolicyError):
        Telemetry(events=True)
    monkeypatch.setitem(sys.modules, "opentelemetry._logs", None)
    monkeypatch.delattr("opentelemetry._logs")
    with pytest.raises(PolicyError):
        Telemetry(events=True)
    Telemetry()


# ---- values, by name


def values_of(bench: Bench) -> list[Any]:
    told = [dict(span.attributes or {}) for span in bench.of("policy_decision")]
    assert [dict(event.attributes).get("mcp_policy.arguments.values") for event in bench.events()] == [
        one.get("mcp_policy.arguments.values") for one in told
    ]
    return [json.loads(one["mcp_policy.arguments.values"]) for one in told if "mcp_policy.arguments.values" in one]


def test_values_leave_by_name_alone() -> None:
    """A list goes for every tool, a map for its own; each value is a text, escaped and cut."""
    bench = Bench(telemetry={"arguments": {"refund": ["amount", "note", "items"]}})
    bench.say("refund", {"amount": 5, "note": "a\n\x1b\ud800" + "é" * 1_000, "items": [1, {"k": None}], "card": CANARY})
    bench.say("free", {"amount": CANARY})
    (told,) = values_of(bench)
    assert (told["amount"], told["items"]) == ("5", '[1, {"k": null}]')
    assert told["note"].isprintable()
    assert len(told["note"]) <= 256
    assert CANARY not in json.dumps([span.to_json() for span in bench.spans.get_finished_spans()])
    flat = Bench(telemetry={"arguments": ["amount"]})
    flat.say("free", {"amount": "1", "card": CANARY})
    flat.say("refund", {"amount": 2})
    flat.say("free", [CANARY])
    flat.say("free", {})
    assert values_of(flat) == [{"amount": "1"}, {"amount": "2"}]


def test_a_redactor_says_what_is_recorded_in_a_values_place() -> None:
    seen = []

    def last_digits(tool: str, name: str, value: Any) -> str:
        seen.append((tool, name))
        return f"…{value[-2:]}"

    bench = Bench(telemetry={"arguments": ["card"], "redact": last_digits})
    bench.say("free", {"card": f"{CANARY}42", "amount": 1})
    assert (values_of(bench), seen) == ([{"card": "…42"}], [("free", "card")])


@pytest.mark.parametrize("arguments", ["amount", {"refund": "amount"}])
def test_a_text_is_no_list_of_names(arguments: Any) -> None:
    with pytest.raises(PolicyError):
        Telemetry(arguments=arguments)


# ---- parents, and faults


def test_decisions_and_approvals_nest_where_the_parent_hook_says() -> None:
    bench = Bench()
    tool = bench.tracing.get_tracer("application").start_span("tool")
    nested = Bench(telemetry={"parent": lambda: trace.set_span_in_context(tool)}, approver=lambda _: True)
    with bench.tracing.get_tracer("application").start_as_current_span("elsewhere"):
        nested.say("ask")
    spans = nested.spans.get_finished_spans()
    assert {span.name for span in spans} == {"policy_approval ask", "policy_decision ask"}
    assert {span.parent and span.parent.span_id for span in spans} == {tool.get_span_context().span_id}
    assert tool.attributes["mcp_policy.effect"] == "allow"  # type: ignore[attr-defined]
    aside = Bench(telemetry={"parent": lambda: None})
    with bench.tracing.get_tracer("application").start_as_current_span("current") as current:
        aside.say("free")
    (span,) = aside.of("policy_decision")
    assert span.parent is not None
    assert span.parent.span_id == current.get_span_context().span_id


class BadInstrument:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(CANARY)


def bad(*_: Any) -> Any:
    raise RuntimeError(CANARY)


def broken_metrics(bench: Bench) -> None:
    for name in ("_duration", "_used", "_errors"):
        setattr(bench.telemetry._metrics, name, BadInstrument())
    bench.telemetry._metrics.heard = lambda: True  # type: ignore[method-assign]


def broken_events(bench: Bench) -> None:
    bench.telemetry._events._logger = BadInstrument()  # type: ignore[union-attr,assignment]


@pytest.mark.parametrize(
    ("settings", "breaks"),
    [
        ({"parent": bad}, None),
        ({"arguments": ["to"], "redact": bad}, None),
        ({"arguments": ["to"], "redact": lambda *_: object()}, None),
        ({}, broken_metrics),
        ({}, broken_events),
    ],
    ids=["parent", "redactor", "redacted to what is no JSON", "metrics", "events"],
)
def test_a_fault_costs_its_own_signal_alone(
    settings: dict[str, Any], breaks: Callable[[Bench], None] | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever raises, the call goes on and the span is there; one line of the log tells it, without values."""
    caplog.set_level(logging.DEBUG)
    bench = Bench(telemetry=settings)
    if breaks:
        breaks(bench)
    assert bench.guard.run(ToolCall("send", {"to": CANARY}), lambda: "sent") == "sent"
    with pytest.raises(ToolDenied):
        bench.guard.run(ToolCall("never", {"to": CANARY}), lambda: "sent")
    assert len(bench.of("policy_decision")) == 2
    assert bench.telemetry.errors == 2
    ours = [record for record in caplog.records if record.name.startswith("mcp_policy_middleware")]
    assert len(ours) == 1
    assert CANARY not in caplog.text
    if not breaks:
        assert sum(point.value for point in bench.points(Signal.ERRORS)) == 2


def test_interrupts_are_no_faults() -> None:
    """What stops the program is not telemetry's to swallow."""

    def stop() -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Bench(telemetry={"parent": stop}).say("free")


# ---- providers, each in a process of its own


def in_a_process(program: str, **environment: str) -> str:
    text = f"DOCUMENT = {DOCUMENT!r}\n" + textwrap.dedent(program)
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT, env={"PATH": "", **environment},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


GLOBAL = """
from mcp_policy_middleware import Guard, Telemetry, ToolCall, parse_policy
from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
reader, logs = InMemoryMetricReader(), InMemoryLogRecordExporter()
def set_them():
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(logs))
    _logs.set_logger_provider(provider)
{before}
telemetry = Telemetry(events=True)
guard = Guard(parse_policy(DOCUMENT), telemetry=telemetry, approver=lambda request: True)
first = telemetry.recording()
{after}
guard.begin(ToolCall("free", {{}}))
data = reader.get_metrics_data()
names = [] if data is None else [m.name for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
print(first, telemetry.recording(), sorted(names), len(logs.get_finished_logs()), telemetry.errors)
"""
FOUND = "['mcp_policy.approval.waiting', 'mcp_policy.decision.duration'] 1 0"


@pytest.mark.parametrize("early", [True, False], ids=["before", "after"])
def test_global_providers_may_be_set_before_or_after(early: bool) -> None:
    """Metrics and events go to the application's providers, though no tracer provider is set at all."""
    calls = {"before": "set_them()" if early else "", "after": "" if early else "set_them()"}
    assert in_a_process(GLOBAL.format(**calls)) == f"{early} True {FOUND}"


def test_a_disabled_sdk_records_nothing() -> None:
    """With `OTEL_SDK_DISABLED` the application's providers are deaf, and nothing is put together."""
    program = GLOBAL.format(before="set_them()", after="").replace("events=True", "events=False")
    program += "from opentelemetry.sdk.trace import TracerProvider\n"
    program += "print(Telemetry(TracerProvider()).recording())"
    assert in_a_process(program, OTEL_SDK_DISABLED="true") == "False False [] 0 0\nFalse"


def test_a_meter_provider_that_is_deaf_is_not_told() -> None:
    telemetry = Telemetry(trace.NoOpTracerProvider(), meter_provider=NoOpMeterProvider())
    assert telemetry.recording() is False
