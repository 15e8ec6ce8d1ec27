"""What of a document other readers of policy.json do not know (PL-1.7): every extension, where it stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from .advice.coverage import path_of
from .advice.document import Finding
from .globs import is_glob
from .lint import Advice, place_of
from .model import Policy
from .syntax import Path, pointer, read_text

__all__ = ["extensions"]

CODE: Final = "extension"

_ELSEWHERE: Final = "other readers of policy.json refuse it or pass over it"
_EXTENDED_KEYS: Final = {
    "document": {"mode": "choose the mode where the guard is made"},
    "all_tools": {
        "require": "repeat it in each entry of `tools`",
        "deny_if": "repeat it in each entry of `tools`",
        "require_approval_if": "use `action: require_approval` in each entry",
    },
    "tool": {
        "require_approval_if": "use `action: require_approval`",
        "only_arguments": "deny each argument that must not occur with `exists`",
        "mode": "choose the mode where the guard is made",
    },
    "limit": {
        "algorithm": "leave it out: windows are then fixed",
        "increment": "leave it out: a call charges 1",
        "increment_from": "leave it out: a call charges 1",
        "charge_on": "leave it out: what was sent is charged",
    },
}
_PREDICATES: Final = ("require", "deny_if", "require_approval_if")
_OPERATORS: Final = {
    "path_within": "use `regex`, which guards paths badly",
    "host_in": "use `regex`, which guards addresses badly",
    "ip_in": "use `regex`, which guards addresses badly",
}


def extensions(text: str | bytes, policy: Policy, *, source: str | None = None) -> list[Advice]:
    """Every extension that a document uses, in the order of the document.

    Args:
        text: The document's text, from which `policy` was read.
        policy: The document.
        source: The file that advice shows, whose suffix tells JSON from YAML; the policy's name unless given.
    """
    name = policy.name if source is None else source
    tree, _ = read_text(text, name)
    found = []
    for path, message, help in _findings(tree.plain(), policy):
        found.append(Advice(name, *place_of(tree, path), pointer(path), CODE, message, help))
    return sorted(found, key=lambda advice: (advice.line, advice.column))


def _findings(document: dict[str, Any], policy: Policy) -> Iterator[Finding]:
    if policy.origin.written is not None:
        yield (), "the document is Intercept YAML, not policy.json", "`mcp-policy convert` writes it as policy.json"
        return
    yield from _keys((), document, "document")
    for index, name in enumerate(document.get("hide", ())):
        if is_glob(name) and document["hide"] != ["*"]:
            yield ("hide", index), f"the glob `{name}` in `hide` is an extension: {_ELSEWHERE}", "name each tool"
    yield from _rules(("all_tools",), document.get("all_tools", {}), "all_tools")
    for name, rules in document.get("tools", {}).items():
        if is_glob(name):
            yield ("tools", name), f"the glob `{name}` in `tools` is an extension: {_ELSEWHERE}", "name each tool"
        yield from _rules(("tools", name), rules, "tool")


def _keys(path: Path, part: dict[str, Any], kind: str) -> Iterator[Finding]:
    for key, instead in _EXTENDED_KEYS[kind].items():
        if key in part:
            yield (*path, key), f"`{key}` is an extension: {_ELSEWHERE}", instead


def _rules(path: Path, rules: dict[str, Any], kind: str) -> Iterator[Finding]:
    yield from _keys(path, rules, kind)
    for key in _PREDICATES:
        for number, predicate in enumerate(rules.get(key, ())):
            for index, condition in enumerate(predicate["conditions"]):
                yield from _condition((*path, key, number, "conditions", index), condition)
    for index, limit in enumerate(rules.get("limits", ())):
        where = (*path, "limits", index)
        yield from _keys(where, limit, "limit")
        yield from _window(where, limit["window"], whole_seconds=False)
        if limit.get("scope", "grant") != "grant":
            message = f"scope `{limit['scope']}` is an extension: {_ELSEWHERE}"
            yield (*where, "scope"), message, "leave it out: a counter is then kept per grant"
        if "increment_from" in limit and not path_of(limit["increment_from"]).is_portable:
            yield _path((*where, "increment_from"), limit["increment_from"])
    if "rate_limit" in rules:
        yield from _window((*path, "rate_limit"), rules["rate_limit"]["window"], whole_seconds=True)


def _condition(path: Path, condition: dict[str, Any]) -> Iterator[Finding]:
    if not path_of(condition["path"]).is_portable:
        yield _path((*path, "path"), condition["path"])
    if condition["op"] in _OPERATORS:
        message = f"operator `{condition['op']}` is an extension: {_ELSEWHERE}"
        yield (*path, "op"), message, _OPERATORS[condition["op"]]


def _path(where: Path, text: str) -> Finding:
    parsed = path_of(text)
    what = f"path `{text}` uses the extension `{parsed.root}`"
    if parsed.root == "args":
        what = f"path `{text}` uses brackets, an extension"
    return where, f"{what}: {_ELSEWHERE}", "write `args.` and names with dots between"


def _window(path: Path, window: str | int, *, whole_seconds: bool) -> Iterator[Finding]:
    if window in ("week", "month") or (isinstance(window, int) and not whole_seconds):
        message = f"window `{window}` is an extension: {_ELSEWHERE}"
        yield (*path, "window"), message, "use `minute`, `hour` or `day`"
