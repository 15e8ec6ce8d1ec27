"""Counters in this process: a dict and one lock. A restart forgets them."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Final

from ..calls import Charge, Refusal, Reservation
from .base import Store

__all__ = ["MemoryStore"]

_SWEEP_AT_LEAST: Final = 1024


class _Cell:
    """One counter: when its window ends, and what was charged in it."""

    __slots__ = ("ends", "used")

    def __init__(self, ends: int) -> None:
        self.ends = ends
        self.used = 0


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
        return answer if isinstance(answer, Refusal) else _reservation(charges, answer)

    def reserve(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """Take all the charges, or none and name the first that did not fit."""
        if len(charges) != 1:
            return self._reserve_all(charges, now)
        (charge,) = charges
        with self._lock:
            cell = self._cells.get(charge.key)
            if cell is None or cell.ends <= now:
                cell = self._roll(charge, cell, now)
            used = cell.used
            if used + charge.amount > charge.limit:
                return _refusal(0, charge, cell, now)
            cell.used = used + charge.amount
            ends = cell.ends
        return Reservation(charges, (ends,), (used,))

    def _reserve_all(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        with self._lock:
            answer = self._look(charges, now)
            if isinstance(answer, Refusal):
                return answer
            reservation = _reservation(charges, answer)
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
                for cell, amount in undone:
                    cell.used += amount
                return answer
            reservation.released = True
            adjusted = _reservation(charges, answer)
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
            if cell.used + charge.amount > charge.limit:
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
            cell = self._cells[charge.key] = _Cell(0)
        cell.ends = (int(now // charge.window) + 1) * charge.window
        cell.used = 0
        return cell

    def _sweep(self, now: float) -> None:
        """Forget closed windows, so that the store does not grow with time."""
        self._swept = max(self._swept, now)
        self._cells = {key: cell for key, cell in self._cells.items() if cell.ends > now}
        self._sweep_at = max(_SWEEP_AT_LEAST, 2 * len(self._cells))

    def _give_back(self, reservation: Reservation) -> list[tuple[_Cell, int]]:
        """Take a reservation's amounts off the windows that were charged; what was taken off."""
        if reservation.released:
            return []
        charges = [
            (charge, cell)
            for charge, ends in zip(reservation.charges, reservation.windows, strict=True)
            if (cell := self._cells.get(charge.key)) is not None and cell.ends == ends
        ]
        undone = _once([charge for charge, _ in charges], [cell for _, cell in charges])
        for cell, amount in undone:
            cell.used = max(0, cell.used - amount)
        return undone


def _reservation(charges: tuple[Charge, ...], cells: list[_Cell]) -> Reservation:
    return Reservation(charges, tuple([cell.ends for cell in cells]), tuple([cell.used for cell in cells]))


def _refusal(index: int, charge: Charge, cell: _Cell, now: float) -> Refusal:
    if charge.amount > charge.limit:
        return Refusal(index, None)  # it fits no window
    return Refusal(index, max(1, math.ceil(cell.ends - now)))


def _take(charges: tuple[Charge, ...], cells: list[_Cell]) -> None:
    for cell, amount in _once(charges, cells):
        cell.used += amount


def _once(charges: Sequence[Charge], cells: list[_Cell]) -> list[tuple[_Cell, int]]:
    """Each cell with its largest charge (PL-5.5)."""
    amounts: dict[int, tuple[_Cell, int]] = {}
    for charge, cell in zip(charges, cells, strict=True):
        known = amounts.get(id(cell))
        if known is None or known[1] < charge.amount:
            amounts[id(cell)] = (cell, charge.amount)
    return list(amounts.values())
