"""Stage 9 through the guard: asked, decided again, used once, and nothing kept of a call that is not made (PL-7)."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mcp_policy_middleware import (
    Guard,
    Outcome,
    Policy,
    PolicyError,
    Reason,
    Telemetry,
    ToolCall,
    ToolDenied,
    parse_policy,
)
from mcp_policy_middleware.approvals import (
    Answer,
    ApprovalRequest,
    Approver,
    Event,
    FloodLimits,
    Found,
    FunctionApprover,
    MemoryApprovals,
    NoAnswer,
    State,
)
from mcp_policy_middleware.errors import StoreError
from mcp_policy_middleware.handover import Layer
from mcp_policy_middleware.stores import MemoryStore
from mcp_policy_middleware.testing import FrozenClock

RULE = "/tools/t/action"
LIMIT = {"counter": "c", "window": "hour", "max": 2}
CALL = ToolCall("t", {"a": 1})


def policy(**rules: Any) -> Policy:
    """A document whose tool `t` needs an approval and has a limit."""
    mine = {"action": "require_approval", "limits": [LIMIT]} | rules
    return parse_policy(json.dumps({"version": "1", "default": "deny", "tools": {"t": mine, "free": {}}}))


class Desk(Approver):
    """People who answer when they are told to, and remember what they were asked."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.asked: list[ApprovalRequest] = []
        self.answer: Any = NoAnswer.LATER
        self.meanwhile: Callable[[], Any] = lambda: None

    def ask(self, request: ApprovalRequest, seconds: float) -> Answer | NoAnswer:
        self.asked.append(request)
        self.meanwhile()
        return self.answer

    async def aask(self, request: ApprovalRequest, seconds: float) -> Answer | NoAnswer:
        return self.ask(request, seconds)


class Bench:
    """A guard, its people, its counters and its clock."""

    def __init__(self, document: Policy | None = None, answer: Any = NoAnswer.LATER, **settings: Any) -> None:
        self.clock = FrozenClock()
        self.counters = MemoryStore()
        self.desk = Desk(**{key: settings.pop(key) for key in ("store", "floods") if key in settings})
        self.desk.answer = answer
        given = {"store": self.counters, "clock": self.clock, "approver": self.desk, "telemetry": False} | settings
        self.guard = Guard(policy() if document is None else document, **given)

    @property
    def now(self) -> float:
        return self.clock().timestamp()

    @property
    def used(self) -> float:
        return sum(total.used for total in self.counters.counters(self.now)) / 1_000_000

    def say(self, call: ToolCall = CALL, outcome: Outcome = Outcome.RETURNED) -> str:
        """The reason of one call, which goes on where it may."""
        decision = self.guard.begin(call)
        if decision.allowed:
            self.guard.finish(decision, outcome)
        return decision.reason.value

    def move(self, event: Event) -> Found:
        """Let something happen to the request that was made last."""
        return self.desk.store.move(self.desk.asked[-1].id, event, self.now)


def test_a_yes_lets_the_call_go_on_once_and_charges_it() -> None:
    bench = Bench(answer=Answer(True, "ann", "fine"))
    decision = bench.guard.begin(CALL)
    assert (decision.reason, decision.rule, bench.used) == (Reason.ALLOWED, "", 1)
    told = decision.as_dict()["approval"]
    assert told == {"id": bench.desk.asked[0].id, "state": "consumed", "by": "ann", "why": "fine", "at": bench.now}
    assert bench.say() == "allowed"
    assert len({request.id for request in bench.desk.asked}) == 2


def test_the_person_is_told_of_exactly_this_call() -> None:
    bench = Bench(policy(reason="spends money"), grant="g", session="s")
    bench.say(ToolCall("t", {"a": [1.0, "x"]}, call_id="c1"))
    (request,) = bench.desk.asked
    assert (request.server, request.tool, request.arguments) == (None, "t", {"a": [1, "x"]})
    assert (request.grant, request.session, request.call_id) == ("g", "s", "c1")
    assert (request.rule, request.text, request.policy_name) == (RULE, "spends money", "policy")
    assert (request.asked_at, request.expires_at) == (bench.now, bench.now + 1800)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (None, "approval_pending"),
        (Event.APPROVE, "allowed"),
        (Event.DENY, "approval_denied"),
        (Event.EXPIRE, "approval_pending"),
        (Event.CANCEL, "approval_pending"),
    ],
)
def test_what_a_later_try_meets(event: Event | None, reason: str) -> None:
    """A question that stands is not asked twice; one that is over is asked anew."""
    bench = Bench()
    assert bench.say() == "approval_pending"
    if event is not None:
        assert bench.move(event).changed
    assert (bench.say(), bench.used) == (reason, int(reason == "allowed"))
    assert len(bench.desk.asked) == (2 if event in (Event.EXPIRE, Event.CANCEL) else 1)


def test_a_no_stands_until_its_time_is_up() -> None:
    bench = Bench(answer=Answer(False, "ann", "no"), approval_timeout=timedelta(minutes=1))
    assert [bench.say(), bench.say()] == ["approval_denied"] * 2
    bench.clock.tick(60)
    bench.say()
    assert len(bench.desk.asked) == 2


@pytest.mark.parametrize("approved", [True, False])
def test_an_answer_or_a_call_that_comes_too_late_counts_for_nothing(approved: bool) -> None:
    bench = Bench(approval_timeout=60)
    bench.say()
    if approved:
        bench.move(Event.APPROVE)
    bench.clock.tick(60)
    assert not bench.move(Event.APPROVE).changed
    assert (bench.say(), len(bench.desk.asked), bench.used) == ("approval_pending", 2, 0)


def test_an_answer_that_comes_while_the_time_runs_out_is_expired() -> None:
    bench = Bench(answer=Answer(True), approval_timeout=60)
    bench.desk.meanwhile = lambda: bench.clock.tick(60)
    assert (bench.say(), bench.used) == ("approval_expired", 0)


def test_stages_before_the_ninth_are_never_overridden() -> None:
    """What a rule or a limit denies asks nobody; a limit that fills up meanwhile denies, and the approval waits."""
    document = policy(deny_if=[{"conditions": [{"path": "args.bad", "op": "eq", "value": 1}]}])
    bench = Bench(document)
    assert (bench.say(ToolCall("t", {"bad": 1})), bench.desk.asked) == ("rule_denied", [])
    bench.say()
    bench.move(Event.APPROVE)
    (charge,) = bench.guard.explain(CALL).charges
    for _ in range(2):
        bench.counters.reserve((charge,), bench.now)
    assert (bench.say(), bench.desk.store.requests(bench.now)[0].state) == ("limit_exceeded", State.APPROVED)
    bench.counters.reset([charge.key])
    assert (bench.say(), len(bench.desk.asked)) == ("allowed", 1)


def test_what_changes_while_a_person_is_asked() -> None:
    """The call is decided again on a fresh look, and what is sent is what was agreed to (PL-7.3)."""
    bench = Bench(answer=Answer(True))
    call = ToolCall("t", {"a": 1})
    bench.desk.meanwhile = lambda: call.arguments.update(a=2)
    assert (bench.say(call), bench.used) == ("approval_failed", 0)
    assert bench.desk.store.requests(bench.now)[0].state is State.APPROVED  # nobody used it for another call
    bench.desk.meanwhile = lambda: bench.guard.suspend("stop")
    assert (bench.say(ToolCall("t", {"c": 1})), bench.used) == ("suspended", 0)
    bench.guard.resume()
    nothing = parse_policy('{"version": "1", "default": "deny"}')
    for number, changed in enumerate((policy(reason="other"), policy(action="allow"), nothing)):
        bench.guard.reload(policy())
        bench.desk.meanwhile = lambda changed=changed: bench.guard.reload(changed)
        assert bench.say(ToolCall("t", {"b": number})) in ("approval_failed", "default_deny")
        assert bench.used == 0


def test_arguments_that_change_while_the_approval_is_used_are_not_sent() -> None:
    """Between using the approval and sending nothing is waited for, and the call is compared once more."""
    call = ToolCall("t", {"a": 1})

    class Sly(MemoryApprovals):
        def move(self, id: str, event: Event, now: float, by: str = "", why: str = "") -> Found:
            if event is Event.CONSUME:
                call.arguments["a"] = 2
            return super().move(id, event, now, by, why)

    bench = Bench(answer=Answer(True), store=Sly())
    assert (bench.say(call), bench.used) == ("approval_failed", 0)


@pytest.mark.parametrize(("first", "reason"), [(Event.CONSUME, "approval_failed"), (Event.EXPIRE, "approval_expired")])
def test_an_approval_that_somebody_else_was_quicker_to_use_or_to_take_back(first: Event, reason: str) -> None:
    """Whoever loses that race gives its charge back and is not let go on (PL-7.3)."""

    class Raced(MemoryApprovals):
        def move(self, id: str, event: Event, now: float, by: str = "", why: str = "") -> Found:
            if event is Event.CONSUME:
                super().move(id, first, now)
            return super().move(id, event, now, by, why)

    bench = Bench(answer=Answer(True), store=Raced())
    assert (bench.say(), bench.used) == (reason, 0)


def test_what_json_cannot_say_cannot_be_approved() -> None:
    bench = Bench(answer=Answer(True))
    for arguments in ({"a": math.nan}, {"a": "\ud800"}, {1: 2}, {"a": object()}):
        assert bench.say(ToolCall("t", arguments)) == "invalid_call"
    assert bench.desk.asked == []


def test_nobody_is_asked_in_shadow_mode_or_by_whoever_only_looks() -> None:
    bench = Bench(answer=Answer(True), mode="shadow")
    decision = bench.guard.begin(CALL)
    assert (decision.reason, decision.enforced, bench.desk.asked) == (Reason.APPROVAL_REQUIRED, False, [])
    bench = Bench()
    looks = (bench.guard.explain, bench.guard.observe, lambda call: asyncio.run(bench.guard.aexplain(call)))
    expected = ["approval_required", "approval_pending", "allowed", "approval_required"]
    for step, reason in enumerate(expected):
        assert [look(CALL).reason.value for look in looks] == [reason] * 3
        if step == 0:
            bench.say()
        elif step == 1:
            bench.move(Event.APPROVE)
        else:
            assert (bench.say(), bench.used) == ("allowed", 1) or step == 3
    assert len(bench.desk.asked) == 2


def test_only_the_context_that_conditions_see_is_bound() -> None:
    condition = {"path": "context.tier", "op": "neq", "value": "gold"}
    bench = Bench(policy(action="allow", require_approval_if=[{"conditions": [condition]}]))
    bench.say(ToolCall("t", {}, context={"tier": "new", "trace": object()}))
    bench.move(Event.APPROVE)
    assert bench.say(ToolCall("t", {}, context={"tier": "old", "trace": 1})) == "approval_pending"
    assert bench.say(ToolCall("t", {}, context={"tier": "new", "trace": 2})) == "allowed"


def test_a_flood_of_questions_is_denied_and_says_when_to_come_back() -> None:
    bench = Bench(floods=FloodLimits(pending=2, an_hour=3))
    calls = [ToolCall("t", {"a": number}) for number in range(5)]
    assert [bench.say(call) for call in calls[:3]] == ["approval_pending", "approval_pending", "approval_flood"]
    decision = bench.guard.begin(calls[2])
    assert (decision.retry_after, decision.approval) == (1800, None)
    assert bench.say(ToolCall("t", {}, grant="another")) == "approval_pending"
    bench.desk.store.move(bench.desk.asked[0].id, Event.DENY, bench.now)
    assert [bench.say(call) for call in calls[2:4]] == ["approval_pending", "approval_flood"]
    bench.clock.tick(1800)
    assert bench.guard.begin(calls[3]).retry_after == 1800


class Broken(MemoryApprovals):
    """Fails at one step."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self.step = step

    def open(self, *given: Any) -> Any:
        return self._may("open") or super().open(*given)

    def move(self, id: str, event: Event, now: float, by: str = "", why: str = "") -> Found:
        return self._may(event.value) or super().move(id, event, now, by, why)

    def find(self, *given: Any) -> Any:
        return self._may("find") or super().find(*given)

    def _may(self, step: str) -> None:
        if step == self.step:
            raise StoreError("down")


@pytest.mark.parametrize("step", ["open", "approve", "consume"])
def test_a_store_of_requests_that_is_down_denies_and_keeps_no_charge(step: str) -> None:
    bench = Bench(answer=Answer(True), store=Broken(step))
    assert (bench.say(), bench.used) == ("approval_failed", 0)


def test_a_store_of_requests_that_is_down_is_told_to_whoever_looks() -> None:
    assert Bench(store=Broken("find")).guard.explain(CALL).reason is Reason.APPROVAL_FAILED


@pytest.mark.parametrize("step", [Event.APPROVE, Event.CONSUME])
def test_a_caller_that_is_cancelled_keeps_nothing(step: Event) -> None:
    """Wherever the cancellation meets it, no charge is kept and the call is not made."""

    class Slow(MemoryApprovals):
        async def amove(self, id: str, event: Event, now: float, by: str = "", why: str = "") -> Found:
            if event is step:
                reached.set()
                await asyncio.Event().wait()
            return self.move(id, event, now, by, why)

    async def main() -> None:
        nonlocal reached
        reached = asyncio.Event()
        task = asyncio.create_task(bench.guard.abegin(CALL))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    reached: Any = None
    bench = Bench(answer=Answer(True), store=Slow())
    asyncio.run(main())
    assert bench.used == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_caller_that_is_interrupted_withdraws_the_question(error: type[BaseException]) -> None:
    def interrupted() -> None:
        raise error

    bench = Bench()
    bench.desk.meanwhile = interrupted
    with pytest.raises(error):
        bench.guard.begin(CALL)
    assert bench.desk.store.requests(bench.now)[0].state is State.CANCELLED


class Pause(Exception):
    """A framework's own."""


def test_control_flow_passes_and_the_question_stays() -> None:
    bench = Bench()
    type(bench.desk).control_flow = (Pause,)

    def pause() -> None:
        raise Pause

    bench.desk.meanwhile = pause
    try:
        for run in (bench.guard.begin, lambda call: asyncio.run(bench.guard.abegin(call))):
            with pytest.raises(Pause):
                run(ToolCall("t", {"x": id(run)}))
            assert bench.desk.store.requests(bench.now)[-1].state is State.PENDING
    finally:
        type(bench.desk).control_flow = ()


@pytest.mark.parametrize("settings", [{"approval_timeout": wrong} for wrong in (0, -1, math.nan, math.inf, True)])
def test_a_timeout_that_is_none_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match="approval_timeout"):
        Guard(policy(), approver=Desk(), **settings)


def test_an_approver_that_is_none_is_refused() -> None:
    with pytest.raises(PolicyError, match="approver"):
        Guard(policy(), approver="ann")  # type: ignore[arg-type]


# ---- one call through several layers


def layered(bench: Bench, *seen: dict[str, Any]) -> str:
    """A call that passes several layers of the guard, each of which sees these arguments."""
    reached = []

    def step(depth: int) -> Any:
        if depth == len(seen):
            reached.append(True)
            return "done"
        call = ToolCall("t", seen[depth])
        return bench.guard.run(call, lambda: step(depth + 1), layer=Layer(depth))

    try:
        step(0)
    except ToolDenied as denied:
        assert not reached
        return denied.decision.reason.value
    return "allowed"


def test_layers_that_see_the_same_call_ask_once() -> None:
    bench = Bench(answer=Answer(True))
    assert (layered(bench, {"a": 1}, {"a": 1.0}, {"a": 1}), len(bench.desk.asked), bench.used) == ("allowed", 1, 1)


def test_a_layer_that_sees_another_call_asks_anew() -> None:
    bench = Bench(answer=Answer(True))
    assert (layered(bench, {"a": 1}, {"a": 2}, {"a": 2}), len(bench.desk.asked), bench.used) == ("allowed", 2, 1)
    answers = iter([Answer(True), Answer(False)])
    bench.desk.meanwhile = lambda: setattr(bench.desk, "answer", next(answers))
    assert (layered(bench, {"a": 3}, {"a": 4}), bench.used) == ("approval_denied", 1)


def test_an_outer_layer_that_knows_what_is_sent_asks_about_that() -> None:
    """`as_sent` is what the person sees and agrees to, and the layer that sends it asks nobody."""
    bench = Bench(answer=Answer(True))
    outer = ToolCall("t", {"a": "1"}, as_sent=lambda: {"a": 1, "b": "default"})
    inner = ToolCall("t", {"a": 1, "b": "default"})
    bench.guard.run(outer, lambda: bench.guard.run(inner, lambda: None, layer=Layer.TOOL))
    assert [request.arguments for request in bench.desk.asked] == [{"a": 1, "b": "default"}]
    assert bench.used == 1


def test_a_call_inside_a_call_needs_an_approval_of_its_own() -> None:
    """An approval is handed inwards to deeper layers of the same call, and to no other call like it."""
    bench = Bench(answer=Answer(True))
    nested = lambda: bench.guard.run(ToolCall("t", {"a": 1}), lambda: None)  # noqa: E731
    bench.guard.run(ToolCall("t", {"a": 1}), nested)
    assert (len(bench.desk.asked), bench.used) == (2, 2)


# ---- what is seen from outside


def test_spans_and_the_metric_tell_who_answered_and_how_long_it_took() -> None:
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    telemetry = Telemetry(tracing, meter_provider=MeterProvider(metric_readers=[reader]))
    bench = Bench(telemetry=telemetry)
    bench.say()
    bench.clock.tick(90)
    request = bench.desk.store.move(bench.desk.asked[0].id, Event.APPROVE, bench.now, "ann", "fine").request
    assert request is not None
    bench.say()
    bench.desk.answer = Answer(False)
    bench.say(ToolCall("t", {"a": 2}))
    asked = [span for span in spans.get_finished_spans() if span.name == "policy_approval t"]
    outcomes = [dict(span.attributes or {}) for span in asked]
    assert [one["mcp_policy.approval.outcome"] for one in outcomes] == ["pending", "approved", "denied"]
    who = {"approver": "ann", "why": "fine", "id": request.id}
    assert {key: outcomes[1][f"mcp_policy.approval.{key}"] for key in who} == who
    decisions = [dict(span.attributes or {}) for span in spans.get_finished_spans() if "decision" in span.name]
    assert [one["mcp_policy.reason.code"] for one in decisions] == ["approval_pending", "allowed", "approval_denied"]
    assert {key: decisions[1][f"mcp_policy.approval.{key}"] for key in who} == who
    found = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics  # type: ignore[union-attr]
    (metric,) = [one for one in found if one.name.endswith("approval.duration")]
    points = {point.attributes["mcp_policy.approval.outcome"]: point.sum for point in metric.data.data_points}
    assert (metric.name, metric.unit, points) == (
        "mcp_policy.approval.duration",
        "s",
        {"approved": 90.0, "denied": 0.0},
    )


def test_a_failing_approver_leaves_an_error_span() -> None:
    spans = InMemorySpanExporter()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    for broken in ({"answer": "yes"}, {"store": Broken("open")}):
        Bench(telemetry=Telemetry(tracing), **broken).say()
    statuses = [(span.name, span.status.status_code.name) for span in spans.get_finished_spans()]
    assert statuses == [("policy_approval t", "ERROR"), ("policy_decision t", "UNSET")] * 2


def test_a_function_is_taken_for_an_approver() -> None:
    guard = Guard(policy(), approver=lambda request: request.arguments == {"a": 1})
    assert guard.begin(CALL).reason is Reason.ALLOWED
    assert guard.begin(ToolCall("t", {"a": 2})).reason is Reason.APPROVAL_DENIED
    assert isinstance(FunctionApprover(lambda request: True).store, MemoryApprovals)
