"""One SQLite file, shared by the processes of one machine: making it, opening it, taking turns with it, and noticing
when it is not the same file any more.

Nobody waits inside SQLite: a locked file is tried again until the time is up, and async callers leave their event
loop free in between.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final, TypeVar
from weakref import WeakSet

from ..errors import PolicyError, StoreError
from ..steps import adrive, drive
from .private_file import make_private
from .sqlite_contents import Contents
from .waiting import sleep

__all__ = ["SQLiteFile"]

T = TypeVar("T")

_FIRST_WAIT: Final = 0.000_2
_LONGEST_WAIT: Final = 0.005
_OPENING: Final = 5.0

_LOCKED: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})

_FORKING: Final = threading.Lock()
"""Held while this process forks, and while a file is added to those that a fork lets go of."""


class SQLiteFile:
    """This process's connection to the file; let go of while the process forks, and opened again in both.

    Args:
        path: The file, on a local disk; made where there is none. One that vanishes later is not made again.
        contents: What it holds.
        timeout: Seconds after which a transaction on a locked file gives up.
        fsync: Write each transaction through to the disk.

    Attributes:
        turn: Held by whoever is served, also while it waits for other processes.
        lock: Held while the connection is used, which never waits.

    Raises:
        StoreError: The file cannot be opened, or is another program's.
    """

    def __init__(self, path: str | os.PathLike[str], contents: Contents, *, timeout: float, fsync: bool) -> None:
        name = os.fsdecode(path)
        if not name or name == ":memory:":
            raise PolicyError(f"a SQLite store needs a file: name one, or use `{contents.in_memory}`")
        self.path = os.path.abspath(name)  # noqa: PTH100  as it is now, wherever the process goes later
        self.turn = threading.Lock()
        self.lock = threading.Lock()
        self._contents = contents
        self._timeout = timeout
        self._fsync = fsync
        self._database: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        with _FORKING:
            _FILES.add(self)
        drive(self._steps(SQLiteFile._create, max(_OPENING, timeout), patient=True), time.sleep)

    def run(self, work: Callable[[SQLiteFile], T]) -> T:
        """Do the work, which is one transaction; what it began and did not finish is rolled back.

        Raises:
            StoreError: The file was locked all the time, or cannot be used.
        """
        return drive(self._steps(work, self._timeout, patient=True), time.sleep)

    async def arun(self, work: Callable[[SQLiteFile], T]) -> T:
        """`run` for async callers."""
        return await adrive(self._steps(work, self._timeout, patient=False), sleep)

    def opened(self) -> sqlite3.Connection:
        """The connection to the file that is at the path now.

        Raises:
            StoreError: The file is not what it was made as.
            OSError: There is none: it is not made again, for an empty one would forget what was kept.
        """
        found = os.stat(self.path)  # noqa: PTH116  for each decision
        if self._database is not None and (found.st_dev, found.st_ino) == self._identity:
            return self._database
        try:
            database, there = self._connected()
            if not there:
                raise StoreError(
                    f"`{self.path}` holds no {self._contents.noun} any more: restore it, or start again to make it anew"
                )
        except BaseException:
            self.let_go()  # what was not looked at to the end is looked at again
            raise
        return database

    def close(self) -> None:
        """Let go of the file; the next transaction opens it again."""
        with self.lock:
            self.let_go()

    def let_go(self) -> None:
        """`close` for whoever holds the lock."""
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _steps(self, work: Callable[[SQLiteFile], T], timeout: float, patient: bool) -> Generator[float, None, T]:
        """Try until it is done or the time is up; yields how long to wait in between.

        Args:
            work: One transaction.
            timeout: Seconds for all of it.
            patient: Whether the thread may wait for the others of its process.
        """
        until = time.monotonic() + timeout
        wait = _FIRST_WAIT
        turn = self.turn
        while not turn.acquire(timeout=timeout if patient else 0):
            if time.monotonic() >= until:
                raise StoreError(f"`{self.path}` was in use by other threads for {timeout:g} s")
            yield wait
            wait = min(2 * wait, _LONGEST_WAIT)
        try:
            wait = _FIRST_WAIT
            while True:
                done, answer = self._attempt(work)
                if done:
                    return answer  # type: ignore[return-value]  # there is one where it is done
                if time.monotonic() >= until:
                    raise StoreError(f"`{self.path}` was locked by another process for {timeout:g} s")
                yield wait * (0.5 + random.random())  # noqa: S311  so that two processes do not keep in step
                wait = min(2 * wait, _LONGEST_WAIT)
        finally:
            turn.release()

    def _attempt(self, work: Callable[[SQLiteFile], T]) -> tuple[bool, T | None]:
        """Do the work, or tell that the file is locked; what was begun and not finished is rolled back."""
        with self.lock:
            try:
                try:
                    return True, work(self)
                finally:
                    self._roll_back()
            except sqlite3.Error as error:
                if _is_locked(error):
                    return False, None
                self.let_go()
                raise StoreError(f"`{self.path}` cannot be used: {error}") from error
            except OSError as error:
                self.let_go()
                raise StoreError(f"`{self.path}` cannot be used: {error.strerror}") from error
            except BaseException:  # what was begun ends with the connection, though rolling back be interrupted
                self.let_go()
                raise

    def _roll_back(self) -> None:
        if self._database is not None and self._database.in_transaction:
            self._database.execute("ROLLBACK")

    def _create(self) -> None:
        """Make the file and its tables where there are none."""
        # if this closed a descriptor of its own, that would drop the locks of other stores on the file
        if self._contents.private:
            make_private(self.path)
        else:
            sqlite3.connect(self._uri("rwc"), uri=True).close()
        database, there = self._connected()
        database.execute("BEGIN IMMEDIATE")
        if not there and not self._contents.are_in(database, self.path):  # nor did another process make them meanwhile
            self._contents.put(database)
        database.execute("COMMIT")

    def _connected(self) -> tuple[sqlite3.Connection, bool]:
        """A new connection, and whether the tables are there."""
        self.let_go()
        found = os.stat(self.path)  # noqa: PTH116  before connecting: a file that is swapped meanwhile is noticed
        self._identity = (found.st_dev, found.st_ino)
        uri = self._uri("rw")
        database = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
        self._database = database
        there = self._contents.are_in(database, self.path)  # first, so that another program's file stays as it is
        (mode,) = database.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError(f"`{self.path}` is on a file system without shared memory: use a local disk")
        database.execute(f"PRAGMA synchronous = {'FULL' if self._fsync else 'NORMAL'}")
        if self._contents.private:
            database.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
        return database, there

    def _uri(self, mode: str) -> str:
        return f"{Path(self.path).as_uri()}?mode={mode}"


def _is_locked(error: sqlite3.Error) -> bool:
    """Whether somebody else holds the file, and it is worth trying again."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _LOCKED


_FILES: Final[WeakSet[SQLiteFile]] = WeakSet()


def _before_fork() -> None:
    """Close every connection: what SQLite notes of a process's locks goes over to the child, and the locks do not."""
    _FORKING.acquire()
    for file in _FILES:
        file.lock.acquire()
        file.let_go()


def _after_fork() -> None:
    for file in _FILES:
        file.turn = threading.Lock()  # whoever holds it may not be in this process
        file.lock.release()
    _FORKING.release()


if hasattr(os, "register_at_fork"):  # pragma: no branch  where processes fork
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
