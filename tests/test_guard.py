"""The enforcement point: order of evaluation, limits, outcomes, faults, and one decision for one call (PL-4, PL-5)."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import json
import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mcp_policy_middleware import (
    UNNAMED,
    Decision,
    DocumentError,
    Guard,
    Outcome,
    Policy,
    PolicyError,
    Reason,
    StoreError,
    Telemetry,
    ToolCall,
    ToolDenied,
    parse_policy,
)
from mcp_policy_middleware.handover import Layer
from mcp_policy_middleware.stores import MemoryStore
from mcp_policy_middleware.testing import FrozenClock

CANARY = "canary-4d1a"
ONCE = {"limits": [{"counter": "c", "window": "hour", "max": 1}]}


def policy(tools: dict[str, Any] | None = None, default: str = "deny", **more: Any) -> Policy:
    """A document with these tools."""
    return parse_policy(json.dumps({"version": "1", "default": default, "tools": tools or {}, **more}))


def guarded(tools: dict[str, Any] | None = None, default: str = "deny", **settings: Any) -> Guard:
    """A guard of a document with these tools, without spans and with a clock that stands still."""
    document = {key: settings.pop(key) for key in ("hide", "all_tools") if key in settings}
    return Guard(policy(tools, default, **document), **({"clock": FrozenClock(), "telemetry": False} | settings))


def condition(name: str, op: str = "eq", value: Any = 1, **more: Any) -> dict[str, Any]:
    """A predicate of one condition."""
    return {"conditions": [{"path": f"args.{name}", "op": op, "value": value}], **more}


def limit(counter: str, top: float = 1, **more: Any) -> dict[str, Any]:
    """A limit per hour."""
    return {"counter": counter, "window": "hour", "max": top, **more}


def said(decision: Decision) -> tuple[str, str]:
    """Reason and rule."""
    return decision.reason.value, decision.rule


def admitted(guard: Guard, call: ToolCall, tries: int) -> int:
    """How many of so many calls are let go on; what is admitted is charged."""
    count = 0
    for _ in range(tries):
        decision = guard.begin(call)
        guard.finish(decision, Outcome.RETURNED)
        count += decision.allowed
    return count


# ---- the order of evaluation (PL-4)

STAGES: dict[str, Any] = {
    "hidden": {"require": [condition("a")]},
    "denied": {"action": "deny", "reason": "never"},
    "asked": {"action": "require_approval", "require": [condition("a")], "limits": [limit("asked", 0)]},
    "asked alone": {"action": "require_approval", "limits": [limit("asked alone", 1)]},
    "full": {
        "require": [condition("a"), condition("b")],
        "deny_if": [condition("c"), condition("d")],
        "limits": [limit("first", 0), limit("second", 0)],
    },
    "late": {"limits": [limit("wide", 9), limit("narrow", 0)], "rate_limit": {"max": 0, "window": 60}},
    "shorthand": {"rate_limit": {"max": 0, "window": "minute"}},
    "plain": {},
    "a/b~c": {"require": [condition("x/y"), condition("x/y"), condition("x/y", value=2)]},
}
SHARED = {"require": [condition("z")], "deny_if": [condition("y")], "limits": [limit("shared", 0)]}
GOOD = {"a": 1, "b": 1, "z": 1}
ORDER = [
    ("hidden", {}, "hidden", "(hidden)"),
    ("only hidden", {}, "hidden", "(hidden)"),
    ("unlisted", {}, "default_deny", "(default deny)"),
    ("PLAIN", {}, "default_deny", "(default deny)"),
    ("", {}, "default_deny", "(default deny)"),
    ("denied", {}, "rule_denied", "/tools/denied/action"),
    ("full", {"c": 1}, "requirement_unmet", "/tools/full/require/args.a-eq"),
    ("full", {"a": 1, "c": 1}, "requirement_unmet", "/tools/full/require/args.b-eq"),
    ("full", {"a": "1.0", "b": 2}, "undecidable", "/tools/full/require/args.a-eq"),
    ("full", {"a": 1, "b": 1, "c": 1}, "requirement_unmet", "/all_tools/require/args.z-eq"),
    ("full", {**GOOD, "c": 1, "d": 1, "y": 1}, "rule_denied", "/tools/full/deny_if/args.c-eq"),
    ("full", {**GOOD, "d": 1, "y": 1}, "rule_denied", "/tools/full/deny_if/args.d-eq"),
    ("full", {**GOOD, "y": 1}, "rule_denied", "/all_tools/deny_if/args.y-eq"),
    ("full", {**GOOD, "y": "1.0"}, "undecidable", "/all_tools/deny_if/args.y-eq"),
    ("full", GOOD, "limit_exceeded", "/tools/full/limits/first"),
    ("late", GOOD, "limit_exceeded", "/tools/late/limits/narrow"),
    ("shorthand", GOOD, "limit_exceeded", "/tools/shorthand/limits/shorthand_rate"),
    ("plain", {}, "requirement_unmet", "/all_tools/require/args.z-eq"),
    ("plain", GOOD, "limit_exceeded", "/all_tools/limits/shared"),
    ("asked", {"z": 1}, "requirement_unmet", "/tools/asked/require/args.a-eq"),
    ("asked", GOOD, "limit_exceeded", "/tools/asked/limits/asked"),
    ("asked alone", GOOD, "limit_exceeded", "/all_tools/limits/shared"),
    ("a/b~c", {}, "requirement_unmet", "/tools/a~1b~0c/require/args.x~1y-eq"),
    ("a/b~c", {"x/y": 1}, "requirement_unmet", "/tools/a~1b~0c/require/args.x~1y-eq-3"),
]


@pytest.mark.parametrize(("tool", "arguments", "reason", "rule"), ORDER)
def test_the_first_denial_wins(tool: str, arguments: dict[str, Any], reason: str, rule: str) -> None:
    """Each stage of PL-4 denies before those after it, the tool's rules before those for all tools."""
    guard = guarded(STAGES, hide=["hidden", "only hidden"], all_tools=SHARED)
    call = ToolCall(tool, arguments)
    assert said(guard.explain(call)) == (reason, rule)
    assert said(guard.begin(call)) == (reason, rule)


def test_approval_is_required_last_and_takes_nothing() -> None:
    """`require_approval` denies with `approval_required` after limits were looked at, and charges nothing."""
    guard = guarded({"t": {"action": "require_approval", **ONCE}, "u": ONCE})
    for _ in range(3):
        assert said(guard.begin(ToolCall("t", {}))) == ("approval_required", "/tools/t/action")
    assert admitted(guard, ToolCall("u", {}), 2) == 1
    assert said(guard.begin(ToolCall("t", {}))) == ("limit_exceeded", "/tools/t/limits/c")


def test_rules_for_all_tools_hold_for_unlisted_tools_too() -> None:
    """Under `default: allow`, a tool that nobody lists meets the rules for all tools."""
    guard = guarded({}, "allow", all_tools={"require": [condition("z")], "limits": [limit("shared", 1)]})
    assert said(guard.begin(ToolCall("x", {}))) == ("requirement_unmet", "/all_tools/require/args.z-eq")
    assert guard.begin(ToolCall("x", {"z": 1})).allowed
    assert said(guard.begin(ToolCall("y", {"z": 1}))) == ("limit_exceeded", "/all_tools/limits/shared")


def test_hide_star_hides_every_tool() -> None:
    """`hide: ["*"]` denies listed and unlisted tools alike."""
    guard = guarded({"a": {}, "b": {"action": "deny"}}, "allow", hide=["*"])
    for tool in ("a", "b", "c", "*"):
        assert said(guard.explain(ToolCall(tool, {}))) == ("hidden", "(hidden)")


def test_messages_are_the_authors_words_where_there_are_any() -> None:
    """`on_deny` and `reason` are what the agent reads, after the prefix (PL-6.1)."""
    guard = guarded({
        "a": {"action": "deny", "reason": "words"},
        "b": {"require": [condition("x", on_deny="words")]},
        "c": {"deny_if": [condition("x", on_deny="words")]},
        "d": {"limits": [limit("d", 0, on_deny="words")]},
        "e": {"deny_if": [condition("x", "gt", on_deny="words")]},
    })  # fmt: skip
    for tool, arguments in (("a", {}), ("b", {}), ("c", {"x": 1}), ("d", {}), ("e", {"x": "5"})):
        decision = guard.explain(ToolCall(tool, arguments))
        assert decision.text == "[POLICY DENIED] words", tool
    assert guard.explain(ToolCall("c", {})).text == ""


# ---- decisions and the halves of a call


def test_a_decision_has_no_truth_value() -> None:
    """`if decision:` raises, allowed or not, so that it can never pass for `if decision.allowed:`."""
    guard = guarded({"t": {}})
    for tool in ("t", "u"):
        with pytest.raises(TypeError):
            bool(guard.explain(ToolCall(tool, {})))


def test_a_decision_as_plain_json() -> None:
    """What programs read has exactly the keys of PL-6.2, and the id stays the same."""
    guard = guarded({"t": ONCE}, clock=FrozenClock(datetime(2026, 1, 1, 10, 59, 30, tzinfo=UTC)))
    assert guard.begin(ToolCall("t", {})).allowed
    decision = guard.begin(ToolCall("t", {}))
    plain = decision.as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain == {
        "decision_id": decision.decision_id, "effect": "deny", "reason": "limit_exceeded", "rule": "/tools/t/limits/c",
        "message": decision.message, "retry_after": 30, "approval": None,
    }  # fmt: skip
    assert guard.begin(ToolCall("t", {})).decision_id != decision.decision_id


def test_run_returns_what_the_call_returns() -> None:
    """An allowed call is carried out once and its result passes."""
    made: list[int] = []
    guard = guarded({"t": {}})
    assert guard.run(ToolCall("t", {}), lambda: made.append(1) or "result") == "result"
    assert made == [1]


def test_arun_returns_what_the_call_returns() -> None:
    """The async driver does the same."""

    async def send() -> str:
        return "result"

    assert asyncio.run(guarded({"t": {}}).arun(ToolCall("t", {}), send)) == "result"


def test_a_denied_call_is_not_made() -> None:
    """`run` and `arun` raise `ToolDenied` with the decision and never call on."""

    def never() -> Any:
        pytest.fail("the call was made")

    guard = guarded({"t": {"action": "deny"}})
    with pytest.raises(ToolDenied) as caught:
        guard.run(ToolCall("t", {}), never)
    assert said(caught.value.decision) == ("rule_denied", "/tools/t/action")
    assert str(caught.value) == caught.value.decision.text
    assert not isinstance(caught.value, PolicyError)
    with pytest.raises(ToolDenied):
        asyncio.run(guard.arun(ToolCall("t", {}), never))


class Odd(BaseException):
    """No `Exception` at all."""


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), Odd(), StopIteration(5), ToolDenied], ids=repr)
def test_exceptions_of_the_call_pass_unchanged_and_keep_the_charge(error: Any) -> None:
    """Whatever the call raises comes out as the same object, and the charge is kept (PL-5.6)."""
    guard = guarded({"t": ONCE, "u": {"action": "deny"}})
    if error is ToolDenied:
        error = ToolDenied(guard.explain(ToolCall("u", {})))

    def send() -> Any:
        raise error

    with pytest.raises(type(error)) as caught:
        guard.run(ToolCall("t", {}), send)
    assert caught.value is error
    assert not guard.explain(ToolCall("t", {})).allowed


def test_cancellation_passes_and_keeps_the_charge() -> None:
    """A task cancelled while its call is out is cancelled, and the charge is kept."""

    async def main() -> None:
        guard = guarded({"t": ONCE})
        out = asyncio.Event()

        async def send() -> None:
            out.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(guard.arun(ToolCall("t", {}), send))
        await out.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not guard.explain(ToolCall("t", {})).allowed

    asyncio.run(main())


OUTCOMES = [
    (Outcome.RETURNED, False),
    (Outcome.RETURNED_ERROR, False),
    (Outcome.UNKNOWN, False),
    (Outcome.REJECTED, True),
    (Outcome.NOT_SENT, True),
]


def by_halves(guard: Guard, call: ToolCall, outcome: Outcome) -> None:
    """`begin` and `finish`."""
    guard.finish(guard.begin(call), outcome)


def by_async_halves(guard: Guard, call: ToolCall, outcome: Outcome) -> None:
    """`abegin` and `afinish`."""

    async def main() -> None:
        await guard.afinish(await guard.abegin(call), outcome)

    asyncio.run(main())


def by_run(guard: Guard, call: ToolCall, outcome: Outcome) -> None:
    """`run` with a result."""
    guard.run(call, lambda: "result", lambda result: outcome if result == "result" else Outcome.UNKNOWN)


def by_arun(guard: Guard, call: ToolCall, outcome: Outcome) -> None:
    """`arun` with an exception."""
    error = KeyError("mine")

    async def send() -> None:
        raise error

    with pytest.raises(KeyError):
        asyncio.run(guard.arun(call, send, lambda ended: outcome if ended is error else Outcome.UNKNOWN))


@pytest.mark.parametrize("way", [by_halves, by_async_halves, by_run, by_arun])
@pytest.mark.parametrize(("outcome", "released"), OUTCOMES)
def test_outcomes_keep_or_release_the_charge(way: Callable[..., None], outcome: Outcome, released: bool) -> None:
    """A rejection and a call that was not sent give the charge back; every other outcome keeps it (PL-5.6)."""
    guard = guarded({"t": ONCE})
    way(guard, ToolCall("t", {}), outcome)
    assert guard.explain(ToolCall("t", {})).allowed is released
    assert {o for o, r in OUTCOMES if r} | {o for o, r in OUTCOMES if not r} == set(Outcome)


def test_a_call_is_settled_once() -> None:
    """A second `finish` gives nothing back, whatever the first one said."""
    guard = guarded({"t": {"limits": [limit("c", 3)]}})
    call = ToolCall("t", {})
    first, second, third = (guard.begin(call) for _ in range(3))
    for decision, outcomes in (
        (first, [Outcome.NOT_SENT] * 3),
        (second, [Outcome.RETURNED, Outcome.NOT_SENT]),
        (third, [Outcome.UNKNOWN, Outcome.REJECTED]),
    ):
        for outcome in outcomes:
            guard.finish(decision, outcome)
    assert admitted(guard, call, 3) == 1


def test_an_outcome_that_cannot_be_told_keeps_the_charge(caplog: pytest.LogCaptureFixture) -> None:
    """An `outcome_of` that raises neither hides the result nor releases the charge."""

    def broken(_: Any) -> Outcome:
        raise RuntimeError

    guard = guarded({"t": ONCE})
    assert guard.run(ToolCall("t", {}), lambda: "result", broken) == "result"
    assert not guard.explain(ToolCall("t", {})).allowed
    assert caplog.records


def test_explain_changes_nothing() -> None:
    """Looking any number of times charges nothing, and says what `begin` will."""
    guard = guarded({"t": ONCE})
    for _ in range(5):
        assert guard.explain(ToolCall("t", {})).allowed
        assert asyncio.run(guard.aexplain(ToolCall("t", {}))).allowed
    assert admitted(guard, ToolCall("t", {}), 2) == 1


# ---- limits (PL-5)


def test_windows_are_aligned_to_utc_and_roll_at_the_boundary() -> None:
    """Hours end on the hour, days at midnight UTC, seconds at a multiple of the epoch; the boundary is the next's."""
    clock = FrozenClock(datetime(2026, 3, 4, 23, 59, 59, tzinfo=UTC))
    windows = {"minute": "minute", "hour": "hour", "day": "day", "seven": 7 * 86_400}
    tools = {name: {"limits": [{"counter": name, "window": window, "max": 1}]} for name, window in windows.items()}
    guard = guarded(tools, clock=clock, store=MemoryStore())
    for name in windows:
        assert admitted(guard, ToolCall(name, {}), 2) == 1
    waits = {name: guard.explain(ToolCall(name, {})).retry_after for name in windows}
    assert waits == {"minute": 1, "hour": 1, "day": 1, "seven": 1}  # 2026-03-05 is a multiple of seven days
    clock.tick(1)
    for name in windows:
        assert admitted(guard, ToolCall(name, {}), 2) == 1
    assert guard.explain(ToolCall("day", {})).retry_after == 86_400


def test_retry_after_is_unknown_where_a_limit_never_admits() -> None:
    """A limit of less than one call says no time."""
    guard = guarded({"t": {"limits": [limit("c", 0.5)]}, "u": ONCE})
    assert guard.explain(ToolCall("t", {})).retry_after is None
    guard.begin(ToolCall("u", {}))
    assert guard.explain(ToolCall("u", {})).retry_after == 3600


def test_a_fractional_maximum_admits_what_fits() -> None:
    """A maximum of 2.5 admits two calls."""
    assert admitted(guarded({"t": {"limits": [limit("c", 2.5)]}}), ToolCall("t", {}), 5) == 2


def test_a_call_takes_all_its_charges_or_none() -> None:
    """Where the second limit is full, the first is not charged, and the first that did not fit is named."""
    guard = guarded({"t": {"limits": [limit("a", 2), limit("b", 1)]}, "u": {"limits": [limit("a", 2)]}})
    assert admitted(guard, ToolCall("t", {}), 5) == 1
    assert said(guard.begin(ToolCall("t", {}))) == ("limit_exceeded", "/tools/t/limits/b")
    assert admitted(guard, ToolCall("u", {}), 5) == 1


def test_limits_of_one_counter_share_it_and_a_call_charges_it_once() -> None:
    """Tools that name one counter share it; a call charges it once though two limits look at it (PL-5.5)."""
    guard = guarded({
        "a": {"limits": [limit("spend", 3)]},
        "b": {"limits": [limit("spend", 2)]},
        "twice": {"limits": [limit("spend", 3), limit("spend", 3)]},
    })  # fmt: skip
    assert admitted(guard, ToolCall("twice", {}), 1) == 1
    assert admitted(guard, ToolCall("b", {}), 5) == 1
    assert admitted(guard, ToolCall("a", {}), 5) == 1
    assert said(guard.begin(ToolCall("twice", {}))) == ("limit_exceeded", "/tools/twice/limits/spend")


def test_grants_sessions_and_servers_are_counted_apart() -> None:
    """A counter is kept per server and grant, and per session where its scope says so (PL-5.1)."""
    document = policy({"g": ONCE, "s": {"limits": [limit("s", 1, scope="session")]}})
    guard = Guard({"x": document, "y": document}, clock=FrozenClock(), telemetry=False, grant="one", session="first")
    calls = [
        *(ToolCall("g", {}, server=server, grant=grant) for server in "xy" for grant in (None, "two")),
        *(
            ToolCall("s", {}, server=s, grant=g, session=n)
            for s in "xy"
            for g in (None, "two")
            for n in (None, "second")
        ),
    ]
    for call in calls:
        assert admitted(guard, call, 3) == 1
    assert admitted(guard, ToolCall("g", {}, server="x", session="second"), 1) == 0
    assert admitted(guard, ToolCall("g", {}, server="x", grant="one"), 1) == 0
    assert admitted(guard, ToolCall("s", {}, server="x", grant="one", session="first"), 1) == 0


def test_without_a_session_scope_session_counts_per_grant() -> None:
    """Where nobody names a session, a session's limit is one per grant, and the shorthand is such a limit."""
    guard = guarded({"t": {"rate_limit": {"max": 1, "window": 60}}})
    assert admitted(guard, ToolCall("t", {}), 3) == 1
    assert admitted(guard, ToolCall("t", {}, grant="other"), 3) == 1
    assert admitted(guard, ToolCall("t", {}, session="s"), 3) == 1


def test_names_that_look_alike_in_a_key_are_counted_apart() -> None:
    """No grant, session or counter can be put together so that it is taken for another's."""
    guard = guarded({"t": {"limits": [limit("c", 1, scope="session")]}})
    for grant, session in (
        ("a", "b"),
        ('a","b', None),
        ("a,b", None),
        ("a", 'b"'),
        ("a:b", ""),
        ("a", ":b"),
        ("null", None),
    ):
        assert admitted(guard, ToolCall("t", {}, grant=grant, session=session), 2) == 1, (grant, session)


def test_300_tasks_take_a_limit_exactly() -> None:
    """Of 300 concurrent tasks exactly as many as the limit says are admitted."""

    async def main() -> tuple[int, int]:
        guard = guarded({"t": {"limits": [limit("a", 100), limit("b", 200)]}})
        made = 0

        async def send() -> None:
            nonlocal made
            await asyncio.sleep(0)
            made += 1

        ended = await asyncio.gather(*(guard.arun(ToolCall("t", {}), send) for _ in range(300)), return_exceptions=True)
        return made, sum(isinstance(error, ToolDenied) for error in ended)

    assert asyncio.run(main()) == (100, 200)


def test_threads_take_a_limit_exactly() -> None:
    """Of eight threads' calls exactly as many as the limit says are admitted."""
    guard = guarded({"t": {"limits": [limit("c", 500)]}})
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda: counts.append(admitted(guard, ToolCall("t", {}), 200))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 500


# ---- suspension and shadow


def test_a_suspended_guard_denies_everything() -> None:
    """The kill switch denies before anything else, and lets go again."""
    guard = guarded({"t": ONCE}, "allow")
    guard.suspend("incident 7")
    for call in (ToolCall("t", {}), ToolCall("x", []), ToolCall("x", {}, server="unknown")):
        for decision in (guard.explain(call), guard.begin(call)):
            assert said(decision) == ("suspended", "(suspended)")
            assert "incident 7" in decision.message
    guard.resume()
    assert admitted(guard, ToolCall("t", {}), 3) == 1


def test_suspension_denies_in_shadow_too() -> None:
    """Shadow mode does not weaken the kill switch (PL-4.4)."""
    guard = guarded({}, mode="shadow")
    guard.suspend("stop")
    decision = guard.begin(ToolCall("t", {}))
    assert (decision.allowed, decision.enforced, decision.reason) == (False, True, Reason.SUSPENDED)


@pytest.mark.parametrize(
    ("guard_mode", "document_mode", "tool_mode", "enforced"),
    [
        (None, None, None, True), (None, "enforce", None, True), (None, "shadow", None, False), (None, None, "shadow",
        False),
        (None, "shadow", "enforce", True), (None, "enforce", "shadow", False), ("shadow", "enforce", "enforce", False),
        ("shadow", None, None, False), ("enforce", "shadow", "shadow", True), ("enforce", None, "shadow", True),
    ],
)  # fmt: skip
def test_shadow_of_guard_over_tool_over_document(
    guard_mode: Any, document_mode: str | None, tool_mode: str | None, enforced: bool
) -> None:
    """The guard's mode overrides the tool's, which overrides the document's (PL-4.4)."""
    rules = {"deny_if": [{"conditions": []}]} | ({"mode": tool_mode} if tool_mode else {})
    more = {"mode": document_mode} if document_mode else {}
    guard = Guard(policy({"t": rules}, hide=["h"], **more), mode=guard_mode, telemetry=False)
    decision = guard.begin(ToolCall("t", {}))
    assert (decision.effect, decision.enforced, decision.allowed) == ("deny", enforced, not enforced)
    without_tool = (guard_mode or document_mode or "enforce") == "enforce"
    for tool in ("h", "unlisted"):
        assert guard.begin(ToolCall(tool, {})).allowed is not without_tool
    assert guard.visible(["h", "t"]) == (["t"] if without_tool else ["h", "t"])


def test_what_still_denies_in_shadow() -> None:
    """An invalid call and a server without a policy are denied in shadow mode too (PL-4.4)."""
    guard = Guard({"x": policy(default="allow")}, mode="shadow", telemetry=False)
    for call, reason in ((ToolCall("t", [], server="x"), "invalid_call"), (ToolCall("t", {}, server="y"), "no_policy")):
        decision = guard.begin(call)
        assert (decision.reason.value, decision.allowed, decision.enforced) == (reason, False, True)
        with pytest.raises(ToolDenied):
            guard.run(call, lambda: None)


def test_shadow_lets_denied_calls_go_on_and_charges_only_the_allowed() -> None:
    """In shadow a call whose effect is deny goes on and reserves nothing; one that is allowed reserves as usual."""
    guard = guarded({"t": {**ONCE, "deny_if": [condition("x")]}, "a": {"action": "require_approval"}}, mode="shadow")
    for _ in range(3):
        assert guard.run(ToolCall("t", {"x": 1}), lambda: "made") == "made"
    assert guard.begin(ToolCall("t", {})).effect == "allow"
    over = guard.begin(ToolCall("t", {}))
    assert (over.effect, over.allowed, over.reason) == ("deny", True, Reason.LIMIT_EXCEEDED)
    asked = guard.begin(ToolCall("a", {}))
    assert (asked.effect, asked.allowed) == ("deny", True)


@pytest.mark.parametrize(
    "settings", [{"mode": "audit"}, {"mode": "Shadow"}, {"grant": ""}, {"grant": None}, {"grant": 5}]
)
def test_a_setting_that_is_none_is_refused(settings: dict[str, Any]) -> None:
    """A mode that nobody knows and a grant without a name are refused when the guard is made."""
    with pytest.raises(PolicyError):
        Guard(policy(), **settings)


# ---- which policy applies (PL-9)


def test_one_policy_applies_to_every_call() -> None:
    """One policy given alone decides calls of named, unnamed and no servers."""
    guard = guarded({"t": {}})
    for server in (None, UNNAMED, "x"):
        decision = guard.explain(ToolCall("t", {}, server=server))
        assert (decision.allowed, decision.policy_name) == (True, "policy")
        assert decision.policy_digest.startswith("sha256:")


def test_policies_by_server_and_local_tools() -> None:
    """Under a map, `_local` is for tools of no server; unnamed and unknown sessions have no policy (PL-9.2)."""
    guard = Guard({"x": policy({"t": {}}), "_local": policy({"t": {}, "local": {}})}, telemetry=False)
    assert guard.explain(ToolCall("t", {}, server="x")).allowed
    assert guard.explain(ToolCall("local", {})).allowed
    assert said(guard.explain(ToolCall("local", {}, server="x"))) == ("default_deny", "(default deny)")
    for server in (UNNAMED, "y", "X", "", "_local", "(unnamed)", "None"):
        decision = guard.explain(ToolCall("t", {}, server=server))
        assert said(decision) == ("no_policy", "(no policy)"), server
        assert (decision.policy_name, decision.policy_digest) == ("", "")


def test_without_a_local_policy_tools_of_no_server_have_none() -> None:
    """A map without `_local` denies tools of no MCP server."""
    guard = Guard({"x": policy(default="allow")}, telemetry=False)
    assert said(guard.explain(ToolCall("t", {}))) == ("no_policy", "(no policy)")


def test_a_directory_of_policies(tmp_path: Path) -> None:
    """A guard reads a directory, by `str` or `Path`, and reports what does not read."""
    (tmp_path / "x.json").write_text('{"version": "1", "default": "allow"}')
    (tmp_path / "_local.yaml").write_text('version: "1"\ndefault: deny\n')
    for path in (tmp_path, str(tmp_path)):
        guard = Guard(path, telemetry=False)
        assert guard.explain(ToolCall("t", {}, server="x")).policy_name == "x.json"
        assert said(guard.explain(ToolCall("t", {}))) == ("default_deny", "(default deny)")
        assert said(guard.explain(ToolCall("t", {}, server=UNNAMED))) == ("no_policy", "(no policy)")
    (tmp_path / "y.json").write_text("{}")
    with pytest.raises(DocumentError):
        Guard(tmp_path)


@pytest.mark.parametrize(
    "policies",
    [
        None, 5, [], {"x": "policy.json"}, {5: policy()}, {"x": {"version": "1"}}, {"@ops": policy()}, {"x@": policy()},
        {"@": policy()},
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_policy_is_refused(policies: Any) -> None:
    """A guard takes a policy, a map of them or a directory, and nothing else."""
    with pytest.raises(PolicyError):
        Guard(policies)


def test_visible_keeps_order_and_takes_out_what_is_hidden() -> None:
    """Hidden tools vanish from a list of names or of objects; others stay, in their order."""
    hiding = policy(default="allow", hide=["b"])
    guard = Guard({"x": hiding, "y": policy(hide=["*"]), "_local": policy()}, telemetry=False)
    tools = [SimpleNamespace(name=name) for name in "cba"]
    assert guard.visible(tools, server="x") == [tools[0], tools[2]]
    assert guard.visible(["c", "b", "a"], server="x") == ["c", "a"]
    assert guard.visible(["a", "b"], server="y") == []
    assert guard.visible(["a", "b"]) == ["a", "b"]


def test_visible_takes_out_what_globs_hide_from_whom_they_hide_it() -> None:
    """Globs hide too, and a list for a grant is that of the grant's own policy."""
    names = ["get_a", "del_a", "del_b", "x"]
    policies = {"s": policy(default="allow", hide=["del_*"]), "s@ops": policy(default="allow", hide=["?"])}
    guard = Guard(policies, telemetry=False)
    assert guard.visible(names, server="s") == ["get_a", "x"]
    assert guard.visible(names, server="s", grant="ops") == ["get_a", "del_a", "del_b"]
    assert Guard(policies, grant="ops", telemetry=False).visible(names, server="s") == ["get_a", "del_a", "del_b"]
    assert Guard(policies, mode="shadow", telemetry=False).visible(names, server="s") == names


def test_a_directory_may_hold_a_grants_own_policy(tmp_path: Path) -> None:
    """`<server>@<grant>.json` wins for that grant (PL-9.1)."""
    (tmp_path / "x.json").write_text('{"version": "1", "default": "deny"}')
    (tmp_path / "x@ops.json").write_text('{"version": "1", "default": "allow"}')
    guard = Guard(tmp_path, telemetry=False)
    assert not guard.explain(ToolCall("t", {}, server="x")).allowed
    assert guard.explain(ToolCall("t", {}, server="x", grant="ops")).policy_name == "x@ops.json"
    assert Guard(tmp_path, grant="ops", telemetry=False).explain(ToolCall("t", {}, server="x")).allowed


# ---- context and charges on success

GOLD = {"conditions": [{"path": "context.tier", "op": "eq", "value": "gold"}]}


def test_a_calls_context_takes_the_place_of_the_guards() -> None:
    """The guard's context is for calls that bring none; one that a call brings is all there is."""
    guard = guarded({"t": {"require": [GOLD]}}, context={"tier": "gold"})
    assert guard.begin(ToolCall("t", {})).allowed
    assert said(guard.begin(ToolCall("t", {}, context={"tier": "base"})))[0] == "requirement_unmet"
    assert said(guard.begin(ToolCall("t", {}, context={"other": 1})))[0] == "undecidable"
    assert said(guard.begin(ToolCall("t", {"context": {"tier": "gold"}}, context={})))[0] == "undecidable"


@pytest.mark.parametrize("way", [by_halves, by_async_halves, by_run, by_arun])
@pytest.mark.parametrize(("outcome", "released"), OUTCOMES)
def test_a_limit_on_success_is_given_back_after_a_tool_error(
    way: Callable[..., None], outcome: Outcome, released: bool
) -> None:
    """`charge_on: success` releases what a rejection releases, and a tool error too (PL-5.6)."""
    guard = guarded({"t": {"limits": [limit("c", charge_on="success")]}})
    way(guard, ToolCall("t", {}), outcome)
    assert guard.explain(ToolCall("t", {})).allowed is (released or outcome is Outcome.RETURNED_ERROR)


def test_a_charge_given_back_after_a_tool_error_is_given_back_once() -> None:
    """A call that is settled as a tool error is settled: nothing more of it can be given back."""
    guard = guarded({"t": {"limits": [limit("kept", 3), limit("back", 3, charge_on="success")]}})
    call = ToolCall("t", {})
    first, _ = guard.begin(call), guard.begin(call)
    for outcome in (Outcome.RETURNED_ERROR, Outcome.NOT_SENT, Outcome.RETURNED_ERROR):
        guard.finish(first, outcome)
    reservation = guard.explain(call).reservation
    assert reservation is not None
    assert reservation.used == (2_000_000, 1_000_000)


# ---- stores and clocks


@pytest.mark.parametrize(
    ("window", "refused"),
    [("minute", False), ("hour", False), (3600, False), (3601, True), ("day", True), ("week", True), ("month", True)],
)
def test_a_long_window_asks_for_a_store_by_name(window: str | int, refused: bool) -> None:
    """Without a store, a window of more than an hour is refused: a restart would forget it."""
    documents = [
        policy({"t": {"limits": [{"counter": "c", "window": window, "max": 1}]}}),
        policy({"t": {"rate_limit": {"window": window, "max": 1}}}),
        policy(default="allow", all_tools={"limits": [{"counter": "c", "window": window, "max": 1}]}),
    ]
    for document in documents:
        for policies in (document, {"x": document}):
            if refused:
                with pytest.raises(PolicyError):
                    Guard(policies)
            else:
                Guard(policies).close()
            assert Guard(policies, store=MemoryStore())


class BrokenStore(MemoryStore):
    """A store that raises what it is told to, where it is told to."""

    error: BaseException | None = None
    also_on_release = False

    def reserve(self, charges: Any, now: float) -> Any:
        if self.error:
            raise self.error
        return super().reserve(charges, now)

    def peek(self, charges: Any, now: float) -> Any:
        if self.error:
            raise self.error
        return super().peek(charges, now)

    def release(self, reservation: Any) -> None:
        if self.error and self.also_on_release:
            raise self.error
        super().release(reservation)


def decide_each_way(guard: Guard, call: ToolCall) -> list[Decision]:
    """The decisions of the sync and async, looking and taking ways."""

    async def both() -> list[Decision]:
        return [await guard.aexplain(call), await guard.abegin(call)]

    return [guard.explain(call), guard.begin(call), *asyncio.run(both())]


def test_a_store_that_cannot_answer_denies() -> None:
    """A `StoreError` denies with `store_unavailable` and the limit's rule; the guard recovers by itself."""
    store = BrokenStore()
    guard = guarded({"t": ONCE, "free": {}}, store=store)
    store.error = StoreError(CANARY)
    for decision in decide_each_way(guard, ToolCall("t", {})):
        assert said(decision) == ("store_unavailable", "/tools/t/limits/c")
        assert decision.error == "StoreError"
        assert CANARY not in decision.text
    with pytest.raises(ToolDenied):
        guard.run(ToolCall("t", {}), lambda: None)
    assert guard.begin(ToolCall("free", {})).allowed
    store.error = None
    assert admitted(guard, ToolCall("t", {}), 2) == 1


def test_a_guard_that_is_told_to_allow_says_so_in_each_decision(caplog: pytest.LogCaptureFixture) -> None:
    """`on_store_failure="allow"` lets calls go without their limits, and only without those (stores 6)."""
    store = BrokenStore()
    tools = {"t": {**ONCE, "deny_if": [{"conditions": [{"path": "args.x", "op": "eq", "value": 1}]}]}}
    guard = guarded(tools, store=store, on_store_failure="allow")
    assert [one.uncounted for one in decide_each_way(guard, ToolCall("t", {}))] == [False] * 4
    store.error = StoreError(CANARY)
    for decision in decide_each_way(guard, ToolCall("t", {})):
        assert (decision.effect, decision.uncounted, decision.error) == ("allow", True, "StoreError")
        assert decision.reservation is None
        assert decision.message
        assert not decision.text
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 4
    assert guard.run(ToolCall("t", {}), lambda: "done") == "done"
    assert said(guard.begin(ToolCall("t", {"x": 1}))) == ("rule_denied", "/tools/t/deny_if/args.x-eq")
    store.error = None
    assert said(guard.begin(ToolCall("t", {}))) == ("limit_exceeded", "/tools/t/limits/c")


def test_a_guard_that_is_told_to_allow_still_asks_for_approval() -> None:
    """What a person must agree to is not let through because a counter cannot be looked at."""
    store = BrokenStore()
    store.error = StoreError("down")
    guard = guarded({"t": {**ONCE, "action": "require_approval"}}, store=store, on_store_failure="allow")
    for decision in decide_each_way(guard, ToolCall("t", {})):
        assert (said(decision), decision.uncounted) == (("approval_required", "/tools/t/action"), False)


def test_an_inner_layer_keeps_what_is_held_where_the_store_fails() -> None:
    """A deeper layer whose adjustment finds no store goes on with the outer one's charge, which is settled once."""
    store = BrokenStore()
    limit = {"counter": "c", "window": "hour", "max": 10, "increment_from": "args.n"}
    guard = guarded({"t": {"limits": [limit]}}, store=store, on_store_failure="allow")

    def inner() -> str:
        store.error = StoreError("down")
        return guard.run(ToolCall("t", {"n": 5}), send, not_sent, layer=Layer.SESSION)

    def not_sent(_: object) -> Outcome:
        return Outcome.NOT_SENT

    def send() -> str:
        store.error = None
        raise KeyError("not sent")

    with pytest.raises(KeyError):
        guard.run(ToolCall("t", {"n": 7}), inner, not_sent)
    assert guard.begin(ToolCall("t", {"n": 10})).allowed


def test_a_choice_that_is_not_known_is_refused() -> None:
    """What becomes of a call without a store is `deny` or `allow`."""
    with pytest.raises(PolicyError, match="on_store_failure"):
        guarded({}, on_store_failure="warn")


@pytest.mark.parametrize(
    "error", [RuntimeError(CANARY), NotImplementedError(), StopIteration(), OSError(CANARY)], ids=repr
)
def test_any_other_fault_of_evaluation_denies(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """Any other exception denies with `evaluation_error`, is logged with its traceback and is not shown (PL-4.3)."""
    store = BrokenStore()
    store.error = error
    guard = guarded({"t": ONCE}, store=store)
    for decision in decide_each_way(guard, ToolCall("t", {})):
        assert said(decision) == ("evaluation_error", "(evaluation error)")
        assert decision.error == type(error).__name__ or isinstance(error, StopIteration)  # Python renames it
        assert CANARY not in decision.text
    with pytest.raises(ToolDenied):
        guard.run(ToolCall("t", {}), lambda: None)
    logged = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert logged
    assert all("its evaluation failed" in each and "flow.py" in each for each in logged)  # and where
    assert CANARY not in caplog.text


@pytest.mark.parametrize("error", [StoreError("down"), RuntimeError("broken")], ids=repr)
def test_a_charge_that_cannot_be_given_back_is_kept_and_disturbs_nothing(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a store fails to release, the call's own end passes unchanged, and the fault is logged."""
    store = BrokenStore()
    guard = guarded({"t": ONCE}, store=store)

    def send() -> None:
        store.error, store.also_on_release = error, True
        raise KeyError("mine")

    with pytest.raises(KeyError):
        guard.run(ToolCall("t", {}), send, lambda _: Outcome.NOT_SENT)
    store.error = None
    assert caplog.records
    assert not guard.explain(ToolCall("t", {})).allowed


def test_a_clock_without_a_time_zone_denies_what_needs_the_time(caplog: pytest.LogCaptureFixture) -> None:
    """A naive clock is an evaluation error for a call with limits, and of no matter to one without."""
    guard = guarded({"t": ONCE, "free": {}}, clock=lambda: datetime(2026, 1, 1))
    for decision in decide_each_way(guard, ToolCall("t", {})):
        assert said(decision) == ("evaluation_error", "(evaluation error)")
    assert guard.begin(ToolCall("free", {})).allowed
    assert caplog.records


def test_close_leaves_a_store_that_was_given() -> None:
    """A guard closes the store it made, and never one that it was given."""
    closed: list[bool] = []

    class Closing(MemoryStore):
        def close(self) -> None:
            closed.append(True)

    guard = guarded({}, store=Closing())
    guard.close()
    asyncio.run(guard.aclose())
    assert closed == []


# ---- arguments of every kind


class Hostile:
    """An object that raises on everything a curious engine might do."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError(CANARY)

    def __hash__(self) -> int:
        return hash("x")

    def __str__(self) -> str:
        raise RuntimeError(CANARY)

    __repr__ = __str__


RULES = {
    "require": [{"conditions": [{"path": "args.ok", "op": "exists", "value": False}]}],
    "deny_if": [
        condition("x", op, value)
        for op, value in [
            ("eq", 50), ("eq", "usd"), ("eq", True), ("eq", [1]), ("eq", {"a": 1}), ("neq", "usd"), ("in", [1, "a"]),
            ("not_in", [None, "a"]), ("gt", 1), ("regex", "a+b"), ("contains", "a"), ("contains", 5), ("exists", True),
        ]
    ] + [{"conditions": [{"path": "args.x.y.z", "op": "eq", "value": 1}]}],
    "limits": [limit("c", 1_000_000)],
}  # fmt: skip


@pytest.mark.parametrize(
    "arguments", [[], (), "", "{}", 0, 5.5, True, False, b"", OrderedDict(), set(), object()], ids=repr
)
def test_arguments_that_are_no_object_are_denied(arguments: Any) -> None:
    """Anything but a `dict` is an invalid call, before any policy is looked for (PL-4, stage 1)."""
    for guard in (guarded({}, "allow"), Guard({}, telemetry=False)):
        assert said(guard.explain(ToolCall("t", arguments))) == ("invalid_call", "(invalid call)")
        assert said(guard.begin(ToolCall("t", arguments))) == ("invalid_call", "(invalid call)")


def test_no_arguments_are_an_empty_object() -> None:
    """None counts as `{}`."""
    guard = guarded({"t": {"require": [condition("x", "exists", False)]}})
    assert guard.begin(ToolCall("t", None)).allowed


def deep(depth: int, kind: str) -> Any:
    """Lists or objects in each other."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind == "list" else {"y": value}
    return value


STRANGE: dict[str, Callable[[], Any]] = {
    "lists 10,000 deep": lambda: deep(10_000, "list"),
    "objects 10,000 deep": lambda: deep(10_000, "object"),
    "JSON text 100,000 deep": lambda: "[" * 100_000,
    "objects as JSON text": lambda: '{"a":' * 20_000 + "1" + "}" * 20_000,
    "NaN": lambda: math.nan,
    "infinity": lambda: -math.inf,
    "a lone surrogate": lambda: "\ud800",
    "a huge integer": lambda: 10**100_000,
    "digits": lambda: "9" * 10_000_000,
    "hexadecimal digits": lambda: "0x" + "f" * 10_000_000,
    "an exponent": lambda: "1e999999999999",
    "white space": lambda: " " * 10_000_000,
    "10 MB of letters": lambda: "a" * 10_000_000,
    "10 MB of other letters": lambda: "é" * 5_000_000,
    "a long list": lambda: [0] * 300_000,
    "a large object": lambda: dict.fromkeys(map(str, range(300_000))),
    "foreign keys": lambda: {1: 1, None: 2, (3,): 4, b"y": 5},
    "a hostile object": Hostile,
    "a class": lambda: Hostile,
    "a generator": lambda: (i for i in ()),
    "a cycle": lambda: (lambda loop: loop.append(loop) or loop)([]),
}


@pytest.mark.parametrize("name", STRANGE)
def test_any_argument_is_decided_in_bounded_work(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever an argument is, each operator decides on it in a moment, and nothing but `ToolDenied` comes out."""
    tools = {str(index): {**RULES, "deny_if": [rule]} for index, rule in enumerate(RULES["deny_if"])}
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    guard = guarded({**tools, "free": {}}, telemetry=Telemetry(provider))
    arguments = {"x": STRANGE[name]()}
    started = time.perf_counter()
    denials = []
    for tool in tools:
        try:
            guard.run(ToolCall(tool, arguments), lambda: None)
        except ToolDenied as denied:
            denials.append(denied.decision)
    assert {decision.reason for decision in denials} <= {Reason.RULE_DENIED, Reason.UNDECIDABLE}
    assert all(len(repr(decision)) < 5_000 for decision in denials)
    assert guard.run(ToolCall("free", arguments), lambda: "made") == "made"
    assert time.perf_counter() - started < 5
    assert len(exporter.get_finished_spans()) == len(tools) + 1
    assert not caplog.records


@pytest.mark.parametrize(
    "arguments",
    [{1: 2}, {None: 1, True: 2}, {(): 1}, {"\ud800": 1}, {"x" * 1_000_000: 1}, {"": 1}, {"a\nb\x1b[31m": 1}],
    ids=range(7),
)
def test_any_key_is_decided(arguments: Any) -> None:
    """Names of arguments that are no text, or no name, disturb nothing that does not ask for them."""
    guard = guarded({"t": {"deny_if": [condition("amount", "gt", 5)]}, "u": {}})
    assert guard.begin(ToolCall("u", arguments)).allowed
    assert guard.begin(ToolCall("t", arguments)).reason in (Reason.ALLOWED, Reason.UNDECIDABLE)


def test_a_hostile_key_is_a_denial() -> None:
    """A key that raises when it is compared denies the call and says nothing of what it raised."""
    guard = guarded({"t": {"deny_if": [condition("x", "gt", 5)]}})
    decision = guard.begin(ToolCall("t", {Hostile(): 1}))
    assert (decision.reason, decision.allowed) == (Reason.EVALUATION_ERROR, False)
    assert CANARY not in decision.text + repr(decision)


def test_a_name_that_is_no_text_never_passes() -> None:
    """A tool's name of another kind is denied, and nothing but the denial comes out."""
    guard = guarded({"t": {}})
    for name in (None, 5, ["t"], b"t", Hostile()):
        assert not guard.begin(ToolCall(name, {})).allowed  # type: ignore[arg-type]


def test_arguments_are_left_as_they_are() -> None:
    """Deciding changes nothing in the arguments."""
    guard = guarded({"t": RULES}, "allow")
    arguments = {"x": {"a": [1, {"b": None}]}, "other": [1.0, "y"]}
    before = copy.deepcopy(arguments)
    guard.begin(ToolCall("t", arguments))
    assert arguments == before


def test_no_value_of_an_argument_is_shown_anywhere(caplog: pytest.LogCaptureFixture) -> None:
    """Messages, representations, plain forms and logs never hold a value of an argument."""
    caplog.set_level(logging.DEBUG)
    store = BrokenStore()
    tools = {
        "require": {"require": [condition("x", "eq", "y")]},
        "deny": {"deny_if": [condition("x", "contains", "canary")]},
        "order": {"deny_if": [condition("x", "gt", 5)]},
        "regex": {"require": [condition("x", "regex", "^y")]},
        "step": {"require": [{"conditions": [{"path": "args.x.y", "op": "eq", "value": 1}]}]},
        "limit": {"limits": [limit("c", 0)]},
        "ask": {"action": "require_approval"},
        "store": {"limits": [limit("d", 1)]},
        "no": {"action": "deny"},
    }
    guard = guarded(tools, store=store, hide=["hidden"])
    store.error = RuntimeError("broken")
    decisions = []
    for arguments in ({"x": CANARY}, {"x": {"y": CANARY}}, {"x": [CANARY]}, {"x": Hostile()}, [CANARY], CANARY):
        for tool in (*tools, "hidden", "unlisted"):
            call = ToolCall(tool, arguments)
            decision = guard.begin(call)
            decisions.append(decision)
            shown = [repr(call), repr(decision), str(decision), json.dumps(decision.as_dict()), decision.text]
            shown += [str(ToolDenied(decision)), repr(ToolDenied(decision))]
            assert not any(CANARY in text for text in shown)
    assert len({decision.reason for decision in decisions}) >= 8
    assert CANARY not in caplog.text
    guard.suspend("stop")
    assert CANARY not in guard.begin(ToolCall("t", CANARY)).text


def test_names_of_tools_are_shown_escaped_and_short() -> None:
    """A tool's name that an agent made up cannot write control characters or a page into a message."""
    guard = guarded({})
    decision = guard.explain(ToolCall("evil\n\x1b[31m" + "x" * 100_000, {}))
    assert decision.message.isprintable()
    assert len(decision.message) < 300
    assert repr(decision.call).isprintable()
    assert len(repr(decision)) < 2_000


# ---- one decision for one call, over several layers


class Stack:
    """A guard with spans and counters to look at, and a call through some of its layers."""

    def __init__(self, tools: dict[str, Any], **settings: Any) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.guard = guarded(tools, telemetry=Telemetry(provider), **settings)
        self.made: list[str] = []

    def send(self) -> str:
        """The innermost call."""
        self.made.append("made")
        return "result"

    def call(self, *layers: tuple[Layer, Any], tool: str = "t", inner: Callable[[], Any] | None = None) -> Any:
        """Call the tool through the layers, from the outermost, each with the arguments it sees."""
        step = inner or self.send
        for layer, arguments in reversed(layers):
            step = self._layer(step, layer, ToolCall(tool, arguments))
        return step()

    def _layer(self, step: Callable[[], Any], layer: Layer, call: ToolCall) -> Callable[[], Any]:
        return lambda: self.guard.run(call, step, layer=layer)

    async def acall(self, *layers: tuple[Layer, Any], tool: str = "t") -> Any:
        """`call` through async layers."""
        if not layers:
            return self.send()
        (layer, arguments), *rest = layers
        return await self.guard.arun(ToolCall(tool, arguments), lambda: self.acall(*rest, tool=tool), layer=layer)

    @property
    def used(self) -> int:
        """How many charges the counter of a limit of 10 holds."""
        decision = self.guard.explain(ToolCall("t", {"amount": 1}))
        (charge,) = decision.charges
        (used,) = self.guard.explain(ToolCall("t", {"amount": 1})).reservation.used  # type: ignore[union-attr]
        return used // charge.amount

    @property
    def effects(self) -> list[str]:
        """The effects that spans tell of."""
        return [str((span.attributes or {})["mcp_policy.effect"]) for span in self.exporter.get_finished_spans()]


TEN = {"t": {"limits": [limit("c", 10)], "deny_if": [condition("amount", "gt", 100)]}, "u": {}}
ALL = (Layer.MIDDLEWARE, Layer.TOOL, Layer.SESSION)


def test_layers_of_one_call_charge_and_record_it_once() -> None:
    """Middleware around a tool around a session is one decision, one charge and one span."""
    stack = Stack(TEN)
    assert stack.call(*((layer, {"amount": 5}) for layer in ALL)) == "result"
    assert asyncio.run(stack.acall(*((layer, {"amount": 5}) for layer in ALL))) == "result"
    assert (len(stack.made), stack.used, stack.effects) == (2, 2, ["allow", "allow"])


def test_one_layer_may_be_left_out() -> None:
    """A decision passes from any layer to any deeper one."""
    stack = Stack(TEN)
    stack.call((Layer.CALLER, {}), (Layer.SESSION, {}))
    stack.call((Layer.MIDDLEWARE, {}), (Layer.TOOL, {}))
    assert (stack.used, stack.effects) == (2, ["allow", "allow"])


def test_a_deeper_layer_that_sees_other_arguments_decides_on_them() -> None:
    """A denial on what the deeper layer sees stands, releases the one charge, and is recorded."""
    stack = Stack(TEN)
    with pytest.raises(ToolDenied) as caught:
        stack.call((Layer.MIDDLEWARE, {"amount": 5}), (Layer.TOOL, {"amount": 500}))
    assert said(caught.value.decision) == ("rule_denied", "/tools/t/deny_if/args.amount-gt")
    assert (stack.made, stack.used, stack.effects[-1]) == ([], 0, "deny")
    with pytest.raises(ToolDenied):
        asyncio.run(stack.acall((Layer.MIDDLEWARE, {}), (Layer.TOOL, {}), (Layer.SESSION, {"amount": "5"})))
    assert (stack.made, stack.used) == ([], 0)


def test_a_deeper_layer_that_agrees_on_other_arguments_records_nothing() -> None:
    """Arguments that are coerced on the way and stay allowed make no second charge and no second span."""
    stack = Stack(TEN)
    stack.call((Layer.MIDDLEWARE, {"amount": 5}), (Layer.TOOL, {"amount": 5.0, "note": None}))
    assert (stack.used, stack.effects) == (1, ["allow"])


def test_an_inner_denial_that_a_layer_catches_stays_released() -> None:
    """Where the outer layer turns the inner denial into a result, the charge is not kept."""
    stack = Stack(TEN)

    def tool() -> str:
        try:
            return stack.call((Layer.TOOL, {"amount": 500}))
        except ToolDenied:
            return "denied"

    assert stack.call((Layer.MIDDLEWARE, {"amount": 5}), inner=tool) == "denied"
    assert stack.used == 0


def test_the_outermost_layer_settles_the_one_charge() -> None:
    """The outcome that the outermost layer sees keeps or releases the charge of all layers."""
    stack = Stack(TEN)
    call = ToolCall("t", {})
    stack.guard.run(
        call,
        lambda: stack.guard.run(call, stack.send, layer=Layer.SESSION),
        lambda _: Outcome.REJECTED,
        layer=Layer.TOOL,
    )
    assert (stack.made, stack.used) == (["made"], 0)


@pytest.mark.parametrize(
    ("inner", "outer", "used"),
    [
        (Outcome.UNKNOWN, Outcome.RETURNED_ERROR, 1),
        (Outcome.UNKNOWN, Outcome.REJECTED, 1),
        (Outcome.REJECTED, Outcome.RETURNED_ERROR, 0),
        (Outcome.REJECTED, Outcome.RETURNED, 0),
        (Outcome.RETURNED, Outcome.RETURNED_ERROR, 0),
        (Outcome.RETURNED_ERROR, Outcome.RETURNED, 1),
    ],
)
def test_how_a_call_failed_is_told_by_the_deepest_layer(inner: Outcome, outer: Outcome, used: int) -> None:
    """A framework may make a message of an exception: what the layer beneath saw of the failure settles the charge."""
    limits = [limit("c", 9, charge_on="success")]
    stack = Stack({"t": {"limits": limits}})
    call = ToolCall("t", {})
    stack.guard.run(
        call,
        lambda: stack.guard.run(call, stack.send, lambda _: inner, layer=Layer.TOOL),
        lambda _: outer,
        layer=Layer.MIDDLEWARE,
    )
    assert stack.used == used


def test_what_was_only_looked_at_gives_nothing_back() -> None:
    """Settling a decision of `explain` takes nothing off what others have charged."""
    guard = guarded({"t": {"limits": [limit("c", 2)]}})
    call = ToolCall("t", {})
    assert guard.begin(call).allowed
    guard.finish(guard.explain(call), Outcome.NOT_SENT)
    assert admitted(guard, call, 5) == 1


def test_an_outcome_that_is_none_leaves_the_charge_to_be_settled() -> None:
    """A misspelt outcome is refused, and the right one still settles; its plain name will do."""
    guard = guarded({"t": {"limits": [limit("c", 1)]}})
    call = ToolCall("t", {})
    decision = guard.begin(call)
    with pytest.raises(ValueError, match="not sent"):
        guard.finish(decision, "not sent")
    guard.finish(decision, "not_sent")
    assert guard.begin(call).allowed


def test_a_deeper_layer_sees_the_context_of_the_call_around_it() -> None:
    """What the application passed in with a call holds at every layer, which cannot know it otherwise."""
    guard = guarded({"t": {"require": [GOLD]}}, context={"tier": "base"})
    made: list[str] = []
    inner = ToolCall("t", {})
    outer = ToolCall("t", {}, context={"tier": "gold"})
    guard.run(outer, lambda: guard.run(inner, lambda: made.append("made"), layer=Layer.SESSION))
    assert made == ["made"]
    other = ToolCall("t", {}, context={"tier": "base"})
    with pytest.raises(ToolDenied):
        guard.run(outer, lambda: guard.run(other, lambda: made.append("made"), layer=Layer.SESSION))
    assert made == ["made"]


def test_a_deeper_layer_that_would_charge_the_same_does_not_ask_the_store() -> None:
    """What an outer layer has taken holds for the whole call, though its window ends before the inner layer looks."""

    class NeverAdjusting(MemoryStore):
        def adjust(self, held: Any, charges: Any, now: float) -> Any:
            raise AssertionError("the same charges were taken before")

    clock = FrozenClock(datetime(2026, 1, 1, 10, 59, 59, tzinfo=UTC))
    guard = guarded({"t": ONCE}, clock=clock, store=NeverAdjusting())
    call = ToolCall("t", {})
    made: list[str] = []

    def tool() -> None:
        clock.tick(1)
        guard.run(call, lambda: made.append("made"), layer=Layer.SESSION)

    guard.run(call, tool, layer=Layer.TOOL)
    assert made == ["made"]
    assert guard.explain(call).allowed, "the new window is untouched"


def test_a_deeper_layer_that_sees_another_amount_charges_that() -> None:
    """A charge read from an argument is the innermost layer's, and the outermost layer's outcome gives it back."""
    guard = guarded({"t": {"limits": [limit("c", 10, increment_from="args.n")]}})

    def through(outer: float, inner: float, outcome: Outcome) -> None:
        call, deeper = ToolCall("t", {"n": outer}), ToolCall("t", {"n": inner})
        guard.run(call, lambda: guard.run(deeper, lambda: None, layer=Layer.SESSION), lambda _: outcome)

    def used() -> int:
        decision = guard.explain(ToolCall("t", {"n": 0}))
        assert decision.reservation is not None
        return decision.reservation.used[0]

    through(4, 6, Outcome.RETURNED)
    assert used() == 6_000_000
    through(4, 1, Outcome.REJECTED)
    assert used() == 6_000_000
    with pytest.raises(ToolDenied):
        through(4, 5, Outcome.RETURNED)
    with pytest.raises(ToolDenied):
        through(4, -1, Outcome.RETURNED)
    assert used() == 6_000_000


def test_a_nested_call_of_the_same_layer_is_its_own() -> None:
    """A tool that calls itself through the same layer, or an outer one, is charged for each call."""
    stack = Stack(TEN)
    stack.call((Layer.TOOL, {}), (Layer.TOOL, {}))
    assert (stack.used, len(stack.effects)) == (2, 2)
    stack.call((Layer.TOOL, {}), (Layer.MIDDLEWARE, {}))
    assert (stack.used, len(stack.effects)) == (4, 4)
    stack.call((Layer.CALLER, {}), (Layer.CALLER, {}))
    assert (stack.used, len(stack.effects)) == (6, 6)


def test_a_second_call_inside_is_its_own() -> None:
    """A layer takes a decision up once: a retry inside the outer call is decided and charged anew."""
    stack = Stack(TEN)

    def twice() -> None:
        stack.call((Layer.TOOL, {}))
        stack.call((Layer.TOOL, {}))

    stack.call((Layer.MIDDLEWARE, {}), inner=twice)
    assert (stack.used, len(stack.effects)) == (2, 2)


def test_another_tool_or_server_or_grant_inside_is_another_call() -> None:
    """Only the same tool of the same server under the same grant and session is the same call."""
    stack = Stack(TEN, session="s")
    others = [
        ToolCall("u", {}), ToolCall("t", {}, server="x"), ToolCall("t", {}, server=UNNAMED), ToolCall("t", {},
        grant="other"),
        ToolCall("t", {}, session="other"),
    ]  # fmt: skip
    for other in others:
        inner = lambda other=other: stack.guard.run(other, stack.send, layer=Layer.SESSION)  # noqa: E731
        before = len(stack.effects)
        stack.call((Layer.MIDDLEWARE, {}), inner=inner)
        assert len(stack.effects) == before + 2, other
    same = [ToolCall("t", {}, grant="default"), ToolCall("t", {}, session="s")]
    for other in same:
        inner = lambda other=other: stack.guard.run(other, stack.send, layer=Layer.SESSION)  # noqa: E731
        before = len(stack.effects)
        stack.call((Layer.MIDDLEWARE, {}), inner=inner)
        assert len(stack.effects) == before + 1, other


def test_a_tool_inside_another_reaches_its_own_session() -> None:
    """Decisions of two nested tools are each handed to their own deeper layer."""
    stack = Stack({"t": {"limits": [limit("c", 10)]}, "u": {"limits": [limit("d", 10)]}})

    def tool_t() -> None:
        stack.call((Layer.TOOL, {}), (Layer.SESSION, {}), tool="u")
        stack.call((Layer.SESSION, {}))

    stack.call((Layer.TOOL, {}), inner=tool_t)
    assert (len(stack.effects), stack.used) == (2, 1)


def test_another_guard_decides_for_itself() -> None:
    """Two guards around one call each decide and charge; layers of one find their own decision through the other."""
    stack, other = Stack(TEN), Stack(TEN)
    call = ToolCall("t", {})
    stack.call((Layer.MIDDLEWARE, {}), inner=lambda: other.guard.run(
        call, lambda: stack.guard.run(call, stack.send, layer=Layer.SESSION), layer=Layer.TOOL))  # fmt: skip
    assert (stack.used, other.used, stack.effects, other.effects) == (1, 1, ["allow"], ["allow"])


def test_a_settled_call_is_not_taken_up() -> None:
    """A context that outlives its call does not carry the decision on."""
    stack = Stack(TEN)
    left: list[contextvars.Context] = []
    stack.call((Layer.MIDDLEWARE, {}), inner=lambda: left.append(contextvars.copy_context()))
    left[0].run(stack.call, (Layer.TOOL, {}))
    assert (stack.used, len(stack.effects)) == (2, 2)


def test_one_of_many_threads_takes_the_decision_up() -> None:
    """Where the context goes to several threads, one of them is the same call and the others are charged."""
    stack = Stack(TEN)

    def fan_out() -> None:
        contexts = [contextvars.copy_context() for _ in range(5)]
        threads = [threading.Thread(target=c.run, args=(stack.call, (Layer.TOOL, {}))) for c in contexts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    stack.call((Layer.MIDDLEWARE, {}), inner=fan_out)
    assert (len(stack.made), stack.used, len(stack.effects)) == (5, 5, 5)


def test_parallel_tasks_do_not_see_each_others_decisions() -> None:
    """Concurrent calls through all layers are charged once each."""
    stack = Stack(TEN)

    async def main() -> None:
        calls = (stack.acall(*((layer, {"n": n}) for layer in ALL)) for n in range(7))
        await asyncio.gather(*calls)

    asyncio.run(main())
    assert (len(stack.made), stack.used, len(stack.effects)) == (7, 7, 7)


def test_suspension_reaches_a_call_on_its_way() -> None:
    """A guard suspended between two layers denies at the deeper one and releases the charge."""
    stack = Stack(TEN)

    def suspend_first() -> Any:
        stack.guard.suspend("stop")
        return stack.call((Layer.SESSION, {}))

    with pytest.raises(ToolDenied) as caught:
        stack.call((Layer.MIDDLEWARE, {}), inner=suspend_first)
    assert caught.value.decision.reason is Reason.SUSPENDED
    stack.guard.resume()
    assert (stack.made, stack.used) == ([], 0)


def test_shadow_layers_record_one_denial_and_call_on() -> None:
    """In shadow mode a denied call passes all layers, with one span and no charge."""
    stack = Stack(TEN, mode="shadow")
    assert stack.call(*((layer, {"amount": 500}) for layer in ALL)) == "result"
    assert (stack.made, stack.used, stack.effects) == (["made"], 0, ["deny"])


def test_a_full_counter_admits_the_deeper_layers_of_the_call_that_filled_it() -> None:
    """The last charge that fits is one call's at all its layers."""
    stack = Stack({"t": {"limits": [limit("c", 1)]}})
    assert stack.call(*((layer, {}) for layer in ALL)) == "result"
    with pytest.raises(ToolDenied):
        stack.call(*((layer, {}) for layer in ALL))
