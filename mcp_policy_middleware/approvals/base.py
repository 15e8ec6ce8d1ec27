"""The contract of a store of approval requests: what every one promises, whatever carries it (PL-7).

1. `open` finds the request that the same call meets, or makes one, in one atomic step: of any number of callers with
   one binding, one makes it, and one person is asked once.
2. `move` follows the table of states in one atomic step: of any number of callers, one consumes an approval.
3. A request whose time is up is expired, whether or not anybody has noticed. `now` is passed in, as seconds since the
   Unix epoch; a store that serves a fleet goes by its server's clock instead.
4. The arguments are kept as long as a person may want to see them: while the request is pending or approved. Where
   it closes they are erased with that step; where its time ran out, by the next `open` or `move` of any request.
5. Every fault of a backend is a `StoreError`, in bounded time, and so is a request that does not read: a state that
   there is not is no approval. A closed request is forgotten a day after its time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from .floods import Flood, FloodLimits
from .requests import ApprovalRequest, Found
from .states import Event

__all__ = ["KEPT", "ApprovalStore"]

KEPT: Final = 86_400.0
"""Seconds for which a closed request is kept after its time, so that no id comes back to life."""


class ApprovalStore(ABC):
    """Where approval requests are kept. Subclass it to keep them elsewhere; async callers use the `a…` twins.

    The twins call the sync methods, which is right for a store that never waits. A store that waits
    overrides them.
    """

    @abstractmethod
    def open(self, request: ApprovalRequest, seconds: float, limits: FloodLimits, now: float) -> Found | Flood:
        """The request that stands for the binding of this one, or else this one, from now on.

        Args:
            request: What to ask; its times are the store's to set, and so is its id, where that is taken.
            seconds: How long until its time is up.
            limits: How much its grant may ask.
            now: The time.
        """

    @abstractmethod
    def move(self, id: str, event: Event, now: float, by: str = "", why: str = "") -> Found:
        """What an event makes of a request; `changed` tells whether it did anything."""

    @abstractmethod
    def find(self, binding: str, now: float) -> ApprovalRequest | None:
        """The request that stands for a binding; changes nothing."""

    @abstractmethod
    def get(self, id: str, now: float) -> ApprovalRequest | None:
        """A request by its id."""

    @abstractmethod
    def requests(self, now: float) -> list[ApprovalRequest]:
        """Every request that is kept, the oldest first."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files and connections."""

    async def aopen(self, request: ApprovalRequest, seconds: float, limits: FloodLimits, now: float) -> Found | Flood:
        """`open` for async callers."""
        return self.open(request, seconds, limits, now)

    async def amove(self, id: str, event: Event, now: float, by: str = "", why: str = "") -> Found:
        """`move` for async callers."""
        return self.move(id, event, now, by, why)

    async def afind(self, binding: str, now: float) -> ApprovalRequest | None:
        """`find` for async callers."""
        return self.find(binding, now)

    async def aclose(self) -> None:
        """`close` for async callers."""
        self.close()
