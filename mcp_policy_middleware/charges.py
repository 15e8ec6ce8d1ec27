"""What calls charge to counters, and what a store answers (PL-5).

Plain slotted values; amounts are whole millionths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

__all__ = ["MILLION", "Charge", "CounterTotal", "Refusal", "Reservation", "Window", "as_number", "left", "slid"]

MILLION: Final = 1_000_000
"""Amounts are whole millionths (PL-5.3): a charge of 1 is 1,000,000."""

_DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class Window:
    """A series of windows, one after the other, aligned to the UTC calendar (PL-5.2).

    Args:
        seconds: The length of each; 0 for calendar months.
        offset: When one of them begins, in seconds since the Unix epoch.
    """

    seconds: int
    offset: int = 0

    def ends(self, now: float) -> int:
        """When the window of a moment ends; both in seconds since the Unix epoch."""
        if self.seconds:
            return (int((now - self.offset) // self.seconds) + 1) * self.seconds + self.offset
        first = _first_of_month(now)
        return int(_first_of_month(first.timestamp() + 31 * _DAY).timestamp())

    def starts(self, ends: int) -> int:
        """When the window that ends then begins."""
        return ends - self.seconds if self.seconds else int(_first_of_month(ends - 1).timestamp())


def _first_of_month(now: float) -> datetime:
    return datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


@dataclass(slots=True)
class Charge:
    """What one call adds to one counter, and the ceiling it must fit under (PL-5).

    Args:
        key: Names the counter: canonical JSON of its name, window and scope, and of what the scope keeps apart.
        window: When its windows begin and end.
        amount: What the call adds, in millionths.
        limit: What the total may reach, in millionths.
        sliding: Whether the window before counts too, by the part of this one that is left (PL-5.2).
        on_success: Whether a call that returns a tool error gives the charge back (PL-5.6).
        counter, scope: What metrics call the counter: no name that an agent chose.
    """

    key: str
    window: Window
    amount: int
    limit: int
    sliding: bool = False
    on_success: bool = False
    counter: str = field(default="", compare=False)
    scope: str = field(default="", compare=False)


@dataclass(slots=True)
class Reservation:
    """Charges that a store has taken, all of them.

    Args:
        charges: What was taken.
        windows: For each charge, the end of the window that was charged, in seconds since the Unix epoch.
        used: For each charge, the counter's total before it, in millionths.
        released: Whether it was given back; a store sets it once.
        id: Names it in a store that many processes ask over a network; empty elsewhere.
    """

    charges: tuple[Charge, ...]
    windows: tuple[int, ...]
    used: tuple[int, ...]
    released: bool = False
    id: str = ""

    def on_success(self) -> Reservation | None:
        """The part to give back where the tool answers with an error; None where there is none.

        A counter that another limit of the call keeps as well keeps its charge.
        """
        kept = {charge.key for charge in self.charges if not charge.on_success}
        rows = [row for row in zip(self.charges, self.windows, self.used, strict=True) if row[0].key not in kept]
        if not rows:
            return None
        charges, windows, used = zip(*rows, strict=True)
        return Reservation(charges, windows, used, id=self.id)


@dataclass(slots=True)
class Refusal:
    """The first charge, in the order given, that did not fit; nothing was taken.

    Args:
        index: Its place among the charges.
        retry_after: Whole seconds until it would fit; None where it never will.
    """

    index: int
    retry_after: int | None


@dataclass(frozen=True, slots=True)
class CounterTotal:
    """A counter as a store holds it, for whoever looks after the store.

    Args:
        key: Names the counter, as in `Charge`.
        starts: When its window began, in seconds since the Unix epoch.
        ends: When its window ends, likewise.
        used: What was charged in this window, in millionths.
        before: What was charged in the window just before it, which sliding windows count in part.
        limit: The ceiling that the last charge had, in millionths.
    """

    key: str
    starts: int
    ends: int
    used: int
    before: int
    limit: int

    def counted(self, now: float, sliding: bool) -> int:
        """What counts against a limit at a moment, in millionths (PL-5.2)."""
        return slid(self.used, self.before, self.starts, self.ends, now) if sliding else self.used


def left(ends: int, now: float) -> int:
    """Until a window ends, in millionths of a second."""
    return ends * MILLION - math.floor(now * MILLION)


def slid(used: int, before: int, starts: int, ends: int, now: float) -> int:
    """A sliding window's total: its own, and of the one before it the part of this one that is left (PL-5.2)."""
    length = (ends - starts) * MILLION
    return used - (-before * max(0, min(length, left(ends, now))) // length)


def as_number(millionths: int) -> int | float:
    """An amount as authors write it."""
    return millionths / MILLION if millionths % MILLION else millionths // MILLION
