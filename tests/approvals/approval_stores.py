"""What the suites of approval stores share: requests to ask, every store, and one driver each for sync and async."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcp_policy_middleware.approvals import (
    Answer,
    ApprovalRequest,
    ApprovalStore,
    Approver,
    Event,
    Flood,
    FloodLimits,
    Found,
    MemoryApprovals,
    NoAnswer,
    RedisApprovals,
    SQLiteApprovals,
    State,
)

__all__ = [
    "FACTORIES",
    "MANY",
    "NOON",
    "PATHS",
    "SECRET",
    "AsyncCaller",
    "Caller",
    "Later",
    "draft",
    "on_redis",
    "standing",
]

NOON = 1_772_625_600.0  # 2026-03-04 12:00 UTC
MANY = FloodLimits(10_000, 10_000)
SECRET = "only a person may see this"


def draft(binding: str = "b", id: str = "id", *, grant: str = "g", **given: Any) -> ApprovalRequest:
    """A question."""
    told = {
        "server": "s", "tool": "t",
        "arguments": {"note": SECRET, "n": 2**70, "odd": "😀 é\n\x00", "x": [1.5, None]},
        "session": "é", "policy_name": "p", "policy_digest": "sha256:0", "rule": "/tools/t/action", "text": "\ud800",
        "call_id": None,
    }  # fmt: skip
    return ApprovalRequest(id=id, binding=binding, grant=grant, **{**told, **given})


def on_redis(url: str, *, cluster: bool = False, clock: Any = "caller") -> RedisApprovals:
    """A store of its own."""
    return RedisApprovals(url, tenant=secrets.token_hex(4), cluster=cluster, timeout=5, clock=clock)


FACTORIES: dict[str, Callable[[Path, pytest.FixtureRequest], ApprovalStore]] = {
    "memory": lambda folder, request: MemoryApprovals(),
    "sqlite": lambda folder, request: SQLiteApprovals(folder / "approvals.db", timeout=5),
    "redis": lambda folder, request: on_redis(request.getfixturevalue("redis_server").url),
}
"""How each store is made; a new store joins every suite by a line here."""


class Caller:
    """Calls a store's sync methods."""

    def __init__(self, store: ApprovalStore) -> None:
        self.store = store

    def open(
        self,
        request: ApprovalRequest | None = None,
        *,
        seconds: float = 60,
        limits: FloodLimits = MANY,
        now: float = NOON,
    ) -> Any:
        """What stands or is made."""
        return self.store.open(request or draft(), seconds, limits, now)

    def move(self, id: str, event: Event, *, now: float = NOON, by: str = "", why: str = "") -> Found:
        """What becomes of a request."""
        return self.store.move(id, event, now, by, why)

    def find(self, binding: str = "b", *, now: float = NOON) -> ApprovalRequest | None:
        """What stands."""
        return self.store.find(binding, now)

    def made(self, *args: Any, **given: Any) -> ApprovalRequest:
        """A request that must be made."""
        found = self.open(*args, **given)
        assert isinstance(found, Found)
        assert found.changed
        assert found.request is not None
        return found.request

    def ended(self) -> None:
        """Let go of everything."""
        self.store.close()


class AsyncCaller(Caller):
    """Calls a store's async methods, all on one loop."""

    def __init__(self, store: ApprovalStore) -> None:
        super().__init__(store)
        self.runner = asyncio.Runner()

    def open(
        self,
        request: ApprovalRequest | None = None,
        *,
        seconds: float = 60,
        limits: FloodLimits = MANY,
        now: float = NOON,
    ) -> Found | Flood:
        return self.runner.run(self.store.aopen(request or draft(), seconds, limits, now))

    def move(self, id: str, event: Event, *, now: float = NOON, by: str = "", why: str = "") -> Found:
        return self.runner.run(self.store.amove(id, event, now, by, why))

    def find(self, binding: str = "b", *, now: float = NOON) -> ApprovalRequest | None:
        return self.runner.run(self.store.afind(binding, now))

    def ended(self) -> None:
        self.runner.run(self.store.aclose())
        self.runner.close()
        super().ended()


def standing(found: Found | Flood) -> ApprovalRequest:
    """A request that was there already."""
    assert isinstance(found, Found)
    assert not found.changed
    assert found.request is not None
    return found.request


PATHS: dict[State, tuple[Event, ...]] = {
    State.PENDING: (),
    State.APPROVED: (Event.APPROVE,),
    State.DENIED: (Event.DENY,),
    State.EXPIRED: (Event.EXPIRE,),
    State.CANCELLED: (Event.CANCEL,),
    State.CONSUMED: (Event.APPROVE, Event.CONSUME),
}
"""How a request comes into each state."""


class Later(Approver):
    """Leaves the answer to whoever answers in the store."""

    def ask(self, request: ApprovalRequest, seconds: float) -> Answer | NoAnswer:
        return NoAnswer.LATER

    async def aask(self, request: ApprovalRequest, seconds: float) -> Answer | NoAnswer:
        return NoAnswer.LATER
