"""How a file of an audit log begins and ends, for whoever goes on with it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Final

from ..errors import StoreError
from .chain import Hashing, Head, Line, read
from .entries import Entry

__all__ = ["Tail", "first_line", "tail"]

_BLOCK: Final = 65_536
_LONGEST_TAIL: Final = 16 * 1024 * 1024


@dataclass(slots=True)
class Tail:
    """How a file ends.

    Attributes:
        head: Its last whole line.
        closing: What is to be written first, so that a new line begins.
        torn: What to say of a line that somebody began and never finished.
    """

    head: Head
    closing: bytes = b""
    torn: Entry | None = None


def first_line(descriptor: int, hashed: Hashing) -> Line | None:
    """The first line of a file, where it is one of a log."""
    return read(os.pread(descriptor, _BLOCK, 0).partition(b"\n")[0], hashed)


def tail(descriptor: int, size: int, since: int, hashed: Hashing) -> Tail:
    """The last line of a file; a line that was torn by a crash is told of.

    Args:
        descriptor: The file.
        size: How many bytes it has.
        since: Where one of its lines begins, of which it is enough to look at those that follow.
        hashed: How its lines are hashed.

    Raises:
        StoreError: What ends there is no whole line of this log.
    """
    length = _BLOCK
    while True:
        start = max(since, size - length)
        found = _last_whole(os.pread(descriptor, size - start, start), hashed, from_start=start == since)
        if found is not None:
            return found
        if start == 0 or length >= _LONGEST_TAIL:
            raise StoreError("its last line is no whole line of this log: `mcp-policy audit verify` tells more")
        since = 0 if start == since else since
        length *= 8


def _last_whole(data: bytes, hashed: Hashing, *, from_start: bool) -> Tail | None:
    """The tail that some last bytes show; None where more of them are needed, or there is none.

    Only what lacks its line break was torn; a line that has one and is not whole was damaged, which is not hidden.
    """
    *lines, rest = data.split(b"\n")
    if not from_start and lines:
        lines = lines[1:]  # of which the beginning is not here
    if not rest:
        line = read(lines[-1], hashed) if lines else None
        return Tail(line.head) if line is not None and line.whole else None
    line = read(rest, hashed) if lines or from_start else None
    if line is not None and line.whole:  # it lacks nothing but its line break
        return Tail(line.head, b"\n")
    torn = rest + b"\n"
    for before in reversed(lines):
        line = read(before, hashed)
        if line is not None and line.whole:
            told = {"kind": "torn", "bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}
            return Tail(line.head, b"\n", told)
        torn = before + b"\n" + torn
    return None
