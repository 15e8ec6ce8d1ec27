"""Counters in a SQLite file, shared by the processes of one machine; what was acknowledged survives them.

Each operation is one `BEGIN IMMEDIATE` transaction: it loads the cells it needs, lets the ledger charge them, and
writes them back.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from functools import partial
from typing import Final

from ..backends.sqlite_contents import Contents
from ..backends.sqlite_file import SQLiteFile
from ..charges import Charge, CounterTotal, Refusal, Reservation
from .base import Store
from .ledger import Cell, Ledger, totals

__all__ = ["SQLiteStore"]

_CONTENTS: Final = Contents(
    noun="counters",
    in_memory="MemoryStore",
    application=0x6D63_7070,  # `mcpp`
    version=1,
    schema=(
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
    ),
)
"""Times in seconds since the Unix epoch, amounts in millionths; `swept` has one row, when closed windows were last
forgotten."""

_SWEEP_EVERY: Final = 256  # windows begun
_SWEEP_AT_MOST: Final = 1_024  # rows

_COLUMNS: Final = "starts, ends, counts_until, used, before, ceiling"
_SELECT: Final = f"SELECT key, {_COLUMNS} FROM counters"  # noqa: S608  of the names above
_INSERT: Final = f"INSERT OR REPLACE INTO counters ({_COLUMNS}, key) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_UPDATE: Final = "UPDATE counters SET used = ?, before = ?, ceiling = ? WHERE key = ?"
_SWEEP: Final = "DELETE FROM counters WHERE key IN (SELECT key FROM counters WHERE counts_until <= ? LIMIT ?)"


class SQLiteStore(Store):
    """Counts exactly among the processes of one machine, and survives a restart.

    Args:
        path: The file, on a local disk; made where there is none. One that vanishes later is not made again.
        timeout: Seconds after which an operation on a locked file gives up.
        fsync: Write each charge through to the disk, so that it outlives a power failure and not only the
            process; costs what the disk takes.

    Raises:
        StoreError: The file cannot be opened, or is another program's.
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = 0.25, fsync: bool = False) -> None:
        self._file = SQLiteFile(path, _CONTENTS, timeout=timeout, fsync=fsync)
        self.path = self._file.path
        self._begun = _SWEEP_EVERY  # windows since the last sweep; the first one sweeps what others left
        self._selects = {1: f"{_SELECT} WHERE key = ?"}

    def peek(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """What `reserve` would answer now; takes nothing."""
        return self._file.run(partial(self._peek, charges, now))

    def reserve(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """Take all the charges, or none and name the first that did not fit."""
        return self._file.run(partial(self._replace, None, charges, now))

    def adjust(self, reservation: Reservation, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """Replace a reservation by other charges, in one step; a refusal leaves it as it was."""
        return self._file.run(partial(self._replace, reservation, charges, now))

    def release(self, reservation: Reservation) -> None:
        """Give a reservation back."""
        self._file.run(partial(self._replace, reservation, (), 0.0))

    def counters(self, now: float) -> list[CounterTotal]:
        """The counters whose window is open, in the order of their keys."""
        rows = self._file.run(lambda file: file.opened().execute(_SELECT).fetchall())
        return totals(((key, Cell(*columns)) for key, *columns in rows), now)

    def reset(self, keys: Iterable[str]) -> None:
        """Forget counters, all of them or none."""
        rows = [(key,) for key in keys]

        def forget(file: SQLiteFile) -> None:
            database = file.opened()
            database.execute("BEGIN IMMEDIATE")
            database.executemany("DELETE FROM counters WHERE key = ?", rows)
            database.execute("COMMIT")

        self._file.run(forget)

    def close(self) -> None:
        """Let go of the file; the next operation would open it again."""
        self._file.close()

    async def apeek(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """`peek` for async callers."""
        return await self._file.arun(partial(self._peek, charges, now))

    async def areserve(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """`reserve` for async callers."""
        return await self._file.arun(partial(self._replace, None, charges, now))

    async def aadjust(self, reservation: Reservation, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """`adjust` for async callers."""
        return await self._file.arun(partial(self._replace, reservation, charges, now))

    async def arelease(self, reservation: Reservation) -> None:
        """`release` for async callers."""
        await self._file.arun(partial(self._replace, reservation, (), 0.0))

    def _peek(self, charges: tuple[Charge, ...], now: float, file: SQLiteFile) -> Reservation | Refusal:
        ledger = self._load(file.opened(), {charge.key for charge in charges})
        return ledger.reserve(charges, now, look=True)

    def _replace(
        self, held: Reservation | None, charges: tuple[Charge, ...], now: float, file: SQLiteFile
    ) -> Reservation | Refusal:
        """Reserve, adjust or release: other charges instead of those that are held, where any are."""
        keys = {charge.key for charge in charges}
        if held is not None:
            keys.update([charge.key for charge in held.charges])
        database = file.opened()
        database.execute("BEGIN IMMEDIATE")
        ledger = self._load(database, keys)
        known = {key: cell.ends for key, cell in ledger.cells.items()}
        answer = ledger.reserve(charges, now) if held is None else ledger.adjust(held, charges, now)
        if isinstance(answer, Refusal):
            return answer  # and nothing is written
        self._write(database, ledger.cells, known, now)
        database.execute("COMMIT")
        if held is not None:
            held.released = True
        return answer

    def _load(self, database: sqlite3.Connection, keys: set[str]) -> Ledger:
        """The cells of the keys that there are."""
        count = len(keys)
        select = self._selects.get(count)
        if select is None:
            select = self._selects[count] = f"{_SELECT} WHERE key IN ({', '.join('?' * count)})"
        cells = {row[0]: Cell(*row[1:]) for row in database.execute(select, tuple(keys)).fetchall()}
        if len(cells) == count:
            return Ledger(cells)
        (swept,) = database.execute("SELECT until FROM swept").fetchone()
        return Ledger(cells, swept)

    def _write(self, database: sqlite3.Connection, cells: dict[str, Cell], known: dict[str, int], now: float) -> None:
        """Write cells back; those in the window in which they were found keep their place in the index."""
        for key, cell in cells.items():
            if known.get(key) == cell.ends:
                database.execute(_UPDATE, (cell.used, cell.before, cell.limit, key))
                continue
            row = (cell.starts, cell.ends, cell.counts_until, cell.used, cell.before, cell.limit, key)
            database.execute(_INSERT, row)
            self._begun += 1
        if self._begun >= _SWEEP_EVERY:  # so that the file does not grow with time
            self._begun = 0
            database.execute(_SWEEP, (now, _SWEEP_AT_MOST))
            database.execute("UPDATE swept SET until = max(until, ?)", (now,))
