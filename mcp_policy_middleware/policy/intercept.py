"""Intercept's YAML -> the same `Policy` that policy.json gives (PL-8): its decisions, rule names and texts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from decimal import Context, Decimal
from typing import Any, Final

from pydantic import ValidationError

from ..errors import DocumentError, Problem
from .intercept_grammar import (
    GRAMMAR,
    InterceptDocument,
    InterceptRule,
    InterceptTest,
    counted_as,
    intercept_findings,
)
from .model import Origin, Policy, Window
from .syntax import Path, pointer
from .wording import Found, findings

__all__ = ["as_policy_json", "read_intercept", "translate"]

_NEVER: Final = {"path": "call.tool", "op": "exists", "value": False}
"""A requirement that no call meets, for rules that deny and must keep their place among the others (PL-8.2)."""

_PLAIN_NAME: Final = re.compile(r'[^.\[\]"]+')
_EXACT: Final = Context(prec=30)


def read_intercept(document: dict[str, Any], origin: Origin) -> tuple[Policy | None, list[Found]]:
    """Read a document of Intercept's.

    Args:
        document: The document as plain values.
        origin: Where it comes from.

    Returns:
        The policy, and whatever is wrong with the document; a policy with findings is not to be used.
    """
    found: list[Found] = []
    checked: InterceptDocument | None = None
    try:
        checked = InterceptDocument.model_validate(document)
    except ValidationError as error:
        found += findings(error, document, GRAMMAR)
    known = {path for path, *_ in found}
    for path, message, advice in intercept_findings(document):
        if path not in known:
            found.append((path, "cross", message, advice))
    return (None if checked is None or found else translate(checked, document, origin)), found


def translate(checked: InterceptDocument, written: dict[str, Any], origin: Origin) -> Policy:
    """The policy that a document of Intercept's means (PL-8.2).

    Args:
        checked: The document, its grammar checked.
        written: The same as its author wrote it; the policy's digest goes by it.
        origin: Where it comes from.
    """
    document: dict[str, Any] = {"version": "1", "default": checked.default, "hide": list(checked.hide), "tools": {}}
    if checked.description is not None:
        document["description"] = checked.description
    names: dict[Path, str] = {}
    windows: dict[str, Window] = {}
    for tool, entry in checked.tools.items():
        path: Path = ("all_tools",) if tool == "*" else ("tools", tool)
        rules: dict[str, list[Any]] = {}
        for rule in entry.rules:
            for key, part in _parts(tool, rule):
                among = rules.setdefault(key, [])
                names[(*path, key, len(among))] = rule.name
                among.append(part)
            windows.update(_windows(tool, rule))
        if tool == "*":
            document["all_tools"] = rules
        else:
            document["tools"][tool] = rules
    origin = replace(
        origin,
        written=written,
        rule_names=names,
        windows=windows,
        hidden='Tool "{tool}" is hidden by policy',
        not_permitted='Tool "{tool}" is not permitted by policy',
        reads_counters=True,
    )
    return Policy.model_validate(document, context=origin)


def _windows(tool: str, rule: InterceptRule) -> Iterator[tuple[str, Window]]:
    if rule.state is not None:
        yield counted_as(tool, rule.state.counter), rule.state.window
    elif rule.rate is not None:
        yield counted_as(tool, f"_rate_{rule.rate[1]}"), rule.rate[1]


def _parts(tool: str, rule: InterceptRule) -> Iterator[tuple[str, dict[str, Any]]]:
    """What one rule comes to: requirements, limits and questions, each with the key it stands under."""
    denial = rule.on_deny or f'Denied by rule "{rule.name}"'
    if rule.action == "deny":
        yield "require", {"conditions": [_NEVER], "on_deny": denial}
        return
    if rule.action == "require_approval":
        asked = {"on_deny": rule.on_deny} if rule.on_deny else {}
        yield "require_approval_if", {"conditions": [_condition(test) for test in rule.conditions], **asked}
        return
    if rule.rate is not None:
        count, window = rule.rate
        text = rule.on_deny or f"Rate limit of {count} per {window} reached. Try again later."
        counter = counted_as(tool, f"_rate_{window}")
        yield "limits", {"counter": counter, "window": window, "max": count, "on_deny": text}
        return
    ceilings = [test for test in rule.conditions if _is_ceiling(tool, rule, test)]
    conditions = [_condition(test) for test in rule.conditions if test not in ceilings]
    ceiling = min((_ceiling(rule, test) for test in ceilings), default=None)
    if ceiling is not None and ceiling < 0:
        conditions, ceiling = [_NEVER], None
    if conditions:
        yield "require", {"conditions": conditions, "on_deny": denial}
    if ceiling is not None:
        yield "limits", _limit(tool, rule, ceiling)


def _is_ceiling(tool: str, rule: InterceptRule, test: InterceptTest) -> bool:
    """Whether a condition bounds the rule's own counter, and so makes a limit of it."""
    own = None if rule.state is None else f"state.{counted_as(tool, rule.state.counter)}"
    return test.path == own and test.op in ("lt", "lte")


def _ceiling(rule: InterceptRule, test: InterceptTest) -> float:
    """What the total may reach: N of `lte N`, the largest total below N of `lt N`."""
    bound: float = test.value
    if test.op == "lte":
        return bound
    if rule.state is not None and rule.state.increment_from is None:
        return math.ceil(bound) - 1  # totals are whole
    millionths = math.ceil(_EXACT.multiply(Decimal(repr(bound)), 10**6)) - 1
    return millionths // 10**6 if millionths % 10**6 == 0 else float(_EXACT.divide(millionths, 10**6))


def _limit(tool: str, rule: InterceptRule, ceiling: float) -> dict[str, Any]:
    state = rule.state
    if state is None:
        raise TypeError("a rule without a counter has no limit")
    limit: dict[str, Any] = {
        "counter": counted_as(tool, state.counter),
        "window": state.window,
        "max": ceiling,
        "on_deny": rule.on_deny or f"Rate limit exceeded for {rule.name}",
    }
    if state.increment_from is not None:
        limit["increment_from"] = _path(state.increment_from)
    elif state.increment > 1:  # 0 means 1
        limit["increment"] = state.increment
    return limit


def _condition(test: InterceptTest) -> dict[str, Any]:
    return {"path": _path(test.path), "op": test.op, "value": test.value}


def _path(text: str) -> str:
    """The same path in policy.json: every dot descends one level, a counter's name is one step, however it looks."""
    root, _, rest = text.partition(".")
    names = [rest] if root == "state" else rest.split(".")
    steps = (
        f".{name}" if _PLAIN_NAME.fullmatch(name) else f"[{json.dumps(name, ensure_ascii=False)}]" for name in names
    )
    return root + "".join(steps)


def as_policy_json(policy: Policy) -> dict[str, Any]:
    """The policy as a policy.json document that decides the same.

    Rules of Intercept's lose their names; its denials become unconditional `deny_if`, which every reader knows.

    Raises:
        DocumentError: policy.json cannot say it: a condition reads a counter, or a name would become a glob.
    """
    written = policy.origin.written
    document = policy.as_written()
    if written is None:
        return document
    problems = [Problem(policy.name, 0, 0, pointer(path), *words) for path, *words in _unsayable(written)]
    if problems:
        raise DocumentError(problems)
    for rules in (document.get("all_tools", {}), *document["tools"].values()):
        denied = [one for one in rules.get("require", ()) if one["conditions"] == [_NEVER]]
        if denied:
            rules["require"] = [one for one in rules["require"] if one not in denied]
            rules["deny_if"] = [{**denied[0], "conditions": []}]  # none after the first is ever reached
        for key in [key for key, parts in rules.items() if not parts]:
            del rules[key]
    return {key: value for key, value in document.items() if value or key == "tools"}


def _unsayable(written: dict[str, Any]) -> Iterator[tuple[Path, str, str]]:
    checked = InterceptDocument.model_validate(written)
    literal = "policy.json takes `{}` for a glob, and Intercept for one tool's name"
    for index, name in enumerate(checked.hide):
        if name != "*" and ("*" in name or "?" in name):
            yield ("hide", index), literal.format(name), "remove it, or name the tools that are meant"
    for tool, entry in checked.tools.items():
        if tool != "*" and ("*" in tool or "?" in tool):
            yield ("tools", tool), literal.format(tool), "remove it, or name the tools that are meant"
        for number, rule in enumerate(entry.rules):
            for index, test in enumerate(rule.conditions):
                is_limit = rule.action == "evaluate" and _is_ceiling(tool, rule, test)
                if test.path.startswith("state.") and not is_limit:
                    where = ("tools", tool, "rules", number, "conditions", index, "path")
                    message = f"rule `{rule.name}` reads `{test.path}`, and policy.json cannot read counters"
                    yield where, message, "limit the counter in the rule that counts it, with `lt` or `lte`"
