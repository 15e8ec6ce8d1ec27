"""Approval requests in this process: a dict and one lock. A restart forgets them, and whoever waits asks anew."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from dataclasses import replace

from .base import KEPT, ApprovalStore
from .floods import Flood, FloodLimits, flood
from .requests import ApprovalRequest, Found, lapsed, moved, stands
from .states import Event

__all__ = ["MemoryApprovals"]


class MemoryApprovals(ApprovalStore):
    """Keeps approval requests among the threads and tasks of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[str, ApprovalRequest] = {}

    def open(self, request: ApprovalRequest, seconds: float, limits: FloodLimits, now: float) -> Found | Flood:
        """The request that stands for the binding of this one, or else this one."""
        with self._lock:
            self._forget(now)
            for found in self._requests.values():
                if found.binding == request.binding and stands(found, now):
                    return Found(found)
            mine = [one for one in self._lapsed(now) if one.grant == request.grant]
            refusal = flood(mine, limits, now)
            if refusal is not None:
                return refusal
            id = secrets.token_hex(8) if request.id in self._requests else request.id
            made = replace(request, id=id, asked_at=now, expires_at=now + seconds)
            self._requests[id] = made
            return Found(made, changed=True)

    def move(self, id: str, event: Event, now: float, by: str = "", why: str = "") -> Found:
        """What an event makes of a request."""
        with self._lock:
            self._forget(now)
            request = self._requests.get(id)
            if request is None:
                return Found(None)
            found = moved(request, event, now, by, why)
            self._requests[id] = found.request or request
            return found

    def find(self, binding: str, now: float) -> ApprovalRequest | None:
        """The request that stands for a binding."""
        with self._lock:
            return next((one for one in self._lapsed(now) if one.binding == binding and stands(one, now)), None)

    def get(self, id: str, now: float) -> ApprovalRequest | None:
        """A request by its id."""
        with self._lock:
            request = self._requests.get(id)
            return request and lapsed(request, now)

    def requests(self, now: float) -> list[ApprovalRequest]:
        """Every request that is kept, the oldest first."""
        with self._lock:
            return list(self._lapsed(now))

    def close(self) -> None:
        """Nothing to let go of."""

    def _lapsed(self, now: float) -> Iterator[ApprovalRequest]:
        return (lapsed(one, now) for one in self._requests.values())

    def _forget(self, now: float) -> None:
        """Forget what was kept long enough, and the arguments of what has lapsed."""
        kept = (one for one in self._lapsed(now) if now < one.expires_at + KEPT)
        self._requests = {one.id: one for one in kept}
