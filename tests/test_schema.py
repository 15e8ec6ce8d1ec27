"""The JSON Schema of policy.json: made from the model, shipped as a file, and never stricter than the reader."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mcp_policy_middleware import DocumentError, parse_policy
from mcp_policy_middleware.policy.schema import make_schema, schema_text

jsonschema = pytest.importorskip("jsonschema")

DATA = Path(__file__).parent / "data"
SCHEMA = json.loads(schema_text())
LIST = [{"conditions": [{"path": "args.a", "op": "eq", "value": 1}], "on_deny": "No."}]
LIMIT = {"counter": "c", "window": "hour", "max": 5, "scope": "grant", "algorithm": "sliding", "on_deny": "No."}
FULL: dict[str, Any] = {
    "$schema": SCHEMA["$id"],
    "version": "1",
    "default": "deny",
    "description": "Everything.",
    "hide": ["a"],
    "mode": "shadow",
    "all_tools": {"require": LIST, "deny_if": LIST, "require_approval_if": LIST, "limits": [LIMIT]},
    "tools": {
        "b": {
            "action": "require_approval",
            "reason": "No.",
            "require": LIST,
            "deny_if": LIST,
            "require_approval_if": LIST,
            "only_arguments": ["a"],
            "limits": [LIMIT, {**LIMIT, "increment": 2}, {**LIMIT, "increment_from": "args.a", "charge_on": "success"}],
            "rate_limit": {"max": 5, "window": 60},
            "mode": "enforce",
        }
    },
}


def accepts(document: Any) -> bool:
    """Whether the schema accepts a document."""
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(document)


def reads(document: Any) -> bool:
    """Whether the reader does."""
    try:
        return parse_policy(json.dumps(document), "p.json", "policy.json").version == "1"
    except DocumentError:
        return False


def documents(value: Any) -> Iterator[Any]:
    """Everything in a file of data that has the look of a policy, whatever it is there for."""
    if isinstance(value, dict):
        if "default" in value and "version" in value:
            yield value
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from documents(item)


def policies() -> list[Any]:
    """Every policy among the tests' data that reads."""
    found: dict[str, Any] = {}
    for file in sorted(DATA.iterdir()):
        if file.suffix in (".json", ".yaml"):
            text = file.read_text("utf-8")
            content = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
            found |= {json.dumps(one, default=str): one for one in documents(content)}
    for case in yaml.safe_load((DATA / "lint_cases.yaml").read_text("utf-8")):
        text = f'version: "1"\ndefault: {case.get("default", "deny")}\n{case["text"].replace("«", "")}'
        found[text] = yaml.safe_load(text)
    return [one for one in found.values() if reads(one)]


def keys(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every key of a document, but names of tools."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if isinstance(value, dict) and path != ("tools",):
            yield (*path, key)
        yield from keys(item, (*path, key))


def changed(path: tuple[Any, ...], change: Any) -> Any:
    """The full document, with a change to the object that holds the last key of the path."""
    document = copy.deepcopy(FULL)
    part = document
    for step in path[:-1]:
        part = part[step]
    change(part, path[-1])
    return document


def test_the_shipped_file_is_what_the_model_makes() -> None:
    """`python -m mcp_policy_middleware.policy.schema` writes it anew."""
    assert json.loads(schema_text()) == make_schema()
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_key_and_part_is_described() -> None:
    """An editor has something to show for whatever the pointer rests on."""
    for part in (SCHEMA, *SCHEMA["$defs"].values()):
        assert part["description"].endswith(".")
        if "$ref" not in part:
            assert all(field["description"].endswith(".") for field in part["properties"].values())


def test_every_valid_policy_is_accepted() -> None:
    """Each policy among the tests' data that reads is valid by the schema."""
    found = policies()
    assert len(found) > 100
    assert [one for one in [*found, FULL] if not accepts(one)] == []


@pytest.mark.parametrize("path", list(keys(FULL)), ids=lambda path: "/".join(map(str, path)))
def test_a_misspelt_key_is_refused(path: tuple[Any, ...]) -> None:
    """At every level a key with a letter too many is invalid by the schema, and does not read."""
    document = changed(path, lambda part, key: part.update({f"{key}s": part.pop(key)}))
    assert not accepts(document)
    assert not reads(document)


@pytest.mark.parametrize("path", list(keys(FULL)), ids=lambda path: "/".join(map(str, path)))
def test_null_is_refused_where_the_reader_refuses_it(path: tuple[Any, ...]) -> None:
    """A key without a value is invalid, but as the value of a condition."""
    document = changed(path, lambda part, key: part.update({key: None}))
    assert accepts(document) == reads(document) == (path[-1] == "value")


VALUES: dict[str, Any] = json.loads((DATA / "invalid_values.json").read_text("utf-8"))


@pytest.mark.parametrize("kind", VALUES)
def test_the_schema_refuses_nothing_that_reads(kind: str) -> None:
    """Of the values that the reader's own tests try, those that read are valid."""
    good, rows = VALUES[kind]
    for key, value, *_ in rows:
        document = enclosed(kind, good | {key: value})
        assert accepts(document) or not reads(document)


def enclosed(kind: str, part: dict[str, Any]) -> dict[str, Any]:
    """A document around a part of it."""
    document: dict[str, Any] = {"version": "1", "default": "deny"}
    if kind.endswith("at the top"):
        return document | part
    if kind.endswith("a tool's name"):
        return document | {"tools": part}
    if kind.endswith("a tool's rules"):
        return document | {"tools": {"t": part}}
    if kind == "rate_limit":
        return document | {"tools": {"t": {"rate_limit": part}}}
    if kind.endswith("limit"):
        return document | {"tools": {"t": {"limits": [part]}}}
    return document | {"tools": {"t": {"require": [{"conditions": [part]}]}}}


REFUSED = [
    {"require": [{"conditions": []}]},
    {"action": "deny", "limits": []},
    {"limits": [{**LIMIT, "increment": 1, "increment_from": "args.a"}]},
    {"limits": [{**LIMIT, "window": 0}]},
    {"limits": [{**LIMIT, "max": -1}]},
    {"limits": [{**LIMIT, "increment_from": "call.grant"}]},
    *(
        {"deny_if": [{"conditions": [{"path": path, "op": op, "value": value}]}]}
        for path, op, value in [
            ("amount", "eq", 1),
            ("state.calls", "eq", 1),
            ("call.user", "eq", 1),
            ("args.a", "equals", 1),
            ("args.a", "in", "usd"),
            ("args.a", "gt", "5"),
            ("args.a", "exists", "true"),
            ("args.a", "regex", 5),
            ("args.a", "host_in", []),
        ]
    ),
]


@pytest.mark.parametrize("rules", REFUSED, ids=json.dumps)
def test_the_schema_knows_what_several_keys_mean_together(rules: dict[str, Any]) -> None:
    """Values by operator, and what does not go together, are invalid by the schema as by the reader."""
    document = {"version": "1", "default": "deny", "tools": {"t": rules}}
    assert not reads(document)
    assert not accepts(document)
