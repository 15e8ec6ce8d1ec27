"""`AuditLog`: what a guard is handed to keep a record that shows tampering."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Literal, TypeAlias, get_args

from ..backends.waiting import in_asyncio, in_thread
from ..calls import Decision, Outcome
from ..clock import seconds_of
from ..errors import PolicyError, StoreError
from .chain import Head, hashing
from .entries import Entries, Entry
from .file import AuditFile, Rotation
from .syncing import Fsync, Syncing

__all__ = ["AuditLog"]

_LOG: Final = logging.getLogger(__name__)

OnFailure: TypeAlias = Literal["deny", "allow"]


class AuditLog:
    """Appends a line of JSON for each decision and for each call's end, chained so that tampering shows.

    Threads, tasks and processes may share the file, forked ones too. Values of arguments are not written down, but for
    those that are asked for by name.

    Args:
        path: The file, on a local disk; made where there is none, for its owner alone. `{pid}` in it stands for the
            number of the process that makes this object, where each is to have a file of its own.
        key: Chain the lines with HMAC-SHA-256: who does not have these bytes cannot rewrite the log unseen.
        on_failure: `deny` a call that cannot be put on record, or `allow` it, log that, and count it in `errors`.
        fsync: Write through to the disk `always`, before the call goes on; at an `interval`; or `never`, when the
            system likes. It matters in a power failure; a process that is killed loses nothing.
        fsync_seconds: That interval.
        max_bytes: A file of this size makes way for a new one; None for never.
        max_age: Likewise one that was begun so long ago.
        arguments: The arguments, by name, whose values are written down.
        digest_arguments: Write down a digest of all arguments, which joins the line to another record of them. Without
            a key, whoever reads it can find out values that are easy to guess by trying.
        clock: Returns the time as an aware datetime; for tests.

    Attributes:
        errors: How many lines could not be written.

    Raises:
        PolicyError: A setting does not fit; `StoreError` where the file cannot be written, or is no log of this key.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        key: bytes | None = None,
        on_failure: OnFailure = "deny",
        fsync: Fsync = "interval",
        fsync_seconds: float = 1.0,
        max_bytes: int | None = 100_000_000,
        max_age: timedelta | None = None,
        arguments: Iterable[str] = (),
        digest_arguments: bool = False,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        if on_failure not in get_args(OnFailure):
            raise PolicyError(f"on_failure `{on_failure}` is not known: give `deny` or `allow`")
        if isinstance(arguments, str):
            raise PolicyError(f"arguments are names: give `({arguments!r},)`")
        seconds = None if max_age is None else max_age.total_seconds()
        if any(limit is not None and limit <= 0 for limit in (max_bytes, seconds)):
            raise PolicyError("a file is full at a size or an age above 0: give None for never")
        file = os.path.abspath(os.fspath(path).replace("{pid}", str(os.getpid())))  # noqa: PTH100  wherever we go later
        self._denies = on_failure == "deny"
        self._blocks = fsync == "always"
        self._entries = Entries(tuple(arguments), digest_arguments, key)
        self._file = AuditFile(
            file,
            hashing(key),
            "sha256" if key is None else "hmac-sha256",
            Rotation(max_bytes, seconds),
            Syncing(fsync, fsync_seconds, file),
            seconds_of(clock),
        )
        self.errors = 0

    @property
    def path(self) -> str:
        """The file that is written now."""
        return self._file.path

    @property
    def head(self) -> Head:
        """The last line that this process knows of: `str(log.head)`, kept elsewhere, is what `verify` compares."""
        return self._file.head

    def decided(self, decision: Decision) -> None:
        """A call was decided; it has not left.

        Raises:
            StoreError: It is not on record, and such calls are denied.
        """
        self._put(self._entries.decided(decision))

    def ended(self, decision: Decision, outcome: Outcome) -> None:
        """A call that was let go on is over; raises as `decided` does."""
        self._put(self._entries.ended(decision, outcome))

    async def adecided(self, decision: Decision) -> None:
        """`decided` for async callers, whose event loop goes on while the disk is waited for."""
        await self._aput(self._entries.decided(decision))

    async def aended(self, decision: Decision, outcome: Outcome) -> None:
        """`ended` for async callers."""
        await self._aput(self._entries.ended(decision, outcome))

    def close(self) -> None:
        """Write through what was written, and let go of the file; the next decision opens it again.

        Raises:
            StoreError: It cannot be written.
        """
        self._file.close()

    def _put(self, entry: Entry) -> None:
        try:
            self._file.append(entry)
        except StoreError as error:
            self.errors += 1
            if self._denies:
                raise
            _LOG.error("a call goes on that is not on record: %s", error)

    async def _aput(self, entry: Entry) -> None:
        if not self._blocks:
            self._put(entry)  # some microseconds, of which a thread would take more
        elif in_asyncio():
            await asyncio.to_thread(self._put, entry)
        else:
            await in_thread(partial(self._put, entry))
