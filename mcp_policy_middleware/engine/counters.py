"""The counters that a call would charge, as numbers, for whoever explains a decision (PL-5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..calls import Decision, Reason
from ..charges import MILLION, Charge, Reservation, as_number
from ..policy.model import MAX_TOTAL
from .compiler import Plan
from .limits import CompiledLimit

__all__ = ["Counter", "counters_around", "looking_only", "source"]


@dataclass(frozen=True, slots=True)
class Counter:
    """A counter that the call would charge, as a number, not in millionths.

    Attributes:
        charge: What the call adds, or the path of the argument that says how much.
        after: The total once the call was admitted; None where an argument could be told from it.
    """

    counter: str
    window: str | int
    scope: str
    before: float
    after: float | None
    max: float
    charge: float | str


def looking_only(charges: tuple[Charge, ...]) -> tuple[Charge, ...]:
    """Charges on the same counters that add nothing, so that a store tells the totals."""
    return tuple([replace(charge, amount=0, limit=MAX_TOTAL * MILLION) for charge in charges])


def counters_around(
    plan: Plan, decision: Decision, charges: tuple[Charge, ...], found: Reservation
) -> Iterator[Counter]:
    """Each limit's counter before and after; where an argument is charged, its path stands for the amount."""
    charged: dict[str, int | None] = {}
    for limit, charge in zip(plan.limits, charges, strict=True):
        amount = charged.get(charge.key, 0)
        readable = amount is not None and isinstance(limit.amount, int)
        charged[charge.key] = max(amount or 0, charge.amount) if readable else None
    for limit, charge, used in zip(plan.limits, charges, found.used, strict=True):
        added = charged[charge.key] if decision.reason is Reason.ALLOWED else 0
        yield Counter(
            counter=f"{decision.call.tool}_rate" if limit.counter is None else limit.counter,
            window=limit.window_name,
            scope=limit.scope,
            before=as_number(used),
            after=None if added is None else as_number(used + added),
            max=as_number(charge.limit),
            charge=as_number(limit.amount) if isinstance(limit.amount, int) else source(limit),
        )


def source(limit: CompiledLimit) -> str:
    """The path of the argument that says what a call charges."""
    return limit.source if limit.source.startswith("args[") else f"args.{limit.source}"
