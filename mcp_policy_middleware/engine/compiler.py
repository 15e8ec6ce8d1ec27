"""`Policy` -> `CompiledPolicy`: everything a decision needs, looked up by tool and ready to run.

Nothing is parsed, searched for or put together from text when a call is decided.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from ..calls import Reason, ServerName
from ..charges import Charge
from ..policy.globs import best_first, is_glob, matcher
from ..policy.model import Condition, Limit, Mode, Policy, Predicate, RateLimit, ToolRules
from ..policy.paths import parse_path
from ..policy.syntax import Path, pointer
from .conditions import Scene, Test, all_of, compile_condition
from .equality import Tristate
from .limits import CompiledLimit, Where, compile_limit, reading

__all__ = ["CompiledPolicy", "Plan", "Rule", "compile_policy"]


@dataclass(slots=True)
class Rule:
    """What a predicate is called and says; its test stands beside it in the plan."""

    name: str
    on_deny: str | None
    text: str
    """Why it denies (PL-6.1): the author's words, or the engine's, which name arguments and never their values."""
    parts: tuple[tuple[str, Test], ...]
    """The argument and the test of each condition."""
    conditions: tuple[Condition, ...] = ()
    """The conditions as the author wrote them, for whoever explains a decision."""

    def message(self, answer: Tristate, arguments: dict[str, Any], scene: Scene | None) -> str:
        """Why it denies this call."""
        if answer is not None or self.on_deny is not None:
            return self.text
        name = next(name for name, test in self.parts if test(arguments, scene) is None)
        return f"argument `{name}` could not be checked"


@dataclass(slots=True)
class Plan:
    """What happens to calls of one tool, stage by stage (PL-4)."""

    refusal: tuple[Reason, str, str] | None = None
    """Reason, rule and text, with `{tool}`, where nothing but the tool's name matters (stages 3 to 5)."""
    reason: str | None = None
    entry: str = ""
    """The document's entry for the tool, as a JSON Pointer; empty where it has none."""
    only_arguments: frozenset[str] | None = None
    """The argument names that may occur at all; None where any may."""
    closed_rule: str = ""
    require: tuple[tuple[Test, Rule], ...] = ()
    deny_if: tuple[tuple[Test, Rule], ...] = ()
    approve_if: tuple[tuple[Test, Rule], ...] = ()
    limits: tuple[CompiledLimit, ...] = ()
    approval: str = ""
    """The rule that always asks for an approval; empty where none does."""
    may_ask: bool = False
    """Whether any rule may ask for an approval."""
    enforced: bool = True
    looks_outside: bool = False
    """Whether a condition looks at `call.*`, `context.*` or `state.*`."""
    sees: frozenset[str] = frozenset()
    """Names of the context that conditions look at."""
    reads: dict[str, CompiledLimit] = field(default_factory=dict)
    """Counters that conditions read, by name (PL-8.2)."""
    reads_amounts: bool = False
    """Whether a charge depends on an argument, a counter goes by the called tool's name, or limits share a counter."""
    counts_by_tool: bool = False
    """Whether a counter goes by the name of the tool that is called."""
    known: dict[tuple[ServerName, str, str | None, str], tuple[Charge, ...]] = field(default_factory=dict)
    """What calls have charged so far, by who called; `charges` looks here first."""

    @property
    def counting_rule(self) -> str:
        """The first rule that looks at a counter; it denies where no store answers."""
        rules = (rule for _, rule in (*self.require, *self.deny_if, *self.approve_if))
        looking = [rule.name for rule in rules if any(parse_path(one.path).root == "state" for one in rule.conditions)]
        return [*looking, *(limit.rule for limit in self.limits)][0]

    def charges(self, server: ServerName, grant: str, session: str | None, tool: str) -> tuple[Charge, ...]:
        """What one call charges, limit by limit; put together once for whoever calls again."""
        caller = (server, grant, session, tool if self.counts_by_tool else "")
        known = self.known.get(caller)
        if known is None:
            if len(self.known) >= _MOST_CALLERS:
                self.known.clear()
            where = Where(server, grant, session, tool)
            known = self.known[caller] = tuple(limit.charge(where) for limit in self.limits)
        return known


@dataclass(slots=True, repr=False)
class CompiledPolicy:
    """A policy ready to decide.

    Attributes:
        plans: A plan for each tool that the document names.
        globs: Patterns of the document, in the order in which they apply, and their plans.
        hidden: Patterns of hidden tools.
        hiding: The plans of a hidden tool, by whether the entry that applies to it is enforced.
        otherwise: The plan for every other tool.
        longest_window: The longest window of any limit, in seconds; 0 without limits.
    """

    name: str
    digest: str
    plans: dict[str, Plan]
    globs: list[tuple[re.Pattern[str], Plan]]
    hidden: list[re.Pattern[str]]
    hiding: dict[bool, Plan]
    otherwise: Plan
    longest_window: int
    _found: dict[str, Plan] = field(default_factory=dict)

    def __repr__(self) -> str:  # a decision shows its policy
        return f"CompiledPolicy({self.name!r}, {self.digest!r})"

    def plan_for(self, tool: str) -> Plan:
        """The one entry that applies to a tool: its own name's, else the best glob's, else the default."""
        if type(tool) is not str:
            raise TypeError(f"a tool's name is a text, not {type(tool).__name__}")
        plan = self.plans.get(tool)
        if plan is not None:
            return plan
        return self._matching(tool) if self.globs or self.hidden else self.otherwise

    def _matching(self, tool: str) -> Plan:
        plan = self._found.get(tool)
        if plan is None:
            if len(self._found) >= _MOST_CALLERS:  # agents invent names: what is remembered is bounded
                self._found.clear()
            plan = next((plan for pattern, plan in self.globs if pattern.fullmatch(tool)), self.otherwise)
            if any(pattern.fullmatch(tool) for pattern in self.hidden):
                plan = self.hiding[plan.enforced]
            self._found[tool] = plan
        return plan

    def names(self, tool: str) -> bool:
        """Whether the document names the tool itself: a glob matches any number of names that an agent invents."""
        return type(tool) is str and tool in self.plans

    def hides(self, tool: str) -> bool:
        """Whether the tool is removed from lists; shadow mode hides nothing (PL-4.4)."""
        plan = self.plan_for(tool)
        return plan.refusal is not None and plan.refusal[0] is Reason.HIDDEN and plan.enforced


_MOST_CALLERS: Final = 1024


def compile_policy(policy: Policy, mode: Mode | None = None) -> CompiledPolicy:
    """Compile a document.

    Args:
        policy: A validated document.
        mode: Overrides the document's and its tools' `mode` (PL-4.4).
    """
    shared = _Shared(policy, mode)
    literal = policy.origin.written is not None  # globs are policy.json's alone (PL-1.5)
    exact = {tool: shared.plan(tool) for tool in policy.tools if literal or not is_glob(tool)}
    globs = [(matcher(glob), shared.plan(glob)) for glob in best_first(set(policy.tools) - set(exact))]
    hidden = [matcher(glob) for glob in policy.hide if glob == "*" or (is_glob(glob) and not literal)]
    otherwise = shared.otherwise()
    hiding = {enforced: shared.hidden(enforced) for enforced in (True, False)}
    compiled = CompiledPolicy(policy.name, policy.digest, exact, globs, hidden, hiding, otherwise, 0)
    for tool in {*policy.hide, *(tool for tool in exact if any(one.fullmatch(tool) for one in hidden))}:
        exact[tool] = hiding[compiled.plan_for(tool).enforced]
    plans = (*exact.values(), *(plan for _, plan in globs), otherwise)
    lengths = [limit.window.seconds or _MONTH for plan in plans for limit in plan.limits]
    compiled.longest_window = max(lengths, default=0)
    return compiled


_MONTH: Final = 31 * 86_400


class _Shared:
    """The rules for all tools, compiled once and appended to each tool's own."""

    def __init__(self, policy: Policy, mode: Mode | None) -> None:
        self.policy = policy
        self.mode = mode
        every = policy.all_tools
        self.predicates = (*every.require, *every.deny_if, *every.require_approval_if)
        self.require = tuple(self.rules_of(("all_tools", "require"), every.require))
        self.deny_if = tuple(self.rules_of(("all_tools", "deny_if"), every.deny_if))
        self.approve_if = tuple(self.rules_of(("all_tools", "require_approval_if"), every.require_approval_if))
        self.limits = tuple(self.limits_of(("all_tools",), every.limits))

    def enforced(self, tool: str | None = None) -> bool:
        """The guard's own mode overrides the tool's, which overrides the document's (PL-4.4)."""
        rules = self.policy.tools.get(tool) if tool is not None else None
        return (self.mode or (rules and rules.mode) or self.policy.mode) == "enforce"

    def hidden(self, enforced: bool) -> Plan:
        return Plan((Reason.HIDDEN, "(hidden)", self.policy.origin.hidden), enforced=enforced)

    def otherwise(self) -> Plan:
        if self.policy.default == "deny":
            refusal = (Reason.DEFAULT_DENY, "(default deny)", self.policy.origin.not_permitted)
            return Plan(refusal, enforced=self.enforced())
        return self._plan((), ToolRules(), self.enforced())

    def plan(self, tool: str) -> Plan:
        rules = self.policy.tools[tool]
        enforced = self.enforced(tool)
        if rules.action == "deny":
            rule = pointer(("tools", tool, "action"))
            refusal = (Reason.RULE_DENIED, rule, self.policy.origin.not_permitted)
            return Plan(refusal, rules.reason, pointer(("tools", tool)), enforced=enforced)
        return self._plan(("tools", tool), rules, enforced)

    def _plan(self, path: Path, rules: ToolRules, enforced: bool) -> Plan:
        limits = (*self.limits_of(path, rules.limits), *self.rate_limit(path, rules.rate_limit), *self.limits)
        counters = [(limit.counter, limit.scope) for limit in limits]
        roots = {
            (parsed.root, *parsed.steps[:1])
            for predicate in (*rules.require, *rules.deny_if, *rules.require_approval_if, *self.predicates)
            for parsed in (parse_path(condition.path) for condition in predicate.conditions)
        }
        windows = self.policy.origin.windows
        only = rules.only_arguments
        return Plan(
            reason=rules.reason,
            entry=pointer(path),
            only_arguments=None if only is None else frozenset(only),
            closed_rule=pointer((*path, "only_arguments")),
            require=(*self.rules_of((*path, "require"), rules.require), *self.require),
            deny_if=(*self.rules_of((*path, "deny_if"), rules.deny_if), *self.deny_if),
            approve_if=(*self.rules_of((*path, "require_approval_if"), rules.require_approval_if), *self.approve_if),
            limits=limits,
            approval=pointer((*path, "action")) if rules.action == "require_approval" else "",
            may_ask=rules.action == "require_approval" or bool(rules.require_approval_if or self.approve_if),
            enforced=enforced,
            looks_outside=any(root != "args" for root, *_ in roots),
            sees=frozenset(str(name) for root, name in roots if root == "context"),
            reads={
                str(name): reading(str(name), windows.get(str(name), "day")) for root, name in roots if root == "state"
            },
            counts_by_tool=any(limit.counter is None for limit in limits),
            reads_amounts=len(set(counters)) < len(counters)
            or any(one.counter is None or not isinstance(one.amount, int) for one in limits),
        )

    def rules_of(self, path: Path, predicates: Iterable[Predicate]) -> Iterator[tuple[Test, Rule]]:
        """Each predicate's test and name; a false requirement denies, any other lets the call go on."""
        every = path[-1] == "require"
        taken: set[str] = set()
        for index, predicate in enumerate(predicates):
            conditions = predicate.conditions
            name = f"{conditions[0].path}-{conditions[0].op}" if conditions else str(index)
            unique, count = name, 1
            while unique in taken:  # PL-4.2: a second predicate of the same name gets `-2`
                count += 1
                unique = f"{name}-{count}"
            taken.add(unique)
            parts = tuple((parse_path(one.path).shown, compile_condition(one, every=every)) for one in conditions)
            rule = self.policy.origin.rule_names.get((*path, index), pointer((*path, unique)))
            text = predicate.on_deny or _text(parts)
            yield all_of(tuple(test for _, test in parts)), Rule(rule, predicate.on_deny, text, parts, conditions)

    def limits_of(self, path: Path, limits: Iterable[Limit]) -> Iterator[CompiledLimit]:
        """Each limit, ready to charge."""
        for index, limit in enumerate(limits):
            own = self.policy.origin.rule_names.get((*path, "limits", index))
            yield compile_limit(own or pointer((*path, "limits", limit.counter)), limit, counter=limit.counter)

    def rate_limit(self, path: Path, shorthand: RateLimit | None) -> Iterator[CompiledLimit]:
        """The seed page's shorthand; its counter goes by the called tool's name, which a glob does not tell."""
        if shorthand is not None:
            entry = str(path[-1])
            limit = shorthand.as_limit(entry)
            named = None if is_glob(entry) else limit.counter
            yield compile_limit(pointer((*path, "limits", limit.counter)), limit, counter=named)


def _text(parts: tuple[tuple[str, Test], ...]) -> str:
    if not parts:
        return "the call is not permitted by policy"
    names = " and ".join(dict.fromkeys(f"`{name}`" for name, _ in parts))
    return f"argument {names} is not permitted by policy: do not retry with the same arguments"
