"""Every operator against every kind of argument: true, false or undecidable (PL-3.4, PL-3.5, PL-4.1)."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from mcp_policy_middleware import Decision, Guard, ToolCall, parse_policy

GROUPS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "conditions.json").read_text("utf-8"))


class Text(str):
    """A string that is not exactly one."""

    __slots__ = ()


class Number(int):
    """An integer that is not exactly one."""

    __slots__ = ()


def nested(depth: int) -> list[Any]:
    """Lists in lists."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


MISSING = object()
SPECIAL: dict[str, Any] = {
    "missing": MISSING,
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "-0.0": -0.0,
    "10**21": 10**21,
    "10**400": 10**400,
    "-10**400": -(10**400),
    "64 KiB": "x" * 65_536,
    "64 KiB and a byte": "x" * 65_537,
    "64 KiB in two-byte letters": "é" * 32_767 + "xx",
    "64 KiB and a byte in two-byte letters": "é" * 32_767 + "xxx",
    "the list in 70 KB of white space": "[1," + " " * 70_000 + '"a"]',
    "10,000 lists deep": nested(10_000),
    "text of 10,000 lists": "[" * 10_000 + "]" * 10_000,
    "tuple": ("x",),
    "set": {"x"},
    "bytes": b"usd",
    "decimal": Decimal(50),
    "date": date(2026, 3, 4),
    "str subclass": Text("usd"),
    "int subclass": Number(50),
    "dict subclass": OrderedDict({"1": "x", "b": 1}),
    "object": object(),
    "{1: 'x'}": {1: "x"},
    "{'1': 'y', 1: 'x'}": {"1": "y", 1: "x"},
}
REQUIRE = {
    "true": ("allowed", ""),
    "false": ("requirement_unmet", "require"),
    "undecidable": ("undecidable", "require"),
}
DENY_IF = {"true": ("rule_denied", "deny_if"), "false": ("allowed", ""), "undecidable": ("undecidable", "deny_if")}


def special(value: Any) -> Any:
    """The value that a row stands for: `{"$": name}` is one that JSON cannot write well."""
    if isinstance(value, dict):
        return SPECIAL[value["$"]] if "$" in value else {key: special(item) for key, item in value.items()}
    return [special(item) for item in value] if isinstance(value, list) else value


@lru_cache(maxsize=4)
def guard_for(condition: str) -> Guard:
    """A guard that requires the condition of tool `wanted` and forbids it of tool `unwanted`."""
    predicates = [{"conditions": [json.loads(condition)]}]
    tools = {"wanted": {"require": predicates}, "unwanted": {"deny_if": predicates}}
    return Guard(parse_policy(json.dumps({"version": "1", "default": "deny", "tools": tools})), telemetry=False)


def rows() -> Iterator[Any]:
    """Each row of the table as a parameter."""
    for group in GROUPS:
        path, op, value = group.get("path", "args.x"), group["op"], special(group["value"])
        for index, (argument, answer) in enumerate(group["rows"]):
            given = special(argument)
            arguments = given if "arguments" in group else {} if given is MISSING else {"x": given}
            condition = {"path": path, "op": op, "value": value}
            name = f"{group['section']} {op}: {group['title']} [{index}]"
            yield pytest.param(condition, arguments, answer, id=name)


def said(decision: Decision) -> tuple[str, str]:
    """Reason and rule."""
    return decision.reason.value, decision.rule


@pytest.mark.parametrize(("condition", "arguments", "answer"), list(rows()))
def test_condition_answers_alike_in_require_and_in_deny_if(
    condition: dict[str, Any], arguments: dict[str, Any], answer: str
) -> None:
    """A condition that is true satisfies `require` and fires `deny_if`; false the opposite; undecidable denies both."""
    guard = guard_for(json.dumps(condition))
    name = f"{condition['path']}-{condition['op']}"
    for tool, expected in (("wanted", REQUIRE), ("unwanted", DENY_IF)):
        reason, stage = expected[answer]
        rule = f"/tools/{tool}/{stage}/{name}" if stage else ""
        assert said(guard.explain(ToolCall(tool, arguments))) == (reason, rule), tool


KLEENE = [
    ("TT", "true"), ("TF", "false"), ("FT", "false"), ("FF", "false"), ("TU", "undecidable"), ("UT", "undecidable"),
    ("UU", "undecidable"), ("FU", "false"), ("UF", "false"), ("TTT", "true"), ("TUF", "false"), ("UTT", "undecidable"),
]  # fmt: skip
ARGUMENT = {"T": 1, "F": 2, "U": "1.0"}


@pytest.mark.parametrize(("letters", "answer"), KLEENE)
def test_conditions_of_a_predicate_combine_by_kleene_logic(letters: str, answer: str) -> None:
    """Any false condition makes the predicate false, else any undecidable one makes it undecidable."""
    conditions = [{"path": f"args.a{index}", "op": "eq", "value": 1} for index in range(len(letters))]
    arguments = {f"a{index}": ARGUMENT[letter] for index, letter in enumerate(letters)}
    tools = {"wanted": {"require": [{"conditions": conditions}]}, "unwanted": {"deny_if": [{"conditions": conditions}]}}
    document = {"version": "1", "default": "deny", "tools": tools}
    guard = Guard(parse_policy(json.dumps(document)), telemetry=False)
    for tool, expected in (("wanted", REQUIRE), ("unwanted", DENY_IF)):
        reason, stage = expected[answer]
        rule = f"/tools/{tool}/{stage}/args.a0-eq" if stage else ""
        assert said(guard.explain(ToolCall(tool, arguments))) == (reason, rule), tool


def test_predicates_of_a_list_are_independent_and_the_first_that_denies_is_named() -> None:
    """An undecidable predicate denies even where a later one would be false or true."""

    def predicate(name: str) -> dict[str, Any]:
        return {"conditions": [{"path": f"args.{name}", "op": "eq", "value": 1}]}

    tools = {"t": {"deny_if": [predicate("a"), predicate("b")]}}
    guard = Guard(parse_policy(json.dumps({"version": "1", "default": "deny", "tools": tools})), telemetry=False)
    for arguments, expected in (
        ({"a": "1.0", "b": 1}, ("undecidable", "/tools/t/deny_if/args.a-eq")),
        ({"a": 2, "b": 1}, ("rule_denied", "/tools/t/deny_if/args.b-eq")),
        ({"a": 1, "b": "1.0"}, ("rule_denied", "/tools/t/deny_if/args.a-eq")),
        ({"a": 2, "b": "1.0"}, ("undecidable", "/tools/t/deny_if/args.b-eq")),
        ({"a": 2, "b": 2}, ("allowed", "")),
    ):
        assert said(guard.explain(ToolCall("t", arguments))) == expected


def test_no_conditions_always_hold_in_deny_if() -> None:
    """`conditions: []` in `deny_if` is an unconditional denial, named after its index (PL-3.1, PL-4.2)."""
    tools = {"t": {"deny_if": [{"conditions": []}]}}
    guard = Guard(parse_policy(json.dumps({"version": "1", "default": "deny", "tools": tools})), telemetry=False)
    assert said(guard.explain(ToolCall("t", {}))) == ("rule_denied", "/tools/t/deny_if/0")


def test_patterns_answer_alike_wherever_they_stand() -> None:
    """RE2 decides a pattern alike in `require` and `deny_if`, also where it is ambiguous or costly."""
    patterns = ["a|b", "^$", r"\bx\b", "(a+)+$", "(?s)a.b", r"\x{1F600}", "[^a]", "(?:)", r"a{0,3}$", r"\pL", "x*"]
    texts = ["", "a", "b", "x", "a\nb", "\U0001f600", "é", "a" * 5_000 + "b", " x ", "xx", "\0"]
    for pattern in patterns:
        guard = guard_for(json.dumps({"path": "args.x", "op": "regex", "value": pattern}))
        for text in texts:
            wanted = guard.explain(ToolCall("wanted", {"x": text}))
            unwanted = guard.explain(ToolCall("unwanted", {"x": text}))
            assert wanted.allowed is not unwanted.allowed, (pattern, text[:10])
