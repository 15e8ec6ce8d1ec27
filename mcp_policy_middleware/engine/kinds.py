"""What stands at a path, told by its kind and never by its value: for whoever explains a decision."""

from __future__ import annotations

import math
from typing import Any, Final

from ..policy.paths import EACH, Step
from .equality import has_foreign_key, is_text

__all__ = ["kind_at", "kind_of"]

_MISSING: Final = object()
_MOST_KINDS: Final = 5


def kind_of(value: Any) -> str:
    """The kind of a value: `number`, `string of 12 characters`, `null`, `list of 3`, `not JSON`."""
    if value is None:
        return "null"
    if type(value) is bool:
        return "boolean"
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        return "number"
    if type(value) is str and is_text(value):
        return "string of 1 character" if len(value) == 1 else f"string of {len(value)} characters"
    if type(value) is list:
        return f"list of {len(value)}"
    if type(value) is dict and not has_foreign_key(value):
        return "object with 1 key" if len(value) == 1 else f"object with {len(value)} keys"
    return "not JSON"


def kind_at(value: Any, steps: tuple[Step, ...]) -> str:
    """The kind of what a path leads to (PL-3.4).

    Args:
        value: Where the path starts.
        steps: The way from there.
    """
    for index, step in enumerate(steps):
        if value is None:  # a step into null is missing
            return "missing"
        if step is EACH:
            return _kinds(value, steps[index + 1 :])
        if isinstance(step, int):
            if type(value) is not list:
                return f"{kind_of(value)} where a list is needed"
            value = value[step] if step < len(value) else _MISSING
        elif type(value) is not dict:
            return f"{kind_of(value)} where an object is needed"
        else:
            value = value.get(step, _MISSING)
        if value is _MISSING:
            return "missing"
    return kind_of(value)


def _kinds(value: Any, steps: tuple[Step, ...]) -> str:
    if type(value) is not list:
        return f"{kind_of(value)} where a list is needed"
    kinds = dict.fromkeys(kind_at(item, steps) for item in value)
    more = ["and others"] if len(kinds) > _MOST_KINDS else []
    told = ", ".join([*list(kinds)[:_MOST_KINDS], *more])
    return f"{kind_of(value)}: {told}" if told else kind_of(value)
