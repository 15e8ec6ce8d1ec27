"""What a decision costs, as ratios to a hand-written function, and what a guarded MCP call costs.

    python benchmarks/bench.py

Every ratio is between two things measured in turn, in one process, in one run; the median over the rounds is
printed. Absolute times differ from machine to machine and are printed for orientation alone. Nothing records spans,
but where it says so. Exit status 1: a target was missed.

What telemetry adds is measured as a difference: a decision with it, less one with `telemetry=False`. A span is compared
with one that a program makes by hand after the same decision, by the SDK's own calls, with as many attributes: all of
them constants but the decision's id, which is drawn when somebody first asks for it.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import anyio
from hand_written import HandWritten
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from sessions import session_ratios

from mcp_policy_middleware import Guard, Outcome, Telemetry, ToolCall, parse_policy

ROUNDS = 41
BATCH = 1500
GOOD = {"amount": 120, "currency": "usd", "customer": "cus_abcdEF1234"}
BAD = {**GOOD, "amount": 501}


def policy_text(tools: int) -> str:
    """The policy of `HandWritten`, with so many tools."""
    require = [
        {"conditions": [{"path": "args.amount", "op": "lte", "value": 500}]},
        {"conditions": [{"path": "args.currency", "op": "in", "value": ["usd", "eur"]}]},
        {"conditions": [{"path": "args.customer", "op": "regex", "value": "^cus_[A-Za-z0-9]{8,}$"}]},
    ]
    # the ceiling is out of reach, so that every call of the measurement is admitted and counted
    limits = [{"counter": "charges", "window": "minute", "max": 1_000_000_000}]
    rules: dict[str, Any] = {f"tool_{index}": {} for index in range(tools - 1)}
    rules["create_charge"] = {"require": require, "limits": limits}
    return json.dumps({"version": "1", "default": "deny", "tools": rules})


def microseconds(function: Callable[[], object]) -> float:
    """The time of one call, over one batch: this thread's own, so that what else the machine does counts less."""
    started = time.thread_time_ns()
    for _ in range(BATCH):
        function()
    return (time.thread_time_ns() - started) / BATCH / 1000


def measured(subjects: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Measure all in turn, round by round: the times of each."""
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(ROUNDS):
        for name, function in subjects.items():
            times[name].append(microseconds(function))
    return times


def compare(subjects: dict[str, Callable[[], object]], base: str) -> dict[str, tuple[float, float]]:
    """The median time and the median ratio to `base` of each."""
    times = measured(subjects)
    return {
        name: (
            statistics.median(values),
            statistics.median(mine / other for mine, other in zip(values, times[base], strict=True)),
        )
        for name, values in times.items()
    }


def admitted(guard: Guard, call: ToolCall) -> Callable[[], None]:
    """A decision that must allow, with its settlement."""
    if not guard.explain(call).allowed:
        raise SystemExit("the benchmark's call is not admitted")

    def run() -> None:
        guard.finish(guard.begin(call), Outcome.RETURNED)

    return run


def denied(guard: Guard, call: ToolCall) -> Callable[[], object]:
    """A decision that must deny."""
    if guard.explain(call).allowed:
        raise SystemExit("the benchmark's call is not denied")
    return lambda: guard.begin(call)


def telemetry_costs(call: ToolCall) -> list[tuple[str, float, float]]:
    """What telemetry adds to a decision where nobody listens, and what a recorded span costs beside a bare one."""
    policy = parse_policy(policy_text(50))
    provider = TracerProvider()
    provider.add_span_processor(SpanProcessor())  # recorded whole; exporting is the application's own, on a thread
    spans_alone = Telemetry(provider, meter_provider=NoOpMeterProvider(), annotate=False)
    off = Guard(policy, telemetry=False)
    tracer = provider.get_tracer("by hand")

    def by_hand() -> None:
        started = time.time_ns()
        decision = off.begin(call)
        attributes = {
            "mcp_policy.effect": "allow",
            "mcp_policy.reason.code": "allowed",
            "mcp_policy.enforced": True,
            "mcp_policy.decision.id": decision.decision_id,
            "mcp_policy.grant": "default",
            "mcp_policy.arguments.keys": ["amount", "currency", "customer"],
            "gen_ai.tool.name": "create_charge",
            "mcp_policy.policy.name": "policy",
            "mcp_policy.policy.version": policy.digest,
            "openinference.span.kind": "GUARDRAIL",
        }
        span = tracer.start_span("policy_decision create_charge", attributes=attributes, start_time=started)
        span.end(time.time_ns())
        off.finish(decision, Outcome.RETURNED)

    times = measured(
        {
            "off": admitted(off, call),
            "unheard": admitted(Guard(policy), call),
            "span": admitted(Guard(policy, telemetry=spans_alone), call),
            "by hand": by_hand,
        }
    )
    added = {
        name: [mine - other for mine, other in zip(values, times["off"], strict=True)] for name, values in times.items()
    }
    ratios = [mine / bare for mine, bare in zip(added["span"], added["by hand"], strict=True)]
    for name, title in (("unheard", "without an SDK"), ("span", "a recorded span"), ("by hand", "a bare SDK span")):
        print(f"{'telemetry adds, ' + title:38}{statistics.median(added[name]):8.2f}")
    return [
        ("µs that telemetry adds to a decision without an SDK", statistics.median(added["unheard"]), 1.0),
        ("a recorded span / a bare SDK span with as many attributes", statistics.median(ratios), 1.3),
    ]


def main() -> int:
    """Measure, print, and say which targets were missed."""
    hand = HandWritten()
    guards = {tools: Guard(parse_policy(policy_text(tools))) for tools in (10, 50, 100, 1_000, 10_000)}
    guard = guards[50]
    call = ToolCall("create_charge", GOOD)
    subjects: dict[str, Callable[[], object]] = {
        "hand-written: allow": lambda: hand.allows("create_charge", GOOD),
        "hand-written: denied by argument": lambda: hand.allows("create_charge", BAD),
        "allow, with settlement": admitted(guard, call),
        "denied by argument": denied(guard, ToolCall("create_charge", BAD)),
        "denied by default": denied(guard, ToolCall("drop_everything", GOOD)),
        "run(): decide, call, settle": lambda: guard.run(call, dict),
    }
    subjects |= {f"allow, {tools:,} tools": admitted(one, call) for tools, one in guards.items()}
    gc.collect()
    gc.disable()
    try:
        figures = compare(subjects, "hand-written: allow")
    finally:
        gc.enable()
    print(f"{'':38}{'µs':>8}  {'ratio':>6}")
    for name, (time_, ratio) in figures.items():
        print(f"{name:38}{time_:8.2f}  {ratio:6.2f}")
    costs = telemetry_costs(call)
    sessions = anyio.run(session_ratios)
    for one in sessions:
        print(f"{one.name:38}{one.microseconds:8.1f}  {one.ratio:6.2f}")
    growth = figures["allow, 10,000 tools"][0] / figures["allow, 10 tools"][0]
    targets = [
        ("allow with settlement / hand-written allow", figures["allow, with settlement"][1], 5.0),
        ("denial by default / hand-written allow", figures["denied by default"][1], 2.0),
        ("10,000 tools / 10 tools", growth, 1.2),
        *costs,
        *((f"{one.name} / bare", one.ratio, one.most) for one in sessions if one.most is not None),
    ]
    print()
    for name, value, most in targets:
        print(f"{'ok    ' if value <= most else 'MISSED'} {name}: {value:.2f} (at most {most})")
    return 0 if all(value <= most for _, value, most in targets) else 1


if __name__ == "__main__":
    sys.exit(main())
