"""A second reading of the policy language, slow and plain, written from its document to compare the engine with."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from fractions import Fraction
from typing import Any

UNDECIDABLE, MISSING = "undecidable", object()
WINDOWS = {"minute": 60, "hour": 3_600, "day": 86_400}
WORDS = {True: ("1", "true", "yes", "on", "t", "y"), False: ("0", "false", "no", "off", "f", "n")}
ORDER = {"lt": lambda a, b: a < b, "lte": lambda a, b: a <= b, "gt": lambda a, b: a > b, "gte": lambda a, b: a >= b}


def is_number(value: Any) -> bool:  # a finite one
    return type(value) in (int, float) and math.isfinite(value)


def text(value: Any) -> Any:  # the JSON text of a string, number or boolean; equal numbers have equal texts
    if is_number(value) and int(value) == value:
        return str(int(value))
    return value if type(value) is str else json.dumps(value) if type(value) in (float, bool) else None


def lenient_number(string: str) -> Fraction | None:  # what some reader may take the string for
    plain = "".join(str(unicodedata.digit(c, c)) for c in string.strip()).replace("_", "")
    if found := re.fullmatch(r"[+-]?0(x[0-9a-f]+|o[0-7]+|b[01]+)", plain, re.IGNORECASE):
        return Fraction(int(found.group().lower(), 0))
    return Fraction(plain or 0) if re.fullmatch(r"([+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?)?", plain) else None


def same(want: Any, got: Any) -> Any:  # PL-3.5
    if type(got) is float and not math.isfinite(got):
        return UNDECIDABLE  # PL-4.1
    if want is None or got is None:
        return want is got
    if text(want) is not None and text(want) == text(got):
        return True
    if is_number(want) and (lenient_number(got) == want if type(got) is str else type(got) is bool and want == got):
        return UNDECIDABLE
    if type(want) is bool and (got.lower() in WORDS[want] if type(got) is str else is_number(got) and got == want):
        return UNDECIDABLE
    if type(want) in (list, dict) and type(got) is str:
        try:
            spelled = json.loads(got)
        except ValueError:
            return False
        return UNDECIDABLE if type(spelled) is type(want) and same(want, spelled) is not False else False
    if type(want) is list and type(got) is list and len(want) == len(got):
        return every([same(w, g) for w, g in zip(want, got, strict=True)])
    if type(want) is dict and type(got) is dict and set(want) == set(got):
        return every([same(want[key], got[key]) for key in want])
    return False


def every(answers: list[Any], first: bool = False) -> Any:  # Kleene's and; his or, where `first` is true
    return first if first in answers else UNDECIDABLE if UNDECIDABLE in answers else not first


def holds(condition: dict[str, Any], arguments: dict[str, Any]) -> Any:  # PL-3.4
    op, want, got = condition["op"], condition["value"], arguments
    for name in condition["path"].split(".")[1:]:
        if got is not None and got is not MISSING and type(got) is not dict:
            return UNDECIDABLE
        got = MISSING if got is None or got is MISSING else got.get(name, MISSING)
    if type(got) is float and not math.isfinite(got):
        return UNDECIDABLE  # PL-4.1
    if op == "exists":
        return want is (got is not MISSING and got is not None)
    if got is MISSING or (got is None and op not in ("eq", "neq", "in", "not_in")):
        return False
    if op in ("eq", "neq", "in", "not_in"):
        answer = every([same(item, got) for item in ([want] if op in ("eq", "neq") else want)], first=True)
        return answer if op in ("eq", "in") or answer is UNDECIDABLE else not answer
    if op in ORDER:
        return ORDER[op](Fraction(got), Fraction(want)) if is_number(got) else UNDECIDABLE
    if type(got) is list and op == "contains":
        return every([same(want, item) for item in got], first=True)
    if type(got) is not str or type(want) is not str:
        return UNDECIDABLE
    return want in got if op == "contains" else bool(re.search(want.replace("$", r"\Z"), got))


def named(base: str, predicates: list[Any]) -> list[tuple[str, list[Any]]]:  # PL-4.2
    groups = [predicate["conditions"] for predicate in predicates]
    names = ["{path}-{op}".format(**group[0]) if group else str(index) for index, group in enumerate(groups)]
    counts = [names[: index + 1].count(name) for index, name in enumerate(names)]
    whole = zip(names, counts, groups, strict=True)
    return [(f"{base}/{name}" + f"-{count}" * (count > 1), group) for name, count, group in whole]


def decide(document: Any, tool: str, arguments: Any, grant: str, session: Any, totals: Any, now: int) -> Any:  # PL-4
    tools, shared, charges = document.get("tools", {}), document.get("all_tools", {}), {}
    if document.get("hide") == ["*"] or tool in document.get("hide", []):
        return "hidden", "(hidden)", {}
    if tool not in tools and document["default"] == "deny":
        return "default_deny", "(default deny)", {}
    mine = tools.get(tool, {})
    if mine.get("action") == "deny":
        return "rule_denied", f"/tools/{tool}/action", {}
    for key, wanted, reason in (("require", True, "requirement_unmet"), ("deny_if", False, "rule_denied")):
        own = named(f"/tools/{tool}/{key}", mine.get(key, []))
        for rule, conditions in own + named(f"/all_tools/{key}", shared.get(key, [])):
            answer = every([holds(condition, arguments) for condition in conditions])
            if answer is not wanted:
                return UNDECIDABLE if answer is UNDECIDABLE else reason, rule, {}
    short = [{"counter": f"{tool}_rate", "scope": "session", **mine["rate_limit"]}] if "rate_limit" in mine else []
    own = [(f"/tools/{tool}", limit) for limit in [*mine.get("limits", []), *short]]
    for base, limit in own + [("/all_tools", limit) for limit in shared.get("limits", [])]:
        scope, seconds = limit.get("scope", "grant"), WINDOWS.get(limit["window"], limit["window"])
        key = (limit["counter"], scope, grant, session if scope == "session" else None, now // seconds)
        if totals.get(key, 0) + 1 > Fraction(limit["max"]):
            return "limit_exceeded", f"{base}/limits/{limit['counter']}", {}
        charges[key] = 1
    if mine.get("action") == "require_approval":
        return "approval_required", f"/tools/{tool}/action", {}
    return "allowed", "", charges
