"""What of a document is ours alone, and where it stands (PL-1.7)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mcp_policy_middleware import parse_policy
from mcp_policy_middleware.policy.portable import extensions

DATA = Path(__file__).parent / "data"

EVERYTHING = """\
version: "1"
default: deny
$schema: https://example.test/policy.schema.json
description: Everything that can be said.
«mode: shadow
hide: [plain, «"drop_*"]
all_tools:
  «require: [{conditions: [{«path: call.grant, op: eq, value: a}]}]
  «deny_if: [{conditions: [{«path: context.tier, op: eq, value: free}]}]
  «require_approval_if: [{conditions: [{path: args.amount, op: gt, value: 1}]}]
  limits:
    - {counter: calls, window: hour, max: 5, scope: grant, on_deny: Enough.}
    - {counter: all, «window: week, max: 5, «scope: global, «algorithm: sliding, «charge_on: success}
tools:
  «"get_?": {}
  refund:
    action: require_approval
    reason: A person does that.
    «mode: enforce
    «only_arguments: [amount]
    require:
      - conditions: [{path: args.order.amount, op: lte, value: 5}, {«path: 'args["a.b"]', op: eq, value: 1}]
        on_deny: No.
      - conditions: [{«path: 'args.items[*].url', «op: host_in, value: [example.com]}]
    deny_if:
      - conditions: [{path: args.path, «op: path_within, value: [/etc]}]
      - conditions: []
      - conditions: [{«path: 'args.items[0]', «op: ip_in, value: [10.0.0.0/8]}]
    «require_approval_if: [{conditions: [{path: args.x, op: regex, value: a}]}]
    limits:
      - {counter: a, «window: 60, max: 5, «increment: 2}
      - {counter: b, «window: month, max: 5, «increment_from: args.amount}
      - {counter: c, window: day, max: 5, «increment_from: 'args["amount"]'}
    rate_limit: {max: 5, window: 60}
  charge:
    rate_limit: {max: 5, «window: month}
"""


def test_every_extension_is_listed_at_its_place() -> None:
    """Keys, globs, paths, operators, windows and scopes that other readers do not know, in the document's order."""
    text, places = "", set()
    for char in EVERYTHING:
        if char == "«":
            places.add((text.count("\n") + 1, len(text) - text.rfind("\n")))
        else:
            text += char
    found = extensions(text, parse_policy(text, "p.yaml"))
    listed = [(one.line, one.column) for one in found]
    assert listed == sorted(listed)
    assert set(listed) == places
    assert {one.code for one in found} == {"extension"}
    assert all(one.help and one.pointer.startswith("/") and "`" in one.message for one in found)


def test_the_published_language_is_portable() -> None:
    """Whatever PolicyLayer's own documents use is no extension, unless they are marked as another kind."""
    found = 0
    for case in json.loads((DATA / "policylayer_cases.json").read_text("utf-8")):
        if case["policy"] is not None and case.get("valid", True):
            text = json.dumps(case["policy"])
            found += 1
            assert extensions(text, parse_policy(text)) == [], case["id"]
    assert found > 10


@pytest.mark.parametrize("hide", [["*"], ["a", "b"], []])
def test_hiding_everything_is_portable(hide: list[str]) -> None:
    """`*` alone in `hide` is everybody's."""
    text = json.dumps({"version": "1", "default": "deny", "hide": hide})
    assert extensions(text, parse_policy(text)) == []


def test_another_dialect_is_not_portable_at_all() -> None:
    """Intercept's YAML is one finding, for the whole document."""
    text = "version: '1'\ntools: {a: {rules: [{name: r, action: deny}]}}\n"
    (found,) = extensions(text, parse_policy(text, "p.yaml"))
    assert (found.pointer, found.line) == ("", 1)
    assert "`mcp-policy convert`" in found.help
