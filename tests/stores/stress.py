"""Eight processes of fifty threads on one counter of 10,000, in SQLite and in Redis; then 200 writers killed.

Run it with `make stress`; it ends with status 1 where a single call too many or too few was admitted.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from kill_rounds import kill_rounds
from racing import Place, charge, race, used
from redis_server import server

from mcp_policy_middleware.stores import RedisStore

PROCESSES, THREADS, LIMIT, KILLS = 8, 50, 10_000, 200


def places(folder: Path, rounds: int, stack: ExitStack) -> Iterator[tuple[str, Place]]:
    """A fresh counter for each round, first in SQLite, then in Redis."""
    for number in range(rounds):
        yield "sqlite", Place(str(folder / f"{number}.db"))
    running = stack.enter_context(server(folder / "redis"))
    for number in range(rounds):
        place = Place(running.url, tenant=f"round-{number}", timeout=5)
        store = place.opened()
        if isinstance(store, RedisStore):
            store.init()
        store.close()
        yield "redis", place


def main() -> int:
    """Run everything; 0 where every number is exact."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds on each store")
    rounds = parser.parse_args().rounds
    context = multiprocessing.get_context("spawn")
    exact = True
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        for kind, place in places(folder, rounds, stack):
            started = time.monotonic()
            raced = race(context, place, (charge("k", LIMIT),), PROCESSES, THREADS)
            seconds = time.monotonic() - started
            store = place.opened()
            (stored,) = used(store, "k")
            store.close()
            good = raced.admitted == stored == LIMIT
            exact = exact and good
            print(
                f"{kind}: {PROCESSES} processes x {THREADS} threads: {raced.admitted:,} admitted, "
                f"{stored:,.0f} stored, {raced.retries:,} retries, {seconds:.1f} s{'' if good else ': NOT EXACT'}",
                flush=True,
            )
        started = time.monotonic()
        killed = kill_rounds(folder / "killed.db", KILLS)
        print(
            f"kill -9: {killed.rounds} writers, {killed.acknowledged:,} charges acknowledged, "
            f"{len(killed.deviations)} deviations, {time.monotonic() - started:.1f} s"
        )
        for deviation in killed.deviations:
            print(deviation)
    return 0 if exact and not killed.deviations else 1


if __name__ == "__main__":
    sys.exit(main())
