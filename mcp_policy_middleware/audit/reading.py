"""Reading the files of audit logs: their lines, and which file comes after which."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from ..errors import StoreError
from .chain import Hashing, Line, read

__all__ = ["Placed", "in_order", "lines"]

_LONGEST: Final = 16 * 1024 * 1024
_FIRST: Final = 100


class Placed(NamedTuple):
    """A line and where it stands.

    Attributes:
        number: Its number in the file, from 1.
        raw: Its bytes, with the line break.
        line: What it says; None where it is no line of a log.
    """

    number: int
    raw: bytes
    line: Line | None


def lines(path: str, hashed: Hashing) -> Iterator[Placed]:
    """The lines that a file has now; one that is being written meanwhile is not among them.

    Raises:
        StoreError: The file cannot be read.
    """
    try:
        with Path(path).open("rb", buffering=1024 * 1024) as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_SH)
            left = os.fstat(file.fileno()).st_size
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)
            number = 0
            while left > 0 and (raw := file.readline(min(left, _LONGEST))):
                left -= len(raw)
                number += 1
                yield Placed(number, raw, read(raw[:-1], hashed) if raw.endswith(b"\n") else None)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StoreError(f"`{path}` cannot be read: {why.lower()}") from None


def in_order(paths: Iterable[str], hashed: Hashing) -> dict[str, list[str]]:
    """The files of each log, as they follow each other; the logs by their ids.

    A file that a link gives two names is taken once; one that does not tell its log is of the only one there is.

    Raises:
        StoreError: A file cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    found: list[tuple[int, str, str]] = []
    for path in paths:
        with suppress(OSError, ValueError):
            there = os.stat(path)  # noqa: PTH116  whatever it is that is named
            if (there.st_dev, there.st_ino) in seen:
                continue
            seen.add((there.st_dev, there.st_ino))
        found.append((*_first(path, hashed), path))
    known = {log for _, log, _ in found if log}
    only = known.pop() if len(known) == 1 else ""
    logs: dict[str, list[str]] = {}
    for _, log, path in sorted(found, key=lambda one: one[0]):  # which keeps the order of the others
        logs.setdefault(log or only, []).append(path)
    return logs


def _first(path: str, hashed: Hashing) -> tuple[int, str]:
    """A file's first number, and the id of its log: of the first line that is whole, or else that reads."""
    told = (-1, "")
    for _, _, line in islice(lines(path, hashed), _FIRST):
        if line is not None and (line.whole or told[0] < 0):
            told = (line.head.seq or 0, str(line.entry.get("log", "")))
            if line.whole:
                break
    return told
