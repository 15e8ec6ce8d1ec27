"""Advice about single conditions: arguments that may be missing, patterns and operators that guard badly (PL-3)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Final

from ..model import Condition
from ..paths import Step
from ..patterns import compile_pattern
from .anchors import is_loose
from .coverage import ORDERINGS, holds_for, path_of
from .document import Document, Entry, Finding
from .tool_lists import Argument

__all__ = [
    "costly_patterns",
    "misnamed_arguments",
    "misplaced_operators",
    "missing_bounds",
    "missing_values",
    "unanchored_patterns",
]

_LARGE_PROGRAM: Final = 1000
"""Instructions; `.{125}` has as many, for a character may have four bytes."""

_ADDRESS_WORDS: Final = frozenset(("url", "urls", "uri", "uris", "href", "endpoint"))
_HOST_WORDS: Final = frozenset(("host", "hostname"))
_PATH_WORDS: Final = frozenset(
    ("path", "paths", "file", "files", "filename", "filepath", "dir", "directory", "folder", "cwd")
)
_PLACE_WORDS: Final = _ADDRESS_WORDS | _HOST_WORDS | _PATH_WORDS
_MONEY_WORDS: Final = frozenset(
    ("amount", "price", "total", "cost", "fee", "payment", "balance", "currency", "budget", "refund", "charge")
)
_NEGATIONS: Final = ("neq", "not_in")


def missing_bounds(document: Document) -> Iterator[Finding]:
    """`deny_if` alone on a bounded, money- or path-like argument that a tool's schema does not require (PL-3.8)."""
    for entry, path, condition in _unguarded(document):
        names = _words(path_of(condition.path).steps)
        if condition.op in _NEGATIONS or not (condition.op in ORDERINGS or names & (_MONEY_WORDS | _PLACE_WORDS)):
            continue
        tools = _where_optional(document, entry, condition)
        if tools:
            shown = path_of(condition.path).shown
            message = f"`{tools[0]}` may be called without `{shown}`, and then this `deny_if` does not fire"
            yield path, message, _demand(condition)


def missing_values(document: Document) -> Iterator[Finding]:
    """`neq` or `not_in` in `deny_if` on an argument that may be missing (PL-3.4)."""
    for entry, path, condition in _unguarded(document):
        if condition.op not in _NEGATIONS:
            continue
        told = [argument for _, argument in _told(document, entry, condition)]
        if told and not _where_optional(document, entry, condition):
            continue
        shown = path_of(condition.path).shown
        positive = "eq" if condition.op == "neq" else "in"
        message = f"`{condition.op}` is false where `{shown}` is missing: a call without it passes this `deny_if`"
        yield path, message, f"write what is permitted: `require` with `{condition.path}` `{positive}`"


def unanchored_patterns(document: Document) -> Iterator[Finding]:
    """A pattern in `require` that a path or an address may hold anywhere (PL-3.4)."""
    for entry in document.reached:
        for path, condition in entry.conditions("require"):
            names = _words(path_of(condition.path).steps)
            if condition.op != "regex" or not names & _PLACE_WORDS:
                continue
            if is_loose(condition.value, from_start=not names.isdisjoint(_ADDRESS_WORDS)):
                better = "host_in" if names & _ADDRESS_WORDS else "in" if names & _HOST_WORDS else "path_within"
                message = f"pattern `{condition.value}` may match anywhere in `{path_of(condition.path).shown}`"
                yield (*path, "value"), message, f"begin it with `^` and end it with `$`, or use `{better}`"


def misplaced_operators(document: Document) -> Iterator[Finding]:
    """`path_within` and `host_in` in `deny_if`: they are made for `require` (PL-3.6)."""
    for entry in document.reached:
        for path, condition in entry.conditions("deny_if"):
            if condition.op in ("path_within", "host_in"):
                message = f"`{condition.op}` in `deny_if` lists what is bad, which has more names than anyone can list"
                yield (*path, "op"), message, f"list in `require` what is permitted, with `{condition.op}`"


def costly_patterns(document: Document) -> Iterator[Finding]:
    """Patterns that RE2 makes a large program of; its work grows with the program times the text (PL-3.4)."""
    for entry in document.reached:
        for stage in ("require", "deny_if", "require_approval_if"):
            for path, condition in entry.conditions(stage):
                if condition.op == "regex" and compile_pattern(condition.value).programsize > _LARGE_PROGRAM:
                    message = "the pattern repeats so often that a long text takes a long time"
                    yield (*path, "value"), message, "repeat with `*` or `+`, or count fewer; `\\w` is cheaper than `.`"


def misnamed_arguments(document: Document) -> Iterator[Finding]:
    """Rules about arguments that no tool they are for has, by the tools' schemas."""
    for entry in document.reached:
        for path, text in _argument_paths(entry):
            parsed = path_of(text)
            tools = document.tools_of(entry)
            found = [document.tools.argument(tool, parsed.steps) for tool in tools] if document.tools else []
            if parsed.root != "args" or not found or any(one is None or one.known for one in found):
                continue
            known = found[0].siblings if found[0] else ()
            close = get_close_matches(str(parsed.steps[-1]), known, n=1)
            listing = ", ".join(f"`{name}`" for name in known) or "no arguments"
            who = f"`{tools[0]}`" if len(tools) == 1 else "none of the tools it is for"
            has = "has no" if len(tools) == 1 else "has an"
            yield (
                path,
                f"{who} {has} argument `{parsed.shown}`",
                f"did you mean `{close[0]}`?" if close else (f"`{tools[0]}` has {listing}"),
            )


def _argument_paths(entry: Entry) -> Iterator[tuple[tuple[str | int, ...], str]]:
    for path, condition in entry.conditions():
        if not (condition.op == "exists" and condition.value is False):
            yield (*path, "path"), condition.path
    for index, limit in enumerate(entry.rules.limits):
        if limit.increment_from is not None:
            yield (*entry.path, "limits", index, "increment_from"), limit.increment_from


def _unguarded(document: Document) -> Iterator[tuple[Entry, tuple[str | int, ...], Condition]]:
    """Conditions of `deny_if` on arguments without which a call is not denied anyway."""
    for entry in document.reached:
        for path, condition in entry.conditions("deny_if"):
            about = path_of(condition.path).root == "args" and condition.op != "exists"
            if about and not document.demands(entry, condition):
                yield entry, path, condition


def _told(document: Document, entry: Entry, condition: Condition) -> Iterator[tuple[str, Argument]]:
    """The known tools whose schemas name the argument."""
    steps = path_of(condition.path).steps
    for tool in document.tools_of(entry) if document.tools else ():
        argument = document.tools.argument(tool, steps) if document.tools else None
        if argument is not None and argument.known:
            yield tool, argument


def _where_optional(document: Document, entry: Entry, condition: Condition) -> list[str]:
    """The tools that may be called without the argument, except where what they take then is harmless."""
    tools = []
    for tool, argument in _told(document, entry, condition):
        own = document.entry_for(tool)
        guarded = argument.required or (own is not None and document.demands(own, condition))
        if not guarded and (argument.default is None or holds_for(condition, argument.default)):
            tools.append(tool)
    return tools


def _demand(condition: Condition) -> str:
    written = '{"path": "%s", "op": "exists", "value": true}'
    return f"add to `require`: `{written % condition.path}`, or write the bound there"


def _words(steps: tuple[Step, ...]) -> frozenset[str]:
    """The words of the argument's own name: `repoPath` and `repo_path` are `repo` and `path`."""
    name = next((step for step in reversed(steps) if isinstance(step, str)), "")
    return frozenset(word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name))
