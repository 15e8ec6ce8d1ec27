"""Globs over tool names (PL-1.5): `*` is any text, `?` any character, everything else itself."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

__all__ = ["best_first", "is_glob", "matcher", "rank"]


def is_glob(name: str) -> bool:
    """Whether a name of the document is a glob."""
    return "*" in name or "?" in name


def matcher(glob: str) -> re.Pattern[str]:
    """The glob as a pattern for `fullmatch`; its steps do not backtrack into one another."""
    return re.compile(fnmatch.translate(glob.replace("[", "[[]")))


def rank(name: str) -> tuple[int, str]:
    """A key by which the entry that applies comes first: most literal characters, then the smaller by code points."""
    return name.count("*") + name.count("?") - len(name), name


def best_first(globs: Iterable[str]) -> list[str]:
    """The order in which globs apply."""
    return sorted(globs, key=rank)
