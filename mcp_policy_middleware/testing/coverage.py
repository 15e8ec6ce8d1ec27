"""Which rules of a policy the calls of a test have decided."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..calls import Decision, Reason
from ..policy import Policy
from ..selection import select

__all__ = ["Coverage", "RuleCoverage"]


@dataclass(frozen=True, slots=True)
class RuleCoverage:
    """A rule of a policy, and where the calls are written that it decided.

    Attributes:
        policy: The policy's name.
        digest: The policy's digest (PL-9.3).
        rule: As decisions show it; a hidden name and the default have their own, and an entry's `action` is what
            admits a call.
        calls: The places of the calls; empty for an untested rule.
    """

    policy: str
    digest: str
    rule: str
    calls: tuple[str, ...]


class Coverage:
    """Every rule of some policies, and the calls that each has decided."""

    def __init__(self, policies: Policy | Mapping[str, Policy]) -> None:
        documents = [policies] if isinstance(policies, Policy) else policies.values()
        self._rules = {(document.name, document.digest): _Rules(document) for document in documents}

    def note(self, decision: Decision, place: str) -> None:
        """Write down where a call is written that a rule has decided."""
        rules = self._rules.get((decision.policy_name, decision.policy_digest))
        if rules is not None:
            rules.note(decision, place)

    def report(self) -> Iterator[RuleCoverage]:
        """Every rule, in the order of the documents."""
        for (policy, digest), rules in self._rules.items():
            for label, calls in rules.labelled():
                yield RuleCoverage(policy, digest, label, tuple(calls))


class _Rules:
    """The rules of one document; two of one name are told apart by the entry they stand in."""

    def __init__(self, document: Policy) -> None:
        self.hidden = document.hide
        (self.compiled,) = select(document).all()
        self.calls: dict[tuple[str, int], dict[str, None]] = {}
        self.entries: dict[tuple[str, int], str] = {}
        for name in self.hidden:
            self.calls[_hidden(name), 0] = {}
        plans = [*self.compiled.plans.values(), *(plan for _, plan in self.compiled.globs)]
        if "*" not in (*document.hide, *document.tools):
            plans.append(self.compiled.otherwise)
        for plan in plans:
            for key in _names(plan).items():
                self.calls[key] = {}
                self.entries[key] = plan.entry

    def note(self, decision: Decision, place: str) -> None:
        tool = decision.call.tool
        if decision.reason is Reason.HIDDEN:
            matching = (name for name in self.hidden if fnmatch.fnmatchcase(tool, name.replace("[", "[[]")))
            name = _hidden(tool if tool in self.hidden else next(matching, ""))
            names = {name: 0}
        else:
            plan = self.compiled.plan_for(tool)
            names = _names(plan)
            name = _admits(plan.entry) if decision.reason is Reason.ALLOWED else decision.rule
        calls = self.calls.get((name, names.get(name, 0)))
        if calls is not None:
            calls[place] = None

    def labelled(self) -> Iterator[tuple[str, dict[str, None]]]:
        times = Counter(name for name, _ in self.calls)
        for (name, which), calls in self.calls.items():
            yield name if times[name] == 1 else f"{name} of {self.entries[name, which]}", calls


def _names(plan: Any) -> dict[str, int]:
    """The names of the rules that may decide a call, and an identity of each, for rules that plans share."""
    if plan.refusal is not None:
        reason, rule, _ = plan.refusal
        return {} if reason is Reason.HIDDEN else {rule: 0}
    names = {} if plan.only_arguments is None else {plan.closed_rule: 0}
    for _, rule in (*plan.require, *plan.deny_if, *plan.approve_if):
        names.setdefault(rule.name, id(rule))
    for limit in plan.limits:
        names.setdefault(limit.rule, id(limit))
    names[_admits(plan.entry)] = 0
    return names


def _admits(entry: str) -> str:
    return f"{entry}/action" if entry else "(default allow)"


def _hidden(name: str) -> str:
    return f"(hidden) {name}"
