"""A second reading of the policy language, slow and plain, written from its document to compare the engine with."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import partial
from typing import Any

UNDECIDABLE, MISSING, EACH, MILLION = "undecidable", object(), ..., 10**6
SECONDS = {"minute": 60, "hour": 3_600, "day": 86_400}
WORDS = {True: ("1", "true", "yes", "on", "t", "y"), False: ("0", "false", "no", "off", "f", "n")}
APART = ("server", "grant", "session")  # a scope's place in its own list is how many of them it keeps apart
ORDER = {"lt": lambda a, b: a < b, "lte": lambda a, b: a <= b, "gt": lambda a, b: a > b, "gte": lambda a, b: a >= b}


def is_number(value: Any) -> bool:  # a finite one
    return type(value) in (int, float) and math.isfinite(value)


def text(value: Any) -> Any:  # the JSON text of a string, number or boolean; equal numbers have equal texts
    whole = is_number(value) and int(value) == value
    return str(int(value)) if whole else value if type(value) is str else json.dumps(value)


def lenient_number(string: str) -> Fraction | None:  # what some reader may take the string for
    plain = "".join(str(unicodedata.digit(c, c)) for c in string.strip()).replace("_", "")
    if found := re.fullmatch(r"[+-]?0(x[0-9a-f]+|o[0-7]+|b[01]+)", plain, re.IGNORECASE):
        return Fraction(int(found.group().lower(), 0))
    return Fraction(plain or 0) if re.fullmatch(r"([+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?)?", plain) else None


def same(want: Any, got: Any) -> Any:  # PL-3.5
    if type(got) is float and not math.isfinite(got):
        return UNDECIDABLE  # PL-4.1
    if type(want) in (list, dict):
        if type(got) is str:
            spelled = re.fullmatch(r"\s*[\[{].*[\]}]\s*", got) and json.loads(got)
            return UNDECIDABLE if type(spelled) is type(want) and same(want, spelled) is not False else False
        if type(got) is not type(want) or len(want) != len(got) or (type(want) is dict and set(want) != set(got)):
            return False
        return every([same(want[key], got[key]) for key in (want if type(want) is dict else range(len(want)))])
    if want is None or got is None or type(got) in (list, dict) or text(want) == text(got):
        return want is got or (None not in (want, got) and type(got) not in (list, dict))
    if is_number(want) and (lenient_number(got) == want if type(got) is str else type(got) is bool and want == got):
        return UNDECIDABLE
    meant = type(want) is bool and (got.lower() in WORDS[want] if type(got) is str else got == want)
    return UNDECIDABLE if meant else False


def every(answers: list[Any], first: bool = False) -> Any:  # Kleene's and; his or, where `first` is true
    return first if first in answers else UNDECIDABLE if UNDECIDABLE in answers else not first


def holds(op: str, want: Any, inside: bool, got: Any) -> Any:  # PL-3.4
    if (type(got) is float and not math.isfinite(got)) or (got is MISSING and not inside and op != "exists"):
        return UNDECIDABLE
    if op == "exists" or got is MISSING or (got is None and op not in ("eq", "neq", "in", "not_in")):
        return op == "exists" and want is (got is not MISSING and got is not None)
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


def look(value: Any, path: Any, test: Any, strict: bool = False) -> Any:  # asks the test at the end of a path (PL-3.2)
    parts = re.findall(r'\[("(?:[^"\\]|\\.)*"|\d+|\*)\]|([^.\[]+)', path) if type(path) is str else path
    if not parts or value is None or value is MISSING:
        return test(MISSING if parts else value)
    (step, name), *rest = parts
    key = name or (EACH if step == "*" else json.loads(step))
    if type(value) is not (dict if type(key) is str else list):
        return UNDECIDABLE
    if key is EACH:  # any; where it is strict, all, and one at least
        return every([look(item, rest, test, strict) for item in value], not strict) if value else False
    there = key in value if type(key) is str else key < len(value)
    return look(value[key] if there else MISSING, rest, test, strict)


def broken(base: str, key: str, part: Any, scene: Any, wanted: bool) -> Any:  # the first predicate to answer otherwise
    names: list[str] = []
    for index, group in enumerate(predicate["conditions"] for predicate in part.get(key, [])):
        names.append("{path}-{op}".format(**group[0]) if group else str(index))
        tests = [partial(holds, one["op"], one["value"], one["path"].startswith("args")) for one in group]
        whole = zip(group, tests, strict=True)
        answer = every([look(scene, one["path"], test, key == "require") for one, test in whole])
        if answer is not wanted:
            count = names.count(names[-1])
            return answer, f"{base}/{key}/{names[-1]}" + f"-{count}" * (count > 1)  # PL-4.2
    return None


def windows(window: Any, now: int) -> list[int]:  # when the window before, this one and the next begin (PL-5.2)
    if window not in ("week", "month"):
        length = SECONDS.get(window, window)
        return [(now // length + shift) * length for shift in (-1, 0, 1)]
    month, day = window == "month", datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0)
    begin = lambda at: at.replace(day=1) if month else at - timedelta(at.weekday())  # noqa: E731
    days = begin(begin(day) - timedelta(1)), begin(day), begin(begin(day) + timedelta(31 if month else 7))
    return [int(day.timestamp()) for day in days]


def decide(document: Any, call: Any, totals: Any, now: int, mode: Any) -> Any:  # PL-4: reason, rule, enforced, charges
    if document is None:
        return "no_policy", "(no policy)", True, {}
    tools, shared, tool, args = document.get("tools", {}), document.get("all_tools", {}), call["tool"], call["args"]
    fits = lambda glob: re.fullmatch(re.escape(glob).replace(r"\*", ".*").replace(r"\?", "."), tool)  # noqa: E731
    globs = sorted((name for name in tools if fits(name)), key=lambda n: (n.count("*") + n.count("?") - len(n), n))
    entry = next((name for name in [tool, *globs] if name in tools), None)
    mine, base = tools.get(entry, {}), f"/tools/{entry}"
    enforced = (mode or mine.get("mode") or document.get("mode", "enforce")) == "enforce"
    for applies, reason, rule in (
        (any(map(fits, document.get("hide", []))), "hidden", "(hidden)"),
        (entry is None and document["default"] == "deny", "default_deny", "(default deny)"),
        (mine.get("action") == "deny", "rule_denied", f"{base}/action"),
        (not set(args) <= set(mine.get("only_arguments", args)), "unexpected_argument", f"{base}/only_arguments"),
    ):
        if applies:
            return reason, rule, enforced, {}
    for key, wanted, reason in (("require", True, "requirement_unmet"), ("deny_if", False, "rule_denied")):
        if found := broken(base, key, mine, call, wanted) or broken("/all_tools", key, shared, call, wanted):
            return UNDECIDABLE if found[0] is UNDECIDABLE else reason, found[1], enforced, {}
    asked = (None, f"{base}/action") if mine.get("action") == "require_approval" else None
    for where, part in ((base, mine), ("/all_tools", shared)):
        asked = asked or broken(where, "require_approval_if", part, call, False)
    short = {"counter": f"{entry}_rate", "name": f"{tool}_rate", "scope": "session", **mine.get("rate_limit", {})}
    limits = [(base, limit) for limit in mine.get("limits", []) + [short] * ("rate_limit" in mine)]
    taken: dict[Any, Any] = {}
    meets = []
    for where, limit in limits + [("/all_tools", limit) for limit in shared.get("limits", [])]:
        rule, scope = f"{where}/limits/{limit['counter']}", limit.get("scope", "grant")
        source = limit.get("increment_from")
        amount = limit.get("increment", 1) if source is None else look(call, source, lambda got: got)
        if not is_number(amount) or amount < 0:
            return UNDECIDABLE, rule, enforced, {}
        apart = [call["call"].get(fact) for fact in APART[: ("global", "server", "grant", "session").index(scope)]]
        name = (limit.get("name", limit["counter"]), limit["window"], limit.get("algorithm", "fixed"), scope, *apart)
        before, start, end = windows(limit["window"], now)
        most, success = taken.get((name, start), (0, True))
        exact = math.ceil(Fraction(repr(amount) if type(amount) is float else amount) * MILLION)
        taken[name, start] = max(most, exact), success and limit.get("charge_on") == "success"
        part = Fraction(end - now, end - start) if limit.get("algorithm") == "sliding" else 0
        used = totals.get((name, start), 0) + math.ceil(totals.get((name, before), 0) * part)
        meets.append((rule, (name, start), Fraction(repr(limit["max"])) * MILLION - used))
    for rule, key, room in meets:
        if taken[key][0] > room:
            return "limit_exceeded", rule, enforced, {}
    if asked:
        return "approval_required", asked[1], enforced, {}
    return "allowed", "", enforced, taken
