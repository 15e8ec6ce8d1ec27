"""The tree that both readers build, and what they report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from ...canonical import MAX_DEPTH
from ...errors import Problem

__all__ = ["MAX_DEPTH", "Fail", "Node", "Path", "Place", "Report", "SyntaxProblem", "pointer", "put"]

Place: TypeAlias = tuple[int, int]
"""Line and column, both counted from 1."""


def pointer(path: Path) -> str:
    """The path as a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


class Node:
    """A value and where it stands; `value` of an object maps key to `Node`, of a list holds `Node`s."""

    __slots__ = ("keys", "place", "value")

    def __init__(self, value: Any, place: Place) -> None:
        self.value = value
        self.place = place
        self.keys: dict[str, Place] = {}

    def plain(self) -> Any:
        """The value alone, as dicts, lists and scalars."""
        if type(self.value) is dict:
            return {key: node.plain() for key, node in self.value.items()}
        if type(self.value) is list:
            return [node.plain() for node in self.value]
        return self.value


class SyntaxProblem(Exception):  # noqa: N818  caught by the reader, which reports the problems
    """The text is not a document at all; `problems` says why."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__(problems)


Path: TypeAlias = tuple[str | int, ...]
"""The keys and indexes that lead to a value."""

Report: TypeAlias = Callable[[Place, Path, str, str], None]
"""Takes a problem that does not keep the text from being read further."""

Fail: TypeAlias = Callable[..., "SyntaxProblem"]
"""Makes the problem that ends the reading: place, message, help."""


def put(parent: Node, path: Path, place: Place, node: Node, report: Report) -> None:
    """Add a key, the last step of the path, to an object; a second one of that name is a problem."""
    key = str(path[-1])
    if key in parent.keys:
        help = f"it is first given in line {parent.keys[key][0]}: keep one"
        report(place, path, f"key `{key}` occurs twice", help)
    else:
        parent.value[key] = node
        parent.keys[key] = place
