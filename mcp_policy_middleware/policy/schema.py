"""The JSON Schema of policy.json (draft 2020-12), made from the model: what an editor checks while one types.

A document that the schema refuses does not read. The reverse does not hold: patterns, paths and shared
counters are looked at by the reader alone. `python -m mcp_policy_middleware.policy.schema` writes the file anew.
"""

from __future__ import annotations

import inspect
import json
from importlib.resources import files
from pathlib import Path as FilePath
from typing import Any, Final

from pydantic import BaseModel

from .model import AllTools, Condition, Limit, Policy, Predicate, RateLimit, ToolRules

__all__ = ["SCHEMA_FILE", "make_schema", "schema_text"]

SCHEMA_FILE: Final = "policy.schema.json"
_HOME: Final = "https://raw.githubusercontent.com/mcp-policy-middleware/mcp-policy-middleware/main"

_PREDICATE_LISTS: Final = {
    "require": "Predicates that must each hold.",
    "deny_if": "Predicates of which none may hold; one without conditions always holds.",
    "require_approval_if": "Predicates of which one that holds asks a person first.",
}
_DESCRIPTIONS: Final[dict[type[BaseModel], dict[str, str]]] = {
    Policy: {
        "version": "The version of the language.",
        "default": "What happens to tools that `tools` does not list.",
        "description": "Text without effect.",
        "$schema": "The address of this schema; without effect.",
        "hide": 'Tools that are taken out of lists and denied when called: names, globs, or `["*"]`.',
        "all_tools": "Rules for every call that gets that far.",
        "tools": "Rules by tool. A name with `*` or `?` is a glob; an exact name wins over globs.",
        "mode": "`shadow` decides and records, and blocks nothing.",
    },
    AllTools: {**_PREDICATE_LISTS, "limits": "Limits on every call."},
    ToolRules: {
        **_PREDICATE_LISTS,
        "action": "What happens to the call where no rule below denies it.",
        "reason": "What the agent reads where `action` denies or asks.",
        "only_arguments": "The names of arguments that may occur at all.",
        "limits": "Limits on calls of this tool.",
        "rate_limit": "One limit on calls per session, with the counter `<tool>_rate`.",
        "mode": "Overrides the document's `mode` for this tool.",
    },
    Predicate: {"conditions": "Conditions that must all hold.", "on_deny": "What the agent reads where this denies."},
    Condition: {
        "path": "Where the value stands: `args.amount`, `args.items[*].price`, `call.grant`, `context.tier`.",
        "op": "The operator.",
        "value": "What to compare with; its kind depends on the operator.",
    },
    Limit: {
        "counter": "The counter's name. Limits of one name and scope share one counter.",
        "window": "The period: a name, or whole seconds.",
        "max": "What the counter may reach within the window.",
        "scope": "Whose calls are counted together.",
        "algorithm": "`sliding` lets no burst pass at the boundary of two windows.",
        "increment": "What a call charges, in place of 1.",
        "increment_from": "The argument whose value a call charges.",
        "charge_on": "`success` gives the charge back where the tool reports an error.",
        "on_deny": "What the agent reads where this denies.",
    },
    RateLimit: {"max": "Calls within the window.", "window": "The period: whole seconds, or a name."},
}
_VALUES: Final[tuple[tuple[tuple[str, ...], dict[str, Any]], ...]] = (
    (("in", "not_in"), {"type": "array"}),
    (("lt", "lte", "gt", "gte"), {"type": "number"}),
    (("regex",), {"type": "string"}),
    (("exists",), {"type": "boolean"}),
    (("path_within", "host_in", "ip_in"), {"type": "array", "items": {"type": "string"}, "minItems": 1}),
)
_BOUNDS: Final = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
"""What pydantic writes on a union of kinds, in JSON Schema's words."""
_DEAD_BESIDE_DENY: Final = ("require", "deny_if", "require_approval_if", "only_arguments", "limits", "rate_limit")


def make_schema() -> dict[str, Any]:
    """The schema, made from the model's classes; the same for the same model."""
    made = Policy.model_json_schema(by_alias=True)
    parts: dict[str, Any] = made.pop("$defs")
    parts["Policy"] = made
    for model, texts in _DESCRIPTIONS.items():
        _describe(parts[model.__name__], model, texts)
    parts = _plain(parts)
    _add_meaning(parts)
    top = parts.pop("Policy")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{_HOME}/mcp_policy_middleware/policy/{SCHEMA_FILE}",
        "title": "policy.json",
        **top,
        "$defs": dict(sorted(parts.items())),
    }


def schema_text() -> str:
    """The schema's text, as it is shipped beside this module."""
    return (files(__package__) / SCHEMA_FILE).read_text("utf-8")


def _describe(part: dict[str, Any], model: type[BaseModel], texts: dict[str, str]) -> None:
    first = (inspect.getdoc(model) or "").partition("\n\n")[0].replace("\n", " ")
    part["description"] = first.partition(";")[0].removesuffix(".") + "."
    for name, field in part["properties"].items():
        field["description"] = texts[name]


def _plain(node: Any) -> Any:
    """Without generated titles, and without null: a key without a value is refused."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {
        _BOUNDS.get(key, key): {name: _plain(item) for name, item in value.items()}
        if key == "properties"
        else _plain(value)
        for key, value in node.items()
        if key != "title" and not (key == "default" and not isinstance(value, (str, int)))
    }
    branches = [branch for branch in plain.get("anyOf", ()) if branch != {"type": "null"}]
    if "anyOf" in plain:
        del plain["anyOf"]
        kinds = {branch.get("type") for branch in branches}
        if kinds == {"integer", "number"}:
            branches = [branch for branch in branches if branch["type"] == "number"]
        plain |= branches[0] if len(branches) == 1 else {"anyOf": branches}
    return plain


def _add_meaning(parts: dict[str, Any]) -> None:
    """What the reader checks beside kinds, where a schema can say it."""
    condition, rules = parts["Condition"], parts["ToolRules"]
    condition["properties"]["path"]["pattern"] = r"^(args|context)[.\[]|^call\.(tool|server|grant|session)$"
    condition["allOf"] = [
        {"if": {"properties": {"op": {"enum": list(ops)}}, "required": ["op"]}, "then": {"properties": {"value": kind}}}
        for ops, kind in _VALUES
    ]
    rules["if"] = {"properties": {"action": {"const": "deny"}}, "required": ["action"]}
    rules["then"] = {"properties": dict.fromkeys(_DEAD_BESIDE_DENY, False)}
    parts["Requirement"] = {
        "description": "A predicate with at least one condition.",
        "$ref": "#/$defs/Predicate",
        "properties": {"conditions": {"minItems": 1}},
    }
    for part in (rules, parts["AllTools"]):
        part["properties"]["require"]["items"] = {"$ref": "#/$defs/Requirement"}
    parts["Limit"]["not"] = {"required": ["increment", "increment_from"]}
    parts["Limit"]["properties"]["increment_from"]["pattern"] = r"^args[.\[]"
    parts["Policy"]["properties"]["hide"]["uniqueItems"] = True
    parts["Policy"]["properties"]["tools"] |= {"propertyNames": {"pattern": r"\S"}}
    parts["Policy"]["properties"]["tools"] |= {"additionalProperties": {"$ref": "#/$defs/ToolRules"}}
    parts["Policy"]["properties"]["tools"].pop("patternProperties", None)


if __name__ == "__main__":
    FilePath(__file__).with_name(SCHEMA_FILE).write_text(json.dumps(make_schema(), indent=2) + "\n", "utf-8")
