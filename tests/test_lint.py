"""Advice: what is found, where, and that nothing is found in sensible policies (PL-1, PL-3.6, PL-3.8, PL-4)."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mcp_policy_middleware import DocumentError, Policy, parse_policy
from mcp_policy_middleware.engine.conditions import compile_condition
from mcp_policy_middleware.policy.advice.anchors import is_loose
from mcp_policy_middleware.policy.advice.coverage import covers, dead_after, implies, impossible_at
from mcp_policy_middleware.policy.lint import RULES, lint, read_tool_list
from mcp_policy_middleware.policy.model import Condition

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```\w+ (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CASES: list[dict[str, Any]] = yaml.safe_load((ROOT / "tests" / "data" / "lint_cases.yaml").read_text("utf-8"))


def written(case: dict[str, Any]) -> tuple[str, list[tuple[int, int]]]:
    """A case's whole text without its marks, and the line and column of each."""
    text, found = "", []
    for char in f'version: "1"\ndefault: {case.get("default", "deny")}\n{case["text"]}':
        if char == "«":
            found.append((text.count("\n") + 1, len(text) - text.rfind("\n")))
        else:
            text += char
    return text, found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_advice_is_given_where_it_is_due(case: dict[str, Any]) -> None:
    """Each case gets the advice of its marks, in the order of the document, and no other."""
    text, places = written(case)
    tools = None
    if "tools" in case:
        listed = [{"name": name, "inputSchema": schema} for name, schema in case["tools"].items()]
        tools = read_tool_list(json.dumps({"tools": listed}), "list.json")
    advice = lint(text, parse_policy(text, "p.yaml"), tools)
    assert [(one.code, one.line, one.column) for one in advice] == [
        (code, *place) for code, place in zip(case.get("codes", ()), places, strict=True)
    ]
    for one in advice:
        assert one.source == "p.yaml"
        assert one.pointer.startswith("/")
        assert one.help
        assert re.match(r"[a-z`]", one.message)


def test_each_code_has_cases_for_and_against() -> None:
    """Every rule of the table is found in one case and, where a document is sensible, not in another."""
    codes = {rule.code for rule in RULES}
    assert {code for case in CASES for code in case.get("codes", ())} == codes
    assert {case["without"] for case in CASES if "without" in case} == codes


def test_the_table_can_be_printed() -> None:
    """Each rule has a code of its own, what it finds, why that matters, and its section of the language."""
    assert len({rule.code for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.code)
        assert re.fullmatch(r"PL-[0-9]+(\.[0-9]+)?", rule.section)
        assert rule.finds
        assert rule.why


def shipped() -> list[Any]:
    """Every policy that the project ships or shows."""
    folders = [ROOT / "mcp_policy_middleware" / "cli" / "demo_policies", ROOT / "examples"]
    texts = [(file.name, file.read_text("utf-8")) for folder in folders for file in sorted(folder.rglob("*.json"))]
    for page in sorted((ROOT / "docs").glob("*.md")):
        for number, block in enumerate(BLOCK.finditer(page.read_text("utf-8"))):
            texts.append((f"{page.name}-{number}-{block[1]}", block[2]))
    found = []
    for name, text in texts:
        try:
            found.append(pytest.param(name, text, parse_policy(text, name), id=name))
        except DocumentError:
            continue  # a list of calls, or a document that shows what is refused
    return found


@pytest.mark.parametrize(("name", "text", "policy"), shipped())
def test_policies_that_the_project_shows_need_no_advice(name: str, text: str, policy: Policy) -> None:
    """The demo's policies, the examples' and those of every page are not only valid but wise."""
    assert lint(text, policy) == []


INTERCEPT = """
version: "1"
default: allow
hide: [gone]
tools:
  gone: {rules: [{name: never, conditions: [{path: args.x, op: eq, value: 1}]}]}
  read:
    rules:
      - {name: one, conditions: [{path: args.path, op: regex, value: /srv/}]}
      - {name: other, conditions: [{path: args.mode, op: eq, value: a}]}
      - {name: third, conditions: [{path: args.mode, op: eq, value: b}]}
  "*":
    rules: [{name: slow, rate_limit: 10/minute}, {name: closed, action: deny}]
"""


def test_advice_on_intercept_yaml_names_the_rule() -> None:
    """A rule of Intercept's is pointed at where its author wrote it."""
    advice = lint(INTERCEPT, parse_policy(INTERCEPT, "p.yaml"))
    assert [(one.code, one.pointer, one.line) for one in advice] == [
        ("unreachable-rule", "/tools/gone", 6),
        ("unanchored-path", "/tools/read/rules/0", 9),
        ("contradiction", "/tools/read/rules/2", 11),
    ]


# What is called a proof is tried against the engine.

VALUES: list[Any] = [None, True, False, 0, 1, 2, 2.5, "1", "2", "true", "a", "ab", "1.0", [1], [], {"a": 1}, ["a"]]
TESTS: list[tuple[str, Any]] = [
    *(("eq", value) for value in (None, True, 1, 2, 2.5, "1", "true", "a", [1], "[1]")),
    *(("neq", value) for value in (None, 1, "a", [1])),
    *(("in", value) for value in ([], [1, 2], ["1", "a"], [None, "a"], [1, [1]], ["a", "ab"], [True, 2.5])),
    *(("not_in", value) for value in ([], [1], ["a", "1"], [None], [[1]])),
    *((op, value) for op in ("lt", "lte", "gt", "gte") for value in (1, 2, 1.5)),
    *(("regex", value) for value in ("^a$", "a", "b$", "^[0-9]$")),
    *(("contains", value) for value in ("a", 1)),
    *(("exists", value) for value in (True, False)),
]
CALLS: list[dict[str, Any]] = [
    {},
    *({"a": value} for value in VALUES),
    *({"l": [{"a": one}, {"a": other}]} for one, other in itertools.product(VALUES[:12], repeat=2)),
    *({"l": value} for value in ([{}], [], None, [{"a": 2}], [{"a": "a"}])),
]
CONDITIONS = [Condition(path=path, op=op, value=value) for path in ("args.a", "args.l[*].a") for op, value in TESTS]
ANSWERS = {
    (id(condition), every): [compile_condition(condition, every=every)(arguments, None) for arguments in CALLS]
    for condition in CONDITIONS
    for every in (True, False)
}
AND = {
    (one, other): min(one, other, key=[False, None, True].index)
    for one in (True, None, False)
    for other in (True, None, False)
}


def together(conditions: Iterable[Condition], *, every: bool) -> list[bool | None]:
    """What the engine says of each call where all the conditions are to hold."""
    answers: list[bool | None] = [True] * len(CALLS)
    for condition in conditions:
        answers = [AND[pair] for pair in zip(answers, ANSWERS[id(condition), every], strict=True)]
    return answers


@pytest.mark.parametrize("every", [True, False])
def test_what_one_condition_implies_holds_wherever_it_does(every: bool) -> None:
    """Where a condition implies another, the other is true where it is, and false nowhere else than it is."""
    found = 0
    for one, other in itertools.permutations(CONDITIONS, 2):
        if implies(one, other):
            found += 1
            for first, second in zip(ANSWERS[id(one), every], ANSWERS[id(other), every], strict=True):
                assert first is not True or second is True, (one, other)
                assert second is not False or first is False, (one, other)
    assert found > 50


@pytest.mark.parametrize("every", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_what_cannot_hold_together_never_does(size: int, every: bool) -> None:
    """No call meets conditions that are said to exclude one another; on one argument, most that never do are found."""
    known = CONDITIONS if size < 3 else CONDITIONS[: len(TESTS)][::2]
    found = 0
    for conditions in itertools.permutations(known, size):
        if impossible_at(conditions, every=every) is not None:
            found += 1
            assert True not in together(conditions, every=every), conditions
    assert found > (0, 1, 500, 2000)[size] - 1


def test_what_requirements_leave_dead_is_false_of_every_call() -> None:
    """A rule that is said never to fire is false, not undecidable, of whatever the requirements admit."""
    found = 0
    for required in itertools.combinations(CONDITIONS, 2):
        before = together(required, every=True)
        for condition in CONDITIONS if True in before else ():
            if dead_after(required, [condition]):
                found += 1
                after = ANSWERS[id(condition), False]
                assert all(answer is False for answer, met in zip(after, before, strict=True) if met is True)
    assert found > 50


GLOBS = ["".join(letters) for size in range(1, 5) for letters in itertools.product("ab*?", repeat=size)]
NAMES = ["".join(letters) for size in range(7) for letters in itertools.product("abc", repeat=size)]


@given(st.sampled_from(GLOBS), st.sampled_from(GLOBS))
def test_a_glob_covers_another_when_it_matches_every_name_of_it(wide: str, narrow: str) -> None:
    """For short globs, six letters of which one is in neither tell the whole truth."""
    truth = all(fnmatchcase(name, wide) for name in NAMES if fnmatchcase(name, narrow))
    assert covers(wide, narrow) is truth


def test_a_glob_that_takes_too_long_covers_nothing() -> None:
    """Where too many ways would have to be followed, no advice is given."""
    assert covers("*a" + "?" * 30, "*a" + "?" * 30 + "*") is False


@pytest.mark.parametrize(
    ("pattern", "loose"),
    [
        ("a", True),
        ("^a", False),
        (r"a\z", False),
        (r"a\$", True),
        (r"a\\$", False),
        ("^.*a.*$", True),
        ("(?i)(^a|^b)c", False),
        ("(^a|b)c", True),
        ("(^a)?b", True),
        ("a(b$|c$)", False),
        ("[(|]^", True),
        ("[]|]$", False),
        ("[[:alpha:]|]$", False),
        (r"\Qa|b\E", False),
        ("", True),
        ("(?m)^a$", True),
    ],
)
def test_a_pattern_is_loose_where_neither_end_is_tied(pattern: str, loose: bool) -> None:
    """Alternatives, groups, classes, escapes and flags are seen for what they are."""
    assert is_loose(pattern) is loose


BAD_LISTS = ["", "[]", "{}", '{"tools": {}}', '{"tools": [1]}', '{"tools": [{"title": "x"}]}', '{"result": []}', "{"]


@pytest.mark.parametrize("text", BAD_LISTS)
def test_what_is_no_list_of_tools_is_a_document_error(text: str) -> None:
    """A file that is no answer of `tools/list` is told with its place."""
    with pytest.raises(DocumentError) as caught:
        read_tool_list(text, "list.json")
    assert caught.value.problems[0].source == "list.json"


@pytest.mark.parametrize(
    "document",
    [
        {"tools": [{"name": "a"}]},
        {"server": "s", "tools": [{"name": "a", "inputSchema": {"properties": {}}}]},
        {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": "a", "inputSchema": True}]}},
    ],
)
def test_a_list_of_tools_is_read_in_each_form(document: dict[str, Any]) -> None:
    """The answer, its envelope, and an object that names the server."""
    tools = read_tool_list(json.dumps(document), "list.json")
    assert list(tools.schemas) == ["a"]
    assert tools.server == document.get("server")


ODD_SCHEMAS = [
    True, [], 5, {"properties": []}, {"properties": {"a": 1}}, {"properties": {"a": {"properties": 3}}, "required": 3},
    {"$ref": "#"}, {"$ref": "#/$defs/x", "$defs": {"x": {"$ref": "#/$defs/x"}}}, {"$ref": 3}, {"$ref": "https://x.test"},
    {"properties": {"a": {"default": {"b": [1]}}}}, {"properties": {"a": {"items": 4}}},
]  # fmt: skip


@pytest.mark.parametrize("schema", ODD_SCHEMAS, ids=json.dumps)
def test_no_schema_keeps_the_linter_from_ending(schema: Any) -> None:
    """Servers send schemas of any shape; what is not understood tells nothing."""
    ops = [("gt", 1), ("eq", [1]), ("contains", "x"), ("regex", "x"), ("not_in", [1]), ("in", ["x"])]
    paths = ["args.a", "args.a.b", "args.a[0]", "args.a[*].b"]
    conditions = [[{"path": path, "op": op, "value": value}] for path in paths for op, value in ops]
    rules = {"deny_if": [{"conditions": one} for one in conditions]}
    text = json.dumps({"version": "1", "default": "deny", "tools": {"t": rules}})
    tools = read_tool_list(json.dumps({"tools": [{"name": "t", "inputSchema": schema}]}), "list.json")
    assert all(one.code for one in lint(text, parse_policy(text), tools))
