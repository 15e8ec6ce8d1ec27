"""One operator table, and paths: a condition of a document -> a test of a call's arguments.

A test answers True, False or None; None is *undecidable* (PL-3.4): the value is of a kind that a server may
read otherwise than the rule does, so whoever asks must deny. Tests combine by Kleene logic.

Only the exact types of JSON (dict, list, str, int, float, bool, None) are understood. Everything else is
undecidable where a condition meets it, and nothing walks arguments that no condition looks at (PL-4.1).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from ..policy.model import Condition, Operator, compile_pattern, compile_pattern_set, parse_path
from .equality import MAX_TEXT, Tristate, any_of, equal, false_if_json, has_foreign_key, is_text

__all__ = ["Test", "all_of", "compile_condition"]

Test: TypeAlias = Callable[[dict[str, Any]], Tristate]
"""Takes the arguments of a call; the values are never kept."""

Check: TypeAlias = Callable[[Any], Tristate]
"""Takes one value that is present and not null."""

_MISSING: Final = object()


def compile_condition(condition: Condition, *, lenient: bool = True) -> Test:
    """The condition as a function of a call's arguments.

    Args:
        condition: A validated condition.
        lenient: Whether a false answer may let a call go on, as in `deny_if`. Where it denies, as in
            `require`, patterns run on RE2's set matcher: it is twice as fast, and answers false where
            it runs out of memory.
    """
    names = parse_path(condition.path)
    compile_operator = _matches if condition.op == "regex" and not lenient else _OPERATORS[condition.op]
    on_missing, on_null, check = compile_operator(condition.value)
    if len(names) == 1 and not _may_be_foreign(names[0]):
        return _test_argument(names[0], on_missing, on_null, check)
    return _test_path(names, on_missing, on_null, check)


def all_of(tests: tuple[Test, ...]) -> Test:
    """True when all are, False when any is, else undecidable; of no tests, True."""
    if len(tests) == 1:
        return tests[0]

    def test(arguments: dict[str, Any]) -> Tristate:
        result: Tristate = True
        for one in tests:
            answer = one(arguments)
            if answer is False:
                return False
            if answer is None:
                result = None
        return result

    return test


def _test_argument(name: str, on_missing: Tristate, on_null: Tristate, check: Check) -> Test:
    def test(arguments: dict[str, Any]) -> Tristate:
        value = arguments.get(name, _MISSING)
        if value is None:
            return on_null
        if value is _MISSING:
            return None if has_foreign_key(arguments) else on_missing
        return check(value)

    return test


def _test_path(names: tuple[str, ...], on_missing: Tristate, on_null: Tristate, check: Check) -> Test:
    unsafe = tuple(_may_be_foreign(name) for name in names)

    def test(arguments: dict[str, Any]) -> Tristate:
        value: Any = arguments
        for name, suspect in zip(names, unsafe, strict=True):
            if value is None:  # a step into null is missing
                return on_missing
            if type(value) is not dict:
                return None
            parent, value = value, value.get(name, _MISSING)
            if (suspect or value is _MISSING) and has_foreign_key(parent):
                return None
            if value is _MISSING:
                return on_missing
        return on_null if value is None else check(value)

    return test


def _may_be_foreign(name: str) -> bool:
    """Whether a key that is no string may be written as this name beside the string, as 1 and `"1"` are."""
    return not name[:1].isalpha() or name in ("true", "false", "null", "NaN", "Infinity")


Compiled: TypeAlias = tuple[Tristate, Tristate, Check]
"""What the operator says of a missing value, of null, and of any other value."""


def _eq(wanted: Any) -> Compiled:
    return False, wanted is None, equal(wanted)


def _neq(wanted: Any) -> Compiled:
    return False, wanted is not None, _negated(equal(wanted))


def _in(wanted: list[Any]) -> Compiled:
    return False, None in wanted, _any_equal(wanted)


def _not_in(wanted: list[Any]) -> Compiled:
    return False, None not in wanted, _negated(_any_equal(wanted))


def _negated(check: Check) -> Check:
    def test(value: Any) -> Tristate:
        answer = check(value)
        return None if answer is None else not answer

    return test


def _any_equal(wanted: list[Any]) -> Check:
    texts = frozenset(item for item in wanted if type(item) is str)
    checks = tuple(equal(item) for item in wanted) or (false_if_json,)

    def test(value: Any) -> Tristate:
        if type(value) is str and value in texts:
            return True
        return any_of(check(value) for check in checks)

    return test


def _ordering(compare: Callable[[Any, Any], bool]) -> Callable[[Any], Compiled]:
    def ordered(bound: float) -> Compiled:
        def test(value: Any) -> Tristate:
            if type(value) is int:
                return compare(value, bound)
            if type(value) is float and math.isfinite(value):
                return compare(value, bound)
            return None

        return False, False, test

    return ordered


def _regex(pattern: str) -> Compiled:
    return False, False, _text_check(compile_pattern(pattern).search)


def _matches(pattern: str) -> Compiled:
    return False, False, _text_check(compile_pattern_set(pattern).Match)


def _text_check(find: Callable[[bytes], Any]) -> Check:
    def test(value: Any) -> Tristate:
        if type(value) is not str or len(value) > MAX_TEXT:
            return None
        try:
            data = value.encode()
        except UnicodeEncodeError:
            return None
        return None if len(data) > MAX_TEXT else bool(find(data))

    return test


def _contains(wanted: Any) -> Compiled:
    check = equal(wanted)

    def test(value: Any) -> Tristate:
        if type(value) is list:
            return any_of(map(check, value))
        if type(value) is str and type(wanted) is str and is_text(value):
            return wanted in value
        return None

    return False, False, test


def _exists(wanted: bool) -> Compiled:
    return not wanted, not wanted, lambda value: None if false_if_json(value) is None else wanted


_OPERATORS: Final[dict[Operator, Callable[[Any], Compiled]]] = {
    "eq": _eq,
    "neq": _neq,
    "in": _in,
    "not_in": _not_in,
    "lt": _ordering(operator.lt),
    "lte": _ordering(operator.le),
    "gt": _ordering(operator.gt),
    "gte": _ordering(operator.ge),
    "regex": _regex,
    "contains": _contains,
    "exists": _exists,
}
