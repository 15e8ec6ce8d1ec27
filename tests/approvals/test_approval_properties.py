"""No approval admits a call but the one it was given for, once and in time: random days at the office (PL-7)."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mcp_policy_middleware import Guard, Outcome, Policy, Reason, ToolCall, parse_policy
from mcp_policy_middleware.approvals import Answer, ApprovalRequest, Approver, Event, MemoryApprovals, NoAnswer
from mcp_policy_middleware.stores import MemoryStore
from mcp_policy_middleware.testing import FrozenClock

TIMEOUT = 100.0
TOOLS = ("pay", "drop")
SERVERS = (None, "bank", "shop")


def document(text: str) -> Policy:
    """A policy whose tools all need an approval, which depends on the context."""
    condition = {"path": "context.tier", "op": "exists", "value": True}
    rules = {"action": "require_approval", "require": [{"conditions": [condition]}], "reason": text}
    limits = [{"counter": "calls", "window": "hour", "max": 9_999, "scope": "global"}]
    return parse_policy(
        json.dumps(
            {"version": "1", "default": "deny", "all_tools": {"limits": limits}, "tools": dict.fromkeys(TOOLS, rules)}
        )
    )


@dataclass(frozen=True)
class Bound:
    """All that an approval is bound to, each with few values, so that two calls often differ in one."""

    tool: str
    server: str | None
    arguments: str
    grant: str
    session: str | None
    tier: str
    policy: str

    def call(self, trace: int) -> ToolCall:
        return ToolCall(
            self.tool,
            json.loads(self.arguments),
            server=self.server,
            grant=self.grant,
            session=self.session,
            context={"tier": self.tier, "trace": trace},
            call_id=f"call-{trace}",
        )


bounds = st.builds(
    Bound,
    tool=st.sampled_from(TOOLS),
    server=st.sampled_from(SERVERS),
    # pairs that a careless comparison takes for equal
    arguments=st.sampled_from(
        [
            '{"a": 1}',
            '{"a": "1"}',
            '{"a": true}',
            '{"a": 9007199254740993}',
            '{"a": 9007199254740992}',
            "{}",
            '{"a": null}',
        ]
    ),
    grant=st.sampled_from(["g", "h"]),
    session=st.sampled_from([None, "s"]),
    tier=st.sampled_from(["gold", "new"]),
    policy=st.just(""),
)


class Queue(Approver):
    """Answers come by another way."""

    def ask(self, request: ApprovalRequest, seconds: float) -> Answer | NoAnswer:
        return NoAnswer.LATER

    async def aask(self, request: ApprovalRequest, seconds: float) -> Answer | NoAnswer:
        return NoAnswer.LATER


class Office(RuleBasedStateMachine):
    """Calls, answers, time and policies, in any order; a naive book says what may pass."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FrozenClock()
        self.requests = MemoryApprovals()
        self.counters = MemoryStore()
        self.policies = {text: document(text) for text in ("one", "two")}
        self.policy = "one"
        self.guard = Guard(
            self.policies["one"],
            store=self.counters,
            clock=self.clock,
            approver=Queue(store=self.requests),
            approval_timeout=TIMEOUT,
            telemetry=False,
        )
        self.questions: dict[str, Bound] = {}
        self.open: dict[str, float] = {}
        self.usable: dict[str, float] = {}
        self.passed = 0
        self.tries = 0

    @property
    def now(self) -> float:
        return self.clock().timestamp()

    @rule(bound=bounds)
    def call(self, bound: Bound) -> None:
        self.attempt(bound)

    @rule(data=st.data(), other=bounds)
    def alter(self, data: Any, other: Bound) -> None:
        """A call that was asked about, with one field changed, or none: a replay."""
        if self.questions:
            bound = self.questions[data.draw(st.sampled_from(sorted(self.questions)))]
            field = data.draw(st.sampled_from(["tool", "server", "arguments", "grant", "session", "tier", None]))
            self.attempt(replace(bound, **{field: getattr(other, field)}) if field else bound)

    def attempt(self, bound: Bound) -> None:
        bound = replace(bound, policy=self.policy)
        self.tries += 1
        decision = self.guard.begin(bound.call(self.tries))
        mine = [id for id, asked in self.questions.items() if asked == bound]
        usable = [id for id in mine if self.now < self.usable.get(id, 0)]
        assert decision.allowed == bool(usable), (bound, decision)
        if decision.allowed:
            self.guard.finish(decision, Outcome.RETURNED)
            assert decision.approval is not None
            assert decision.approval.id in usable
            del self.usable[decision.approval.id]
            self.passed += 1
        elif decision.reason is Reason.APPROVAL_PENDING:
            assert decision.approval is not None
            id = decision.approval.id
            assert self.questions.setdefault(id, bound) == bound
            self.open.setdefault(id, self.now + TIMEOUT)

    @rule(
        data=st.data(),
        event=st.sampled_from([Event.APPROVE, Event.APPROVE, Event.APPROVE, Event.DENY, Event.EXPIRE, Event.CANCEL]),
    )
    def answer(self, data: Any, event: Event) -> None:
        """A person, or a failure, meets any request, however old."""
        if not self.questions:
            return
        id = data.draw(st.sampled_from(sorted(self.questions)))
        self.requests.move(id, event, self.now, "ann")
        ends = self.open.get(id, 0)
        if event is Event.APPROVE and self.now < ends:
            self.usable[id] = ends
        if event is Event.EXPIRE:
            self.usable.pop(id, None)
        if self.now < ends:
            self.open[id] = 0 if event is not Event.APPROVE or id in self.usable else ends

    @rule(seconds=st.sampled_from([1, TIMEOUT / 2, TIMEOUT - 1, TIMEOUT]))
    def wait(self, seconds: float) -> None:
        self.clock.tick(seconds)

    @rule(text=st.sampled_from(["one", "two"]))
    def reload(self, text: str) -> None:
        self.guard.reload(self.policies[text])
        self.policy = text

    @invariant()
    def what_passed_was_charged(self) -> None:
        hours = self.counters.counters(self.now)
        assert sum(total.used for total in hours) <= self.passed * 1_000_000
        if self.now < 1_767_225_600 + 3_600:  # the first hour: nothing was forgotten yet
            assert sum(total.used for total in hours) == self.passed * 1_000_000


TestOffice = Office.TestCase
