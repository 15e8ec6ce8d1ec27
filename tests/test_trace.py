"""The trace of a decision: the same answer as enforcement gives, every stage, and no value of an argument."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_policy_middleware import Guard, Outcome, ToolCall, parse_policy
from mcp_policy_middleware.engine import CompiledPolicy, compile_policy
from mcp_policy_middleware.engine.kinds import kind_at, kind_of
from mcp_policy_middleware.engine.trace import Trace, trace
from mcp_policy_middleware.errors import StoreError
from mcp_policy_middleware.policy.paths import parse_path
from mcp_policy_middleware.steps import drive
from mcp_policy_middleware.stores import MemoryStore

NOW = datetime(2026, 1, 15, 10, tzinfo=UTC).timestamp()
CANARY = "canary-7f3a"
NUMBER = 918273645
EXAMPLES = settings(max_examples=200, deadline=None)
RULES: dict[str, Any] = {
    "only_arguments": ["a", "b", "c"],
    "require": [{"conditions": [{"path": "args.a", "op": "exists", "value": True}]}],
    "deny_if": [
        {
            "conditions": [
                {"path": "args.b", "op": "eq", "value": 1},
                {"path": "args.c[*].d", "op": "regex", "value": "^x"},
            ]
        }
    ],
    "require_approval_if": [{"conditions": [{"path": "context.tier", "op": "neq", "value": "gold"}]}],
    "limits": [
        {"counter": "calls", "window": "hour", "max": 2},
        {"counter": "spent", "window": "day", "max": 500, "scope": "global", "increment_from": "args.a"},
    ],
}
STAGES = {
    1: "invalid call",
    2: "no policy",
    3: "hidden",
    4: "not listed",
    5: "action deny",
    6: "require",
    7: "deny_if",
    8: "limits looked at",
    9: "approval",
    10: "limits reserved",
}


def compiled(rules: dict[str, Any] | None = None, **document: Any) -> CompiledPolicy:
    """A policy with rules for the tool `t`, which denies the rest."""
    tools = {"t": RULES if rules is None else rules, "closed": {"action": "deny"}}
    written = {"version": "1", "default": "deny", "hide": ["h"], "tools": tools, **document}
    return compile_policy(parse_policy(json.dumps(written)))


def traced(
    policy: CompiledPolicy | None,
    arguments: Any,
    tool: str = "t",
    store: MemoryStore | None = None,
    context: dict[str, Any] | None = None,
) -> Trace:
    """The trace of one call on a store."""
    kept = store or MemoryStore()
    known = {"tier": "gold"} if context is None else context
    steps = trace(policy, ToolCall(tool, arguments), "g", None, known)
    return drive(steps, lambda request: kept.peek(request.charges, NOW))


def decided(told: Trace) -> list[tuple[int, str, str]]:
    """Stage, rule and answer where the decision was made."""
    return [(step.stage, step.rule, step.answer) for step in told.steps if step.decides]


# ---- what random policies and calls are made of: few names and values, so that they meet

VALUES = st.sampled_from([None, True, 0, 1, 2.5, -1, "", "a", "1", " 1", "true", [], [1, "a"], {"b": 1}, [{"b": "a"}]])
PATHS = st.sampled_from(["args.a", "args.a.b", "args.a[*].b", "args.a[0]", "context.tier", "call.grant"])
CONDITIONS = st.one_of(
    st.fixed_dictionaries({"path": PATHS, "op": st.sampled_from(["eq", "neq", "contains"]), "value": VALUES}),
    st.fixed_dictionaries({"path": PATHS, "op": st.sampled_from(["lt", "gte"]), "value": st.sampled_from([0, 1])}),
    st.fixed_dictionaries({"path": PATHS, "op": st.just("exists"), "value": st.booleans()}),
    st.fixed_dictionaries({"path": PATHS, "op": st.just("regex"), "value": st.sampled_from(["a", "^$"])}),
)
PREDICATES = st.lists(
    st.fixed_dictionaries({"conditions": st.lists(CONDITIONS, min_size=1, max_size=2)}), min_size=1, max_size=2
)
LIMITS = st.lists(
    st.fixed_dictionaries(
        {
            "counter": st.sampled_from(["c", "d"]),
            "window": st.just("hour"),
            "max": st.sampled_from([0, 1, 2]),
            "scope": st.sampled_from(["grant", "session"]),
        },
        optional={"increment_from": st.just("args.a")},
    ),
    max_size=2,
)
SHARED = {"require": PREDICATES, "deny_if": PREDICATES, "require_approval_if": PREDICATES, "limits": LIMITS}
ENTRIES = {
    **SHARED,
    "only_arguments": st.just(["a"]),
    "rate_limit": st.just({"max": 1, "window": "hour"}),
    "action": st.sampled_from(["allow", "require_approval"]),
}
TOOL_RULES = st.fixed_dictionaries({}, optional=ENTRIES) | st.just({"action": "deny"})
DOCUMENTS = st.fixed_dictionaries(
    {"version": st.just("1"), "default": st.sampled_from(["allow", "deny"])},
    optional={
        "hide": st.sampled_from([["t"], ["h*"]]),
        "all_tools": st.fixed_dictionaries({}, optional=SHARED),
        "tools": st.dictionaries(st.sampled_from(["t", "u*"]), TOOL_RULES, max_size=2),
    },
)
CALLS = st.lists(
    st.tuples(
        st.sampled_from(["t", "t", "u1", "h1"]),
        st.dictionaries(st.sampled_from(["a", "z"]), VALUES, max_size=2) | st.sampled_from([None, "text"]),
        st.sampled_from([None, {"tier": "a"}]),
        st.sampled_from([None, "s"]),
    ),
    min_size=1,
    max_size=5,
)


@EXAMPLES
@given(document=DOCUMENTS, calls=CALLS)
def test_a_trace_says_what_the_guard_says(document: dict[str, Any], calls: list[Any]) -> None:
    """Decision, deciding rule and stages agree with `Guard.explain`, whatever was charged before."""
    parsed = parse_policy(json.dumps(document))
    store, policy = MemoryStore(), compile_policy(parsed)
    guard = Guard(parsed, store=store, clock=lambda: datetime.fromtimestamp(NOW, UTC), telemetry=False)
    for tool, arguments, context, session in calls:
        call = ToolCall(tool, arguments, grant="g", session=session, context=context)
        told = drive(trace(policy, call, "g", session, context), lambda request: store.peek(request.charges, NOW))
        explained = guard.explain(call)
        assert {**told.decision.as_dict(), "decision_id": ""} == {**explained.as_dict(), "decision_id": ""}
        assert told.decision.charges == explained.charges
        assert [rule for _, rule, _ in decided(told)] == ([explained.rule] if explained.effect == "deny" else [])
        assert {step.stage: step.name for step in told.steps} == STAGES
        assert [step.stage for step in told.steps] == sorted(step.stage for step in told.steps)
        guard.finish(guard.begin(call), Outcome.RETURNED)


@EXAMPLES
@given(data=st.data())
def test_a_trace_holds_no_value(data: st.DataObject) -> None:
    """Texts and numbers of arguments and context occur nowhere in it, wherever they stand."""
    leaf = st.sampled_from([CANARY, NUMBER, NUMBER / 1000, [CANARY], {"d": CANARY}, [{"d": CANARY}, {"d": NUMBER}]])
    arguments = data.draw(st.dictionaries(st.sampled_from(["a", "b", "c"]), leaf) | leaf)
    context = {"tier": data.draw(st.sampled_from(["gold", CANARY]))}
    loose = {**RULES, "limits": [{**one, "max": 2 * NUMBER} for one in RULES["limits"]]}
    for rules in (RULES, loose):
        text = json.dumps(traced(compiled(rules), arguments, context=context).as_dict())
        assert CANARY not in text
        assert str(NUMBER) not in text
        assert str(NUMBER)[:6] not in text.replace(str(2 * NUMBER), "")


@pytest.mark.parametrize(
    ("tool", "arguments", "stage", "rule", "answer"),
    [
        ("t", [1], 1, "(invalid call)", "true"),
        ("h", {}, 3, "(hidden)", "true"),
        ("x", {}, 4, "(default deny)", "true"),
        ("closed", {}, 5, "/tools/closed/action", "true"),
        ("t", {"z": 1}, 6, "/tools/t/only_arguments", "false"),
        ("t", {}, 6, "/tools/t/require/args.a-exists", "false"),
        ("t", {"a": 1, "b": "1.0", "c": [{"d": 1}]}, 7, "/tools/t/deny_if/args.b-eq", "undecidable"),
        ("t", {"a": 501}, 10, "/tools/t/limits/spent", "false"),
        ("t", {"a": "5"}, 10, "/tools/t/limits/spent", "undecidable"),
    ],
)
def test_each_stage_can_decide(tool: str, arguments: Any, stage: int, rule: str, answer: str) -> None:
    """The stage that denies is marked, and everything behind it was skipped."""
    told = traced(compiled(), arguments, tool)
    assert decided(told) == [(stage, rule, answer)]
    place = next(index for index, step in enumerate(told.steps) if step.decides)
    assert {step.answer for step in told.steps[place + 1 :]} <= {"skipped"}
    assert told.decision.rule == rule


def test_an_action_asks_for_approval() -> None:
    """An entry that always asks decides at stage 9."""
    asking = compiled({"action": "require_approval"})
    assert decided(traced(asking, {})) == [(9, "/tools/t/action", "true")]


def test_no_policy_is_a_stage() -> None:
    """Without a policy, stage 2 decides."""
    assert decided(traced(None, {})) == [(2, "(no policy)", "true")]


def test_an_approval_is_asked_for_after_limits_were_looked_at() -> None:
    """Where a rule asks, limits are told at stage 8; where none does, at stage 10."""
    asking = traced(compiled(), {"a": 1}, context={"tier": "free"})
    assert decided(asking) == [(9, "/tools/t/require_approval_if/context.tier-neq", "true")]
    assert [step.answer for step in asking.steps if step.stage == 8] == ["true", "true"]
    assert [step.rule for step in asking.steps if step.stage == 10] == [""]
    going = traced(compiled(), {"a": 1})
    assert decided(going) == []
    assert [step.answer for step in going.steps if step.stage == 10] == ["true", "true"]
    assert [step.rule for step in going.steps if step.stage == 8] == [""]


def test_conditions_tell_kinds_and_stop_where_the_engine_does() -> None:
    """Each condition has its path, operator, kind and answer; after a false one the next is skipped."""
    told = traced(compiled(), {"a": 1, "b": 2, "c": [{"d": "x"}, {}, 3]})
    (step,) = [step for step in told.steps if step.stage == 7]
    first, second = step.conditions
    assert (first.path, first.operator, first.saw, first.answer) == ("args.b", "eq", "number", "false")
    assert second.answer == "skipped"
    assert second.saw == "list of 3: string of 1 character, missing, number where an object is needed"


def test_counters_before_and_after() -> None:
    """A counted call adds to its counter; a charge that an argument says is named by its path alone."""
    store = MemoryStore()
    guard_policy = compiled()
    for before in (0, 1):
        told = traced(guard_policy, {"a": 7}, store=store)
        calls, spent = told.counters
        assert (calls.counter, calls.before, calls.after, calls.max, calls.charge) == (
            "calls",
            before,
            before + 1,
            2,
            1,
        )
        assert (spent.counter, spent.scope, spent.after, spent.charge) == ("spent", "global", None, "args.a")
        store.reserve(told.decision.charges, NOW)
    told = traced(guard_policy, {"a": 7}, store=store)
    assert decided(told) == [(10, "/tools/t/limits/calls", "false")]
    assert [(one.before, one.after) for one in told.counters] == [(2, 2), (14, 14)]


def test_a_store_that_cannot_answer_is_told() -> None:
    """The first limit is undecidable, and there are no counters to tell."""

    def down(request: Any) -> Any:
        raise StoreError("down")

    told = drive(trace(compiled(), ToolCall("t", {"a": 1}), "g", None, {"tier": "gold"}), down)
    assert told.decision.reason.value == "store_unavailable"
    assert decided(told) == [(10, "/tools/t/limits/calls", "undecidable")]
    assert told.counters == ()


INTERCEPT = """
version: "1"
tools:
  t:
    rules:
      - name: budget left
        conditions: [{path: state._global.spent, op: lt, value: 100}, {path: args.a, op: gt, value: 0}]
  "*":
    rules:
      - name: spend
        conditions: [{path: state._global.spent, op: lte, value: 500}]
        state: {counter: spent, window: day, increment_from: args.a}
"""


def test_counters_that_conditions_read_are_told() -> None:
    """A condition on a counter saw a number, and is undecidable where no store tells one."""
    policy = compile_policy(parse_policy(INTERCEPT, "intercept.yaml"))
    told = traced(policy, {"a": NUMBER})
    seen = [condition for step in told.steps for condition in step.conditions if condition.path.startswith("state")]
    assert [(one.saw, one.answer) for one in seen] == [("number", "true")]
    assert decided(told) == [(10, told.decision.rule, "false")]
    assert str(NUMBER) not in json.dumps(told.as_dict())

    def down(request: Any) -> Any:
        raise StoreError("down")

    told = drive(trace(policy, ToolCall("t", {"a": 1}), "g"), down)
    assert told.decision.reason.value == "store_unavailable"
    assert [(rule, answer) for _, rule, answer in decided(told)] == [(told.decision.rule, "undecidable")]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "null"),
        (True, "boolean"),
        (10**400, "number"),
        (0.5, "number"),
        (float("nan"), "not JSON"),
        ("", "string of 0 characters"),
        ("x" * 12, "string of 12 characters"),
        ("\ud800", "not JSON"),
        ([1, 2, 3], "list of 3"),
        ({"a": 1}, "object with 1 key"),
        ({1: 1}, "not JSON"),
        ((1, 2), "not JSON"),
        (object(), "not JSON"),
    ],
)
def test_kinds(value: Any, kind: str) -> None:
    """What a value is called."""
    assert kind_of(value) == kind


@pytest.mark.parametrize(
    ("path", "value", "kind"),
    [
        ("args.a", {}, "missing"),
        ("args.a.b", {"a": None}, "missing"),
        ("args.a.b", {"a": "text"}, "string of 4 characters where an object is needed"),
        ("args.a[1]", {"a": [1]}, "missing"),
        ("args.a[0]", {"a": {}}, "object with 0 keys where a list is needed"),
        ("args.a[*]", {"a": 1}, "number where a list is needed"),
        ("args.a[*]", {"a": []}, "list of 0"),
        ("args.a[*]", {"a": [1, None, "x", "xy", [], {}, True]}, ("list of 7: number, null, string of 1 character, "
         "string of 2 characters, list of 0, and others")),
    ],
)  # fmt: skip
def test_kinds_at_a_path(path: str, value: Any, kind: str) -> None:
    """What a path leads to, or where it ends."""
    assert kind_at(value, parse_path(path).steps) == kind
