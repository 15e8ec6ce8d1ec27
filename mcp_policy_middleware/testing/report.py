"""What came of policy tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..calls import Decision
from ..policy.cases import Expected
from .coverage import RuleCoverage

__all__ = ["CallResult", "Report"]


@dataclass(frozen=True, slots=True)
class CallResult:
    """What one call of a case was answered.

    Attributes:
        source, line: Where the call is written; line 0 where that is no file.
        case: The case's name.
        call: The call's number in the case, counted from 1.
        tool: What it called.
        expected: What it should have been answered.
        effect, reason, rule: What it was; of a repeated call, the first unexpected answer or the last.
        repetition: Which of a repeated call's answers that is, counted from 1.
        passed: Whether every answer was as expected.
    """

    source: str
    line: int
    case: str
    call: int
    tool: str
    expected: Expected
    effect: str = ""
    reason: str = ""
    rule: str = ""
    repetition: int = 0
    passed: bool = True

    def answered(self, decision: Decision) -> CallResult:
        """The result after one more answer."""
        answer = (decision.effect, decision.reason.value, decision.rule)
        return replace(
            self,
            effect=decision.effect,
            reason=decision.reason.value,
            rule=decision.rule,
            repetition=self.repetition + 1,
            passed=self.expected.met_by(*answer),
        )

    @property
    def place(self) -> str:
        """File and line; the case and the call's number where there is no file."""
        return f"{self.source}:{self.line}" if self.line else f"{self.source}: {self.case}, call {self.call}"

    @property
    def answer(self) -> str:
        """Effect, reason and rule in one line."""
        return " ".join(filter(None, (self.effect, self.reason, self.rule)))

    def __str__(self) -> str:
        which = f", repetition {self.repetition}" if self.repetition > 1 else ""
        asked = f"`{self.case}`, call {self.call} of `{self.tool}`{which}"
        return f"{self.place}: {asked}: expected {self.expected}, got {self.answer}"


@dataclass(frozen=True, slots=True)
class Report:
    """What came of policy tests: `assert not report.failures, report` is a test.

    Attributes:
        results: A result for each call, in order.
        coverage: Every rule of the policies, in the order of the documents.
    """

    results: tuple[CallResult, ...]
    coverage: tuple[RuleCoverage, ...]

    @property
    def failures(self) -> tuple[CallResult, ...]:
        """The calls that were not answered as expected."""
        return tuple(result for result in self.results if not result.passed)

    @property
    def untested(self) -> tuple[RuleCoverage, ...]:
        """The rules that decided no call."""
        return tuple(rule for rule in self.coverage if not rule.calls)

    @classmethod
    def of(cls, reports: Iterable[Report]) -> Report:
        """Several reports as one; a rule is tested where any of them tests it."""
        results: list[CallResult] = []
        rules: dict[tuple[str, str, str], tuple[str, ...]] = {}
        for report in reports:
            results += report.results
            for rule in report.coverage:
                key = (rule.policy, rule.digest, rule.rule)
                rules[key] = (*rules.get(key, ()), *rule.calls)
        return cls(tuple(results), tuple(RuleCoverage(*key, calls) for key, calls in rules.items()))

    def __str__(self) -> str:
        failed = self.failures
        title = f"{len(self.results) - len(failed)} passed, {len(failed)} failed"
        untested = [f"untested: {rule.rule} ({rule.policy})" for rule in self.untested]
        return "\n".join([*map(str, failed), *untested, title])
