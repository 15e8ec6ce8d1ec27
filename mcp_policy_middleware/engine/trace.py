"""One decision told stage by stage, in the order of PL-4.

The trace listens to the flow itself: the tests of the compiled plan are run by `decide` as ever, and what they
answer is written down. It holds names and kinds of values, never a value of an argument (PL-6.1).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias

from ..calls import Decision, Reason, ToolCall
from ..charges import Refusal, Reservation
from ..errors import StoreError
from ..policy.paths import parse_path
from .compiler import CompiledPolicy, Plan, Rule
from .conditions import Scene, Test
from .counters import Counter, counters_around, looking_only, source
from .equality import Tristate
from .flow import Answer, Flow, Peek, Person, Request, decide
from .kinds import kind_at, kind_of
from .limits import CompiledLimit
from .view import TraceView

__all__ = ["Judgement", "Said", "Seen", "Trace", "trace"]

Said: TypeAlias = Literal["true", "false", "undecidable", "skipped"]
"""An answer; `skipped` is what nothing asked for, or nobody had to ask any more."""

_STAGES: Final = {
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
_FACTS: Final = {
    1: (Reason.INVALID_CALL, "(invalid call)"),
    2: (Reason.NO_POLICY, "(no policy)"),
    3: (Reason.HIDDEN, "(hidden)"),
    4: (Reason.DEFAULT_DENY, "(default deny)"),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What one condition saw, by kind, and what it answered."""

    path: str
    operator: str
    saw: str
    answer: Said


@dataclass(frozen=True, slots=True)
class Judgement:
    """One rule at its stage, or a stage that no rule is in.

    Attributes:
        stage, name: The stage's number and name (PL-4).
        rule: The rule; empty where none is at this stage.
        answer: Whether the stage's name is so of the call, for stages 1 to 5; whether the predicate holds; whether
            an approval is asked for; whether the charge fits, at 8 and 10.
        decides: Whether the decision was made here.
        conditions: What the rule's conditions saw.
    """

    stage: int
    name: str
    rule: str = ""
    answer: Said = "skipped"
    decides: bool = False
    conditions: tuple[Seen, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace(TraceView):
    """A decision, the stages that led to it, and the counters around it."""

    decision: Decision
    steps: tuple[Judgement, ...]
    counters: tuple[Counter, ...]

    def as_dict(self) -> dict[str, Any]:
        """The trace as plain JSON, the same for the same call."""
        said = self.decision.as_dict()
        del said["decision_id"]
        told = {"enforced": self.decision.enforced, "policy": self.decision.policy_name}
        return {
            "decision": {**said, **told, "digest": self.decision.policy_digest},
            "steps": [asdict(step) for step in self.steps],
            "counters": [asdict(counter) for counter in self.counters],
        }


def trace(
    policy: CompiledPolicy | None,
    call: ToolCall,
    grant: str,
    session: str | None = None,
    context: Mapping[str, Any] | None = None,
    suspended: str | None = None,
    lenient: bool = False,
    person: Person = Person.ABSENT,
) -> Generator[Request, Answer, Trace]:
    """Decide one call and tell how; for a driver that only looks.

    Args:
        policy: The policy for the call's server and grant; None where there is none.
        call: The call.
        grant: The grant it is made under.
        session: The run or conversation it belongs to.
        context: What the application passes in for conditions on `context.*`.
        suspended: Why every call is denied now, as for `decide`.
        lenient: Whether a call is allowed without its limits where the store cannot answer.
        person: Who answers where a rule wants an approval.
    """
    plan = Plan() if policy is None else policy.plan_for(call.tool)
    heard = _Heard(plan, call.arguments if type(call.arguments) is dict else {})
    watched = None if policy is None else replace(policy, plans={call.tool: heard.watched()})
    decision = yield from heard.follow(decide(watched, call, grant, session, suspended, None, context, lenient, person))
    if decision.policy is not None:
        decision.policy = policy
    steps = [*_facts(plan, decision, call), *heard.rules_told(decision)]
    reached = {step.stage for step in steps}
    steps += [Judgement(stage, name) for stage, name in _STAGES.items() if stage not in reached]
    counters: tuple[Counter, ...] = ()
    if plan.limits:
        charges = plan.charges(call.server, grant, session, call.tool)
        try:
            found = yield Peek(looking_only(charges))
        except StoreError:
            found = Refusal(0, None)
        if isinstance(found, Reservation):
            counters = tuple(counters_around(plan, decision, charges, found))
    return Trace(decision, tuple(_until_decided(steps)), counters)


def _facts(plan: Plan, decision: Decision, call: ToolCall) -> Iterator[Judgement]:
    """Stages 1 to 5, which need no rule's test."""
    if decision.reason is Reason.SUSPENDED:
        yield Judgement(0, "suspended", decision.rule, "true", True)
    for stage, (reason, rule) in _FACTS.items():
        here = decision.reason is reason
        seen = (Seen("args", "object", kind_of(call.arguments), _said(not here)),) if stage == 1 else ()
        yield Judgement(stage, _STAGES[stage], rule, _said(here), here, seen)
    denies = plan.refusal is not None and plan.refusal[0] is Reason.RULE_DENIED
    rule = plan.refusal[1] if denies and plan.refusal is not None else ""
    yield Judgement(5, _STAGES[5], rule, _said(denies), denies)


def _until_decided(steps: list[Judgement]) -> Iterator[Judgement]:
    """The stages in order; what stands behind the decision was not asked."""
    decided = False
    for step in sorted(steps, key=lambda step: step.stage):
        yield Judgement(step.stage, step.name, step.rule) if decided else step
        decided = decided or step.decides


@dataclass(slots=True)
class _Heard:
    """What the flow asked and was answered, while it decided one call."""

    plan: Plan
    arguments: dict[str, Any]
    answers: dict[int, Tristate] = field(default_factory=dict)
    """By the identity of a rule, or of a limit whose charge was not readable."""
    scene: Scene | None = None
    replies: list[Answer] = field(default_factory=list)
    unread: str | None = None
    """The rule that looks at a counter which no store told."""

    def watched(self) -> Plan:
        """The same plan, whose tests are written down as they are run."""

        def watch(rules: tuple[tuple[Test, Rule], ...]) -> tuple[tuple[Test, Rule], ...]:
            return tuple([(self._noted(test, rule), rule) for test, rule in rules])

        plan = self.plan
        limits = tuple([self._noted_limit(limit) for limit in plan.limits])
        return replace(
            plan,
            require=watch(plan.require),
            deny_if=watch(plan.deny_if),
            approve_if=watch(plan.approve_if),
            limits=limits,
        )

    def _noted(self, test: Test, rule: Rule) -> Test:
        def noted(arguments: dict[str, Any], scene: Scene | None) -> Tristate:
            self.scene = scene
            answer = self.answers[id(rule)] = test(arguments, scene)
            return answer

        return noted

    def _noted_limit(self, limit: CompiledLimit) -> CompiledLimit:
        if isinstance(limit.amount, int):
            return limit
        read = limit.amount

        def noted(arguments: dict[str, Any]) -> int | None:
            amount = read(arguments)
            if amount is None:
                self.answers[id(limit)] = None
            return amount

        return replace(limit, amount=noted)

    def follow(self, flow: Flow) -> Generator[Request, Answer, Decision]:
        """Pass the flow's requests on, and remember the answers."""
        try:
            request = next(flow)
            while True:
                try:
                    reply = yield request
                except StoreError as error:
                    request = flow.throw(error)
                else:
                    self.replies.append(reply)
                    request = flow.send(reply)
        except StopIteration as done:
            decision: Decision = done.value
            return decision

    def rules_told(self, decision: Decision) -> Iterator[Judgement]:
        """Stages 6 to 10, as far as rules are at them."""
        plan = self.plan
        if decision.reason is Reason.STORE_UNAVAILABLE and plan.reads and not self.replies:
            self.unread = decision.rule
        if plan.only_arguments is not None:
            closed = self.arguments.keys() <= plan.only_arguments
            yield Judgement(6, _STAGES[6], plan.closed_rule, _said(closed), not closed)
        for _, rule in plan.require:
            yield self._predicate(6, rule, denies=self.answers.get(id(rule)) is not True)
        for _, rule in plan.deny_if:
            yield self._predicate(7, rule, denies=self.answers.get(id(rule)) is not False)
        denied = decision.reason.value.startswith("approval_")
        asks = bool(plan.approval)
        if plan.approval:
            yield Judgement(9, _STAGES[9], plan.approval, "true", denied)
        for _, rule in plan.approve_if:
            asked = self.answers.get(id(rule), False) is not False
            yield self._predicate(9, rule, denies=asked and denied)
            asks = asks or asked
        stage = 8 if asks else 10
        yield from self._limits(stage, decision)

    def _predicate(self, stage: int, rule: Rule, *, denies: bool) -> Judgement:
        """A rule's answer and what its conditions saw; after the first false one, none was asked."""
        if id(rule) not in self.answers:
            unread = rule.name == self.unread
            return Judgement(stage, _STAGES[stage], rule.name, "undecidable" if unread else "skipped", unread)
        seen: list[Seen] = []
        asked = True
        for condition, (_, test) in zip(rule.conditions, rule.parts, strict=True):
            path = parse_path(condition.path)
            root = self.arguments if path.root == "args" else getattr(self.scene, path.root, {})
            answer = _said(test(self.arguments, self.scene)) if asked else "skipped"
            seen.append(Seen(path.text, condition.op, kind_at(root, path.steps), answer))
            asked = asked and answer != "false"
        return Judgement(stage, _STAGES[stage], rule.name, _said(self.answers[id(rule)]), denies, tuple(seen))

    def _limits(self, stage: int, decision: Decision) -> Iterator[Judgement]:
        """Whether each charge fits, as far as the store was asked; it names the first that does not."""
        reads = bool(self.plan.looks_outside and self.plan.reads)
        reply = self.replies[reads] if len(self.replies) > reads else None
        unavailable = decision.reason is Reason.STORE_UNAVAILABLE and len(self.replies) == reads
        for index, limit in enumerate(self.plan.limits):
            answer: Said = "skipped"
            if id(limit) in self.answers or (unavailable and index == 0) or limit.rule == self.unread:
                answer = "undecidable"
            elif isinstance(reply, Reservation) or (isinstance(reply, Refusal) and index < reply.index):
                answer = "true"
            elif isinstance(reply, Refusal) and index == reply.index:
                answer = "false"
            seen: tuple[Seen, ...] = ()
            if not isinstance(limit.amount, int):
                path = parse_path(source(limit))
                seen = (Seen(path.text, "increment_from", kind_at(self.arguments, path.steps), answer),)
            yield Judgement(stage, _STAGES[stage], limit.rule, answer, answer in ("false", "undecidable"), seen)


def _said(answer: Tristate) -> Said:
    return "undecidable" if answer is None else "true" if answer else "false"
