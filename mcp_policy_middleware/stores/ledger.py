"""Counters, and what charging does to them: the arithmetic of every store that counts in Python (PL-5).

A store brings the cells, one transaction at a time, and whatever makes a transaction atomic.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..charges import MILLION, Charge, CounterTotal, Refusal, Reservation, left, slid

__all__ = ["Cell", "Ledger", "refusal", "totals"]


@dataclass(slots=True)
class Cell:
    """One counter: the window it is in, what was charged there, and what in the window before.

    Times are in seconds since the Unix epoch, amounts in millionths.
    """

    starts: int = 0
    ends: int = 0
    counts_until: int = 0
    """When nothing looks at it any more: a sliding window looks one window back."""
    used: int = 0
    before: int = 0
    limit: int = 0
    """The ceiling that the last charge had."""

    def total(self, charge: Charge, now: float) -> int:
        """What counts against a limit now (PL-5.2)."""
        if not charge.sliding or not self.before:
            return self.used
        return slid(self.used, self.before, self.starts, self.ends, now)

    def roll(self, charge: Charge, now: float) -> None:
        """Move to the window of `now`; what was charged in the one just before it is kept for sliding windows."""
        ends = charge.window.ends(now)
        starts = charge.window.starts(ends)
        self.before = self.used if self.ends == starts else 0
        self.starts, self.ends, self.used = starts, ends, 0
        self.counts_until = charge.window.ends(ends) if charge.sliding else ends


class Ledger:
    """Cells by key, and the operations of a store on them; for one caller at a time.

    Args:
        cells: The counters, at least those that the operation charges where they exist.
        swept: When closed windows were last forgotten; a window that was closed then stays closed.
    """

    def __init__(self, cells: dict[str, Cell], swept: float = 0.0) -> None:
        self.cells = cells
        self.swept = swept

    def reserve(self, charges: tuple[Charge, ...], now: float, look: bool = False) -> Reservation | Refusal:
        """Take all the charges, or none and name the first that did not fit; on one counter, the largest (PL-5.5).

        Where it only looks, it may move a counter to the window of `now`, and changes no total.
        """
        rows: list[tuple[Cell, int, int]] = []
        windows: list[int] = []
        before: list[int] = []
        for charge in charges:
            cell = self.cells.get(charge.key)
            if cell is None or cell.ends <= now:
                cell = self._rolled(charge, cell, now)
            used = cell.total(charge, now) if charge.sliding else cell.used
            if used + charge.amount > charge.limit:
                return refusal(len(windows), charge, cell, left(cell.ends, now))
            rows.append((cell, cell.used + charge.amount, charge.limit))
            windows.append(cell.ends)
            before.append(used)
        if not look:
            for cell, total, limit in rows:
                cell.limit = limit
                if cell.used < total:  # noqa: PLR1730  `max` takes three times as long
                    cell.used = total
        return Reservation(charges, tuple(windows), tuple(before))

    def adjust(self, held: Reservation, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """Replace what is held by other charges; a refusal leaves it as it was."""
        for charge in charges:  # first, so that giving back finds each counter in the window of `now`
            cell = self.cells.get(charge.key)
            if cell is None or cell.ends <= now:
                self._rolled(charge, cell, now)
        undone = self.give_back(held)
        answer = self.reserve(charges, now)
        if isinstance(answer, Refusal):
            for cell, field, amount in undone:
                setattr(cell, field, getattr(cell, field) + amount)
        return answer

    def give_back(self, held: Reservation) -> list[tuple[Cell, str, int]]:
        """Take a reservation off the windows that were charged: cell, field, and what was taken off."""
        undone: list[tuple[Cell, str, int]] = []
        if held.released:
            return undone
        amounts: dict[tuple[str, int], int] = {}
        for charge, ends in zip(held.charges, held.windows, strict=True):
            amounts[charge.key, ends] = max(charge.amount, amounts.get((charge.key, ends), 0))
        for (key, ends), amount in amounts.items():
            cell = self.cells.get(key)
            field = None if cell is None else {cell.ends: "used", cell.starts: "before"}.get(ends)
            if cell is not None and field is not None:
                taken = min(amount, getattr(cell, field))
                setattr(cell, field, getattr(cell, field) - taken)
                undone.append((cell, field, taken))
        return undone

    def _rolled(self, charge: Charge, cell: Cell | None, now: float) -> Cell:
        """The counter in the window of `now`; a clock that goes back finds the later window still open."""
        if cell is None:
            cell = self.cells[charge.key] = Cell()
            now = max(now, self.swept)
        cell.roll(charge, now)
        return cell


def refusal(index: int, charge: Charge, cell: Cell, wait: int) -> Refusal:
    """The answer to a charge that does not fit its counter, and when it will (PL-5.4).

    Args:
        index: The charge's place in the call.
        charge: The charge.
        cell: Its counter.
        wait: Until the counter's window ends, in millionths of a second.
    """
    room = charge.limit - charge.amount  # what may have been used for the charge to fit
    if room < 0:
        return Refusal(index, None)  # it fits no window
    if charge.sliding and cell.used <= room:  # once less of the window before counts
        wait -= (room - cell.used) * (cell.ends - cell.starts) * MILLION // cell.before
    elif charge.sliding:  # in the next window, once less of this one counts
        length = (charge.window.ends(cell.ends) - cell.ends) * MILLION
        wait += length - room * length // cell.used
    return Refusal(index, max(1, -(-wait // MILLION)))


def totals(cells: Iterable[tuple[str, Cell]], now: float) -> list[CounterTotal]:
    """The counters whose window is open, in the order of their keys."""
    return [
        CounterTotal(key, cell.starts, cell.ends, cell.used, cell.before, cell.limit)
        for key, cell in sorted(cells, key=lambda one: one[0])
        if cell.counts_until > now
    ]
