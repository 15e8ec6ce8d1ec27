"""`Policy` -> `CompiledPolicy`: everything a decision needs, looked up by tool and ready to run.

Nothing is parsed, searched for or put together from text when a call is decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal
from typing import Any, Final, Literal

from ..calls import MILLION, UNNAMED, Charge, Reason, ServerName
from ..canonical import canonical
from ..policy.model import Condition, Limit, Mode, Policy, Predicate
from ..policy.syntax import pointer
from .conditions import Test, all_of, compile_condition
from .equality import Tristate

__all__ = ["CompiledLimit", "CompiledPolicy", "Plan", "Rule", "compile_policy"]


@dataclass(slots=True)
class Rule:
    """What a predicate is called and says; its test stands beside it in the plan."""

    name: str
    on_deny: str | None
    text: str
    """Why it denies (PL-6.1): the author's words, or the engine's, which name arguments and never their values."""
    parts: tuple[tuple[str, Test], ...]
    """The argument and the test of each condition."""

    def message(self, answer: Tristate, arguments: dict[str, Any]) -> str:
        """Why it denies this call."""
        if answer is not None or self.on_deny is not None:
            return self.text
        name = next(name for name, test in self.parts if test(arguments) is None)
        return f"argument `{name}` could not be checked"


@dataclass(slots=True)
class CompiledLimit:
    """One limit; `amount` and `ceiling` are in millionths (PL-5.3)."""

    rule: str
    counter: str
    scope: Literal["grant", "session"]
    window: int
    amount: int
    ceiling: int
    text: str
    on_deny: str | None

    def charge(self, server: ServerName, grant: str, session: str | None) -> Charge:
        """What one call charges; limits on one counter have one key (PL-5.5)."""
        where = server.value if server is UNNAMED else server
        key = canonical([self.counter, self.window, self.scope, where, grant, session])
        return Charge(key, self.window, self.amount, self.ceiling)


@dataclass(slots=True)
class Plan:
    """What happens to calls of one tool, stage by stage (PL-4)."""

    refusal: tuple[Reason, str, str] | None = None
    """Reason, rule and text where nothing but the tool's name matters (stages 3 to 5)."""
    reason: str | None = None
    require: tuple[tuple[Test, Rule], ...] = ()
    deny_if: tuple[tuple[Test, Rule], ...] = ()
    limits: tuple[CompiledLimit, ...] = ()
    approval: str = ""
    """The rule that asks for an approval; empty where none is needed."""
    enforced: bool = True
    _charges: dict[tuple[ServerName, str, str | None], tuple[Charge, ...]] = field(default_factory=dict)

    def charges(self, server: ServerName, grant: str, session: str | None) -> tuple[Charge, ...]:
        """What one call charges, limit by limit; put together once for whoever calls again."""
        known = self._charges.get((server, grant, session))
        if known is None:
            if len(self._charges) >= _MOST_CALLERS:
                self._charges.clear()
            known = tuple(
                limit.charge(server, grant, session if limit.scope == "session" else None) for limit in self.limits
            )
            self._charges[server, grant, session] = known
        return known


@dataclass(slots=True)
class CompiledPolicy:
    """A policy ready to decide.

    Attributes:
        plans: A plan for each tool that the document names.
        otherwise: The plan for every other tool.
        longest_window: The longest window of any limit, in seconds; 0 without limits.
    """

    name: str
    digest: str
    plans: dict[str, Plan]
    otherwise: Plan
    longest_window: int

    def hides(self, tool: str) -> bool:
        """Whether the tool is removed from lists; shadow mode hides nothing (PL-4.4)."""
        plan = self.plans.get(tool, self.otherwise)
        return plan.refusal is not None and plan.refusal[0] is Reason.HIDDEN and plan.enforced


_MOST_CALLERS: Final = 1024
_NOT_PERMITTED: Final = "is not permitted by policy"
_HIDDEN: Final = (Reason.HIDDEN, "(hidden)", "is hidden by policy")
_DEFAULT_DENY: Final = (Reason.DEFAULT_DENY, "(default deny)", _NOT_PERMITTED)


def compile_policy(policy: Policy, mode: Mode | None = None) -> CompiledPolicy:
    """Compile a document.

    Args:
        policy: A validated document.
        mode: Overrides the document's and its tools' `mode` (PL-4.4).
    """
    shared = _Shared(policy, mode)
    if policy.hide == ("*",):
        plans = {tool: Plan(_HIDDEN, enforced=shared.enforced(tool)) for tool in policy.tools}
        otherwise = Plan(_HIDDEN, enforced=shared.enforced())
    else:
        plans = {tool: shared.plan(tool) for tool in policy.tools}
        plans |= {tool: Plan(_HIDDEN, enforced=shared.enforced(tool)) for tool in policy.hide}
        otherwise = shared.otherwise()
    windows = [limit.window for plan in (*plans.values(), otherwise) for limit in plan.limits]
    return CompiledPolicy(policy.name, policy.digest, plans, otherwise, max(windows, default=0))


class _Shared:
    """The rules for all tools, compiled once and appended to each tool's own."""

    def __init__(self, policy: Policy, mode: Mode | None) -> None:
        self.policy = policy
        self.mode = mode
        every = policy.all_tools
        self.require = tuple(_rules("/all_tools/require", every.require, lenient=False))
        self.deny_if = tuple(_rules("/all_tools/deny_if", every.deny_if, lenient=True))
        self.limits = tuple(_limits("/all_tools/limits", every.limits))

    def enforced(self, tool: str | None = None) -> bool:
        """The guard's own mode overrides the tool's, which overrides the document's (PL-4.4)."""
        rules = self.policy.tools.get(tool) if tool is not None else None
        return (self.mode or (rules and rules.mode) or self.policy.mode) == "enforce"

    def plan(self, tool: str) -> Plan:
        rules = self.policy.tools[tool]
        base = pointer(("tools", tool))
        enforced = self.enforced(tool)
        if rules.action == "deny":
            return Plan((Reason.RULE_DENIED, f"{base}/action", _NOT_PERMITTED), rules.reason, enforced=enforced)
        limits = [*rules.limits, rules.rate_limit.as_limit(tool)] if rules.rate_limit else rules.limits
        return Plan(
            reason=rules.reason,
            require=(*_rules(f"{base}/require", rules.require, lenient=False), *self.require),
            deny_if=(*_rules(f"{base}/deny_if", rules.deny_if, lenient=True), *self.deny_if),
            limits=(*_limits(f"{base}/limits", limits), *self.limits),
            approval=f"{base}/action" if rules.action == "require_approval" else "",
            enforced=enforced,
        )

    def otherwise(self) -> Plan:
        if self.policy.default == "deny":
            return Plan(_DEFAULT_DENY, enforced=self.enforced())
        return Plan(require=self.require, deny_if=self.deny_if, limits=self.limits, enforced=self.enforced())


def _rules(base: str, predicates: Iterable[Predicate], *, lenient: bool) -> Iterator[tuple[Test, Rule]]:
    """Each predicate's test and name; `lenient` where a condition that is false lets the call go on."""
    taken: set[str] = set()
    for index, predicate in enumerate(predicates):
        conditions = predicate.conditions
        name = _name(conditions[0]) if conditions else str(index)
        unique, count = name, 1
        while unique in taken:  # PL-4.2: a second predicate of the same name gets `-2`
            count += 1
            unique = f"{name}-{count}"
        taken.add(unique)
        parts = tuple(
            (condition.path.removeprefix("args."), compile_condition(condition, lenient=lenient))
            for condition in conditions
        )
        yield (
            all_of(tuple(test for _, test in parts)),
            Rule(base + pointer((unique,)), predicate.on_deny, predicate.on_deny or _text(parts), parts),
        )


def _text(parts: tuple[tuple[str, Test], ...]) -> str:
    if not parts:
        return "the call is not permitted by policy"
    names = " and ".join(dict.fromkeys(f"`{name}`" for name, _ in parts))
    return f"argument {names} is not permitted by policy: do not retry with the same arguments"


def _name(condition: Condition) -> str:
    return f"{condition.path}-{condition.op}"


def _limits(base: str, limits: Iterable[Limit]) -> Iterator[CompiledLimit]:
    for limit in limits:
        every = limit.window if isinstance(limit.window, str) else f"{limit.window} s"
        yield CompiledLimit(
            rule=base + pointer((limit.counter,)),
            counter=limit.counter,
            scope=limit.scope,
            window=limit.seconds,
            amount=MILLION,
            ceiling=int((Decimal(repr(limit.max)) * MILLION).to_integral_value(ROUND_FLOOR)),
            text=f"limit `{limit.counter}` reached: {canonical(limit.max)} per {every}",
            on_deny=limit.on_deny,
        )
