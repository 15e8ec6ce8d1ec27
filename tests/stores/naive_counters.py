"""Counters as PL-5.2 to 5.6 words them, written to be read; shares nothing with the package's own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction

from mcp_policy_middleware.charges import Charge, Window

__all__ = ["NaiveCounters", "NaiveHeld"]


def bounds(window: Window, moment: Fraction) -> tuple[int, int]:
    """The start and the end of the window of a moment."""
    if window.seconds:
        number = math.floor((moment - window.offset) / window.seconds)
        return number * window.seconds + window.offset, (number + 1) * window.seconds + window.offset
    day = datetime.fromtimestamp(math.floor(moment), UTC)
    year, month = (day.year + 1, 1) if day.month == 12 else (day.year, day.month + 1)
    return int(datetime(day.year, day.month, 1, tzinfo=UTC).timestamp()), int(
        datetime(year, month, 1, tzinfo=UTC).timestamp()
    )


@dataclass
class NaiveHeld:
    """A reservation: for each key what was taken and in which window, and what each charge saw."""

    taken: dict[tuple[str, int], int]
    windows: tuple[int, ...]
    used: tuple[int, ...]
    released: bool = False


@dataclass
class NaiveCounters:
    """Every window that ever was, by its end; nothing is ever forgotten."""

    totals: dict[tuple[str, int], int] = field(default_factory=dict)
    latest: dict[str, Fraction] = field(default_factory=dict)
    """Where each counter's newest window begins: no earlier one is opened again."""

    def window(self, charge: Charge, moment: Fraction) -> tuple[int, int]:
        """The window that a charge goes to now."""
        return bounds(charge.window, max(moment, self.latest.get(charge.key, moment)))

    def used(self, charge: Charge, moment: Fraction) -> int:
        """What counts now: of the window before, what part of this one is left, rounded up (5.2)."""
        starts, ends = self.window(charge, moment)
        total = self.totals.get((charge.key, ends), 0)
        if charge.sliding:
            part = min(Fraction(1), (ends - moment) / (ends - starts))
            total += math.ceil(self.totals.get((charge.key, starts), 0) * part)
        return total

    def reserve(self, charges: tuple[Charge, ...], moment: Fraction, look: bool) -> NaiveHeld | tuple[int, int | None]:
        """All or none (5.4); one counter once, with the largest charge (5.5). A refusal: its index, and the wait."""
        for index, charge in enumerate(charges):
            if self.used(charge, moment) + charge.amount > charge.limit:
                return index, self.wait(charge, moment)
        held = NaiveHeld(
            {},
            tuple(self.window(charge, moment)[1] for charge in charges),
            tuple(self.used(charge, moment) for charge in charges),
        )
        for charge, ends in zip(charges, held.windows, strict=True):
            held.taken[charge.key, ends] = max(charge.amount, held.taken.get((charge.key, ends), 0))
        if not look:
            for charge in charges:
                self.latest[charge.key] = Fraction(self.window(charge, moment)[0])
            for place, amount in held.taken.items():
                self.totals[place] = self.totals.get(place, 0) + amount
        return held

    def wait(self, charge: Charge, moment: Fraction) -> int | None:
        """Whole seconds until it fits, if nobody else calls (5.4); None where it never will."""
        if charge.amount > charge.limit:
            return None
        no, yes = 0, 1
        while self.used(charge, moment + yes) + charge.amount > charge.limit:
            no, yes = yes, yes * 2
        while yes - no > 1:
            middle = (no + yes) // 2
            if self.used(charge, moment + middle) + charge.amount > charge.limit:
                no = middle
            else:
                yes = middle
        return yes

    def release(self, held: NaiveHeld) -> None:
        """To the window that was charged, never below zero, and once (5.6)."""
        if not held.released:
            for place, amount in held.taken.items():
                self.totals[place] = max(0, self.totals[place] - amount)
        held.released = True

    def adjust(
        self, held: NaiveHeld, charges: tuple[Charge, ...], moment: Fraction
    ) -> NaiveHeld | tuple[int, int | None]:
        """Give back and take, or leave everything as it was."""
        totals, released = dict(self.totals), held.released
        self.release(held)
        answer = self.reserve(charges, moment, look=False)
        if isinstance(answer, tuple):
            self.totals, held.released = totals, released
        return answer
