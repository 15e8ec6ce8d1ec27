"""Random policies and calls: the engine against a second reading of the language, and what must hold of any policy.

`HYPOTHESIS_PROFILE=many` tries 20,000 examples of each property instead of a few hundred.
"""

from __future__ import annotations

import asyncio
import copy
import json
import math
import threading
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from reference import decide

from mcp_policy_middleware import Decision, Guard, Outcome, ToolCall, parse_policy
from mcp_policy_middleware.stores import MemoryStore

START = 1_772_625_590  # ten seconds before windows of a minute, an hour and seven seconds end
DAY = 86_400
KEEP = [Outcome.RETURNED, Outcome.RETURNED_ERROR, Outcome.UNKNOWN]
RELEASE = [Outcome.REJECTED, Outcome.NOT_SENT]
FEWER = settings(max_examples=settings().max_examples // 5)

# ---- what policies and calls are made of: few names and values, so that they meet

SCALARS: list[Any] = [
    None, True, False, 0, 1, 2, -1, 50, 50.0, 0.5, 1.0, 0.1, 2**53, 2**53 + 1, 2.0**53, "", "a", "ab", "1", "50",
    "50.0", " 50", "5e1", "0x32", "true", "TRUE", "no", "yes", "0", "null", "[1]", "[1.0]", '{"k": 1}', '{"k": "1"}',
    "t", "s", "\u0665\u0660",
]  # fmt: skip
VALUES = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["k", "b"]), inner, max_size=2),
    max_leaves=4,
)
STRANGE = st.sampled_from([math.nan, math.inf, 10**30, 1e-9, [math.nan], [[1], []]])
ARGUMENTS = st.dictionaries(st.sampled_from(["a", "b", "k", "a.b"]), VALUES | STRANGE, max_size=3)
CONTEXTS = st.none() | st.dictionaries(st.sampled_from(["c", "d"]), VALUES, max_size=2)
PATHS = st.sampled_from([
    "args.a", "args.a", "args.b", "args.a.k", "args.a.k.b", "args.zz", 'args["a.b"]', 'args["a"].k', "args.a[0]",
    "args.a[1].k", "args.a[*]", "args.a[*]", "args.a[*].k", "args.a[*][*]", "args.b[*][0]", "args[*]", "call.tool",
    "call.server", "call.grant", "call.session", "context.c", "context.c.k", "context.c[*]", 'context["d"][0]',
])  # fmt: skip
NUMBERS = st.sampled_from([0, 1, 1.0, 0.5, 50, 2**53])
PATTERNS = st.sampled_from(["", "^a", "b$", "a|b", "^[0-9]+$", "a?b+", "^$"])


def condition(ops: list[str], values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Conditions of these operators."""
    return st.fixed_dictionaries({"path": PATHS, "op": st.sampled_from(ops), "value": values})


CONDITIONS = st.one_of(
    condition(["eq", "neq", "contains"], VALUES),
    condition(["in", "not_in"], st.lists(VALUES, max_size=3)),
    condition(["lt", "lte", "gt", "gte"], NUMBERS),
    condition(["regex"], PATTERNS),
    condition(["exists"], st.booleans()),
)


def predicates(least: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Lists of predicates with at least so many conditions each."""
    conditions = st.lists(CONDITIONS, min_size=least, max_size=3)
    return st.lists(st.fixed_dictionaries({"conditions": conditions}), max_size=2)


COUNTERS: dict[str, dict[str, Any]] = {
    "c": {"window": "minute"}, "d": {"window": "hour", "algorithm": "sliding"}, "w": {"window": "week"},
    "e": {"window": 7, "algorithm": "fixed"}, "f": {"window": "day", "algorithm": "sliding"},
    "m": {"window": "month", "algorithm": "sliding"}, "n": {"window": "month"},
}  # fmt: skip
"""What limits of one counter agree on."""

CHARGES = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"increment": st.sampled_from([1, 2, 0.5, 0.1, 1e-9, 1.5])}),
    st.fixed_dictionaries({"increment_from": st.sampled_from(["args.a", "args.b", "args.a.k", 'args["a"][0]'])}),
)
LIMIT = st.builds(
    lambda name, more, charge: {"counter": name, **COUNTERS[name], **more, **charge},
    st.sampled_from(sorted(COUNTERS)),
    st.fixed_dictionaries(
        {"max": st.sampled_from([0, 0.5, 1, 1.5, 2, 3, 60])},
        optional={
            "scope": st.sampled_from(["grant", "session", "server", "global"]),
            "charge_on": st.just("success"),
        },
    ),
    CHARGES,
)
MODES = st.sampled_from(["enforce", "shadow"])
PARTS = {
    "require": predicates(1),
    "deny_if": predicates(0),
    "require_approval_if": predicates(1),
    "limits": st.lists(LIMIT, max_size=3),
}
SHORTHAND = st.fixed_dictionaries({
    "max": st.sampled_from([0, 1, 2]), "window": st.sampled_from(["minute", 20, "week"]),
})  # fmt: skip
RULES = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            **PARTS,
            "rate_limit": SHORTHAND,
            "action": st.sampled_from(["allow"] * 5 + ["require_approval"]),
            "only_arguments": st.lists(st.sampled_from(["a", "b", "k"]), max_size=3),
            "mode": MODES,
        },
    ),
    st.fixed_dictionaries({"action": st.just("deny")}, optional={"mode": MODES}),
)
NAMES = ["t", "t", "t", "u", "u", "ta", "ub", "x", "h"]
GLOBS = ["*", "t*", "?", "?b", "*b", "u*"]


def documents(tools: list[str], hide: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Documents with entries for such tools."""
    return st.fixed_dictionaries(
        {"version": st.just("1"), "default": st.sampled_from(["allow", "allow", "deny"])},
        optional={
            "hide": st.lists(st.sampled_from(hide), unique=True, max_size=2) | st.sampled_from([[], [], ["*"]]),
            "all_tools": st.fixed_dictionaries({}, optional=PARTS),
            "tools": st.dictionaries(st.sampled_from(tools), RULES, min_size=1, max_size=3),
            "mode": MODES,
        },
    )


DOCUMENTS = documents(["t", "t", "u", *GLOBS], ["h", "u", "h*", "?b"])
PLAIN = documents(["t", "u"], ["h", "u"])
COUNTING = st.fixed_dictionaries({
    "version": st.just("1"),
    "default": st.just("allow"),
    "all_tools": st.just({}) | st.fixed_dictionaries({"limits": st.lists(LIMIT, max_size=2)}),
    "tools": st.dictionaries(
        st.sampled_from(["t", "t", "u", "t*", "?"]),
        st.fixed_dictionaries({"limits": st.lists(LIMIT, min_size=1, max_size=3)}, optional={"rate_limit": SHORTHAND}),
        min_size=1, max_size=3,
    ),
})  # fmt: skip
"""Documents in which nothing but limits decides."""

ONE = st.one_of(DOCUMENTS, COUNTING, COUNTING)
SEVERAL = st.fixed_dictionaries({"s": ONE}, optional={"s@g": ONE, "_local": ONE})
POLICIES = st.one_of(ONE, ONE, SEVERAL)


class Made(NamedTuple):
    """A call, how long after the one before it is made, and how it ends."""

    tool: str
    arguments: dict[str, Any]
    server: str | None
    grant: str
    session: str | None
    context: dict[str, Any] | None
    wait: int
    outcome: Outcome

    @property
    def call(self) -> ToolCall:
        """The call as a guard takes it."""
        return ToolCall(
            self.tool, self.arguments, server=self.server, grant=self.grant, session=self.session, context=self.context
        )

    @property
    def scene(self) -> dict[str, Any]:
        """The call as the reference takes it."""
        facts = {"tool": self.tool, "server": self.server, "grant": self.grant, "session": self.session}
        known = {name: value for name, value in facts.items() if value is not None}
        return {"tool": self.tool, "args": self.arguments, "call": known, "context": self.context or {}}


CALL = st.builds(
    Made,
    st.sampled_from(NAMES),
    ARGUMENTS | st.fixed_dictionaries({"a": st.sampled_from([0, 0.1, 0.5, 1, 1.0, 2, 59.5]), "b": st.just(1)}),
    st.sampled_from([None, "s", "s"]),
    st.sampled_from(["g", "h"]),
    st.sampled_from([None, "s"]),
    CONTEXTS,
    st.sampled_from([0, 0, 0, 0, 0, 0, 1, 5, 10, 61, 1_800, 3_600, DAY, 3 * DAY, 25 * DAY]),
    st.sampled_from([*KEEP, *RELEASE]),
)
CALLS = st.lists(CALL, min_size=1, max_size=8)


class Clock:
    """Seconds since the epoch, moved by hand."""

    now = START

    def __call__(self) -> datetime:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=self.now)


def guard_of(policies: dict[str, Any], clock: Clock | None = None, mode: Any = None) -> Guard:
    """A guard of a document, or of documents by name, with a store of its own."""
    read = lambda document: parse_policy(json.dumps(document))  # noqa: E731
    given = read(policies) if "version" in policies else {name: read(one) for name, one in policies.items()}
    return Guard(given, store=MemoryStore(), clock=clock or Clock(), mode=mode, telemetry=False)


def said(decision: Decision) -> tuple[str, str, str]:
    """Effect, reason and rule."""
    return decision.effect, decision.reason.value, decision.rule


def told(decision: Decision) -> dict[str, Any]:
    """All that a decision tells, apart from its id."""
    plain = {key: value for key, value in decision.as_dict().items() if key != "decision_id"}
    used = decision.reservation and (decision.reservation.used, decision.reservation.windows)
    return plain | {"enforced": decision.enforced, "charges": decision.charges, "used": used}


@given(policies=POLICIES, calls=CALLS, mode=st.none() | st.none() | MODES)
def test_the_engine_agrees_with_the_second_reading(policies: dict[str, Any], calls: list[Made], mode: Any) -> None:
    """Effect, reason, rule and mode of every call of a sequence are those of the reference."""
    clock = Clock()
    guard = guard_of(policies, clock, mode)
    totals: dict[Any, int] = {}
    for made in calls:
        clock.now += made.wait
        server = made.server or "_local"
        own = policies if "version" in policies else policies.get(f"{server}@{made.grant}", policies.get(server))
        reason, rule, enforced, charges = decide(own, made.scene, totals, clock.now, mode)
        decision = guard.begin(made.call)
        assert said(decision) == ("allow" if reason == "allowed" else "deny", reason, rule)
        assert decision.enforced is enforced
        guard.finish(decision, made.outcome)
        for key, (amount, on_success) in charges.items():
            if made.outcome in KEEP and not (on_success and made.outcome is Outcome.RETURNED_ERROR):
                totals[key] = totals.get(key, 0) + amount


@given(condition=CONDITIONS, arguments=ARGUMENTS, context=CONTEXTS)
def test_a_condition_agrees_with_the_second_reading(condition: Any, arguments: Any, context: Any) -> None:
    """One condition alone, in `require`, `deny_if` and `require_approval_if`, answers as the reference does."""
    made = Made("t", arguments, "s", "g", None, context, 0, Outcome.RETURNED)
    for key in ("require", "deny_if", "require_approval_if"):
        document = {"version": "1", "default": "deny", "tools": {"t": {key: [{"conditions": [condition]}]}}}
        reason, rule, _, _ = decide(document, made.scene, {}, START, None)
        assert said(guard_of(document).explain(made.call))[1:] == (reason, rule)


@given(policies=POLICIES, calls=CALLS)
def test_looking_says_what_taking_will(policies: dict[str, Any], calls: list[Made]) -> None:
    """`explain` and `begin` tell the same of every call of a sequence, in both drivers, apart from ids."""

    async def decide_async(guard: Guard, call: ToolCall, outcome: Outcome) -> tuple[Decision, Decision]:
        explained, decision = await guard.aexplain(call), await guard.abegin(call)
        begun = told(decision)
        await guard.afinish(decision, outcome)
        assert told(explained) == begun
        return begun

    async def main() -> None:
        clock = Clock()
        one, other = guard_of(policies, clock), guard_of(policies, clock)
        for made in calls:
            clock.now += made.wait
            explained, decision = one.explain(made.call), one.begin(made.call)
            assert told(explained) == told(decision)
            assert told(decision) == await decide_async(other, made.call, made.outcome)
            one.finish(decision, made.outcome)

    asyncio.run(main())


@given(document=DOCUMENTS, extra=predicates(0), calls=CALLS, data=st.data())
def test_adding_a_denial_never_allows_more(
    document: dict[str, Any], extra: list[Any], calls: list[Made], data: st.DataObject
) -> None:
    """What is denied stays denied where `deny_if` has a predicate more."""
    stricter = copy.deepcopy(document)
    parts = [stricter.setdefault("all_tools", {}), *stricter.get("tools", {}).values()]
    part = data.draw(st.sampled_from([part for part in parts if part.get("action") != "deny"]))
    part["deny_if"] = [*part.get("deny_if", []), *extra]
    before, after = guard_of(document), guard_of(stricter)
    for made in calls:
        assert before.explain(made.call).effect == "allow" or after.explain(made.call).effect == "deny"


@given(document=PLAIN, calls=CALLS, data=st.data())
def test_striking_a_tool_out_never_allows_more(
    document: dict[str, Any], calls: list[Made], data: st.DataObject
) -> None:
    """Under `default: deny` and without globs, a document with a tool fewer allows no call that was denied."""
    stricter = copy.deepcopy(document)
    document["default"] = stricter["default"] = "deny"
    if stricter.get("tools"):
        del stricter["tools"][data.draw(st.sampled_from(sorted(stricter["tools"])))]
    before, after = guard_of(document), guard_of(stricter)
    for made in calls:
        assert before.explain(made.call).effect == "allow" or after.explain(made.call).effect == "deny"


@given(document=DOCUMENTS, calls=CALLS, data=st.data())
def test_the_order_of_rules_never_changes_the_effect(
    document: dict[str, Any], calls: list[Made], data: st.DataObject
) -> None:
    """Tools, predicates, conditions and limits in another order name other rules and decide alike."""
    shuffled = copy.deepcopy(document)
    for part in (*shuffled.get("tools", {}).values(), shuffled.get("all_tools", {})):
        for key in PARTS:
            if key in part:
                part[key] = data.draw(st.permutations(part[key]))
        for key in ("require", "deny_if", "require_approval_if"):
            for predicate in part.get(key, []):
                predicate["conditions"] = data.draw(st.permutations(predicate["conditions"]))
    if "tools" in shuffled:
        shuffled["tools"] = dict(data.draw(st.permutations(list(shuffled["tools"].items()))))
    clock = Clock()
    one, other = guard_of(document, clock), guard_of(shuffled, clock)
    for made in calls:
        clock.now += made.wait
        decisions = [guard.begin(made.call) for guard in (one, other)]
        assert decisions[0].effect == decisions[1].effect
        for guard, decision in zip((one, other), decisions, strict=True):
            guard.finish(decision, made.outcome)


@given(policies=POLICIES, calls=CALLS)
def test_what_is_released_is_as_never_taken(policies: dict[str, Any], calls: list[Made]) -> None:
    """Calls that were looked at, denied or released leave the counters as they were, in this window and in the next."""
    clock = Clock()
    guard, untouched = guard_of(policies, clock), guard_of(policies, clock)
    for made in calls:
        decision = guard.begin(made.call)
        guard.finish(decision, Outcome.NOT_SENT if made.outcome in KEEP else made.outcome)
        guard.finish(decision, Outcome.NOT_SENT)
    for wait in (0, 70, 3_600):
        clock.now += wait
        for made in calls:
            assert told(guard.explain(made.call)) == told(untouched.explain(made.call))


@FEWER
@given(
    tops=st.lists(st.integers(0, 12), min_size=1, max_size=3),
    increments=st.lists(st.sampled_from([1, 2, 0.5]), min_size=3, max_size=3),
    sliding=st.booleans(),
    callers=st.integers(1, 16),
)
def test_concurrent_calls_never_exceed_a_limit(
    tops: list[int], increments: list[float], sliding: bool, callers: int
) -> None:
    """However many tasks and threads call at once, exactly as many are admitted as the smallest limit says."""
    limits = [
        {"counter": f"c{index}", "window": "hour", "max": top, "increment": increments[index]}
        | ({"algorithm": "sliding"} if sliding else {})
        for index, top in enumerate(tops)
    ]
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
    fitting = min(int(top / increment) for top, increment in zip(tops, increments, strict=False))
    assert sum(admitted) == asyncio.run(tasks()) == min(fitting, callers)


@FEWER
@given(
    outcomes=st.lists(st.sampled_from([*KEEP, *RELEASE]), max_size=20), top=st.integers(0, 6), on_success=st.booleans()
)
def test_a_counter_holds_what_was_kept(outcomes: list[Outcome], top: int, on_success: bool) -> None:
    """After any sequence of outcomes, as many calls fit as the maximum less what was kept."""
    limits = [{"counter": "c", "window": "hour", "max": top} | ({"charge_on": "success"} if on_success else {})]
    guard = guard_of({"version": "1", "default": "deny", "tools": {"t": {"limits": limits}}})
    kept = 0
    for outcome in outcomes:
        decision = guard.begin(ToolCall("t", {}))
        assert decision.allowed is (kept < top)
        guard.finish(decision, outcome)
        kept += decision.allowed and outcome in KEEP and not (on_success and outcome is Outcome.RETURNED_ERROR)
    assert sum(guard.begin(ToolCall("t", {})).allowed for _ in range(top + 1)) == top - kept


@given(
    charges=st.lists(
        st.tuples(st.integers(0, 7_300), st.sampled_from([0.1, 0.5, 1, 2, 3.000001])), min_size=1, max_size=20
    ),
    top=st.sampled_from([1, 2, 4.5]),
)
def test_a_sliding_window_never_admits_much_more_than_its_maximum(charges: list[tuple[int, float]], top: float) -> None:
    """At the moment of an admission, the weighted total is never above the maximum, wherever the boundary is."""
    limits = [{"counter": "c", "window": "hour", "max": top, "algorithm": "sliding", "increment_from": "args.n"}]
    clock = Clock()
    guard = guard_of({"version": "1", "default": "deny", "tools": {"t": {"limits": limits}}}, clock)
    admitted: list[tuple[int, float]] = []
    for offset, amount in sorted(charges):
        clock.now = START + offset
        if guard.begin(ToolCall("t", {"n": amount})).allowed:
            admitted.append((clock.now, amount))
            begins = clock.now // 3_600 * 3_600
            mine = sum(amount for at, amount in admitted if at >= begins)
            before = sum(amount for at, amount in admitted if begins - 3_600 <= at < begins)
            assert mine + before * (begins + 3_600 - clock.now) / 3_600 <= top + 1e-9
