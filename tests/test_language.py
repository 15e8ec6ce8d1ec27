"""What documents mean: every section of the language by calls and what is decided of them (PL-1 to PL-5, PL-9)."""

from __future__ import annotations

import asyncio
import decimal
import json
import math
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from mcp_policy_middleware import UNNAMED, Decision, Guard, Outcome, Policy, Reason, StoreError, ToolCall, parse_policy
from mcp_policy_middleware.approvals import Answer, ApprovalRequest, Approver, Event, FloodLimits, NoAnswer
from mcp_policy_middleware.calls import Unreadable
from mcp_policy_middleware.charges import Refusal
from mcp_policy_middleware.engine.conditions import compile_condition
from mcp_policy_middleware.policy.model import Condition, Origin
from mcp_policy_middleware.stores import MemoryStore
from mcp_policy_middleware.testing import FrozenClock

CASES: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "data" / "language_cases.yaml").read_text("utf-8")
)
MORNING = "2026-03-04T10:00:00Z"

SECTIONS = [
    "PL-1.4", "PL-1.5", "PL-1.6", "PL-2", "PL-3.1", "PL-3.2", "PL-3.3", "PL-3.4", "PL-3.5", "PL-3.6", "PL-3.7",
    "PL-3.8", "PL-4", "PL-4.1", "PL-4.2", "PL-4.3", "PL-4.4", "PL-5.1", "PL-5.2", "PL-5.3", "PL-5.4", "PL-5.5",
    "PL-5.6", "PL-5.7", "PL-5.8", "PL-7.1", "PL-7.2", "PL-7.3", "PL-7.4", "PL-9.1", "PL-9.2",
]  # fmt: skip
"""The sections that say what is decided of a call; each has a case."""

LATER = {Reason.DEFINITION_CHANGED: "definitions of tools are not pinned yet (PL-4.3)"}
"""The reasons that no document brings about yet, and why."""


class Number(int):
    """An integer that is not exactly one."""

    __slots__ = ()


class HostileKey:
    """A key that raises when it is compared."""

    def __hash__(self) -> int:
        return hash("x")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("hostile")


def nested(depth: int) -> list[Any]:
    """Lists in lists."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


SPECIAL: dict[str, Callable[[], Any]] = {
    "10**400": lambda: 10**400,
    "10**5000": lambda: 10**5000,
    "-10**400": lambda: -(10**400),
    "decimal": lambda: Decimal(5),
    "int subclass": lambda: Number(5),
    "tuple": lambda: ({"p": 1},),
    "deep": lambda: nested(10_000),
    "hostile key": lambda: {HostileKey(): 1},
    "unnamed": lambda: UNNAMED,
}


def special(value: Any) -> Any:
    """The value that a case means: `{$: name}` is one that YAML cannot write."""
    if isinstance(value, dict):
        return SPECIAL[value["$"]]() if "$" in value else {key: special(item) for key, item in value.items()}
    return [special(item) for item in value] if isinstance(value, list) else value


class BrokenStore(MemoryStore):
    """A store that cannot answer."""

    def reserve(self, charges: Any, now: float) -> Any:
        raise StoreError("down")

    def peek(self, charges: Any, now: float) -> Any:
        raise StoreError("down")


class People(Approver):
    """Those who are asked: `yes`, `no`, `later`, too `late`, or somebody who `fails`."""

    def __init__(self, say: str) -> None:
        super().__init__(floods=FloodLimits(pending=2, an_hour=6))
        self.say = say

    def ask(self, request: ApprovalRequest, seconds: float) -> Answer | NoAnswer:
        none = {"later": NoAnswer.LATER, "late": NoAnswer.TOO_LATE}
        return none[self.say] if self.say in none else Answer({"yes": True, "no": False}[self.say])

    async def aask(self, request: ApprovalRequest, seconds: float) -> Answer | NoAnswer:
        return self.ask(request, seconds)


class Caller:
    """Decides and settles by the sync driver."""

    def decide(self, guard: Guard, call: ToolCall) -> tuple[Decision, Decision]:
        """What is said by looking, and then by taking."""
        return guard.explain(call), guard.begin(call)

    def settle(self, guard: Guard, decision: Decision, outcome: Outcome) -> None:
        """End a call."""
        guard.finish(decision, outcome)


class AsyncCaller(Caller):
    """Decides and settles by the async driver."""

    def decide(self, guard: Guard, call: ToolCall) -> tuple[Decision, Decision]:
        async def both() -> tuple[Decision, Decision]:
            return await guard.aexplain(call), await guard.abegin(call)

        return asyncio.run(both())

    def settle(self, guard: Guard, decision: Decision, outcome: Outcome) -> None:
        asyncio.run(guard.afinish(decision, outcome))


class Run:
    """One case: its guard, clock and store, and the decisions that wait to be settled."""

    def __init__(self, case: dict[str, Any], caller: Caller) -> None:
        self.case = case
        self.caller = caller
        self.clock = FrozenClock(datetime.fromisoformat(MORNING))
        self.store = BrokenStore() if case.get("store") == "broken" else MemoryStore()
        self.held: dict[str, Decision] = {}
        self.people = People(case["approver"]) if "approver" in case else None
        self.guard = self.guard_of(case)

    def guard_of(self, part: dict[str, Any]) -> Guard:
        """A guard of the document or documents, on the case's store."""
        if "policies" in part:
            given: Any = {name: parse_policy(json.dumps(one), name) for name, one in part["policies"].items()}
        else:
            given = parse_policy(json.dumps(part["policy"]))
        settings = self.case.get("guard", {})
        return Guard(given, store=self.store, clock=self.clock, telemetry=False, approver=self.people, **settings)

    def step(self, step: dict[str, Any]) -> None:
        """One call, or one settlement."""
        if "at" in step:
            self.clock.set(datetime.fromisoformat(step["at"]))
        if "settle" in step:
            self.caller.settle(self.guard, self.held[step["settle"]], Outcome(step["outcome"]))
            return
        if "answer" in step and self.people is not None:
            requests = self.people.store.requests(self.clock().timestamp())
            self.people.store.move(requests[-1].id, Event(step["answer"]), self.clock().timestamp())
        if "policy" in step:
            self.guard = self.guard_of(step)
        if "suspend" in step:
            self.guard.suspend(step["suspend"])
        given = {key: special(step[key]) for key in ("server", "grant", "session", "context") if key in step}
        for _ in range(step.get("times", 1)):
            arguments = special(step.get("arguments", {}))
            decisions = self.caller.decide(self.guard, ToolCall(step.get("tool", "t"), arguments, **given))
            for decision, expected in zip(decisions, (step.get("look", step["expect"]), step["expect"]), strict=True):
                check(decision, expected)
            decision = decisions[-1]
            if "hold" in step:
                self.held[step["hold"]] = decision
            elif step.get("outcome") != "none":
                self.caller.settle(self.guard, decision, Outcome(step.get("outcome", "returned")))


def check(decision: Decision, expected: Any) -> None:
    """Compare a decision with what a case expects."""
    if expected == "allow":
        expected = {"reason": "allowed", "rule": ""}
    effect = "allow" if expected["reason"] == "allowed" else "deny"
    said = (decision.effect, decision.reason.value, decision.rule, decision.retry_after)
    assert said == (effect, expected["reason"], expected["rule"], expected.get("retry_after"))
    assert decision.allowed is expected.get("allowed", effect == "allow")
    assert decision.enforced is expected.get("enforced", decision.enforced)
    assert bool(decision.message) is (effect == "deny")


@pytest.mark.parametrize("caller", [Caller(), AsyncCaller()], ids=["sync", "async"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['section']} {case['id']}")
def test_case_is_decided_as_the_language_says(case: dict[str, Any], caller: Caller) -> None:
    """Every call of a case is decided as the case says, by looking and by taking."""
    run = Run(case, caller)
    for index, step in enumerate(case["calls"]):
        try:
            run.step(step)
        except AssertionError as error:
            raise AssertionError(f"call {index}: {error}") from None


def test_every_section_has_a_case_and_every_case_a_section() -> None:
    """The sections of the list and those of the cases are the same, and no two cases have one name."""
    assert {case["section"] for case in CASES} == set(SECTIONS)
    assert len({case["id"] for case in CASES}) == len(CASES)


def test_every_reason_has_a_case() -> None:
    """Each reason is what some case expects, except those that come later, which none does."""
    expected = [step.get("expect") for case in CASES for step in case["calls"]]
    reasons = {"allowed" if one == "allow" else one["reason"] for one in expected if one is not None}
    assert reasons == {reason.value for reason in Reason} - {reason.value for reason in LATER}


CALL_KEYS = {
    "tool", "arguments", "server", "grant", "session", "context", "at", "outcome", "times", "hold", "suspend", "policy",
    "expect", "look", "answer",
}  # fmt: skip


def test_every_key_of_a_case_is_read() -> None:
    """A key that the runner does not know would be a case that tests nothing."""
    for case in CASES:
        assert set(case) <= {"id", "section", "policy", "policies", "calls", "guard", "store", "approver"}, case["id"]
        for step in case["calls"]:
            assert set(step) <= ({"settle", "outcome", "at"} if "settle" in step else CALL_KEYS), case["id"]
            if isinstance(step.get("expect"), dict):
                assert set(step["expect"]) <= {"reason", "rule", "retry_after", "allowed", "enforced"}, case["id"]


def test_amounts_are_exact_whatever_the_applications_decimals_are() -> None:
    """An application that works with few decimal digits, or traps rounding, changes no charge (PL-5.3)."""
    limits = [{"counter": "c", "window": "hour", "max": 1234567.891, "increment_from": "args.n"}]
    document = {"version": "1", "default": "deny", "tools": {"t": {"limits": limits}}}
    guard = Guard(parse_policy(json.dumps(document)), clock=FrozenClock(), telemetry=False)
    with decimal.localcontext() as context:
        context.prec = 3
        context.traps[decimal.Inexact] = context.traps[decimal.Rounded] = True
        assert guard.begin(ToolCall("t", {"n": 1234567.890001})).allowed
        assert guard.begin(ToolCall("t", {"n": 0.000998})).allowed
        assert guard.begin(ToolCall("t", {"n": 0.0000004})).allowed
        assert guard.begin(ToolCall("t", {"n": 0.0000004})).reason is Reason.LIMIT_EXCEEDED


def test_digests_and_equality_are_exact_whatever_the_applications_decimals_are() -> None:
    """Few decimal digits in the application change no digest and no text of a fraction (PL-9.3, PL-3.5)."""
    condition = {"path": "args.x", "op": "eq", "value": "0.123456"}
    document = {"version": "1", "default": "deny", "tools": {"t": {"deny_if": [{"conditions": [condition]}]}}}
    text = json.dumps({**document, "all_tools": {"limits": [{"counter": "c", "window": "hour", "max": 0.123456}]}})
    digest = parse_policy(text).digest
    guard = Guard(parse_policy(json.dumps(document)), telemetry=False)
    with decimal.localcontext() as context:
        context.prec = 3
        assert guard.begin(ToolCall("t", {"x": 0.123456})).reason is Reason.RULE_DENIED
        assert parse_policy(text).digest == digest
        assert parse_policy(text.replace("0.123456}", "0.123457}")).digest != digest


def test_a_counter_that_only_conditions_read_may_be_out_of_reach() -> None:
    """Where a store cannot tell a counter's value to a condition, the call is denied though the tool has no limit."""
    condition = {"path": "state.c", "op": "lt", "value": 5}
    document = {"version": "1", "default": "deny", "tools": {"t": {"require": [{"conditions": [condition]}]}}}
    policy = Policy.model_validate(document, context=Origin(reads_counters=True))
    guard = Guard(policy, store=BrokenStore(), telemetry=False)
    assert guard.begin(ToolCall("t", {})).reason is Reason.STORE_UNAVAILABLE
    assert Guard(policy, store=MemoryStore(), telemetry=False).begin(ToolCall("t", {})).allowed


def test_a_store_that_refuses_to_be_looked_at_denies() -> None:
    """What only looks at a counter fits always, so a refusal is a fault inside (PL-4.3)."""

    class Refusing(MemoryStore):
        def peek(self, charges: Any, now: float) -> Any:
            return Refusal(0, None)

    condition = {"path": "state.c", "op": "lt", "value": 5}
    document = {"version": "1", "default": "deny", "tools": {"t": {"require": [{"conditions": [condition]}]}}}
    policy = Policy.model_validate(document, context=Origin(reads_counters=True))
    assert Guard(policy, store=Refusing(), telemetry=False).begin(ToolCall("t", {})).reason is Reason.EVALUATION_ERROR


def test_arguments_that_an_adapter_could_not_make_out_are_an_invalid_call() -> None:
    """The denial says what the adapter says (PL-4, stage 1)."""
    document = {"version": "1", "default": "allow"}
    decision = Guard(parse_policy(json.dumps(document)), telemetry=False).begin(ToolCall("t", Unreadable("not JSON")))
    assert (decision.reason, decision.rule, decision.message) == (Reason.INVALID_CALL, "(invalid call)", "not JSON")


def test_a_decision_shows_neither_rules_nor_other_callers() -> None:
    """The representation of a decision names its policy, and shows nothing of what was compiled or counted."""
    limits = [{"counter": "c", "window": "hour", "max": 5, "scope": "session"}]
    document = {"version": "1", "default": "deny", "tools": {"t": {"limits": limits}, "secret-tool": {}}}
    guard = Guard(parse_policy(json.dumps(document)), clock=FrozenClock(), telemetry=False)
    guard.begin(ToolCall("t", {}, grant="another", session="another's session"))
    shown = repr(guard.begin(ToolCall("t", {})))
    assert "another" not in shown
    assert "secret-tool" not in shown
    assert len(shown) < 1_000


def test_names_that_agents_invent_are_not_remembered_for_ever() -> None:
    """However many names a glob meets, and however many callers a tool has, what is kept of them is bounded."""
    limits = [{"counter": "c", "window": "hour", "max": 1, "scope": "session"}]
    document = {"version": "1", "default": "allow", "hide": ["h*"], "tools": {"g*": {"limits": limits}}}
    guard = Guard(parse_policy(json.dumps(document)), clock=FrozenClock(), telemetry=False)
    for index in range(3_000):
        for tool in (f"g{index}", f"h{index}", f"x{index}"):
            decision = guard.begin(ToolCall(tool, {}, session=str(index)))
            assert decision.effect == ("deny" if tool.startswith("h") else "allow")
    (compiled,) = guard._passage.selection.all()
    assert len(compiled._found) <= 1_024
    assert all(len(plan.known) <= 1_024 for _, plan in compiled.globs)


def test_a_condition_outside_the_arguments_needs_its_scene() -> None:
    """A plan that was compiled without looking outside cannot answer for what lies there: it raises."""
    test = compile_condition(Condition(path="context.tier", op="eq", value="gold"))
    with pytest.raises(RuntimeError):
        test({}, None)


def test_not_a_number_is_what_it_says() -> None:
    """The table's NaN is one, so that its cases test what they say."""
    (case,) = [case for case in CASES if case["id"] == "undecidable denies in require and deny_if and asks elsewhere"]
    values = [step["arguments"].get("amount") for step in case["calls"]]
    assert any(isinstance(value, float) and math.isnan(value) for value in values)
