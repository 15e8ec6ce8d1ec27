"""Runs policy tests: cases of calls with clock times, against a guard of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from ..calls import Decision, ToolCall
from ..guard import Guard
from ..policy import load_directory
from ..policy.case_reader import CaseFile, load_cases, parse_cases
from ..policy.cases import CaseCall
from ..sources import Policies
from ..stores.memory import MemoryStore
from .clock import FrozenClock
from .coverage import Coverage
from .report import CallResult, Report

__all__ = ["GuardFactory", "run_cases"]

GuardFactory: TypeAlias = Callable[[Policies, FrozenClock], Guard]
"""Makes the guard of one case from the policies and the clock of its calls."""


def run_cases(
    path_or_document: str | os.PathLike[str] | Mapping[str, Any],
    guard_factory: GuardFactory | None = None,
    *,
    policy: Policies | None = None,
) -> Report:
    """Run policy tests: each case on fresh counters, its calls in order, on a clock that stands still.

    Args:
        path_or_document: A file of policy tests, or such a document in Python.
        guard_factory: Makes the guard of each case; left out, one on this process's memory.
        policy: Tested instead of the policy that the document names.

    Returns:
        What each call was answered, and which rules were tested; a failed call raises nothing.

    Raises:
        DocumentError: The tests or their policy do not read; `.problems` has every problem.
    """
    cases = parse_cases(path_or_document) if isinstance(path_or_document, Mapping) else load_cases(path_or_document)
    policies = cases.policies() if policy is None else policy
    if isinstance(policies, (str, os.PathLike)):
        policies = load_directory(policies)
    coverage = Coverage(policies)
    results = tuple(_results(cases, policies, guard_factory or _guard, coverage))
    return Report(results, tuple(coverage.report()))


def _guard(policies: Policies, clock: FrozenClock) -> Guard:
    return Guard(policies, store=MemoryStore(), clock=clock, telemetry=False)


def _results(
    cases: CaseFile, policies: Policies, guard_factory: GuardFactory, coverage: Coverage
) -> Iterator[CallResult]:
    for case, lines in zip(cases.cases, cases.lines, strict=True):
        clock = FrozenClock() if case.at is None else FrozenClock(case.at)
        guard = guard_factory(policies, clock)
        try:
            for number, (call, line) in enumerate(zip(case.calls, lines, strict=True), 1):
                if call.at is not None:
                    clock.set(call.at)
                result = CallResult(cases.source, line, case.name, number, call.tool, call.expect)
                for decision in _decisions(guard, call):
                    coverage.note(decision, result.place)
                    if result.passed:
                        result = result.answered(decision)
                yield result
        finally:
            guard.close()


def _decisions(guard: Guard, call: CaseCall) -> Iterator[Decision]:
    """Make the call as often as it says; each is settled before the next."""
    for _ in range(call.repeat):
        decision = guard.begin(
            ToolCall(
                call.tool,
                call.arguments,
                server=call.server,
                grant=call.grant,
                session=call.session,
                context=call.context,
            )
        )
        if decision.allowed:
            guard.finish(decision, call.outcome)
        yield decision
