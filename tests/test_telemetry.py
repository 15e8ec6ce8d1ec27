"""Decisions as spans: what they say, what they never say, and that they disturb nothing."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision as Sampling
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult
from opentelemetry.trace import NonRecordingSpan, SpanKind, StatusCode

from mcp_policy_middleware import UNNAMED, Guard, Outcome, StoreError, Telemetry, ToolCall, ToolDenied, parse_policy
from mcp_policy_middleware.stores import MemoryStore

ROOT = Path(__file__).parent.parent
CANARY = "canary-77ce"
DOCUMENT = json.dumps({
    "version": "1", "default": "deny", "hide": ["hidden"],
    "tools": {
        "t": {"deny_if": [{"conditions": [{"path": "args.x", "op": "eq", "value": CANARY}]}]},
        "limited": {"limits": [{"counter": "c", "window": "hour", "max": 1}]},
        "odd\nname": {},
    },
})  # fmt: skip
POLICY = parse_policy(DOCUMENT, "p.json")
ALWAYS = {
    "mcp_policy.effect", "mcp_policy.reason.code", "mcp_policy.enforced", "mcp_policy.decision.id",
    "mcp_policy.policy.name", "mcp_policy.policy.version", "mcp_policy.grant", "mcp_policy.arguments.keys",
    "gen_ai.tool.name", "openinference.span.kind",
}  # fmt: skip
CURRENT = {"mcp_policy.effect", "mcp_policy.decision.id", "mcp_policy.rule.name"}


class Spans:
    """A guard of `POLICY` and the spans it made."""

    def __init__(
        self, policies: Any = POLICY, openinference: bool = True, sampler: Sampler | None = None, **settings: Any
    ):
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.telemetry = Telemetry(self.provider, openinference)
        self.guard = Guard(policies, telemetry=self.telemetry, **settings)

    def of(self, call: ToolCall) -> ReadableSpan:
        """The one span of one call."""
        self.exporter.clear()
        self.guard.begin(call)
        (span,) = self.exporter.get_finished_spans()
        return span


def said(span: ReadableSpan) -> dict[str, Any]:
    """A span's attributes."""
    return dict(span.attributes or {})


def test_span_of_an_allowed_call() -> None:
    """An allowed call's span has exactly these attributes, and no rule."""
    span = Spans(grant="agent").of(ToolCall("t", {"x": 1, "b": None, "a": {"z": 1}}))
    attributes = said(span)
    assert span.name == "policy_decision t"
    assert span.kind is SpanKind.INTERNAL
    assert set(attributes) == ALWAYS
    assert len(attributes.pop("mcp_policy.decision.id")) == 16
    assert attributes == {
        "mcp_policy.effect": "allow", "mcp_policy.reason.code": "allowed", "mcp_policy.enforced": True,
        "mcp_policy.policy.name": "p.json", "mcp_policy.policy.version": POLICY.digest, "mcp_policy.grant": "agent",
        "mcp_policy.arguments.keys": ("a", "b", "x"), "gen_ai.tool.name": "t", "openinference.span.kind": "GUARDRAIL",
    }  # fmt: skip
    assert span.status.status_code is StatusCode.UNSET


def test_span_of_a_denied_call() -> None:
    """A denial names its rule; it is a successful evaluation, so the status stays unset."""
    span = Spans().of(ToolCall("t", {"x": CANARY}))
    attributes = said(span)
    assert set(attributes) == ALWAYS | {"mcp_policy.rule.name"}
    assert attributes["mcp_policy.effect"] == "deny"
    assert attributes["mcp_policy.reason.code"] == "rule_denied"
    assert attributes["mcp_policy.rule.name"] == "/tools/t/deny_if/args.x-eq"
    assert span.status.status_code is StatusCode.UNSET
    assert span.status.description is None


def test_span_of_what_is_known_besides() -> None:
    """Server, call id and MCP session id are there when they are known; OpenInference's kind can be left out."""
    spans = Spans({"x": POLICY}, openinference=False)
    call = ToolCall("t", {}, server="x", grant="g", call_id="call-1", mcp_session_id="session-1")
    attributes = said(spans.of(call))
    known = {"mcp_policy.server", "gen_ai.tool.call.id", "mcp.session.id"}
    assert set(attributes) == (ALWAYS - {"openinference.span.kind"}) | known
    assert (attributes["mcp_policy.server"], attributes["mcp_policy.grant"]) == ("x", "g")
    assert (attributes["gen_ai.tool.call.id"], attributes["mcp.session.id"]) == ("call-1", "session-1")


def test_span_without_a_policy() -> None:
    """Where no policy applies, none is named."""
    attributes = said(Spans({"x": POLICY}).of(ToolCall("t", {}, server=UNNAMED)))
    without = {"mcp_policy.policy.name", "mcp_policy.policy.version"}
    assert set(attributes) == (ALWAYS - without) | {"mcp_policy.rule.name", "mcp_policy.server"}
    assert attributes["mcp_policy.reason.code"] == "no_policy"


class Faulty(MemoryStore):
    """A store that raises."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def reserve(self, charges: Any, now: float) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("error", "reason"), [(RuntimeError(CANARY), "evaluation_error"), (StoreError(CANARY), "store_unavailable")]
)
def test_span_of_an_evaluation_that_failed(error: Exception, reason: str) -> None:
    """Only an evaluation that failed is an error, with the exception's kind and not its message."""
    span = Spans(store=Faulty(error)).of(ToolCall("limited", {}))
    attributes = said(span)
    assert set(attributes) == ALWAYS | {"mcp_policy.rule.name", "error.type"}
    assert (attributes["mcp_policy.reason.code"], attributes["error.type"]) == (reason, type(error).__name__)
    assert span.status.status_code is StatusCode.ERROR
    assert not span.events
    assert CANARY not in span.to_json()


def test_span_of_a_call_that_was_allowed_without_its_limits() -> None:
    """A guard that allows where the store fails says so in each span, which is an error, with no message."""
    spans = Spans(store=Faulty(StoreError(CANARY)), on_store_failure="allow")
    span = spans.of(ToolCall("limited", {}))
    attributes = said(span)
    assert set(attributes) == ALWAYS | {"mcp_policy.uncounted", "error.type"}
    assert (attributes["mcp_policy.effect"], attributes["mcp_policy.uncounted"]) == ("allow", True)
    assert span.status.status_code is StatusCode.ERROR
    assert CANARY not in span.to_json()


def test_span_in_shadow_says_that_it_was_not_enforced() -> None:
    """A denial that is not enforced shows both."""
    attributes = said(Spans(mode="shadow").of(ToolCall("hidden", {})))
    assert (attributes["mcp_policy.effect"], attributes["mcp_policy.enforced"]) == ("deny", False)


def test_a_sampler_sees_the_effect_when_the_span_is_made() -> None:
    """All attributes are there at creation, so that a sampler can keep every denial."""

    class DenialsOnly(Sampler):
        def should_sample(self, *args: Any, attributes: Any = None, **_: Any) -> SamplingResult:
            attributes = attributes or args[4]
            denied = attributes["mcp_policy.effect"] == "deny"
            return SamplingResult(Sampling.RECORD_AND_SAMPLE if denied else Sampling.DROP, attributes)

        def get_description(self) -> str:
            return "denials only"

    spans = Spans(sampler=DenialsOnly())
    for tool in ("t", "unlisted", "t", "hidden"):
        spans.guard.begin(ToolCall(tool, {}))
    reasons = [said(span)["mcp_policy.reason.code"] for span in spans.exporter.get_finished_spans()]
    assert reasons == ["default_deny", "hidden"]


def test_start_and_end_are_those_of_the_evaluation() -> None:
    """The span covers the evaluation though it is made after it."""

    class Slow(MemoryStore):
        entered = 0

        def reserve(self, charges: Any, now: float) -> Any:
            self.entered = time.time_ns()
            return super().reserve(charges, now)

    store = Slow()
    spans = Spans(store=store)
    before = time.time_ns()
    span = spans.of(ToolCall("limited", {}))
    assert span.start_time is not None
    assert span.end_time is not None
    assert before <= span.start_time <= store.entered <= span.end_time <= time.time_ns()


def test_names_that_nobody_lists_are_other() -> None:
    """Tools that neither policy nor server names show as `_OTHER` in the span's name, and in full as an attribute."""
    spans = Spans()
    assert spans.of(ToolCall("made-up", {})).name == "policy_decision _OTHER"
    assert said(spans.of(ToolCall("made-up", {})))["gen_ai.tool.name"] == "made-up"
    assert spans.of(ToolCall("hidden", {})).name == "policy_decision hidden"
    spans.guard.visible(["from the server"])
    assert spans.of(ToolCall("from the server", {})).name == "policy_decision from the server"
    assert spans.of(ToolCall("from the server", {}, server="x")).name == "policy_decision _OTHER"


def test_names_are_escaped_and_short() -> None:
    """Control characters in names of tools, arguments and calls are escaped, and long names are cut."""
    spans = Spans()
    assert spans.of(ToolCall("odd\nname", {})).name == "policy_decision odd\\nname"
    call = ToolCall("\x1b[31m" + "x" * 10_000, {"a\r\nb": 1, "\ud800": 2, "y" * 10_000: 3}, call_id="id\n" * 1_000)
    attributes = said(spans.of(call))
    names = [
        attributes["gen_ai.tool.name"],
        attributes["gen_ai.tool.call.id"],
        *attributes["mcp_policy.arguments.keys"],
    ]
    assert len(names) == 5
    for name in names:
        assert name.isprintable()
        assert 0 < len(name) <= 128
        assert name.encode()


def test_at_most_64_argument_names_are_recorded() -> None:
    """Of many arguments the first 64 names in order are told, and names that are no text are left out."""
    spans = Spans()
    arguments: dict[Any, Any] = {f"k{index:04}": CANARY for index in range(500)} | {5: 1, None: 2}
    keys = said(spans.of(ToolCall("t", arguments)))["mcp_policy.arguments.keys"]
    assert keys == tuple(f"k{index:04}" for index in range(64))
    for odd in (None, [], "text"):
        assert said(spans.of(ToolCall("t", odd)))["mcp_policy.arguments.keys"] == ()


def test_values_of_arguments_are_nowhere_in_a_span() -> None:
    """No attribute, event or status holds a value of an argument, whatever was decided."""
    spans = Spans()
    for tool in ("t", "limited", "limited", "hidden", "unlisted"):
        for arguments in ({"x": CANARY}, {"x": {"y": [CANARY]}}, [CANARY], CANARY):
            spans.guard.begin(ToolCall(tool, arguments))
    made = spans.exporter.get_finished_spans()
    assert len(made) == 20
    assert not any(CANARY in span.to_json() for span in made)


def test_explain_makes_no_span() -> None:
    """Looking is not doing."""
    spans = Spans()
    spans.guard.explain(ToolCall("t", {}))
    asyncio.run(spans.guard.aexplain(ToolCall("t", {})))
    assert spans.exporter.get_finished_spans() == ()


def test_every_way_to_decide_makes_one_span() -> None:
    """`begin`, `abegin`, `run` and `arun` each make one, allowed or denied."""

    async def send() -> None:
        return None

    spans = Spans()
    guard = spans.guard
    for tool in ("t", "unlisted"):
        call = ToolCall(tool, {})
        guard.finish(guard.begin(call), Outcome.RETURNED)
        asyncio.run(guard.abegin(call))
        for way in (
            lambda call=call: guard.run(call, lambda: None),
            lambda call=call: asyncio.run(guard.arun(call, send)),
        ):
            try:
                way()
            except ToolDenied:
                assert tool == "unlisted"
    assert len(spans.exporter.get_finished_spans()) == 8
    assert len({said(span)["mcp_policy.decision.id"] for span in spans.exporter.get_finished_spans()}) == 8


def test_the_span_is_a_child_of_the_callers_which_is_noted_on_and_otherwise_as_it_was() -> None:
    """A decision nests under the current span, which stays current and keeps name and status; the last is noted."""
    spans = Spans()
    tracer = spans.provider.get_tracer("application")
    with tracer.start_as_current_span("caller") as caller:
        spans.guard.run(ToolCall("t", {}), lambda: None)
        assert trace.get_current_span() is caller
        with pytest.raises(ToolDenied):
            spans.guard.run(ToolCall("unlisted", {}), lambda: None)
        assert trace.get_current_span() is caller
    first, second, outer = spans.exporter.get_finished_spans()
    noted = {key: said(second).get(key) for key in CURRENT}
    for child in (first, second):
        assert child.parent is not None
        assert child.parent.span_id == outer.context.span_id
    assert (outer.name, said(outer), outer.events, outer.status.status_code) == ("caller", noted, (), StatusCode.UNSET)


def test_the_call_itself_runs_under_the_callers_span() -> None:
    """While the call is out, the caller's span is current and not the decision's."""
    spans = Spans()
    with spans.provider.get_tracer("application").start_as_current_span("caller") as caller:
        assert spans.guard.run(ToolCall("t", {}), trace.get_current_span) is caller


def test_telemetry_can_be_turned_off() -> None:
    """`telemetry=False` makes no span, though a provider is there."""
    guard = Guard(POLICY, telemetry=False)
    assert guard.begin(ToolCall("t", {})).allowed


# ---- faults of telemetry


class BadExporter(SpanExporter):
    """Raises when it exports."""

    def export(self, spans: Any) -> SpanExportResult:
        raise RuntimeError(CANARY)


class BadProcessor(SpanProcessor):
    """Raises where it is told to."""

    def __init__(self, where: str) -> None:
        self.where = where

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self.where == "start":
            raise RuntimeError(CANARY)

    def on_end(self, span: Any) -> None:
        if self.where == "end":
            raise RuntimeError(CANARY)


class BadSampler(Sampler):
    """Raises when it is asked."""

    def should_sample(self, *args: Any, **named: Any) -> SamplingResult:
        raise RuntimeError(CANARY)

    def get_description(self) -> str:
        return "bad"


class BadTracer(trace.Tracer):
    """Raises when it makes a span."""

    def start_span(self, *args: Any, **named: Any) -> Any:
        raise NotImplementedError

    start_as_current_span = start_span


class BadSpan(NonRecordingSpan):
    """Raises when it ends."""

    def end(self, end_time: int | None = None) -> None:
        raise RuntimeError(CANARY)


class BadSpanTracer(BadTracer):
    """Makes bad spans."""

    def start_span(self, *args: Any, **named: Any) -> Any:
        return BadSpan(trace.INVALID_SPAN_CONTEXT)


class Provider(trace.TracerProvider):
    """Gives the tracer it was given."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self.tracer = tracer

    def get_tracer(self, *args: Any, **named: Any) -> trace.Tracer:
        return self.tracer


def processed_by(*processors: SpanProcessor, sampler: Sampler | None = None) -> TracerProvider:
    """A provider with these processors."""
    provider = TracerProvider(sampler=sampler)
    for processor in processors:
        provider.add_span_processor(processor)
    return provider


@pytest.mark.parametrize(
    "make",
    [
        lambda: processed_by(BadProcessor("start")),
        lambda: processed_by(BadProcessor("end")),
        lambda: processed_by(sampler=BadSampler()),
        lambda: Provider(BadTracer()),
        lambda: Provider(BadSpanTracer()),
    ],
    ids=["processor at start", "processor at end", "sampler", "tracer", "span"],
)
def test_faults_of_telemetry_disturb_no_call_and_are_counted(
    make: Callable[[], trace.TracerProvider], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever raises inside telemetry, calls are decided as ever; faults are counted and logged once."""
    telemetry = Telemetry(make())
    guard = Guard(POLICY, telemetry=telemetry)
    assert guard.run(ToolCall("t", {}), lambda: "result") == "result"
    with pytest.raises(ToolDenied):
        guard.run(ToolCall("unlisted", {}), lambda: None)
    assert guard.begin(ToolCall("t", {})).allowed
    assert telemetry.errors == 3
    assert len([record for record in caplog.records if record.name.startswith("mcp_policy_middleware")]) == 1


def test_an_exporter_that_raises_disturbs_no_call() -> None:
    """The SDK keeps an exporter's fault to itself, and the call goes on."""
    provider = processed_by(SimpleSpanProcessor(BadExporter()))
    guard = Guard(POLICY, telemetry=Telemetry(provider))
    assert guard.run(ToolCall("t", {}), lambda: "result") == "result"


# ---- providers, each in a process of its own, for a provider can be set but once


def in_a_process(program: str) -> str:
    """What a program prints."""
    text = f"DOCUMENT = {DOCUMENT!r}\n" + textwrap.dedent(program)
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", text], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_a_provider_set_after_the_guard_is_used() -> None:
    """A guard made before the application sets its provider records there from then on."""
    printed = in_a_process("""
        from mcp_policy_middleware import Guard, ToolCall, parse_policy
        guard = Guard(parse_policy(DOCUMENT))
        guard.run(ToolCall("t", {}), lambda: None)
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        guard.run(ToolCall("t", {}), lambda: None)
        guard.begin(ToolCall("unlisted", {}))
        print([span.name for span in exporter.get_finished_spans()])
    """)
    assert printed == "['policy_decision t', 'policy_decision _OTHER']"


def test_without_an_sdk_calls_are_decided_and_nothing_is_loaded() -> None:
    """Where no SDK can be imported, nothing is recorded and nothing fails."""
    printed = in_a_process("""
        import sys
        sys.modules["opentelemetry.sdk"] = None
        from mcp_policy_middleware import Guard, Telemetry, ToolCall, parse_policy
        telemetry = Telemetry()
        guard = Guard(parse_policy(DOCUMENT), telemetry=telemetry)
        print(guard.run(ToolCall("t", {}), lambda: "result"), telemetry.recording(), telemetry.errors)
    """)
    assert printed == "result False 0"


def test_a_global_provider_that_raises_disturbs_no_call() -> None:
    """A provider that cannot give a tracer costs the spans and not the calls."""
    printed = in_a_process("""
        from opentelemetry import trace
        from mcp_policy_middleware import Guard, Telemetry, ToolCall, ToolDenied, parse_policy

        class Bad(trace.TracerProvider):
            def get_tracer(self, *args, **named):
                raise RuntimeError("bad")

        telemetry = Telemetry()
        guard = Guard(parse_policy(DOCUMENT), telemetry=telemetry)
        trace.set_tracer_provider(Bad())
        print(guard.run(ToolCall("t", {}), lambda: "result"))
        try:
            guard.run(ToolCall("unlisted", {}), lambda: None)
        except ToolDenied as denied:
            print(denied.decision.reason, telemetry.errors > 0)
    """)
    assert printed == "result\ndefault_deny True"


def test_a_provider_of_the_api_alone_records_nothing() -> None:
    """The API's own provider makes spans that nobody sees, so none is put together."""
    telemetry = Telemetry(trace.NoOpTracerProvider())
    assert Guard(POLICY, telemetry=telemetry).begin(ToolCall("t", {})).allowed
    assert (telemetry.recording(), telemetry.errors) == (False, 0)
