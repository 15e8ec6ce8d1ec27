"""How a policy looks: what holds for each tool, in a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, cast

from ..views.table import Cell, Mark, Part, Table, Viewed

if TYPE_CHECKING:
    from .model import AllTools, Limit, Policy, Predicate, ToolRules

__all__ = ["PolicyView"]

_MOST_ROWS: Final = 100
_ACTIONS: Final[dict[str, Mark]] = {
    "allow": Mark("allow", "good"),
    "deny": Mark("deny", "bad"),
    "require_approval": Mark("ask a person", "warn"),
}
_RULES: Final = (("require", "require"), ("deny_if", "deny if"), ("require_approval_if", "ask a person if"))


class PolicyView(Viewed):
    """What a `Policy` shows."""

    __slots__ = ()

    def _tables(self) -> Iterable[Table]:
        policy = cast("Policy", self)
        shadow: tuple[Part, ...] = () if policy.mode == "enforce" else (Mark("not enforced", "warn"),)
        facts: list[tuple[Cell, ...]] = [
            ("description", policy.description or ""),
            ("hidden", ", ".join(policy.hide)),
            ("digest", Mark(policy.digest)),
        ]
        yield Table((Mark(policy.name), "default", _ACTIONS[policy.default], *shadow), rows=facts)
        rows = [] if policy.all_tools == type(policy.all_tools)() else [_row("every tool", policy.all_tools)]
        rows += [_row(Mark(name), rules) for name, rules in islice(policy.tools.items(), _MOST_ROWS)]
        left = len(policy.tools) - _MOST_ROWS
        note = f"and {left:,} more tools" if left > 0 else ""
        yield Table((), ("tool", "answer", "rules", "limits"), rows, note)


def _row(name: Part, rules: ToolRules | AllTools) -> tuple[Cell, ...]:
    answer: list[Part] = []
    action = getattr(rules, "action", None)
    if action is not None:
        answer.append(_ACTIONS[action])
    mode = getattr(rules, "mode", None)
    if mode is not None:
        answer.append(Mark("enforced" if mode == "enforce" else "not enforced", "warn"))
    return name, tuple(answer), tuple(_rules(rules)), tuple(_limits(rules))


def _rules(rules: ToolRules | AllTools) -> Iterator[str]:
    closed = getattr(rules, "only_arguments", None)
    if closed is not None:
        yield f"only the arguments {', '.join(closed)}" if closed else "no arguments"
    for key, word in _RULES:
        predicates: tuple[Predicate, ...] = getattr(rules, key)
        for predicate in predicates:
            tests = [f"{one.path} {one.op} {_json(one.value)}" for one in predicate.conditions]
            yield f"{word} {' and '.join(tests) or 'any call'}"


def _limits(rules: ToolRules | AllTools) -> Iterator[str]:
    for limit in rules.limits:
        yield _limit(limit)
    rate = getattr(rules, "rate_limit", None)
    if rate is not None:
        yield f"{_number(rate.max)} calls per {_window(rate.window)}, by session"


def _limit(limit: Limit) -> str:
    added = limit.increment_from or (None if limit.increment is None else _number(limit.increment))
    each = "" if added is None else f", a call adds {added}"
    return f"{limit.counter}: {_number(limit.max)} per {_window(limit.window)}, by {limit.scope}{each}"


def _window(window: str | int) -> str:
    return window if isinstance(window, str) else f"{window:,} s"


def _number(amount: float) -> str:
    return f"{amount:,}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
