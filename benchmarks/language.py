"""What the language costs at its edges: costly patterns on long texts, long arguments, and large documents.

    python benchmarks/language.py

Times differ from machine to machine. Exit status 1: a target was missed.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from mcp_policy_middleware import Guard, Outcome, ToolCall, parse_policy
from mcp_policy_middleware.stores import MemoryStore

KIB = 1024
LONGEST_DECISION = 5.0  # ms
LONGEST_COUNTED = 2_000.0  # ms
LONGEST_READING = 5.0  # s
SLOWER = 1.5  # a decision under a large document, as a ratio to one under a small one
PATTERNS = [
    "(a+)+$", "(a|aa)+$", "(a|a?)+$", "(.*a){12}$", "(x+x+)+y", "^(([a-z])+.)+[A-Z]([a-z])+$", "(a?){50}a{50}$",
    "^(?:a?a?a?a?a?a?)*b$", "[^b]*[^c]*[^d]*e$", r"(\w+\s?)*$", r"^(\d+)*$", "(?i)(A+)+B", r"\pL+\pN$", ".*.*.*=.*",
    "(?s)^.*x.*y.*z$",
]  # fmt: skip
"""What makes a backtracking engine take for ever."""

COUNTED = ["(a|b)*a(a|b){20}$", "(a|b)*a(a|b){20}c", "a.{30}c", "(a{1,100}){1,10}c", "(a.{10,60}b)+c", "a.{500}c"]
"""Counted repetitions: RE2's work grows with the count times the text, and no further."""

TEXTS = {
    "a": "a" * 64 * KIB,
    "ab": "ab" * 32 * KIB,
    "a, then !": "a" * (64 * KIB - 1) + "!",
    "x": "x" * 64 * KIB,
    "é": "é" * 32 * KIB,
    "a and b at random": "".join(random.Random(1).choices("ab", k=64 * KIB)),  # noqa: S311  no secret
    "digits": "0123456789" * 6553,
    "white space": " " * 64 * KIB,
    "brackets": "[" * 64 * KIB,
}
OTHERS: list[tuple[str, Any]] = [
    ("eq", 50), ("eq", [1, "a"]), ("eq", {"a": 1}), ("eq", "a"), ("in", list(range(100))),
    ("contains", "ab" * 100 + "c"), ("host_in", ["example.org"]), ("path_within", ["/srv"]), ("ip_in", ["10.0.0.0/8"]),
]  # fmt: skip


def milliseconds(function: Callable[[], object], rounds: int = 5) -> float:
    """The median time of a call."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        function()
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


def slowest_decision(conditions: Iterable[tuple[str, Any]], target: float) -> float:
    """The slowest decision about one text of 64 KiB; those that miss the target are printed."""
    slowest = (0.0, "")
    for op, value in conditions:
        predicate = [{"conditions": [{"path": "args.x", "op": op, "value": value}]}]
        tools = {key: {key: predicate} for key in ("require", "deny_if")}
        guard = Guard(parse_policy(json.dumps({"version": "1", "default": "deny", "tools": tools})), telemetry=False)
        for name, text in TEXTS.items():
            for key in tools:
                call = ToolCall(key, {"x": text})
                took = milliseconds(partial(guard.begin, call))
                what = f"{key} {op} `{str(value)[:40]}` on 64 KiB of {name}"
                if took > target:
                    print(f"  {took:8.1f} ms  {what}")
                slowest = max(slowest, (took, what))
    print(f"slowest decision about 64 KiB: {slowest[0]:.2f} ms ({slowest[1]}); target {target:.0f} ms")
    return slowest[0]


def document(tools: int, rules: int) -> str:
    """A document of so many tools with so many rules each."""
    made: dict[str, Any] = {}
    for index in range(tools):
        require = [
            {"conditions": [{"path": f"args.a{rule}", "op": "lte", "value": 500 + index}]} for rule in range(rules - 1)
        ]
        made[f"tool_{index}"] = {
            "require": require,
            "limits": [{"counter": f"c{index}", "window": "hour", "max": 9_000_000_000}],
        }
    return json.dumps({"version": "1", "default": "deny", "tools": made})


def microseconds(guard: Guard, call: ToolCall) -> float:
    """The median time of a decision with its settlement."""

    def batch() -> None:
        for _ in range(500):
            guard.finish(guard.begin(call), Outcome.RETURNED)

    if not guard.begin(call).allowed:
        raise SystemExit("the benchmark's call is not admitted")
    return milliseconds(batch, 21) * 2


def main() -> int:
    """Measure, print, and say which targets were missed."""
    missed = []
    if slowest_decision([("regex", pattern) for pattern in PATTERNS], LONGEST_DECISION) > LONGEST_DECISION:
        missed.append("patterns that backtrack elsewhere")
    if slowest_decision([("regex", pattern) for pattern in COUNTED], LONGEST_COUNTED) > LONGEST_COUNTED:
        missed.append("counted repetitions")
    if slowest_decision(OTHERS, LONGEST_DECISION) > LONGEST_DECISION:
        missed.append("other operators")
    text = document(10_000, 5)
    started = time.perf_counter()
    large = parse_policy(text)
    reading = time.perf_counter() - started
    started = time.perf_counter()
    guard = Guard(large, store=MemoryStore(), telemetry=False)
    compiling = time.perf_counter() - started
    print(
        f"10,000 tools and 50,000 rules ({len(text) / KIB / KIB:.1f} MiB): read in {reading:.2f} s, "
        f"target {LONGEST_READING:.0f} s; compiled in {compiling:.2f} s"
    )
    if reading > LONGEST_READING:
        missed.append("reading a large document")
    small = Guard(parse_policy(document(10, 5)), store=MemoryStore(), telemetry=False)
    arguments = {f"a{rule}": 5 for rule in range(4)}
    times = [
        (microseconds(small, ToolCall("tool_5", arguments)), microseconds(guard, ToolCall("tool_5", arguments)))
        for _ in range(3)
    ]
    ratio = statistics.median(mine / other for other, mine in times)
    few, many = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"a decision: {few:.2f} µs of 10 tools, {many:.2f} µs of 10,000: {ratio:.2f} times; target {SLOWER} times")
    if ratio > SLOWER:
        missed.append("deciding under a large document")
    for name in missed:
        print(f"missed: {name}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
