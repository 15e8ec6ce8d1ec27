"""YAML text -> tree: YAML 1.2 with the core schema, so `no`, `on`, `1:30` and dates are strings."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import yaml

from .tree import MAX_DEPTH, Fail, Node, Path, Place, Report, put

__all__ = ["YamlText"]


class YamlText:
    """One document of YAML, read from libyaml's events."""

    _SCALARS: Final[tuple[tuple[re.Pattern[str], Callable[[str], Any]], ...]] = (
        (re.compile(r"(?:null|Null|NULL|~|)"), lambda text: None),
        (re.compile(r"true|True|TRUE"), lambda text: True),
        (re.compile(r"false|False|FALSE"), lambda text: False),
        (re.compile(r"[-+]?[0-9]+"), int),
        (re.compile(r"0o[0-7]+"), lambda text: int(text, 8)),
        (re.compile(r"0x[0-9a-fA-F]+"), lambda text: int(text, 16)),
        (re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"), float),
        (re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"), lambda text: math.nan),
    )

    def __init__(self, text: str, fail: Fail, report: Report) -> None:
        self.fail = fail
        self.report = report
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self.events: Iterator[Any] = iter(yaml.parse(text, Loader=loader))

    def _event(self) -> Any:
        try:
            return next(self.events)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = (mark.line + 1, mark.column + 1) if mark else (0, 0)
            problem = (error.problem or "this is not YAML").replace("\n", " ")
            raise self.fail(place, f"this is not YAML: {problem}") from None
        except yaml.YAMLError as error:
            message = str(error).splitlines()[0]
            raise self.fail((0, 0), f"this is not YAML: {message}", "save it as plain UTF-8 text") from None

    def document(self) -> Node:
        """Read the document.

        Raises:
            SyntaxProblem: The text is not one document.
        """
        self._event()  # stream start
        if not isinstance(self._event(), yaml.DocumentStartEvent):
            raise self.fail((0, 0), "the document is empty")
        node = self._node(self._event(), ())
        self._event()  # document end
        after = self._event()
        if not isinstance(after, yaml.StreamEndEvent):
            raise self.fail(_mark(after), "the file holds more than one document", "keep one, without `---`")
        return node

    def _node(self, event: Any, path: Path) -> Node:
        place = _mark(event)
        if isinstance(event, yaml.AliasEvent):
            self.report(place, path, f"alias `*{event.anchor}` is not allowed", "write the value out")
            return Node(None, place)
        if event.anchor is not None:
            self.report(place, path, f"anchor `&{event.anchor}` is not allowed", "remove it")
        if event.tag not in (None, "!"):
            self.report(place, path, f"tag `{event.tag}` is not allowed", "remove it, or quote the value")
        if isinstance(event, yaml.ScalarEvent):
            return Node(self._scalar(event, place, path), place)
        if len(path) == MAX_DEPTH:
            raise self.fail(place, f"the document has more than {MAX_DEPTH} levels")
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(place, path)
        items: list[Node] = []
        while not isinstance(item := self._event(), yaml.SequenceEndEvent):
            items.append(self._node(item, (*path, len(items))))
        return Node(items, place)

    def _mapping(self, place: Place, path: Path) -> Node:
        node = Node({}, place)
        while not isinstance(event := self._event(), yaml.MappingEndEvent):
            key = self._node(event, (*path, ""))
            step = key.value if type(key.value) is str else str(getattr(event, "value", ""))
            child = self._node(self._event(), (*path, step))
            if type(key.value) is str:
                put(node, (*path, step), key.place, child, self.report)
            else:
                self.report(key.place, (*path, step), f"key `{step}` is not text", "put it in quotes")
        return node

    def _scalar(self, event: Any, place: Place, path: Path) -> Any:
        text: str = event.value
        if event.style or len(text) > 1000:  # quoted, or a block
            return text
        for pattern, read in self._SCALARS:
            if pattern.fullmatch(text):
                value = read(text)
                if type(value) is float and not math.isfinite(value):
                    self.report(place, path, f"`{text}` is not a finite number", "write a number, or quote it")
                return value
        return text


def _mark(event: Any) -> Place:
    return event.start_mark.line + 1, event.start_mark.column + 1
