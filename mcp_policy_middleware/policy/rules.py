"""What a document must also keep to, where several of its fields meet (PL-1.4, PL-2, PL-3.1, PL-5.5).

The checks read plain values of any shape and pass over what is no document at all, so that all of a
document's problems are found in one reading.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from .syntax import Path, pointer

__all__ = ["Finding", "cross_check"]

Finding: TypeAlias = tuple[Path, str, str]
"""Where (the last step of the path is a key or an index), what, and what to do about it."""

_DECIDING = ("require", "deny_if", "require_approval_if", "only_arguments", "limits", "rate_limit")


def cross_check(document: dict[str, Any]) -> Iterator[Finding]:
    """Every finding about fields that do not go together."""
    yield from _hidden(_items(document.get("hide")))
    entries: list[tuple[Path, dict[str, Any]]] = []
    tools = document.get("tools")
    for name, rules in tools.items() if type(tools) is dict else ():
        if type(rules) is dict:
            entries.append((("tools", name), rules))
            yield from _dead_rules(("tools", name), rules)
    all_tools = document.get("all_tools")
    if type(all_tools) is dict:
        entries.append((("all_tools",), all_tools))
    for path, rules in entries:
        yield from _pointless_requirements(path, rules)
        yield from _two_increments(path, rules)
    yield from _shared_counters(entries)


def _items(value: Any) -> list[Any]:
    return value if type(value) is list else []


def _hidden(names: list[Any]) -> Iterator[Finding]:
    for index, name in enumerate(names):
        if type(name) is not str:
            continue
        if name in names[:index]:
            yield ("hide", index), f"`{name}` is hidden twice", "keep one entry"
        elif name == "*" and len(names) > 1:
            yield ("hide", index), "`*` hides every tool: other entries mean nothing", 'write `hide: ["*"]` alone'


def _dead_rules(path: Path, rules: dict[str, Any]) -> Iterator[Finding]:
    if rules.get("action") != "deny":
        return
    for key in _DECIDING:
        if key in rules:
            message = f"`{key}` beside `action: deny` never applies"
            yield (*path, key), message, f"remove `{key}`, or remove `action` to let rules decide"


def _pointless_requirements(path: Path, rules: dict[str, Any]) -> Iterator[Finding]:
    for index, predicate in enumerate(_items(rules.get("require"))):
        if type(predicate) is dict and predicate.get("conditions") == []:
            message = "a requirement without conditions always holds"
            yield (*path, "require", index, "conditions"), message, "add a condition, or remove the requirement"


def _two_increments(path: Path, rules: dict[str, Any]) -> Iterator[Finding]:
    for index, limit in enumerate(_items(rules.get("limits"))):
        if type(limit) is dict and "increment" in limit and "increment_from" in limit:
            where = (*path, "limits", index, "increment_from")
            yield where, "`increment` and `increment_from` both say what a call charges", "keep one of them"


def _shared_counters(entries: list[tuple[Path, dict[str, Any]]]) -> Iterator[Finding]:
    first: dict[tuple[Any, Any], tuple[Any, Any, Path]] = {}
    for path, counter, scope, window, algorithm in _limits(entries):
        known, way, place = first.setdefault((counter, scope), (window, algorithm, path))
        if known != window:
            message = f"counter `{counter}` has window `{window}` here and `{known}` at {pointer(place)}"
            yield path, message, "give both the same window, or name the counters apart"
        elif way != algorithm:
            message = f"counter `{counter}` is `{algorithm}` here and `{way}` at {pointer(place)}"
            yield path, message, "give both the same algorithm, or name the counters apart"


def _limits(entries: list[tuple[Path, dict[str, Any]]]) -> Iterator[tuple[Path, str, str, Any, Any]]:
    """Path, counter, scope, window and algorithm of every limit that is whole enough to compare."""
    for path, rules in entries:
        for index, limit in enumerate(_items(rules.get("limits"))):
            if type(limit) is dict:
                yield from _limit((*path, "limits", index, "window"), limit, limit.get("counter"), "grant")
        shorthand = rules.get("rate_limit")
        if type(shorthand) is dict:
            yield from _limit((*path, "rate_limit", "window"), shorthand, f"{path[-1]}_rate", "session")


def _limit(path: Path, limit: dict[str, Any], counter: Any, scope: str) -> Iterator[tuple[Path, str, str, Any, Any]]:
    scope, window = limit.get("scope", scope), limit.get("window")
    if type(counter) is str and type(scope) is str and type(window) in (str, int):
        yield path, counter, scope, window, limit.get("algorithm", "fixed")
