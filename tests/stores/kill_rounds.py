"""A writer that is killed at a random moment, again and again, and what a SQLite file still holds of its charges."""

from __future__ import annotations

import os
import random
import select
import signal
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from racing import NOON, charge, used

from mcp_policy_middleware import StoreError
from mcp_policy_middleware.charges import Reservation
from mcp_policy_middleware.stores import SQLiteStore

__all__ = ["Killed", "kill_rounds"]

LIMIT = 9_000_000


@dataclass
class Killed:
    """What the rounds came to.

    Args:
        rounds: How many writers were killed.
        acknowledged: How many charges they were acknowledged altogether.
        deviations: What was not as it must be.
    """

    rounds: int
    acknowledged: int
    deviations: list[str]


def write_until_killed(path: Path, acknowledgements: int) -> None:
    """Take charges on two counters, and tell each one that was taken."""
    store = SQLiteStore(path, timeout=5)
    while isinstance(store.reserve((charge("a", LIMIT), charge("b", LIMIT)), NOON), Reservation):
        os.write(acknowledgements, b".")


def kill_rounds(path: Path, rounds: int, seed: int = 0) -> Killed:
    """Fork a writer, kill it with SIGKILL within some milliseconds, and look; `rounds` times on one file."""
    chance = random.Random(seed)
    acknowledged = 0
    deviations: list[str] = []
    stored = 0.0
    for number in range(rounds):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            try:
                write_until_killed(path, writing)
            finally:
                os._exit(1)
        os.close(writing)
        first = os.read(reading, 1)  # so that it is writing when it is killed
        told = len(first)
        until = time.monotonic() + chance.uniform(0, 0.02)
        while (left := until - time.monotonic()) > 0:
            if select.select([reading], [], [], left)[0]:
                told += len(os.read(reading, 65_536))
        os.kill(child, signal.SIGKILL)
        while more := os.read(reading, 65_536):
            told += len(more)
        os.close(reading)
        _, status = os.waitpid(child, 0)
        acknowledged += told
        before = stored
        try:
            store = SQLiteStore(path, timeout=5)
            a, b = used(store, "a", "b")
            stored = a
            store.close()
        except StoreError as error:
            deviations.append(f"round {number}: {error}")
            continue
        if not first or not os.WIFSIGNALED(status):
            deviations.append(f"round {number}: the writer ended by itself")
        if a != b:
            deviations.append(f"round {number}: {a} of one counter and {b} of the other")
        if not told <= stored - before <= told + 1:  # one charge may have been in flight
            deviations.append(f"round {number}: {told} acknowledged, {stored - before} stored")
        database = sqlite3.connect(path)
        if database.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            deviations.append(f"round {number}: the file is damaged")
        database.close()
    return Killed(rounds, acknowledged, deviations)
