"""One SQLite file of counters: making it, opening it, and noticing when it is not the same file any more."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path
from typing import Final
from weakref import WeakSet

from ..errors import StoreError

__all__ = ["CounterFile", "is_locked"]

_APPLICATION: Final = 0x6D63_7070
"""Marks the file as ours: `mcpp`."""

_VERSION: Final = 1
_SCHEMA: Final = (
    """CREATE TABLE counters (
        key TEXT NOT NULL PRIMARY KEY,
        starts INTEGER NOT NULL,
        ends INTEGER NOT NULL,
        counts_until INTEGER NOT NULL,
        used INTEGER NOT NULL,
        before INTEGER NOT NULL,
        ceiling INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX counters_by_end ON counters (counts_until)",
    "CREATE TABLE swept (until REAL NOT NULL)",
    "INSERT INTO swept VALUES (0)",
    f"PRAGMA user_version = {_VERSION}",
    f"PRAGMA application_id = {_APPLICATION}",
)
"""Times in seconds since the Unix epoch, amounts in millionths; `swept` has one row, when closed windows were last
forgotten."""

_LOCKED: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})

_FORKING: Final = threading.Lock()
"""Held while this process forks, and while a file is added to those that a fork lets go of."""


class CounterFile:
    """This process's connection to the file; let go of while the process forks, and opened again in both.

    Attributes:
        turn: Held by whoever is served, also while it waits for other processes.
        lock: Held while the connection is used, which never waits.
    """

    def __init__(self, path: str, fsync: bool) -> None:
        self.path = path
        self.turn = threading.Lock()
        self.lock = threading.Lock()
        self._fsync = fsync
        self._database: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        with _FORKING:
            _FILES.add(self)

    def create(self) -> None:
        """Make the file and its tables where there are none.

        Raises:
            StoreError: The file holds something else.
        """
        # by SQLite: if this closed a descriptor of its own, that would drop the locks of other stores on the file
        sqlite3.connect(self._uri("rwc"), uri=True).close()
        database, holds_counters = self._connected()
        database.execute("BEGIN IMMEDIATE")
        if not holds_counters and not self._holds_counters(database):  # nor did another process make them meanwhile
            for statement in _SCHEMA:
                database.execute(statement)
        database.execute("COMMIT")

    def opened(self) -> sqlite3.Connection:
        """The connection to the file that is at the path now.

        Raises:
            StoreError: The file is not what it was made as.
            OSError: There is none: it is not made again, for an empty one would forget what was charged.
        """
        found = os.stat(self.path)  # noqa: PTH116  for each decision
        if self._database is not None and (found.st_dev, found.st_ino) == self._identity:
            return self._database
        try:
            database, holds_counters = self._connected()
            if not holds_counters:
                raise StoreError(
                    f"`{self.path}` holds no counters any more: restore it, or start again to make it anew"
                )
        except BaseException:
            self.close()  # what was not looked at to the end is looked at again
            raise
        return database

    def roll_back(self) -> None:
        """Undo what was begun and not finished."""
        if self._database is not None and self._database.in_transaction:
            self._database.execute("ROLLBACK")

    def close(self) -> None:
        """Let go of the file."""
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _uri(self, mode: str) -> str:
        return f"{Path(self.path).as_uri()}?mode={mode}"

    def _connected(self) -> tuple[sqlite3.Connection, bool]:
        """A new connection, and whether the tables are there."""
        self.close()
        found = os.stat(self.path)  # noqa: PTH116  before connecting: a file that is swapped meanwhile is noticed
        self._identity = (found.st_dev, found.st_ino)
        uri = self._uri("rw")
        database = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
        self._database = database
        holds_counters = self._holds_counters(database)  # first, so that another program's file stays as it is
        (mode,) = database.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError(f"`{self.path}` is on a file system without shared memory: use a local disk")
        database.execute(f"PRAGMA synchronous = {'FULL' if self._fsync else 'NORMAL'}")
        return database, holds_counters

    def _holds_counters(self, database: sqlite3.Connection) -> bool:
        """Whether the tables are there; False for an empty file."""
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if application == _APPLICATION and version == _VERSION:
            return True
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application == _APPLICATION:
            raise StoreError(f"`{self.path}` holds counters of another release, version {version}: use a new file")
        if application or version or tables:
            raise StoreError(f"`{self.path}` is another program's database: name a file of its own for counters")
        return False


def is_locked(error: sqlite3.Error) -> bool:
    """Whether somebody else holds the file, and it is worth trying again."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _LOCKED


_FILES: Final[WeakSet[CounterFile]] = WeakSet()


def _before_fork() -> None:
    """Close every connection: what SQLite notes of a process's locks goes over to the child, and the locks do not."""
    _FORKING.acquire()
    for file in _FILES:
        file.lock.acquire()
        file.close()


def _after_fork() -> None:
    for file in _FILES:
        file.turn = threading.Lock()  # whoever holds it may not be in this process
        file.lock.release()
    _FORKING.release()


if hasattr(os, "register_at_fork"):  # pragma: no branch  where processes fork
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
