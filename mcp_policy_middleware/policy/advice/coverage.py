"""What leaves nothing to others: globs that cover globs, conditions that imply or exclude one another.

Every answer here is a proof: where a function cannot tell, it says no, and no advice is given.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from ...canonical import canonical
from ..globs import is_glob, matcher
from ..model import Condition
from ..paths import EACH, DocumentPath, parse_path
from ..patterns import compile_pattern

__all__ = ["ORDERINGS", "covers", "dead_after", "holds_for", "implies", "impossible_at", "path_of"]

ORDERINGS: Final = ("lt", "lte", "gt", "gte")
_OF_TEXT: Final = ("regex", "path_within", "host_in", "ip_in")
_COMPARISONS: Final = {"lt": operator.lt, "lte": operator.le, "gt": operator.gt, "gte": operator.ge}
_MOST_STATES: Final = 4096

_matcher: Final = lru_cache(maxsize=1024)(matcher)


def covers(wide: str, narrow: str) -> bool:
    """Whether one glob matches every name that another matches; a name without `*` and `?` is a glob for itself.

    Both are followed letter by letter at once; a letter that neither holds stands for all the rest of Unicode.
    """
    if not is_glob(wide):
        return wide == narrow
    one_name = narrow.replace("*", "").replace("?", "\0")
    if _matcher(wide).fullmatch(one_name) is None:
        return False
    if not is_glob(narrow):
        return True
    letters = {"", *wide, *narrow} - {"*", "?"}
    start = (_reached(narrow, {0}), _reached(wide, {0}))
    seen, queue = {start}, [start]
    while queue:
        mine, other = queue.pop()
        if len(narrow) in mine and len(wide) not in other:
            return False
        for letter in letters:
            pair = (_after(narrow, mine, letter), _after(wide, other, letter))
            if pair[0] and pair not in seen:
                seen.add(pair)
                queue.append(pair)
        if len(seen) > _MOST_STATES:
            return False
    return True


def _reached(glob: str, places: Iterable[int]) -> frozenset[int]:
    """The places and those that follow where a `*` matches nothing."""
    reached: set[int] = set()
    for place in places:
        passed = next((at for at in range(place, len(glob)) if glob[at] != "*"), len(glob))
        reached.update(range(place, passed + 1))
    return frozenset(reached)


def _after(glob: str, places: Iterable[int], letter: str) -> frozenset[int]:
    inside = [place for place in places if place < len(glob)]
    passed = {place + 1 for place in inside if glob[place] in (letter, "?")}
    return _reached(glob, passed | {place for place in inside if glob[place] == "*"})


@lru_cache(maxsize=1024)
def path_of(text: str) -> DocumentPath:
    """A condition's path, taken apart."""
    return parse_path(text)


def _same_path(one: Condition, other: Condition) -> bool:
    first, second = path_of(one.path), path_of(other.path)
    return (first.root, first.steps) == (second.root, second.steps)


def _key(value: Any) -> Any:
    """What equal scalars share (PL-3.5): their JSON text; null is like nothing else."""
    return value if value is None or type(value) is str else canonical(value)


def _values(condition: Condition) -> list[Any]:
    """The values that `eq`, `neq`, `in` and `not_in` list; none for other operators."""
    if condition.op in ("in", "not_in"):
        return list(condition.value)
    return [condition.value] if condition.op in ("eq", "neq") else []


def _keys(condition: Condition) -> set[Any] | None:
    """The keys of those values; None for other operators, and where lists or objects are among them."""
    if condition.op not in ("eq", "neq", "in", "not_in"):
        return None
    values = _values(condition)
    return None if any(isinstance(value, (list, dict)) for value in values) else {_key(value) for value in values}


def implies(one: Condition, other: Condition) -> bool:
    """Whether the other condition holds wherever the first one does, and is false nowhere else than it is."""
    if not _same_path(one, other):
        return False
    if one.op == other.op and canonical(one.value) == canonical(other.value):
        return True
    if one.op in ORDERINGS and other.op in ORDERINGS and one.op[0] == other.op[0]:
        if one.value == other.value:
            return one.op == other.op or other.op in ("lte", "gte")
        return bool((one.value > other.value) == (one.op[0] == "g"))
    listed, others = ({canonical(value) for value in _values(each)} for each in (one, other))
    if one.op in ("eq", "in") and other.op in ("eq", "in"):
        return listed <= others
    return one.op in ("neq", "not_in") and other.op in ("neq", "not_in") and listed >= others


def impossible_at(conditions: Sequence[Condition], *, every: bool) -> int | None:
    """The first condition that cannot hold together with those before it; None where they may hold together.

    Args:
        conditions: All of which are to hold.
        every: Whether `[*]` must hold for every element, as in `require`; elsewhere each may mean another element.
    """
    for index, condition in enumerate(conditions):
        if not every and EACH in path_of(condition.path).steps:
            continue
        if _impossible([one for one in conditions[: index + 1] if _same_path(one, condition)]):
            return index
    return None


def dead_after(required: Sequence[Condition], conditions: Sequence[Condition]) -> bool:
    """Whether requirements on numbers leave no call for which the conditions are anything but false."""
    for bound in required:
        if bound.op in ORDERINGS and EACH not in path_of(bound.path).steps:
            bounds = [one for one in required if _same_path(one, bound) and one.op in ORDERINGS]
            later = [one for one in conditions if _same_path(one, bound) and _is_numeric(one)]
            if later and not _impossible(bounds) and _impossible([*bounds, *later]):
                return True
    return False


def _is_numeric(condition: Condition) -> bool:
    values = condition.value if condition.op == "in" else [condition.value]
    return condition.op in (*ORDERINGS, "eq", "in") and all(type(value) in (int, float) for value in values)


def _impossible(conditions: list[Condition]) -> bool:
    """Whether no value meets all the conditions, which are about one path."""
    ops = {condition.op for condition in conditions}
    ordered = not ops.isdisjoint(ORDERINGS)
    if ordered and not ops.isdisjoint((*_OF_TEXT, "contains")):
        return True  # one is undecidable on numbers, the other on everything else
    if any(one.op == "exists" and one.value is False for one in conditions):
        return any(not _holds_for_null(one) for one in conditions)
    if ordered and _no_number(conditions):
        return True
    listed = [keys for one in conditions if one.op in ("eq", "in") and (keys := _keys(one)) is not None]
    if not listed:
        return False
    return not any(all(_may_hold(one, key) for one in conditions) for key in set.intersection(*listed))


def _holds_for_null(condition: Condition) -> bool:
    if condition.op == "exists":
        return condition.value is False
    listed = None in _values(condition)
    return listed if condition.op in ("eq", "in") else condition.op in ("neq", "not_in") and not listed


def _no_number(conditions: list[Condition]) -> bool:
    lows = [(one.value, one.op == "gt") for one in conditions if one.op[0] == "g"]
    highs = [(one.value, one.op == "lt") for one in conditions if one.op in ("lt", "lte")]
    if not lows or not highs:
        return False
    (low, above), (high, below) = max(lows), min(highs, key=lambda bound: (bound[0], not bound[1]))
    return bool(low > high or (low == high and (above or below)))


def _may_hold(condition: Condition, key: Any) -> bool:
    """Whether some value that equals the listed one may meet the condition; yes where this is not easily told."""
    keys = _keys(condition)
    if keys is not None:
        return (key in keys) == (condition.op in ("eq", "in"))
    if key is None:
        return condition.op not in (*ORDERINGS, *_OF_TEXT, "contains", "exists")
    if condition.op in ORDERINGS:
        number = _number(key)
        return number is not None and holds_for(condition, number)
    return condition.op != "regex" or holds_for(condition, key)


def _number(key: str) -> float | None:
    try:
        number = int(key) if key.removeprefix("-").isdecimal() else float(key)
        return number if math.isfinite(number) and canonical(number) == key else None
    except (ValueError, OverflowError):
        return None


def holds_for(condition: Condition, value: Any) -> bool:
    """Whether the condition may hold for a value, for those operators and kinds that need no second thought."""
    wanted = condition.value
    if condition.op in ORDERINGS and type(value) in (int, float):
        return bool(_COMPARISONS[condition.op](value, wanted))
    if condition.op == "regex" and type(value) is str:
        return bool(compile_pattern(wanted).search(value.encode()))
    if condition.op == "contains" and type(value) is str and type(wanted) is str:
        return bool(wanted in value)
    keys = _keys(condition)
    if keys is not None and not isinstance(value, (list, dict)):
        return (_key(value) in keys) == (condition.op in ("eq", "in"))
    return True
