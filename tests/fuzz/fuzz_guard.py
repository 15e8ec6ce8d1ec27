"""Any arguments of any tool give a decision, in bounded time and without a fault inside.

python tests/fuzz/fuzz_guard.py --seconds 600
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from driver import Target, main

LONGEST = 2.0  # seconds; a decision takes microseconds, and a machine may be busy
DEEPEST = 40
WORDS = (
    "", "a", "b", "usd", "50", "50.0", "0x32", " 50", "5e1", "true", "TRUE", "[1]", '{"k": 1}', "null", "NaN", "1",
    "/srv/data/x", "/srv/data/../x", "C:\\data\\x", "~", "http://example.org/a", "http://a@b", "ftp://x", "10.0.0.1",
    "0x7f.1", "[::1]", "::ffff:10.0.0.1", "http://[::1]:80/", "\0", "\ud800", "é", "\U0001f600", "\u0665", "a" * 300,
)  # fmt: skip
KEYS = ("a", "b", "k", "1", "", "a.b", "amount", "url", "path", "true")
ODD: tuple[Any, ...] = ((1, 2), {1}, b"x", Decimal(5), 1j, object(), range(3), 10**400, -(10**400), "x" * 70_000)
OPERATORS: list[tuple[str, Any]] = [
    ("eq", 50), ("eq", "usd"), ("eq", True), ("eq", None), ("eq", [1, "a"]), ("eq", {"k": [1]}), ("neq", 1),
    ("neq", "a"),
    ("in", [1, "a", None, [2]]), ("not_in", ["a", False]), ("lt", 100), ("lte", 0.1), ("gt", -1), ("gte", 2**53 + 1),
    ("regex", "(a+)+$"), ("regex", "^[0-9]{1,50}x"), ("contains", "a"), ("contains", 5), ("exists", True),
    ("exists", False), ("path_within", ["/srv/data", "C:\\data"]), ("host_in", ["example.org", "*.example.org"]),
    ("ip_in", ["10.0.0.0/8", "::1/128"]),
]  # fmt: skip
PATHS = (
    "args.a", "args.b", "args.a.k", "args.a[*]", "args.a[*].k", "args.a[0]", 'args["a.b"]', "args.1", "args[*]",
    "args.a[*][*]", "context.a", "context.a[*].k", "call.session", "call.server", "call.tool",
)  # fmt: skip


def document() -> dict[str, Any]:
    """Every operator on every path, in each place, and charges from arguments."""
    tools: dict[str, Any] = {}
    for index, (op, value) in enumerate(OPERATORS):
        for place, path in enumerate(PATHS):
            predicate = [{"conditions": [{"path": path, "op": op, "value": value}]}]
            key = ("require", "deny_if", "require_approval_if")[(index + place) % 3]
            tools[f"t{len(tools)}"] = {key: predicate}
    limits = [
        {"counter": "c", "window": "hour", "max": 1000, "increment_from": "args.a"},
        {"counter": "d", "window": "month", "max": 50, "increment_from": 'args["a.b"]', "algorithm": "sliding"},
        {"counter": "e", "window": "week", "max": 50, "increment_from": "args.b[0].k", "scope": "session"},
    ]
    for limit in limits:
        tools[f"t{len(tools)}"] = {"limits": [limit]}
    tools[f"t{len(tools)}"] = {"only_arguments": ["a", "b"]}
    tools["g*"] = {"rate_limit": {"max": 2, "window": 7}}
    return {"version": "1", "default": "deny", "hide": ["h*"], "tools": tools}


def value(data: Iterator[int], depth: int = 0) -> Any:
    """A value as the bytes say: of JSON, or near to it."""
    kind = next(data, 0) % 12
    if kind == 0:
        return None
    if kind == 1:
        return next(data, 0) % 2 == 0
    if kind == 2:
        return next(data, 0) - 128
    if kind == 3:
        return struct.unpack("<d", bytes(next(data, 0) for _ in range(8)))[0]
    if kind == 4:
        return bytes(next(data, 0) for _ in range(next(data, 0) % 32)).decode("utf-8", "surrogateescape")
    if kind == 5:
        return ODD[next(data, 0) % len(ODD)]
    if kind in (6, 7) and depth < DEEPEST:
        return [value(data, depth + 1) for _ in range(next(data, 0) % 5)]
    if kind in (8, 9) and depth < DEEPEST:
        return {key(data): value(data, depth + 1) for _ in range(next(data, 0) % 5)}
    return WORDS[next(data, 0) % len(WORDS)]


def key(data: Iterator[int]) -> Any:
    """A name, and now and then something that is none."""
    index = next(data, 0)
    return (1, None, True, 1.5)[index % 4] if index > 240 else KEYS[index % len(KEYS)]


def load() -> tuple[Target, list[bytes]]:
    """The target, and seeds that reach each kind of value."""
    from mcp_policy_middleware import Decision, Guard, Outcome, Reason, ToolCall, parse_policy
    from mcp_policy_middleware.stores import MemoryStore

    policy = parse_policy(json.dumps(document()))
    names = [*(f"t{index}" for index in range(len(policy.tools))), "g", "gx", "h", "hx", "", "\ud800", "x" * 500]
    outcomes = list(Outcome)
    store = MemoryStore()
    moment = datetime(2026, 3, 4, 10, tzinfo=UTC)
    guard = Guard(policy, store=store, clock=lambda: moment, telemetry=False)

    def target(data: bytes) -> None:
        """The first bytes tell the tool and the outcome; then come the arguments and the context; made thrice."""
        stream = iter(data)
        store.__init__()  # counters start afresh, so that a finding can be repeated
        tool = names[(next(stream, 0) * 256 + next(stream, 0)) % len(names)]
        outcome = outcomes[next(stream, 0) % len(outcomes)]
        bare = next(stream, 0) % 8 == 0
        arguments = value(stream) if bare else {key(stream): value(stream) for _ in range(next(stream, 0) % 4)}
        context = {"a": value(stream)}
        session = ("s", None)[next(stream, 0) % 2]
        call = ToolCall(tool, arguments, session=session, context=context)
        for _ in range(3):
            decide(call, outcome)

    def decide(call: ToolCall, outcome: Outcome) -> None:
        arguments = call.arguments
        started = time.perf_counter()
        explained, decision = guard.explain(call), guard.begin(call)
        guard.finish(decision, outcome)
        took = time.perf_counter() - started
        assert isinstance(decision, Decision)
        assert decision.reason is not Reason.EVALUATION_ERROR
        assert (explained.reason, explained.rule, explained.message) == (
            decision.reason,
            decision.rule,
            decision.message,
        )
        assert decision.allowed is (decision.reason is Reason.ALLOWED)
        assert (decision.reason is Reason.INVALID_CALL) is (type(arguments) is not dict and arguments is not None)
        json.dumps(decision.as_dict()).encode()
        assert len(repr(decision)) < 5_000
        assert took < LONGEST, took

    kinds = [
        bytes([tool // 256, tool % 256, 0, 1, 1, 0, kind, 3, 2, 5, kind])
        for tool in range(0, 300, 7)
        for kind in range(12)
    ]
    return target, kinds


if __name__ == "__main__":
    main(load)
