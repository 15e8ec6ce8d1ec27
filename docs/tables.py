"""Draws the tables of the documentation from the code: `python docs/tables.py` rewrites the marked parts."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from mcp_policy_middleware import calls
from mcp_policy_middleware.approvals import states
from mcp_policy_middleware.approvals.states import TRANSITIONS, Event, State
from mcp_policy_middleware.engine.conditions import OPERATORS
from mcp_policy_middleware.policy.lint import RULES
from mcp_policy_middleware.telemetry.attributes import ATTRIBUTES, Signal
from mcp_policy_middleware.telemetry.metrics import INSTRUMENTS

DOCS = Path(__file__).parent
COVERAGE = yaml.safe_load((DOCS.parent / "tests" / "data" / "coverage.yaml").read_text(encoding="utf-8"))
WORLDS = {"mcp1": " (mcp 1.x)", "mcp2": " (mcp 2.x)", None: ""}
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def operators() -> str:
    """The operators, from the table that compiles them."""
    rows = ((f"`{name}`", rule.takes, rule.holds) for name, rule in OPERATORS.items())
    return table(("operator", "its value", "holds when"), rows)


def reasons() -> str:
    """The reasons, from the enum and the text under each member."""
    return table(("reason", "meaning"), ((f"`{name}`", text) for name, text in documented(calls, "Reason").items()))


def documented(module: ModuleType, name: str) -> dict[str, str]:
    """The values of an enum, each with the text under it."""
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    (enum,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    texts = {}
    for member, text in zip(enum.body[1::2], enum.body[2::2], strict=True):
        if not isinstance(member, ast.Assign) or not isinstance(text, ast.Expr):
            raise SystemExit(f"each member of {name} has a text under it")
        texts[ast.literal_eval(member.value)] = ast.literal_eval(text.value)
    return texts


def advice() -> str:
    """What the linter finds, from its own table."""
    return table(("code", "finds", "why it matters"), ((f"`{rule.code}`", rule.finds, rule.why) for rule in RULES))


def shown(entry: dict[str, Any]) -> str:
    """A row or a column of the coverage table, with the one dependency world that has it."""
    return f"{entry['shown']}{WORLDS[entry.get('only')]}"


def coverage() -> str:
    """Which hook sees which call, as the tests have tried it."""
    head = ("the call", *map(shown, COVERAGE["columns"].values()))
    return table(head, ((shown(row), *row["cells"]) for row in COVERAGE["rows"].values()))


def coverage_words() -> str:
    """What the words in the cells mean."""
    return table(("cell", "meaning"), COVERAGE["words"].items())


def coverage_hooks() -> str:
    """Where each hook is."""
    return table(("hook", "where it is"), ((shown(each), each["is"]) for each in COVERAGE["columns"].values()))


def coverage_calls() -> str:
    """What each way to call a tool is."""
    return table(("the call", "what it is"), ((shown(each), each["is"]) for each in COVERAGE["rows"].values()))


def approval_states() -> str:
    """Where each event leads from each state of an approval request."""
    meanings = documented(states, "State")
    head = ("state", "meaning", *(f"`{event}`" for event in Event))
    rows = []
    for state in State:
        leads = (TRANSITIONS.get((state, event)) for event in Event)
        rows.append((f"`{state}`", meanings[state.value], *(f"`{to}`" if to else "-" for to in leads)))
    return table(head, rows)


def approval_events() -> str:
    """What each event of an approval request is."""
    return table(
        ("event", "what happens"), ((f"`{event}`", text) for event, text in documented(states, "Event").items())
    )


SPANS = {
    Signal.DECISION: "decision",
    Signal.APPROVAL: "approval",
    Signal.CURRENT: "caller's",
    Signal.EVENT: "event",
}
"""The columns of the table of attributes; metrics have a table of their own."""


def attributes() -> str:
    """The attributes of spans and events, and where they are."""
    rows = (
        (f"`{one.key}`", one.meaning, one.when, *("x" if signal in one.signals else "" for signal in SPANS))
        for one in ATTRIBUTES
        if set(one.signals) & set(SPANS)
    )
    return table(("attribute", "meaning", "when", *SPANS.values()), rows)


def metrics() -> str:
    """The metrics, each with its attributes."""
    rows = (
        (f"`{one.signal}`", one.kind, f"`{one.unit}`", one.meaning, ", ".join(keys(one.signal)) or "-")
        for one in INSTRUMENTS.values()
    )
    return table(("metric", "kind", "unit", "what it tells", "attributes"), rows)


def keys(signal: Signal) -> list[str]:
    """The attributes of one signal."""
    return [f"`{one.key}`" for one in ATTRIBUTES if signal in one.signals]


TABLES: dict[str, Callable[[], str]] = {
    "operators": operators,
    "reasons": reasons,
    "advice": advice,
    "attributes": attributes,
    "metrics": metrics,
    "approval_states": approval_states,
    "approval_events": approval_events,
    "coverage": coverage,
    "coverage_words": coverage_words,
    "coverage_hooks": coverage_hooks,
    "coverage_calls": coverage_calls,
}


def drawn(text: str) -> str:
    """The page with its tables as the code has them."""
    return MARKED.sub(lambda match: match[1] + TABLES[match[2]]() + match[3], text)


def main() -> int:
    """Rewrite the pages; with `--check`, say which are out of date."""
    stale = 0
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if drawn(text) != text:
            stale += 1
            if "--check" in sys.argv:
                print(f"{page.name} is out of date: python docs/tables.py")
            else:
                page.write_text(drawn(text), encoding="utf-8")
    return stale if "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
