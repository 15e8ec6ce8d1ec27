"""Where a pattern is tied to the text: whether it may match in the middle of a longer one (PL-3.4)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

__all__ = ["is_loose"]

_FLAGS: Final = re.compile(r"\(\?([imsU]*)(?:-[imsU]+)?\)")
_OPENING: Final = re.compile(r"\(\?(?:P?<[^>]*>|[imsU-]*:)|\(")
_STARTS: Final = re.compile(r"(?:\^|\\A)(?!\(*\.[*+])")
_ENDS: Final = re.compile(r"(?<!\.[*+])(?<!\.[*+][?)])(?:(?:(?<!\\)|(?<=\\\\))\$|\\z)\Z")


def is_loose(pattern: str, *, from_start: bool = False) -> bool:
    """Whether some alternative of an RE2 pattern is tied to neither end of the text.

    Args:
        pattern: The pattern; where it is too clever to be told, the answer is no.
        from_start: Whether only being tied to the beginning counts, as for addresses.
    """
    if "\\Q" in pattern:
        return False
    flags = _FLAGS.match(pattern)
    if flags is not None:
        if "m" in flags[1]:
            return True  # `^` and `$` are the ends of a line
        pattern = pattern[flags.end() :]
    return any(
        not _tied(one, at_start=True) and (from_start or not _tied(one, at_start=False))
        for one in _alternatives(pattern)
    )


def _tied(alternative: str, *, at_start: bool) -> bool:
    """Whether the alternative begins, or ends, at the text's own beginning or end."""
    if (_STARTS.match(alternative) if at_start else _ENDS.search(alternative)) is not None:
        return True
    edges = ((start, end) for start, end in _groups(alternative) if (start == 0 if at_start else not alternative[end:]))
    start, end = next(edges, (0, 0))
    if end == 0 or (at_start and alternative[end : end + 1] in ("?", "*", "{")):
        return False
    opening = _OPENING.match(alternative, start)
    inner = alternative[opening.end() if opening else start + 1 : end - 1]
    return all(_tied(one, at_start=at_start) for one in _alternatives(inner))


def _marks(pattern: str) -> Iterator[tuple[int, str]]:
    """The places of `(`, `)` and `|` that are not themselves text."""
    in_class, at = False, 0
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            at += 1
        elif in_class and pattern.startswith("[:", at):
            at = pattern.find(":]", at) + 1
        elif in_class:
            in_class = char != "]"
        elif char == "[":
            in_class = True
            at += 2 if pattern[at + 1 : at + 3] == "^]" else 1 if pattern[at + 1 : at + 2] == "]" else 0
        elif char in "()|":
            yield at, char
        at += 1


def _groups(pattern: str) -> Iterator[tuple[int, int]]:
    """Where each outermost group opens, and the place after it closes."""
    depth, opened = 0, 0
    for at, mark in _marks(pattern):
        if mark == "(":
            depth += 1
            opened = at if depth == 1 else opened
        elif mark == ")":
            depth -= 1
            if depth == 0:
                yield opened, at + 1


def _alternatives(pattern: str) -> list[str]:
    """The parts between the outermost `|`."""
    depth, last, parts = 0, 0, []
    for at, mark in _marks(pattern):
        depth += {"(": 1, ")": -1}.get(mark, 0)
        if mark == "|" and depth == 0:
            parts.append(pattern[last:at])
            last = at + 1
    return [*parts, pattern[last:]]
