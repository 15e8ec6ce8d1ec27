"""Counters in this process: a dict and one lock. A restart forgets them."""

from __future__ import annotations

import math
import threading
from typing import Final

from ..charges import MILLION, Charge, Refusal, Reservation
from .base import Store

__all__ = ["MemoryStore"]

_SWEEP_AT_LEAST: Final = 1024


class _Cell:
    """One counter: the window it is in, what was charged there, and what in the window before."""

    __slots__ = ("before", "counts_until", "ends", "starts", "used")

    def __init__(self) -> None:
        self.starts = 0
        self.ends = 0
        self.counts_until = 0  # a sliding window looks one window back
        self.used = 0
        self.before = 0

    def total(self, charge: Charge, now: float) -> int:
        """What counts against a limit now (PL-5.2)."""
        if not charge.sliding or not self.before:
            return self.used
        length = self.ends - self.starts
        left = min(length * MILLION, _left(self.ends, now))
        return self.used - (-self.before * left // (length * MILLION))


class MemoryStore(Store):
    """Counts exactly among the threads and tasks of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cells: dict[str, _Cell] = {}
        self._sweep_at = _SWEEP_AT_LEAST
        self._swept = 0.0  # the latest time at which closed windows were forgotten

    def peek(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """What `reserve` would answer now; takes nothing."""
        with self._lock:
            answer = self._look(charges, now)
            return answer if isinstance(answer, Refusal) else _reservation(charges, answer, now)

    def reserve(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """Take all the charges, or none and name the first that did not fit."""
        if len(charges) != 1:
            return self._reserve_all(charges, now)
        (charge,) = charges
        with self._lock:
            cell = self._cells.get(charge.key)
            if cell is None or cell.ends <= now:
                cell = self._roll(charge, cell, now)
            used = cell.total(charge, now) if charge.sliding else cell.used
            if used + charge.amount > charge.limit:
                return _refusal(0, charge, cell, now)
            cell.used += charge.amount
            ends = cell.ends
        return Reservation(charges, (ends,), (used,))

    def _reserve_all(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        with self._lock:
            answer = self._look(charges, now)
            if isinstance(answer, Refusal):
                return answer
            reservation = _reservation(charges, answer, now)
            _take(charges, answer)
        return reservation

    def adjust(self, reservation: Reservation, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """Replace a reservation by other charges, in one step; a refusal leaves it as it was."""
        with self._lock:
            for charge in charges:  # first, so that giving back finds each counter in the window of `now`
                self._cell(charge, now)
            undone = self._give_back(reservation)
            answer = self._look(charges, now)
            if isinstance(answer, Refusal):
                for cell, field, amount in undone:
                    setattr(cell, field, getattr(cell, field) + amount)
                return answer
            reservation.released = True
            adjusted = _reservation(charges, answer, now)
            _take(charges, answer)
        return adjusted

    def release(self, reservation: Reservation) -> None:
        """Give a reservation back."""
        with self._lock:
            self._give_back(reservation)
            reservation.released = True

    def close(self) -> None:
        """Nothing to let go of."""

    def _look(self, charges: tuple[Charge, ...], now: float) -> list[_Cell] | Refusal:
        """The cell of each charge, rolled to the window of `now`; or the first that does not fit."""
        cells: list[_Cell] = []
        for charge in charges:
            cell = self._cell(charge, now)
            if cell.total(charge, now) + charge.amount > charge.limit:
                return _refusal(len(cells), charge, cell, now)
            cells.append(cell)
        return cells

    def _cell(self, charge: Charge, now: float) -> _Cell:
        cell = self._cells.get(charge.key)
        return self._roll(charge, cell, now) if cell is None or cell.ends <= now else cell

    def _roll(self, charge: Charge, cell: _Cell | None, now: float) -> _Cell:
        """The counter in the window of `now`; a clock that goes back finds the later window still open."""
        if cell is None:
            if len(self._cells) >= self._sweep_at:
                self._sweep(now)
            now = max(now, self._swept)  # what was forgotten stays closed
            cell = self._cells[charge.key] = _Cell()
        ends = charge.window.ends(now)
        starts = charge.window.starts(ends)
        cell.before = cell.used if cell.ends == starts else 0
        cell.starts, cell.ends, cell.used = starts, ends, 0
        cell.counts_until = charge.window.ends(ends) if charge.sliding else ends
        return cell

    def _sweep(self, now: float) -> None:
        """Forget closed windows, so that the store does not grow with time."""
        self._swept = max(self._swept, now)
        self._cells = {key: cell for key, cell in self._cells.items() if cell.counts_until > now}
        self._sweep_at = max(_SWEEP_AT_LEAST, 2 * len(self._cells))

    def _give_back(self, reservation: Reservation) -> list[tuple[_Cell, str, int]]:
        """Take a reservation's amounts off the windows that were charged: cell, field and what was taken off."""
        undone: list[tuple[_Cell, str, int]] = []
        if reservation.released:
            return undone
        amounts: dict[tuple[str, int], int] = {}
        for charge, ends in zip(reservation.charges, reservation.windows, strict=True):
            amounts[charge.key, ends] = max(charge.amount, amounts.get((charge.key, ends), 0))
        for (key, ends), amount in amounts.items():
            cell = self._cells.get(key)
            field = None if cell is None else {cell.ends: "used", cell.starts: "before"}.get(ends)
            if cell is not None and field is not None:
                taken = min(amount, getattr(cell, field))
                setattr(cell, field, getattr(cell, field) - taken)
                undone.append((cell, field, taken))
        return undone


def _reservation(charges: tuple[Charge, ...], cells: list[_Cell], now: float) -> Reservation:
    used = tuple([cell.total(charge, now) for cell, charge in zip(cells, charges, strict=True)])
    return Reservation(charges, tuple([cell.ends for cell in cells]), used)


def _take(charges: tuple[Charge, ...], cells: list[_Cell]) -> None:
    """Charge each counter once, with its largest charge (PL-5.5)."""
    amounts: dict[int, tuple[_Cell, int]] = {}
    for charge, cell in zip(charges, cells, strict=True):
        known = amounts.get(id(cell))
        if known is None or known[1] < charge.amount:
            amounts[id(cell)] = (cell, charge.amount)
    for cell, amount in amounts.values():
        cell.used += amount


def _refusal(index: int, charge: Charge, cell: _Cell, now: float) -> Refusal:
    room = charge.limit - charge.amount  # what may have been used for the charge to fit
    if room < 0:
        return Refusal(index, None)  # it fits no window
    wait = _left(cell.ends, now)
    if charge.sliding and cell.used <= room:  # once less of the window before counts
        wait -= (room - cell.used) * (cell.ends - cell.starts) * MILLION // cell.before
    elif charge.sliding:  # in the next window, once less of this one counts
        length = (charge.window.ends(cell.ends) - cell.ends) * MILLION
        wait += length - room * length // cell.used
    return Refusal(index, max(1, -(-wait // MILLION)))


def _left(ends: int, now: float) -> int:
    """Until a window ends, in millionths of a second."""
    return math.ceil((ends - now) * MILLION)
