"""The contract of a counter store: what every store promises, whatever carries it.

1. `reserve` takes every charge of a call or none, in one atomic step, however many callers race.
2. Amounts are whole millionths. `now` is passed in, as seconds since the Unix epoch; a store that serves a
   fleet goes by its server's clock instead.
3. Windows are fixed and aligned to the epoch; a clock that goes back never reopens a closed window.
4. `release` is idempotent, goes to the window that was charged, and never takes a total below zero.
5. Charges on one key in one call share a counter: each must fit, and the largest is taken, once.
6. Every fault of a backend is a `StoreError`, in bounded time. A store does not grow with time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from ..charges import Charge, CounterTotal, Refusal, Reservation

__all__ = ["Store"]


class Store(ABC):
    """Where counters live. Subclass it to carry them elsewhere; async callers use the `a…` twins.

    The twins call the sync methods, which is right for a store that never waits. A store that waits
    overrides them.
    """

    @abstractmethod
    def peek(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """What `reserve` would answer now; takes nothing."""

    @abstractmethod
    def reserve(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """Take all the charges, or none and name the first that did not fit."""

    @abstractmethod
    def adjust(self, reservation: Reservation, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """Replace a reservation by other charges, in one step; a refusal leaves it as it was."""

    @abstractmethod
    def release(self, reservation: Reservation) -> None:
        """Give a reservation back."""

    @abstractmethod
    def counters(self, now: float) -> list[CounterTotal]:
        """The counters whose window is open, in the order of their keys; for whoever looks after the store."""

    @abstractmethod
    def reset(self, keys: Iterable[str]) -> None:
        """Forget counters, which then begin afresh; a charge that is given back later goes nowhere below zero."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files and connections."""

    async def apeek(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """`peek` for async callers."""
        return self.peek(charges, now)

    async def areserve(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """`reserve` for async callers."""
        return self.reserve(charges, now)

    async def aadjust(self, reservation: Reservation, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """`adjust` for async callers."""
        return self.adjust(reservation, charges, now)

    async def arelease(self, reservation: Reservation) -> None:
        """`release` for async callers."""
        self.release(reservation)

    async def aclose(self) -> None:
        """`close` for async callers."""
        self.close()
