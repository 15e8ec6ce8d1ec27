"""Approval requests in a SQLite file, shared by the processes of one machine; they survive a restart.

Each operation is one transaction, and `requests.py` and `floods.py` tell what it does. Arguments are erased, not just
let go of: what SQLite deletes it overwrites, and its log is emptied as soon as no other process reads it.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

from ..backends.sqlite_contents import Contents
from ..backends.sqlite_file import SQLiteFile
from ..errors import StoreError
from .base import KEPT, ApprovalStore
from .floods import HOUR, Flood, FloodLimits, flood
from .requests import ApprovalRequest, Found, lapsed, moved, stands
from .states import Event, State

__all__ = ["SQLiteApprovals"]

_CONTENTS: Final = Contents(
    noun="approvals",
    in_memory="MemoryApprovals",
    application=0x6D63_7061,  # `mcpa`
    version=1,
    schema=(
        """CREATE TABLE requests (
            id TEXT NOT NULL PRIMARY KEY,
            binding TEXT NOT NULL,
            "grant" TEXT NOT NULL,
            state TEXT NOT NULL,
            asked_at REAL NOT NULL,
            expires_at REAL NOT NULL,
            rest TEXT NOT NULL,
            arguments TEXT
        )""",
        "CREATE INDEX requests_by_binding ON requests (binding, expires_at)",
        'CREATE INDEX requests_by_grant ON requests ("grant", asked_at)',
        """CREATE INDEX requests_pending ON requests ("grant", expires_at) WHERE state = 'pending'""",
        "CREATE INDEX requests_by_end ON requests (expires_at)",
        "CREATE INDEX requests_open ON requests (expires_at) WHERE arguments IS NOT NULL",
    ),
    private=True,
)
"""Times in seconds since the Unix epoch; `rest` and `arguments` are JSON, and closed requests have no arguments."""

_COLUMNS: Final = ("id", "binding", "grant", "state", "asked_at", "expires_at")
_NAMED: Final = ", ".join(f'"{name}"' for name in _COLUMNS)
_SELECT: Final = f"SELECT rest, arguments, {_NAMED} FROM requests"  # noqa: S608  of the names above
_INSERT: Final = f"INSERT INTO requests (rest, arguments, {_NAMED}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_UPDATE: Final = "UPDATE requests SET rest = ?, arguments = ?, state = ? WHERE id = ?"
_STANDING: Final = f"{_SELECT} WHERE binding = ? AND expires_at > ? ORDER BY asked_at, rowid"
_ASKED: Final = f"""
    SELECT rest, NULL, {_NAMED} FROM requests WHERE "grant" = ? AND asked_at > ?
    UNION SELECT rest, NULL, {_NAMED} FROM requests WHERE "grant" = ? AND state = 'pending' AND expires_at > ?
"""  # noqa: S608  likewise
_AT_ONCE: Final = 256  # rows that one operation sweeps at most
_FORGET: Final = "DELETE FROM requests WHERE id IN (SELECT id FROM requests WHERE expires_at <= ? LIMIT ?)"
_LAPSE: Final = """
    UPDATE requests SET state = ?, arguments = NULL
    WHERE id IN (SELECT id FROM requests WHERE arguments IS NOT NULL AND expires_at <= ? LIMIT ?)
"""


class SQLiteApprovals(ApprovalStore):
    """Keeps approval requests among the processes of one machine, and over restarts.

    Args:
        path: The file, on a local disk; made where there is none, for its owner alone, since it holds the arguments
            of open requests. One that vanishes later is not made again.
        timeout: Seconds after which an operation on a locked file gives up.
        fsync: Write each step through to the disk, so that it outlives a power failure and not only the process.

    Raises:
        StoreError: The file cannot be opened, or is another program's.
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = 0.25, fsync: bool = False) -> None:
        self._file = SQLiteFile(path, _CONTENTS, timeout=timeout, fsync=fsync)
        self.path = self._file.path

    def open(self, request: ApprovalRequest, seconds: float, limits: FloodLimits, now: float) -> Found | Flood:
        """The request that stands for the binding of this one, or else this one."""
        return self._file.run(partial(self._open, request, seconds, limits, now))

    def move(self, id: str, event: Event, now: float, by: str = "", why: str = "") -> Found:
        """What an event makes of a request."""
        return self._file.run(partial(self._move, id, event, now, by, why))

    def find(self, binding: str, now: float) -> ApprovalRequest | None:
        """The request that stands for a binding."""
        return self._file.run(partial(self._find, binding, now))

    def get(self, id: str, now: float) -> ApprovalRequest | None:
        """A request by its id."""
        request = self._file.run(partial(self._get, id))
        return request and lapsed(request, now)

    def requests(self, now: float) -> list[ApprovalRequest]:
        """Every request that is kept, the oldest first."""
        found = self._file.run(lambda file: self._read(file.opened(), f"{_SELECT} ORDER BY asked_at, rowid"))
        return [lapsed(one, now) for one in found]

    def close(self) -> None:
        """Let go of the file; the next operation would open it again."""
        self._file.close()

    async def aopen(self, request: ApprovalRequest, seconds: float, limits: FloodLimits, now: float) -> Found | Flood:
        """`open` for async callers."""
        return await self._file.arun(partial(self._open, request, seconds, limits, now))

    async def amove(self, id: str, event: Event, now: float, by: str = "", why: str = "") -> Found:
        """`move` for async callers."""
        return await self._file.arun(partial(self._move, id, event, now, by, why))

    async def afind(self, binding: str, now: float) -> ApprovalRequest | None:
        """`find` for async callers."""
        return await self._file.arun(partial(self._find, binding, now))

    def _open(
        self, request: ApprovalRequest, seconds: float, limits: FloodLimits, now: float, file: SQLiteFile
    ) -> Found | Flood:
        database = file.opened()
        database.execute("BEGIN IMMEDIATE")
        erased = _sweep(database, now)
        answer = self._opened(database, request, seconds, limits, now)
        database.execute("COMMIT")
        if erased:
            _empty_log(database)
        return answer

    def _opened(
        self, database: sqlite3.Connection, request: ApprovalRequest, seconds: float, limits: FloodLimits, now: float
    ) -> Found | Flood:
        standing = self._standing(database, request.binding, now)
        if standing is not None:
            return Found(standing)
        asked = self._read(database, _ASKED, (request.grant, now - HOUR, request.grant, now))
        refusal = flood((lapsed(one, now) for one in asked), limits, now)
        if refusal is not None:
            return refusal
        taken = database.execute("SELECT 1 FROM requests WHERE id = ?", (request.id,)).fetchone()
        id = secrets.token_hex(8) if taken else request.id
        made = replace(request, id=id, asked_at=now, expires_at=now + seconds)
        database.execute(_INSERT, (*_told(made), *(getattr(made, name) for name in _COLUMNS)))
        return Found(made, changed=True)

    def _move(self, id: str, event: Event, now: float, by: str, why: str, file: SQLiteFile) -> Found:
        database = file.opened()
        database.execute("BEGIN IMMEDIATE")
        erased = _sweep(database, now)
        request = self._get(id, file)
        found = Found(None) if request is None else moved(request, event, now, by, why)
        if found.changed and found.request is not None:
            rest, arguments = _told(found.request)
            database.execute(_UPDATE, (rest, arguments, found.request.state, found.request.id))
            erased = erased or arguments is None
        database.execute("COMMIT")
        if erased:
            _empty_log(database)
        return found

    def _find(self, binding: str, now: float, file: SQLiteFile) -> ApprovalRequest | None:
        return self._standing(file.opened(), binding, now)

    def _standing(self, database: sqlite3.Connection, binding: str, now: float) -> ApprovalRequest | None:
        found = self._read(database, _STANDING, (binding, now))
        return next((one for one in found if stands(one, now)), None)

    def _get(self, id: str, file: SQLiteFile) -> ApprovalRequest | None:
        utf8 = id.encode("utf-8", "replace").decode()  # whatever a person types
        return next(iter(self._read(file.opened(), f"{_SELECT} WHERE id = ?", (utf8,))), None)

    def _read(self, database: sqlite3.Connection, query: str, values: Iterable[Any] = ()) -> list[ApprovalRequest]:
        """The requests that a query finds, as they were written.

        Raises:
            StoreError: One does not read, or is in a state that there is not.
        """
        rows = database.execute(query, tuple(values)).fetchall()
        try:
            return [_request(*row) for row in rows]
        except (AttributeError, TypeError, ValueError) as error:
            raise StoreError(
                f"`{self.path}` holds an approval request that does not read ({type(error).__name__}): "
                "it is of another release, or was written by another program"
            ) from None  # its text may quote what is stored


def _request(rest: str, arguments: str | None, *columns: Any) -> ApprovalRequest:
    shown = None if arguments is None else json.loads(arguments)
    told = {**json.loads(rest), "arguments": shown, **dict(zip(_COLUMNS, columns, strict=True))}
    return ApprovalRequest.from_dict(told)


def _told(request: ApprovalRequest) -> tuple[str, str | None]:
    """What is kept beside the columns by which requests are found: the rest, and the arguments."""
    rest = {name: value for name, value in request.as_dict(arguments=False).items() if name not in _COLUMNS}
    return json.dumps(rest), None if request.arguments is None else json.dumps(request.arguments)


def _sweep(database: sqlite3.Connection, now: float) -> bool:
    """Forget what was kept long enough, and erase the arguments of what has lapsed; whether any were erased."""
    database.execute(_FORGET, (now - KEPT, _AT_ONCE))
    return database.execute(_LAPSE, (State.EXPIRED, now, _AT_ONCE)).rowcount > 0


def _empty_log(database: sqlite3.Connection) -> None:
    """Let the log forget too what was erased; where another process reads it now, whoever erases next does."""
    with suppress(sqlite3.Error):  # the transaction stands, and must not be tried again
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
