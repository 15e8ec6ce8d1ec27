"""Text -> values, each with its place: JSON and YAML 1.2, as strict as PL-1.1 asks.

The two readers yield the same tree of `Node`, so that whatever is wrong later can be shown where
the author wrote it. What neither language should carry into a policy is refused here: duplicate
keys, aliases, tags, NaN, infinities, lone surrogates and more than 64 levels.
"""

from __future__ import annotations

import codecs
from pathlib import Path as FilePath
from typing import Final, Literal

from ...errors import DocumentError, Problem
from .json_text import JsonText
from .tree import Fail, Node, Path, Place, SyntaxProblem, pointer
from .yaml_text import YamlText

__all__ = ["MAX_BYTES", "Node", "Path", "Place", "SyntaxProblem", "pointer", "read_file", "read_text", "reason_of"]

MAX_BYTES: Final = 16 * 1024 * 1024


def read_file(source: str, advice: str) -> bytes:
    """The bytes of a file, and one more than a document may have.

    Raises:
        DocumentError: It cannot be read; `advice` says what to give instead.
    """
    try:
        with FilePath(source).open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        message = f"the file cannot be read: {reason_of(error)}"
        raise DocumentError([Problem(source, 0, 0, "", message, advice)]) from None


def reason_of(error: Exception) -> str:
    """Why the system refused, in its own words."""
    return error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)


def read_text(data: bytes | str, source: str) -> tuple[Node, list[Problem]]:
    """Read one document.

    Args:
        data: The text, or its UTF-8 bytes; a byte order mark is tolerated.
        source: The file or name that problems show. Its suffix, or else a leading `{`, tells JSON
            from YAML.

    Returns:
        The tree, and the problems that do not keep it from being read further (duplicate keys, ...).

    Raises:
        SyntaxProblem: There is no tree.
    """

    def fail(place: Place, message: str, help: str = "") -> SyntaxProblem:
        return SyntaxProblem(Problem(source, *place, "", message, help))

    text = _decode(data, fail)
    if not text.strip():
        raise fail((0, 0), "the document is empty", 'start with {"version": "1", "default": "deny"}')
    problems: list[Problem] = []

    def report(place: Place, path: Path, message: str, help: str) -> None:
        problems.append(Problem(source, *place, pointer(path), message, help))

    if _language(text, source) == "json":
        return JsonText(text, fail, report).document(), problems
    return YamlText(text, fail, report).document(), problems


def _decode(data: bytes | str, fail: Fail) -> str:
    if isinstance(data, str):
        try:
            data = data.encode()
        except UnicodeEncodeError:
            raise fail((0, 0), "the text holds a lone surrogate", "write the character itself") from None
    if len(data) > MAX_BYTES:
        raise fail((0, 0), "the document has more than 16 MiB", "split it by server")
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        place = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise fail(place, "the document is not UTF-8 text", "save it as UTF-8") from None
    if "\0" in text:
        before = text[: text.index("\0")]
        place = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise fail(place, "the document holds a NUL character: it is not text", "save it as UTF-8 text")
    return text


def _language(text: str, source: str) -> Literal["json", "yaml"]:
    if source.endswith(".json"):
        return "json"
    if source.endswith((".yaml", ".yml")):
        return "yaml"
    return "json" if text.lstrip().startswith("{") else "yaml"
