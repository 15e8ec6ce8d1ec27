"""What taking charges costs in each store, beside the bare backend call that does the same work, and beside the
`limits` and `throttled-py` packages, which know one counter at a time.

    python benchmarks/stores.py

Everything is measured in turn, in one process, in one run. Redis is measured where `redis-server` is installed; it is
started on a free loopback port. Exit status 1: a target was missed.
"""

from __future__ import annotations

import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import limits
import redis
import throttled
from throttled.store import MemoryStore as ThrottledMemory
from throttled.store import RedisStore as ThrottledRedis

from mcp_policy_middleware import Guard, Outcome, ToolCall, parse_policy
from mcp_policy_middleware.charges import Charge, Window
from mcp_policy_middleware.stores import MemoryStore, RedisStore, SQLiteStore, Store

MOST = 9_000_000_000
POLICY = """
version: "1"
default: deny
tools:
  charge:
    limits:
      - {counter: a, window: minute, max: 9000000000}
      - {counter: b, window: hour, max: 9000000000}
      - {counter: c, window: minute, max: 9000000000, scope: session}
"""
Subjects = dict[str, tuple[Callable[[], object], str, int]]
"""By name: what is measured, what it is compared with, and how often a round calls it."""


class Figure(NamedTuple):
    """Median microseconds of a call, and the median ratio to what it is compared with."""

    time: float
    ratio: float


def charges(number: int) -> tuple[Charge, ...]:
    """So many charges that always fit."""
    return tuple(Charge(f"k{one}", Window((60, 3600, 60)[one]), 1_000_000, MOST * 1_000_000) for one in range(number))


def reserve(store: Store, number: int) -> Callable[[], object]:
    """Take so many charges, by the clock."""
    asked = charges(number)
    return lambda: store.reserve(asked, time.time())


def decide(store: Store) -> Callable[[], object]:
    """A whole decision with three counters, and its settlement."""
    guard = Guard(parse_policy(POLICY), store=store, session="s", telemetry=False)
    call = ToolCall("charge", {})
    if not guard.explain(call).allowed:
        raise SystemExit("the benchmark's call is not admitted")
    return lambda: guard.finish(guard.begin(call), Outcome.RETURNED)


def bare_memory(number: int) -> Callable[[], object]:
    """A dict, a lock, and the comparisons."""
    lock = threading.Lock()
    cells = {f"k{one}": [0, 0] for one in range(number)}

    def take() -> bool:
        window = time.time() // 60
        with lock:
            for cell in cells.values():
                if cell[0] != window:
                    cell[:] = [window, 0]
                if cell[1] + 1 > MOST:
                    return False
            for cell in cells.values():
                cell[1] += 1
        return True

    return take


def bare_sqlite(path: Path, number: int) -> Callable[[], object]:
    """The same transaction on the same tables, with nothing around it."""
    database = sqlite3.connect(path, isolation_level=None, timeout=0)
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL"):
        database.execute(f"PRAGMA {pragma}")
    database.execute("CREATE TABLE counters (key TEXT PRIMARY KEY, ends, used, before, ceiling) WITHOUT ROWID")
    keys = tuple(charge.key for charge in charges(number))
    database.executemany("INSERT INTO counters VALUES (?, 0, 0, 0, 0)", [(key,) for key in keys])
    select = f"SELECT * FROM counters WHERE key IN ({', '.join('?' * number)})"  # noqa: S608  question marks
    update = "UPDATE counters SET used = ?, before = ?, ceiling = ? WHERE key = ?"

    def take() -> None:
        database.execute("BEGIN IMMEDIATE")
        for key, _, used, before, ceiling in database.execute(select, keys).fetchall():
            database.execute(update, (used + 1, before, ceiling, key))
        database.execute("COMMIT")

    return take


def bare_redis(store: RedisStore, url: str, number: int) -> Callable[[], object]:
    """The same script, asked for with arguments that are ready but for the reservation's id."""
    client = redis.Redis.from_url(url)
    request = store._request("take", None, "x", charges(number), 0.0)  # noqa: SLF001  just this is measured
    digest = client.script_load(store._script.text)  # noqa: SLF001  likewise
    record, ids = request[2], count()

    def take() -> None:
        request[2] = request[3] = f"{record}{next(ids)}"
        client.evalsha(digest, *request)

    return take


@contextmanager
def redis_server() -> Iterator[str | None]:
    """The URL of a server that runs meanwhile; None where none is installed."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        yield None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen([program, *options, "--dir", folder], stdout=subprocess.DEVNULL)  # noqa: S603  found on PATH
        try:
            client = redis.Redis(port=port)
            while True:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    if server.poll() is not None:
                        raise SystemExit(f"{program} ended with {server.returncode}") from None
                    time.sleep(0.01)  # until it listens: nothing tells
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.kill()
            server.wait()


def others(url: str | None) -> Subjects:
    """One fixed window in two other packages."""
    item = limits.RateLimitItemPerMinute(MOST)
    strategy = limits.strategies.FixedWindowRateLimiter(limits.storage.MemoryStorage())
    options: dict[str, Any] = {"key": "k", "using": "fixed_window", "quota": throttled.rate_limiter.per_min(MOST)}
    limiter = throttled.Throttled(**options, store=ThrottledMemory())
    subjects: Subjects = {
        "limits 1, memory": (lambda: strategy.hit(item, "k"), "memory 1", 3000),
        "throttled-py 1, memory": (lambda: limiter.limit("k"), "memory 1", 3000),
    }
    if url is not None:
        far = limits.strategies.FixedWindowRateLimiter(limits.storage.RedisStorage(url))
        far_limiter = throttled.Throttled(**options, store=ThrottledRedis(url))
        subjects["limits 1, Redis"] = (lambda: far.hit(item, "k"), "Redis 1", 200)
        subjects["throttled-py 1, Redis"] = (lambda: far_limiter.limit("k"), "Redis 1", 200)
    return subjects


def figures(subjects: Subjects, rounds: int = 31) -> dict[str, Figure]:
    """Measure all in turn, round by round."""
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, (function, _base, often) in subjects.items():
            started = time.perf_counter_ns()
            for _ in range(often):
                function()
            times[name].append((time.perf_counter_ns() - started) / often / 1000)
    return {
        name: Figure(
            statistics.median(mine),
            statistics.median(one / other for one, other in zip(mine, times[subjects[name][1]], strict=True)),
        )
        for name, mine in times.items()
    }


def round_trips(store: RedisStore, url: str) -> float:
    """How many requests a decision sends, by the server's own count."""
    client = redis.Redis.from_url(url)
    run = decide(store)
    run()  # looks at the server, once
    client.config_resetstat()
    for _ in range(100):
        run()
    asked = client.info("commandstats")
    inside = {"cmdstat_mget", "cmdstat_set", "cmdstat_time", "cmdstat_config|resetstat"}  # the script's, and our own
    return float(sum(one["calls"] for name, one in asked.items() if name not in inside)) / 100


def main() -> int:
    """Measure, print, and say which targets were missed."""
    with tempfile.TemporaryDirectory() as folder, redis_server() as url:
        stores: dict[str, Store] = {"memory": MemoryStore(), "SQLite": SQLiteStore(Path(folder) / "counters.db")}
        often = {"memory": 3000, "SQLite": 400, "Redis": 200}
        if url is None:
            print("Redis is not measured: redis-server is not installed")
        else:
            stores["Redis"] = RedisStore(url, timeout=5)
            stores["Redis"].init()
        subjects: Subjects = {}
        for name, store in stores.items():
            for number in (1, 3):
                bare = f"{name} {number}, bare"
                if isinstance(store, RedisStore) and url is not None:
                    baseline = bare_redis(store, url, number)
                elif isinstance(store, SQLiteStore):
                    baseline = bare_sqlite(Path(folder) / f"bare{number}.db", number)
                else:
                    baseline = bare_memory(number)
                subjects[bare] = (baseline, bare, often[name])
                subjects[f"{name} {number}"] = (reserve(store, number), bare, often[name])
            subjects[f"{name} 3, decision"] = (decide(store), f"{name} 3, bare", often[name])
        found = figures(subjects | others(url))
        print(f"{'counters in a store':36}{'µs':>8}  {'ratio':>6}")
        for name, figure in found.items():
            print(f"{name:36}{figure.time:8.2f}  {figure.ratio:6.2f}")
        targets = [
            ("three counters in memory, µs", found["memory 3"].time, 2.0),
            ("one counter in SQLite, µs", found["SQLite 1"].time, 40.0),
            ("three counters in SQLite / their own transaction", found["SQLite 3"].ratio, 2.0),
        ]
        if isinstance(stores.get("Redis"), RedisStore) and url is not None:
            targets.append(("requests of a decision to Redis", round_trips(stores["Redis"], url), 1.0))
        print()
        for name, value, most in targets:
            print(f"{'ok    ' if value <= most else 'MISSED'} {name}: {value:.2f} (at most {most})")
        for store in stores.values():
            store.close()
    return 0 if all(value <= most for _, value, most in targets) else 1


if __name__ == "__main__":
    sys.exit(main())
