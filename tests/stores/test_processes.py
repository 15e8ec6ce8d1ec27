"""Exactness over processes: those that share a store admit exactly what fits, altogether."""

from __future__ import annotations

import multiprocessing
import secrets
from pathlib import Path

import pytest
from racing import Place, charge, race, used

from mcp_policy_middleware.stores import RedisStore, Store

PROCESSES, THREADS = 4, 4


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where the processes meet."""
    if request.param == "sqlite":
        return Place(str(tmp_path / "counters.db"))
    made = Place(request.getfixturevalue("redis_server").url, tenant=secrets.token_hex(4), timeout=5)
    store = made.opened()
    assert isinstance(store, RedisStore)
    store.init()
    store.close()
    return made


def totals(place: Place, *keys: str) -> list[float]:
    """What is stored in the end."""
    store = place.opened()
    found = used(store, *keys)
    store.close()
    return found


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("limits", [(400,), (500, 400, 600)], ids=["one", "three"])
def test_processes_admit_exactly_what_fits(place: Place, start: str, limits: tuple[int, ...]) -> None:
    """16 threads of four processes, each with a store of its own: 400 calls, and all of a call's counters or none."""
    keys = [f"k{number}" for number in range(len(limits))]
    charges = tuple(charge(key, limit) for key, limit in zip(keys, limits, strict=True))
    assert race(multiprocessing.get_context(start), place, charges, PROCESSES, THREADS).admitted == 400
    assert totals(place, *keys) == [400] * len(limits)


def test_forked_processes_go_on_with_a_store_that_was_open(place: Place) -> None:
    """Children of a process that has used its store count on it as exactly as with one of their own."""
    store: Store = place.opened()
    store.reserve((charge("k", 401),), 1_772_625_600.0)
    assert race(multiprocessing.get_context("fork"), store, (charge("k", 401),), PROCESSES, THREADS).admitted == 400
    assert used(store, "k") == [401]
    store.close()
