"""What a decision costs, as ratios to a hand-written function, and what a guarded MCP call costs.

    python benchmarks/bench.py

Every ratio is between two things measured in turn, in one process, in one run; the median over the rounds is
printed. Absolute times differ from machine to machine and are printed for orientation alone. Nothing records spans,
but where it says so. Exit status 1: a target was missed.
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
from sessions import session_ratios

from mcp_policy_middleware import Guard, Outcome, ToolCall, parse_policy

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
    """The time of one call, over one batch."""
    started = time.perf_counter_ns()
    for _ in range(BATCH):
        function()
    return (time.perf_counter_ns() - started) / BATCH / 1000


def compare(subjects: dict[str, Callable[[], object]], base: str) -> dict[str, tuple[float, float]]:
    """Measure all in turn, round by round: the median time and the median ratio to `base` of each."""
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(ROUNDS):
        for name, function in subjects.items():
            times[name].append(microseconds(function))
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
    sessions = anyio.run(session_ratios)
    for one in sessions:
        print(f"{one.name:38}{one.microseconds:8.1f}  {one.ratio:6.2f}")
    growth = figures["allow, 10,000 tools"][0] / figures["allow, 10 tools"][0]
    targets = [
        ("allow with settlement / hand-written allow", figures["allow, with settlement"][1], 5.0),
        ("denial by default / hand-written allow", figures["denied by default"][1], 2.0),
        ("10,000 tools / 10 tools", growth, 1.2),
        *((f"{one.name} / bare", one.ratio, one.most) for one in sessions if one.most is not None),
    ]
    print()
    for name, value, most in targets:
        print(f"{'ok    ' if value <= most else 'MISSED'} {name}: {value:.2f} (at most {most})")
    return 0 if all(value <= most for _, value, most in targets) else 1


if __name__ == "__main__":
    sys.exit(main())
