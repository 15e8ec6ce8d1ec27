"""Counters in this process: a dict and one lock. A restart forgets them."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Final

from ..charges import Charge, CounterTotal, Refusal, Reservation, left
from .base import Store
from .ledger import Cell, Ledger, refusal, totals

__all__ = ["MemoryStore"]

_SWEEP_AT_LEAST: Final = 1024


class MemoryStore(Store):
    """Counts exactly among the threads and tasks of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cells: dict[str, Cell] = {}
        self._ledger = Ledger(self._cells)
        self._sweep_at = _SWEEP_AT_LEAST

    def peek(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """What `reserve` would answer now; takes nothing."""
        with self._lock:
            if len(self._cells) >= self._sweep_at:
                self._sweep(now)
            return self._ledger.reserve(charges, now, look=True)

    def reserve(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """Take all the charges, or none and name the first that did not fit."""
        with self._lock:
            if len(self._cells) >= self._sweep_at:
                self._sweep(now)
            if len(charges) == 1:  # most calls
                (charge,) = charges
                cell = self._cells.get(charge.key)
                if cell is not None and cell.ends > now and not charge.sliding:
                    used = cell.used
                    if used + charge.amount > charge.limit:
                        return refusal(0, charge, cell, left(cell.ends, now))
                    cell.used = used + charge.amount
                    cell.limit = charge.limit
                    return Reservation(charges, (cell.ends,), (used,))
            return self._ledger.reserve(charges, now)

    def adjust(self, reservation: Reservation, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """Replace a reservation by other charges, in one step; a refusal leaves it as it was."""
        with self._lock:
            answer = self._ledger.adjust(reservation, charges, now)
            reservation.released = reservation.released or isinstance(answer, Reservation)
            return answer

    def release(self, reservation: Reservation) -> None:
        """Give a reservation back."""
        with self._lock:
            self._ledger.give_back(reservation)
            reservation.released = True

    def counters(self, now: float) -> list[CounterTotal]:
        """The counters whose window is open."""
        with self._lock:
            return totals(self._cells.items(), now)

    def reset(self, keys: Iterable[str]) -> None:
        """Forget counters."""
        with self._lock:
            for key in keys:
                self._cells.pop(key, None)

    def close(self) -> None:
        """Nothing to let go of."""

    def _sweep(self, now: float) -> None:
        """Forget closed windows, so that the store does not grow with time."""
        self._ledger.swept = max(self._ledger.swept, now)
        closed = [key for key, cell in self._cells.items() if cell.counts_until <= now]
        for key in closed:
            del self._cells[key]
        self._sweep_at = max(_SWEEP_AT_LEAST, 2 * len(self._cells))
