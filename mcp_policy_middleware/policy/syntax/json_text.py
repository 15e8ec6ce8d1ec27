"""JSON text -> tree: RFC 8259, by the standard library's own string scanner and one expression."""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections.abc import Callable
from json import decoder
from typing import Final

from .tree import MAX_DEPTH, Fail, Node, Path, Place, Report, SyntaxProblem, put

__all__ = ["JsonText"]


_scan_string: Final[Callable[[str, int], tuple[str, int]]] = decoder.scanstring  # type: ignore[attr-defined]
# the standard library's own scanner of strings, which its type stubs leave out


class JsonText:
    """One document of JSON."""

    _TOKEN: Final = re.compile(r'[ \t\r\n]*(?:(?P<number>-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?)'
                               r'|(?P<word>[A-Za-z]+)|(?P<mark>[\[\]{}:,"])|(?P<end>\Z))')  # fmt: skip
    _WORDS: Final = {"true": True, "false": False, "null": None}

    def __init__(self, text: str, fail: Fail, report: Report) -> None:
        self.text = text
        self.fail = fail
        self.report = report
        self.lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self.at = 0

    def _place(self, offset: int) -> Place:
        line = bisect_right(self.lines, offset)
        return line, offset - self.lines[line - 1] + 1

    def _token(self) -> tuple[str, str, int]:
        """The kind, text and offset of the next token, which is consumed."""
        match = self._TOKEN.match(self.text, self.at)
        if match is None or match.lastgroup is None:
            start = self.at + len(self.text[self.at :]) - len(self.text[self.at :].lstrip(" \t\r\n"))
            raise self.fail(self._place(start), f"`{self.text[start : start + 10]}` is not JSON")
        kind = match.lastgroup
        self.at = match.end()
        return kind, match[kind], match.start(kind)

    def _expected(self, what: str, got: str, offset: int) -> SyntaxProblem:
        found = f"`{got}`" if got else "the end of the document"
        hint = "" if got else "the document seems to be cut off"
        return self.fail(self._place(offset), f"expected {what}, found {found}", hint)

    def document(self) -> Node:
        """Read the document.

        Raises:
            SyntaxProblem: The text is not one document.
        """
        node = self._value(*self._token(), ())
        kind, text, offset = self._token()
        if kind != "end":
            raise self._expected("the end of the document", text, offset)
        return node

    def _value(self, kind: str, text: str, offset: int, path: Path) -> Node:
        place = self._place(offset)
        if kind == "number":
            return Node(self._number(text, place, path), place)
        if kind == "word" and text in self._WORDS:
            return Node(self._WORDS[text], place)
        if text == '"':
            return Node(self._string(offset, path), place)
        if text not in ("{", "["):
            raise self._expected("a value", text, offset)
        if len(path) == MAX_DEPTH:
            raise self.fail(place, f"the document has more than {MAX_DEPTH} levels")
        return self._object(place, path) if text == "{" else self._list(place, path)

    def _number(self, text: str, place: Place, path: Path) -> int | float:
        if len(text) > 1000:
            raise self.fail(place, "a number has more than 1000 characters")
        if text.lstrip("-").isdigit():
            return int(text)
        number = float(text)
        if not math.isfinite(number):
            self.report(place, path, f"`{text}` is too large for a number", "write a smaller number")
        return number

    def _string(self, offset: int, path: Path) -> str:
        try:
            string, self.at = _scan_string(self.text, offset + 1)
        except json.JSONDecodeError as error:
            what = error.msg.lower().removesuffix(" at").removesuffix(" starting")
            raise self.fail(self._place(error.pos), f"this is not JSON: {what}") from None
        if not string.isascii() and any("\ud800" <= char <= "\udfff" for char in string):
            self.report(self._place(offset), path, "a string holds a lone surrogate", "write the character itself")
        return string

    def _object(self, place: Place, path: Path) -> Node:
        node = Node({}, place)
        _, text, offset = self._token()
        while text != "}" or node.value:
            if text != '"':
                raise self._expected("a key in double quotes", text, offset)
            key, key_place = self._string(offset, path), self._place(offset)
            _, text, offset = self._token()
            if text != ":":
                raise self._expected(f"`:` after `{key}`", text, offset)
            child = self._value(*self._token(), (*path, key))
            put(node, (*path, key), key_place, child, self.report)
            _, text, offset = self._token()
            if text == "}":
                break
            if text != ",":
                raise self._expected("`,` or `}`", text, offset)
            _, text, offset = self._token()
        return node

    def _list(self, place: Place, path: Path) -> Node:
        value: list[Node] = []
        kind, text, offset = self._token()
        while text != "]" or value:
            value.append(self._value(kind, text, offset, (*path, len(value))))
            kind, text, offset = self._token()
            if text == "]":
                break
            if text != ",":
                raise self._expected("`,` or `]`", text, offset)
            kind, text, offset = self._token()
        return Node(value, place)
