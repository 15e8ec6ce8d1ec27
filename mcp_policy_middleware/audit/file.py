"""The file of an audit log: lines are appended by any number of processes, and a full file makes way for a new one.

Each append holds the file's POSIX lock and looks first whether another process has written, or begun a new file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple

from ..errors import PolicyError, StoreError
from .chain import NOTHING, Hashing, Head, seal
from .entries import Entry, iso, seconds
from .syncing import Syncing
from .tail import first_line, tail

__all__ = ["AuditFile", "Rotation"]

_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
_NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class Rotation(NamedTuple):
    """When a file is full: at so many bytes, or after so many seconds; None for never."""

    bytes: int | None
    seconds: float | None


class _First(NamedTuple):
    """A file's first line: its number, and when it was written."""

    seq: int
    written: float


class AuditFile:
    """Appends lines to the file of a log; safe for threads, processes and forks.

    Args:
        path: The file; made where there is none, for its owner alone.
        hashed: How lines are hashed.
        chain: What that is called, for whoever verifies.
        rotation: When the file is full.
        syncing: When lines are written through to the disk.
        clock: Tells the time, in seconds since the Unix epoch.
    """

    def __init__(
        self,
        path: str,
        hashed: Hashing,
        chain: str,
        rotation: Rotation,
        syncing: Syncing,
        clock: Callable[[], float],
    ) -> None:
        self.path = path
        self._hashed = hashed
        self._chain = chain
        self._rotation = rotation
        self._syncing = syncing
        self._clock = clock
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._size = -1  # where the file ended when this process last looked; -1 where it has not looked
        self._head = NOTHING
        self._log = secrets.token_hex(8)
        self._first = _First(0, 0.0)
        self._closing = b""
        self._torn: Entry | None = None
        self._missing: Entry | None = None
        self.append(None)
        forking = weakref.WeakMethod(self._at_fork)
        os.register_at_fork(
            before=lambda: (found := forking()) and found("before"),
            after_in_parent=lambda: (found := forking()) and found("parent"),
            after_in_child=lambda: (found := forking()) and found("child"),
        )

    @property
    def head(self) -> Head:
        """The last line that this process knows of."""
        return self._head

    def append(self, entry: Entry | None) -> None:
        """Append a line, and before it what is to be told of lines that are missing.

        Args:
            entry: What the line says; None where nothing is to be added.

        Raises:
            StoreError: It is not there, or may not outlive a power failure.
        """
        with self._lock:
            try:
                self._syncing.raise_fault()
                written = self._append(entry)
            except (OSError, PolicyError) as error:
                if entry is not None:
                    self._count_missing(error)
                self._let_go()  # and look at everything again, next time
                raise self._failure(error) from error
        if written is not None:
            try:
                self._syncing.through(written)
            except OSError as error:
                raise self._failure(error) from error

    def close(self) -> None:
        """Write what is owed, and let go of the file; the next line opens it again.

        Raises:
            StoreError: It cannot be written.
        """
        if self._missing is not None:
            self.append(None)
        with self._lock:
            self._let_go()
        try:
            self._syncing.settle()
        except OSError as error:
            raise self._failure(error) from error

    def _append(self, entry: Entry | None) -> int | None:
        descriptor = self._held()
        if entry is not None and self._is_full():
            descriptor = self._rotated(descriptor)
        told = [one for one in (self._torn, self._missing, entry) if one is not None]
        if self._size == 0:
            told.insert(0, self._beginning())
        if told or self._closing:
            self._write(descriptor, told)
        waiting = self._syncing.written(descriptor) if told else None
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        return waiting

    def _held(self) -> int:
        """The file that is at the path now, locked and looked at."""
        while True:
            if self._descriptor is None:
                self._descriptor, self._size = os.open(self.path, _FLAGS, 0o600), -1
                self._syncing.begun()
            descriptor = self._descriptor
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            here = os.fstat(descriptor)
            if here.st_size != self._size:
                self._look(descriptor, here.st_size)
            with suppress(FileNotFoundError):
                if os.path.samestat(here, os.stat(self.path)):  # noqa: PTH116  for each decision
                    return descriptor
            self._let_go()  # another process has begun a new file, or somebody moved this one

    def _look(self, descriptor: int, size: int) -> None:
        """Take in what others have done to the file."""
        self._closing, self._torn = b"", None
        if 0 < size < self._size:  # it was cut: the chain goes on from what was there, so that it shows
            if os.pread(descriptor, 1, size - 1) != b"\n":
                self._closing = b"\n"
        elif size > 0:
            if self._size < 0:
                self._look_at_first(descriptor)
            found = tail(descriptor, size, max(0, self._size), self._hashed)
            self._head, self._closing, self._torn = found.head, found.closing, found.torn
        self._size = size

    def _look_at_first(self, descriptor: int) -> None:
        line = first_line(descriptor, self._hashed)
        if line is None or not line.whole:
            raise StoreError("its first line is no line of this log, or the key is another: name another file")
        self._log = str(line.entry.get("log", self._log))
        self._first = _First(line.head.seq or 0, seconds(line.entry["time"]))

    def _is_full(self) -> bool:
        most, longest = self._rotation.bytes, self._rotation.seconds
        if self._size <= 0 or self._closing or self._torn is not None or self._head.seq == self._first.seq:
            return False  # what is to be closed is closed here first, and a file has more than its first line
        return (most is not None and self._size >= most) or (
            longest is not None and self._clock() - self._first.written >= longest
        )

    def _rotated(self, full: int) -> int:
        """Put a new file in the place of the full one, whose last line the new one's first comes after.

        At no moment is there no file at the path: whoever opens one finds the full one or the new one.
        """
        path = Path(self.path)
        kept = path.with_name(f"{path.name}.{self._log[:8]}-{self._first.seq:012d}")
        spare = path.with_name(f".{path.name}.{os.getpid()}.new")
        begun = os.open(spare, _FLAGS | os.O_TRUNC, stat.S_IMODE(os.fstat(full).st_mode))
        try:
            fcntl.flock(begun, fcntl.LOCK_EX)
            line, head = seal(self._beginning(kept.name), self._head, iso(now := self._clock()), self._hashed)
            _put(begun, line, 0)
            if self._syncing.when == "always":
                os.fsync(begun)
            self._keep(path, kept)
            spare.replace(path)
        except BaseException:
            _close(begun)
            spare.unlink(missing_ok=True)
            raise
        _close(full)
        self._descriptor, self._size, self._head = begun, len(line), head
        self._first = _First(head.seq or 0, now)
        self._syncing.begun()
        return begun

    def _keep(self, path: Path, kept: Path) -> None:
        """Give the full file its own name as well; where there are no links, instead."""
        try:
            kept.hardlink_to(path)
        except FileExistsError:
            if not kept.samefile(path):  # else somebody was killed just here
                raise
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            path.rename(kept)

    def _write(self, descriptor: int, told: list[Entry]) -> None:
        """Append lines, all of them or none."""
        now = self._clock()
        data, head = self._closing, self._head
        for entry in told:
            line, head = seal(entry, head, iso(now), self._hashed)
            data += line
        if self._size == 0:
            self._first = _First((self._head.seq or 0) + 1, now)
        _put(descriptor, data, self._size)
        self._head = head
        self._size += len(data)
        self._closing, self._torn, self._missing = b"", None, None

    def _beginning(self, continues: str | None = None) -> Entry:
        entry: Entry = {"kind": "file", "chain": self._chain, "log": self._log}
        return entry if continues is None else {**entry, "continues": continues}

    def _count_missing(self, error: Exception) -> None:
        if self._missing is None:
            self._missing = {"kind": "gap", "missing": 0, "since": iso(self._clock()), "error": type(error).__name__}
        self._missing["missing"] += 1

    def _failure(self, error: Exception) -> StoreError:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return StoreError(f"the audit log `{self.path}` cannot be written: {why[:1].lower()}{why[1:]}")

    def _let_go(self) -> None:
        descriptor, self._descriptor, self._size = self._descriptor, None, -1
        if descriptor is not None:
            _close(descriptor)

    def _at_fork(self, where: Literal["before", "parent", "child"]) -> None:
        """No line is under way while this process forks: a forked child would hold the lock of it for ever.

        In the child, what the parent has open is the parent's, and so is what it has to tell.
        """
        if where == "before":
            self._lock.acquire()
        self._syncing.at_fork(where)
        if where == "child":
            self._missing = None
            self._let_go()
        if where != "before":
            self._lock.release()


def _close(descriptor: int) -> None:
    """Let go of a file and of its lock, which would stay while another descriptor is there that shares it."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _put(descriptor: int, data: bytes, size: int) -> None:
    """Append to a file of so many bytes, everything or nothing."""
    try:
        written = os.write(descriptor, data)
        if written != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        with suppress(OSError):  # else the next line tells of a torn one
            os.ftruncate(descriptor, size)
        raise
