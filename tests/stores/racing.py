"""Processes and threads that race for the same counters, and what they were admitted altogether."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import Any

from mcp_policy_middleware import StoreError
from mcp_policy_middleware.charges import Charge, Refusal, Reservation, Window
from mcp_policy_middleware.stores import RedisStore, SQLiteStore, Store

__all__ = ["MILLION", "NOON", "Place", "Raced", "charge", "race", "used"]

MILLION = 1_000_000
NOON = 1_772_625_600.0  # 2026-03-04 12:00 UTC
TOP = 9_007_199_254 * MILLION


def charge(key: str, limit: float, amount: float = 1, window: int = 3_600) -> Charge:
    """A charge in whole units."""
    return Charge(key, Window(window), round(amount * MILLION), round(limit * MILLION))


def used(store: Store, *keys: str, now: float = NOON) -> list[float]:
    """The totals of counters, in units."""
    answer = store.peek(tuple(Charge(key, Window(3_600), 0, TOP) for key in keys), now)
    assert isinstance(answer, Reservation)
    return [total / MILLION for total in answer.used]


@dataclass(frozen=True)
class Place:
    """Where counters live, in a form that goes to another process.

    Args:
        where: A path or a URL.
        tenant: Whose counters, in Redis.
        timeout: Of one step.
    """

    where: str
    tenant: str = "racing"
    timeout: float = 0.25

    def opened(self) -> Store:
        """A store of this process's own, by the clock of the test."""
        if "://" in self.where:
            return RedisStore(self.where, tenant=self.tenant, timeout=self.timeout, clock="caller")
        return SQLiteStore(self.where, timeout=self.timeout)


@dataclass(frozen=True)
class Raced:
    """What came out: how many calls were admitted, and how many attempts had to be repeated."""

    admitted: int
    retries: int


def until_refused(store: Store, charges: tuple[Charge, ...]) -> Raced:
    """Take the charges as often as they fit; a store that cannot answer is asked again."""
    admitted = retries = 0
    while True:
        try:
            if isinstance(store.reserve(charges, NOON), Refusal):
                return Raced(admitted, retries)
            admitted += 1
        except StoreError:
            retries += 1


def compete(source: Place | Store, threads: int, charges: tuple[Charge, ...], start: Any, results: Any) -> None:
    """One process: its threads take what they get."""
    store = source.opened() if isinstance(source, Place) else source
    raced: list[Raced] = []
    workers = [threading.Thread(target=lambda: raced.append(until_refused(store, charges))) for _ in range(threads)]
    start.wait(60)
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    left = 250 if any(one.retries for one in raced) else 0
    while left:  # give back what was not answered: four a call
        with suppress(StoreError):
            store.reserve((), NOON)
            left -= 1
    store.close()
    results.put((sum(one.admitted for one in raced), sum(one.retries for one in raced)))


def race(
    context: BaseContext, source: Place | Store, charges: tuple[Charge, ...], processes: int, threads: int
) -> Raced:
    """Let processes race until the charges fit no more.

    Args:
        context: How processes are started.
        source: A place that each process opens, or a store that forked processes inherit.
        charges: What each attempt takes.
        processes: How many.
        threads: How many in each.
    """
    start, results = context.Barrier(processes), context.SimpleQueue()
    workers = [
        context.Process(target=compete, args=(source, threads, charges, start, results), daemon=True)  # type: ignore[attr-defined]
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
        if worker.exitcode != 0:
            raise RuntimeError(f"a racing process ended with {worker.exitcode}")
    answers = [results.get() for _ in workers]
    results.close()
    raced = Raced(sum(admitted for admitted, _ in answers), sum(retries for _, retries in answers))
    if raced.retries:  # what was given back at the end is free again
        store = source.opened() if isinstance(source, Place) else source
        rest = until_refused(store, charges)
        raced = Raced(raced.admitted + rest.admitted, raced.retries + rest.retries)
        store.close()
    return raced
