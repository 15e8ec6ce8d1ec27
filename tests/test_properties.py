"""Random policies and calls: the engine against a second reading of the language, and what must hold of any policy."""

from __future__ import annotations

import asyncio
import copy
import json
import math
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from reference import decide

from mcp_policy_middleware import Decision, Guard, Outcome, ToolCall, parse_policy
from mcp_policy_middleware.stores import MemoryStore

START = 1_772_625_590  # ten seconds before a window of every length ends
KEEP = [Outcome.RETURNED, Outcome.RETURNED_ERROR, Outcome.UNKNOWN]
RELEASE = [Outcome.REJECTED, Outcome.NOT_SENT]
EXAMPLES = settings(max_examples=300, deadline=None)
FEW = settings(max_examples=60, deadline=None)

# ---- what policies and calls are made of: few names and values, so that they meet

SCALARS: list[Any] = [
    None, True, False, 0, 1, 2, -1, 50, 50.0, 0.5, 1.0, 2**53, 2**53 + 1, 2.0**53, "", "a", "ab", "1", "50", "50.0",
    " 50",
    "5e1", "0x32", "true", "TRUE", "no", "yes", "0", "null", "[1]", "[1.0]", '{"k": 1}', '{"k": "1"}', "\u0665\u0660",
]  # fmt: skip
VALUES = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["k", "b"]), inner, max_size=2),
    max_leaves=4,
)
ARGUMENTS = st.dictionaries(
    st.sampled_from(["a", "b", "k"]), VALUES | st.sampled_from([math.nan, math.inf, 10**30]), max_size=3
)
PATHS = st.sampled_from(["args.a", "args.b", "args.a.k", "args.a.k.b", "args.zz"])
CONDITIONS = st.one_of(
    st.fixed_dictionaries({"path": PATHS, "op": st.sampled_from(["eq", "neq", "contains"]), "value": VALUES}),
    st.fixed_dictionaries({"path": PATHS, "op": st.sampled_from(["in", "not_in"]), "value": st.lists(VALUES,
    max_size=3)}),
    st.fixed_dictionaries({
        "path": PATHS, "op": st.sampled_from(["lt", "lte", "gt", "gte"]), "value": st.sampled_from([0, 1, 1.0, 0.5,
        50, 2**53]),
    }),
    st.fixed_dictionaries({
        "path": PATHS, "op": st.just("regex"), "value": st.sampled_from(["", "^a", "b$", "a|b", "^[0-9]+$", "a?b+",
        "^$"]),
    }),
    st.fixed_dictionaries({"path": PATHS, "op": st.just("exists"), "value": st.booleans()}),
)  # fmt: skip


def predicates(least: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Lists of predicates with at least so many conditions each."""
    conditions = st.lists(CONDITIONS, min_size=least, max_size=3)
    return st.lists(st.fixed_dictionaries({"conditions": conditions}), max_size=2)


LIMITS = st.lists(
    st.tuples(st.sampled_from(["c", "d", "e"]), st.sampled_from([0, 0.5, 1, 1.5, 2, 3]), st.sampled_from(["grant",
    "session"])),
    max_size=2,
).map(lambda found: [
    {"counter": name, "max": top, "scope": scope, "window": {"c": "minute", "d": "hour", "e": 7}[name]}
    for name, top, scope in found
])  # fmt: skip
PARTS = {"require": predicates(1), "deny_if": predicates(0), "limits": LIMITS}
SHORTHAND = st.fixed_dictionaries({"max": st.sampled_from([0, 1, 2]), "window": st.sampled_from(["minute", 20])})
RULES = st.one_of(
    st.fixed_dictionaries(
        {}, optional={**PARTS, "rate_limit": SHORTHAND, "action": st.sampled_from(["allow"] * 3 + ["require_approval"])}
    ),
    st.just({"action": "deny"}),
)
DOCUMENTS = st.fixed_dictionaries(
    {"version": st.just("1"), "default": st.sampled_from(["allow", "deny"])},
    optional={
        "hide": st.lists(st.sampled_from(["h", "u"]), unique=True, max_size=2) | st.just(["*"]),
        "all_tools": st.fixed_dictionaries({}, optional=PARTS),
        "tools": st.dictionaries(st.sampled_from(["t", "u"]), RULES, max_size=2),
    },
)
CALLS = st.lists(
    st.tuples(
        st.sampled_from(["t", "t", "u", "x", "h"]), ARGUMENTS, st.sampled_from(["g", "h"]), st.sampled_from([None,
        "s"]),
        st.sampled_from([0, 1, 5, 10, 61, 3_600]), st.sampled_from([*KEEP, *RELEASE]),
    ),
    min_size=1, max_size=8,
)  # fmt: skip


class Clock:
    """Seconds since the epoch, moved by hand."""

    now = START

    def __call__(self) -> datetime:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=self.now)


def guard_of(document: dict[str, Any], clock: Clock | None = None) -> Guard:
    """A guard of the document, with a store of its own."""
    return Guard(parse_policy(json.dumps(document)), store=MemoryStore(), clock=clock or Clock(), telemetry=False)


def said(decision: Decision) -> tuple[str, str, str]:
    """Effect, reason and rule."""
    return decision.effect, decision.reason.value, decision.rule


@EXAMPLES
@given(document=DOCUMENTS, calls=CALLS)
def test_the_engine_agrees_with_the_second_reading(document: dict[str, Any], calls: list[Any]) -> None:
    """Effect, reason and rule of every call of a sequence are those of the reference; looking says what taking will."""
    clock = Clock()
    guard = guard_of(document, clock)
    totals: dict[Any, int] = {}
    for tool, arguments, grant, session, wait, outcome in calls:
        clock.now += wait
        reason, rule, charges = decide(document, tool, arguments, grant, session, totals, clock.now)
        call = ToolCall(tool, arguments, grant=grant, session=session)
        explained, decision = guard.explain(call), guard.begin(call)
        assert said(decision) == ("allow" if reason == "allowed" else "deny", reason, rule)
        assert said(explained) == said(decision)
        assert explained.retry_after == decision.retry_after
        assert explained.message == decision.message
        guard.finish(decision, outcome)
        if outcome in KEEP:
            for key in charges:
                totals[key] = totals.get(key, 0) + 1


@EXAMPLES
@given(condition=CONDITIONS, arguments=ARGUMENTS)
def test_a_condition_agrees_with_the_second_reading(condition: dict[str, Any], arguments: dict[str, Any]) -> None:
    """One condition alone, in `require` and in `deny_if`, answers as the reference does."""
    for key in ("require", "deny_if"):
        document = {"version": "1", "default": "deny", "tools": {"t": {key: [{"conditions": [condition]}]}}}
        reason, rule, _ = decide(document, "t", arguments, "g", None, {}, START)
        assert said(guard_of(document).explain(ToolCall("t", arguments)))[1:] == (reason, rule)


@EXAMPLES
@given(document=DOCUMENTS, extra=predicates(0), tool=st.sampled_from(["t", "u", "all_tools"]), calls=CALLS)
def test_adding_a_denial_never_allows_more(
    document: dict[str, Any], extra: list[Any], tool: str, calls: list[Any]
) -> None:
    """What is denied stays denied where `deny_if` has a predicate more."""
    stricter = copy.deepcopy(document)
    part = stricter.setdefault("all_tools", {}) if tool == "all_tools" else stricter.get("tools", {}).get(tool)
    if part is None or part.get("action") == "deny":
        return
    part["deny_if"] = [*part.get("deny_if", []), *extra]
    before, after = guard_of(document), guard_of(stricter)
    for name, arguments, *_ in calls:
        call = ToolCall(name, arguments)
        assert before.explain(call).allowed or not after.explain(call).allowed


@EXAMPLES
@given(document=DOCUMENTS, calls=CALLS, data=st.data())
def test_the_order_of_rules_never_changes_the_effect(
    document: dict[str, Any], calls: list[Any], data: st.DataObject
) -> None:
    """Predicates, conditions and limits in another order name other rules and decide alike."""
    shuffled = copy.deepcopy(document)
    for part in (*shuffled.get("tools", {}).values(), shuffled.get("all_tools", {})):
        for key in ("require", "deny_if", "limits"):
            if key in part:
                part[key] = data.draw(st.permutations(part[key]))
        for predicate in (*part.get("require", []), *part.get("deny_if", [])):
            predicate["conditions"] = data.draw(st.permutations(predicate["conditions"]))
    one, other = guard_of(document), guard_of(shuffled)
    for tool, arguments, grant, session, _, _ in calls:
        call = ToolCall(tool, arguments, grant=grant, session=session)
        assert one.begin(call).effect == other.begin(call).effect


@EXAMPLES
@given(document=DOCUMENTS, calls=CALLS)
def test_looking_changes_nothing_and_what_is_released_is_as_never_taken(
    document: dict[str, Any], calls: list[Any]
) -> None:
    """Calls that were looked at, denied or released leave the counters as they were."""
    guard = guard_of(document)
    probes = [
        ToolCall(tool, arguments, grant=grant, session=session) for tool, arguments, grant, session, _, _ in calls
    ]
    before = [said(guard.explain(probe)) for probe in probes]
    for probe, (*_, outcome) in zip(probes, calls, strict=True):
        decision = guard.begin(probe)
        guard.finish(decision, Outcome.NOT_SENT if outcome in KEEP else outcome)
        guard.finish(decision, Outcome.NOT_SENT)
    assert [said(guard.explain(probe)) for probe in probes] == before


@FEW
@given(tops=st.lists(st.integers(0, 12), min_size=1, max_size=3), callers=st.integers(1, 16))
def test_concurrent_calls_never_exceed_a_limit(tops: list[int], callers: int) -> None:
    """However many tasks and threads call at once, exactly as many are admitted as the smallest limit says."""
    limits = [{"counter": f"c{index}", "window": "hour", "max": top} for index, top in enumerate(tops)]
    document = {"version": "1", "default": "deny", "tools": {"t": {"limits": limits}}}

    async def tasks() -> int:
        guard = guard_of(document)
        decisions = await asyncio.gather(*(guard.abegin(ToolCall("t", {})) for _ in range(callers)))
        return sum(decision.allowed for decision in decisions)

    guard = guard_of(document)
    admitted: list[bool] = []
    threads = [
        threading.Thread(target=lambda: admitted.append(guard.begin(ToolCall("t", {})).allowed)) for _ in range(callers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(admitted) == asyncio.run(tasks()) == min(*tops, callers)


@FEW
@given(outcomes=st.lists(st.sampled_from([*KEEP, *RELEASE]), max_size=20), top=st.integers(0, 6))
def test_a_counter_holds_what_was_kept(outcomes: list[Outcome], top: int) -> None:
    """After any sequence of outcomes, as many calls fit as the maximum less what was kept."""
    limits = [{"counter": "c", "window": "hour", "max": top}]
    guard = guard_of({"version": "1", "default": "deny", "tools": {"t": {"limits": limits}}})
    kept = 0
    for outcome in outcomes:
        decision = guard.begin(ToolCall("t", {}))
        assert decision.allowed is (kept < top)
        guard.finish(decision, outcome)
        kept += decision.allowed and outcome in KEEP
    assert sum(guard.begin(ToolCall("t", {})).allowed for _ in range(top + 1)) == top - kept
