"""Whether a log is whole: each line is as it was written, and follows the one that it was written after."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ..errors import PolicyError
from .chain import NOTHING, Hashing, Head, Line, hashing
from .reading import in_order, lines

__all__ = ["Break", "Log", "Note", "Verification", "verify"]

_MOST: Final = 1_000
"""Breaks, after which a log is not looked at further: it is rewritten, or of another key."""

_TELLING: Final = ("gap", "torn")


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the log itself tells, and whoever reads it should know.

    Attributes:
        file: The file.
        line: The line, counted from 1; 0 where it is the log as a whole.
        kind: `torn`, of a line that a crash cut short; `gap`, of lines that could not be written; `partial`, of older
            files that were not looked at.
        text: What it is, as a sentence.
    """

    file: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}" if self.line else f"{self.file}: {self.text}"


@dataclass(frozen=True, slots=True)
class Break(Note):
    """A place where a log is not whole.

    Attributes:
        kind: `edited`, of a line that is not as it was written; `unreadable`, of one that is none; `missing`, of lines
            that are not there; `misplaced`, of a line that does not belong here; `head`, of one that is known to have
            been there.
    """


@dataclass(slots=True)
class Log:
    """One log, over its files.

    Attributes:
        id: Its random id.
        files: Its files, in order.
        lines: How many there are.
        head: The last line; None where none reads.
    """

    id: str
    files: tuple[str, ...]
    lines: int = 0
    head: Head | None = None


@dataclass(slots=True)
class Verification:
    """What came of looking at logs.

    Attributes:
        logs: The logs that the files are of.
        breaks: Each place where one is not whole, in their order.
        notes: What the logs tell of themselves.
    """

    logs: list[Log] = field(default_factory=list)
    breaks: list[Break] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing is broken."""
        return not self.breaks


def verify(
    paths: Iterable[str | os.PathLike[str]],
    *,
    key: bytes | None = None,
    heads: Iterable[Head] = (),
    partial: bool = False,
) -> Verification:
    """Look at every line of the files.

    Args:
        paths: The files of one log, or of several, in whatever order.
        key: The key of their lines, where they have one.
        heads: Lines that were there once, each to be found in one of the logs.
        partial: Older files were removed on purpose.

    Raises:
        PolicyError: The key is too short, or is needed; `StoreError` where a file cannot be read.
    """
    hashed = hashing(key)
    found = Verification()
    wanted = set(heads)
    named = [os.fspath(path) for path in paths]
    for log, files in in_order(named, hashed).items():
        walk = _Walk(found, Log(log, tuple(files)), hashed, wanted, keyed=key is not None, partial=partial)
        walk.over()
        found.logs.append(walk.log)
    for head in sorted(wanted, key=str):
        text = f"the recorded line {head} is not there: the log was cut or rewritten"
        found.breaks.append(Break(named[-1] if named else "-", 0, "head", text))
    return found


class _At(NamedTuple):
    """A line of a log, and where it stands."""

    file: str
    number: int
    raw: bytes
    line: Line | None


class _Walk:
    """A way through one log, line by line.

    A line that does not follow is set aside until the next one tells which of both belongs here.
    """

    def __init__(
        self, found: Verification, log: Log, hashed: Hashing, wanted: set[Head], *, keyed: bool, partial: bool
    ) -> None:
        self.log = log
        self._found = found
        self._hashed = hashed
        self._wanted = wanted
        self._keyed = keyed
        self._partial = partial
        self._head = NOTHING
        self._lost = 0  # lines since the head that do not read
        self._aside: _At | None = None
        self._unread: list[_At] = []

    def over(self) -> None:
        """Go over all files."""
        hashes = {head.hash for head in self._wanted}
        at = None
        for file in self.log.files:
            for number, raw, line in lines(file, self._hashed):
                at = _At(file, number, raw, line)
                self.log.lines += 1
                if line is None:
                    self._unread.append(at)
                    continue
                if line.head.hash in hashes and line.whole:
                    self._wanted -= {line.head, Head(line.head.hash)}
                self._step(at, line)
                if len(self._found.breaks) >= _MOST:
                    self._break(at, "edited", "so it goes on: the rest was not looked at")
                    return
        self._give_up()
        self.log.head = None if self._head is NOTHING else self._head

    def _step(self, at: _At, line: Line) -> None:
        if self._unread and not self._is_closed(line):
            self._give_up()
        if not line.whole:
            if line.entry.get("chain") == "hmac-sha256" and not self._keyed:
                raise PolicyError(f"`{at.file}` is chained with a key: give it")
            self._give_up()
            self._break(at, "edited", "the line is not as it was written")
            self._lost += 1
            return
        if line.entry["kind"] in _TELLING:
            self._tell(at, line)
        if line.follows(self._head) or self._is_after_lost(line):
            if self._aside is not None:
                self._break(self._aside, "misplaced", "the line does not belong here")
            self._go_on(line)
        elif self._head is NOTHING and self._aside is None and not self._lost:
            self._begin(at, line)
        elif self._aside is not None and self._aside.line is not None and line.follows(self._aside.line.head):
            self._accept_aside()
            self._go_on(line)
        else:
            if self._aside is not None:
                self._break(self._aside, "misplaced", "the line does not belong here")
            self._aside = at

    def _go_on(self, line: Line) -> None:
        self._head, self._lost, self._aside = line.head, 0, None

    def _is_after_lost(self, line: Line) -> bool:
        """Whether the lines that do not read were those before this one."""
        return 1 <= _steps(self._head, line.head) - 1 <= self._lost

    def _begin(self, at: _At, line: Line) -> None:
        """The first line is not the log's first."""
        text = f"{line.head.seq} lines were written before this one"
        if self._partial:
            self._found.notes.append(Note(at.file, at.number, "partial", text))
        else:
            self._break(at, "missing", f"{text} and are not here")
        self._go_on(line)

    def _is_closed(self, line: Line) -> bool:
        """Whether the log itself tells that what does not read was torn by a crash."""
        if line.entry["kind"] != "torn" or not (line.whole and line.follows(self._head)):
            return False
        raw = b"".join(at.raw for at in self._unread)
        if (line.entry.get("bytes"), line.entry.get("sha256")) != (len(raw), hashlib.sha256(raw).hexdigest()):
            return False
        self._unread.clear()
        return True

    def _give_up(self) -> None:
        """Tell of what is set aside, and of what does not read."""
        if self._aside is not None:
            self._accept_aside()
        for at in self._unread:
            text = "is no line of a log" if at.raw.endswith(b"\n") else "is not finished"
            self._break(at, "unreadable", f"the line {text}")
        self._lost += len(self._unread)
        self._unread.clear()

    def _accept_aside(self) -> None:
        """The line that was set aside may be the next that there is."""
        at, self._aside = self._aside, None
        if at is None or at.line is None:
            return
        missing = _steps(self._head, at.line.head) - 1 - self._lost
        if missing > 0:
            self._break(
                at, "missing", f"{missing} {'line is' if missing == 1 else 'lines are'} missing before this one"
            )
        else:
            self._break(at, "misplaced", "the line does not follow the one before it")
        if missing >= 0:
            self._go_on(at.line)

    def _tell(self, at: _At, line: Line) -> None:
        entry = line.entry
        if entry["kind"] == "gap":
            text = f"{entry.get('missing')} lines could not be written from {entry.get('since')} on"
            self._found.notes.append(Note(at.file, at.number, "gap", text))
        else:
            text = f"the {entry.get('bytes')} bytes before this line are of one that a crash cut short"
            self._found.notes.append(Note(at.file, at.number, "torn", text))

    def _break(self, at: _At, kind: str, text: str) -> None:
        self._found.breaks.append(Break(at.file, at.number, kind, text))


def _steps(head: Head, later: Head) -> int:
    return (later.seq or 0) - (head.seq or 0)
