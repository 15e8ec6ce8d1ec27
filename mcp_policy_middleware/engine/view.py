"""How a trace looks: the decision, its stages, what conditions saw by kind, and the counters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from ..views.decision import title
from ..views.table import Cell, Mark, Table, Viewed

if TYPE_CHECKING:
    from .counters import Counter
    from .trace import Judgement, Trace

__all__ = ["TraceView"]


class TraceView(Viewed):
    """What a `Trace` shows."""

    __slots__ = ()

    def _tables(self) -> Iterable[Table]:
        told = cast("Trace", self)
        decision = told.decision
        said: list[tuple[Cell, ...]] = [
            ("reason", Mark(decision.reason.value)),
            ("rule", Mark(decision.rule)),
            ("message", decision.message),
        ]
        yield Table(title(decision), rows=said)
        yield Table((), ("stage", "rule", "answer", "conditions"), [_row(step) for step in told.steps])
        if told.counters:
            head = ("counter", "before", "after", "of", "window", "scope")
            yield Table((), head, [_counter(counter) for counter in told.counters])


def _row(step: Judgement) -> tuple[Cell, ...]:
    name = f"{step.stage} {step.name}"
    seen = tuple([f"{one.path} {one.operator}: saw {one.saw}, {one.answer}" for one in step.conditions])
    if step.decides:
        return name, Mark(step.rule), Mark(f"{step.answer}, decides", "bad"), seen
    if step.answer == "skipped":
        return Mark(name, "faint"), Mark(step.rule), Mark("skipped", "faint"), seen
    return name, Mark(step.rule), step.answer, seen


def _counter(counter: Counter) -> tuple[Cell, ...]:
    window = counter.window if isinstance(counter.window, str) else f"{counter.window:,} s"
    if isinstance(counter.charge, str):  # a total of what arguments say is shown as a share
        before = f"{counter.before / counter.max:.0%}" if counter.max else ""
        after = f"+ {counter.charge}"
    else:
        before, after = f"{counter.before:,}", "" if counter.after is None else f"{counter.after:,}"
    return Mark(counter.counter), before, after, f"{counter.max:,}", window, counter.scope
