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
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

from ..policy.model import Condition, Operator
from ..policy.paths import EACH, Step, parse_path
from ..policy.patterns import compile_pattern, compile_pattern_set
from ..policy.places import host_in, ip_in, path_within
from .equality import (
    MAX_TEXT,
    Tristate,
    all_answers,
    any_of,
    equal,
    false_if_json,
    has_foreign_key,
    is_text,
    json_text,
    may_be_foreign,
    may_be_number,
)

__all__ = ["OPERATORS", "OperatorRule", "Scene", "Test", "all_of", "compile_condition"]

Test: TypeAlias = Callable[[dict[str, Any], "Scene | None"], Tristate]
"""Takes the arguments of a call, and what lies outside them where a plan `looks_outside`; keeps neither."""

Check: TypeAlias = Callable[[Any], Tristate]
"""Takes one value that is present and not null."""

_MISSING: Final = object()


@dataclass(slots=True)
class Scene:
    """What conditions can see beside the arguments: `call.*`, `context.*` and `state.*` (PL-3.2, PL-8.2)."""

    call: dict[str, Any]
    context: dict[str, Any]
    state: dict[str, Any] = field(default_factory=dict)


def compile_condition(condition: Condition, *, every: bool = False) -> Test:
    """The condition as a function of a call.

    Args:
        condition: A validated condition.
        every: True in `require`, where a false answer denies: `[*]` must hold for every element, and patterns run
            on RE2's set matcher, which is twice as fast and answers false where it runs out of memory. False where
            a false answer lets a call go on: `[*]` holds when any element does.
    """
    path = parse_path(condition.path)
    compile_operator = _matches if condition.op == "regex" and every else OPERATORS[condition.op].compile
    on_missing, on_null, check = compile_operator(condition.value)
    steps = path.steps
    if path.root != "args":
        return _test_outside(
            path.root, steps, _Walk(None if condition.op != "exists" else on_missing, on_null, check, every)
        )
    if len(steps) == 1 and isinstance(steps[0], str) and not may_be_foreign(steps[0]):
        return _test_argument(steps[0], on_missing, on_null, check)
    walk = _Walk(on_missing, on_null, check, every)
    return lambda arguments, scene: walk.test(arguments, steps)


def all_of(tests: tuple[Test, ...]) -> Test:
    """True when all are, False when any is, else undecidable; of no tests, True."""
    if len(tests) == 1:
        return tests[0]

    def test(arguments: dict[str, Any], scene: Scene | None) -> Tristate:
        result: Tristate = True
        for one in tests:
            answer = one(arguments, scene)
            if answer is False:
                return False
            if answer is None:
                result = None
        return result

    return test


def _test_argument(name: str, on_missing: Tristate, on_null: Tristate, check: Check) -> Test:
    def test(arguments: dict[str, Any], scene: Scene | None) -> Tristate:
        value = arguments.get(name, _MISSING)
        if value is None:
            return on_null
        if value is _MISSING:
            return None if has_foreign_key(arguments) else on_missing
        return check(value)

    return test


def _test_outside(root: str, steps: tuple[Step, ...], walk: _Walk) -> Test:
    def test(arguments: dict[str, Any], scene: Scene | None) -> Tristate:
        if scene is None:
            raise RuntimeError("a plan with a condition outside the arguments was run without its scene")
        return walk.test(getattr(scene, root), steps)

    return test


@dataclass(frozen=True, slots=True)
class _Walk:
    """Follows a path to a value, or to each of several, and asks the operator there (PL-3.4)."""

    on_missing: Tristate
    on_null: Tristate
    check: Check
    every: bool

    def test(self, value: Any, steps: tuple[Step, ...]) -> Tristate:
        for index, step in enumerate(steps):
            if value is None:  # a step into null is missing
                return self.on_missing
            if step is EACH:
                return self._test_each(value, steps[index + 1 :])
            if isinstance(step, int):
                if type(value) is not list:
                    return None
                value = value[step] if step < len(value) else _MISSING
            else:
                if type(value) is not dict:
                    return None
                parent, value = value, value.get(step, _MISSING)
                if (value is _MISSING or may_be_foreign(step)) and has_foreign_key(parent):
                    return None
            if value is _MISSING:
                return self.on_missing
        return self.on_null if value is None else self.check(value)

    def _test_each(self, value: Any, steps: tuple[Step, ...]) -> Tristate:
        if type(value) is not list:
            return None
        answers = (self.test(item, steps) for item in value)
        if self.every:
            return all_answers(answers) if value else False
        return any_of(answers)


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
    numbers = tuple(item for item in wanted if type(item) in (int, float))
    texts = frozenset([*(item for item in wanted if type(item) is str), *map(json_text, numbers)])
    checks = tuple(equal(item) for item in wanted) or (false_if_json,)
    others = tuple(equal(item) for item in wanted if type(item) not in (int, float)) or (false_if_json,)

    def test(value: Any) -> Tristate:
        if type(value) is not str:
            return any_of(check(value) for check in checks)
        if value in texts:
            return True
        answer = any_of(check(value) for check in others)
        return None if answer is False and numbers and may_be_number(value, numbers) else answer

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


def _place(make: Callable[[list[str]], Check]) -> Callable[[list[str]], Compiled]:
    return lambda places: (False, False, make(places))


class OperatorRule(NamedTuple):
    """An operator: how it is compiled, and what documentation says of it.

    Attributes:
        compile: Takes the policy's value.
        takes: What that value may be.
        holds: When the condition is true.
    """

    compile: Callable[[Any], Compiled]
    takes: str
    holds: str


_NUMBER: Final = "a finite number"

OPERATORS: Final[dict[Operator, OperatorRule]] = {
    "eq": OperatorRule(_eq, "any value", "the values are equal"),
    "neq": OperatorRule(_neq, "any value", "they are not, and there is one"),
    "in": OperatorRule(_in, "a list", "one of the list is equal"),
    "not_in": OperatorRule(_not_in, "a list", "none is, and there is a value"),
    "lt": OperatorRule(_ordering(operator.lt), _NUMBER, "less than"),
    "lte": OperatorRule(_ordering(operator.le), _NUMBER, "at most"),
    "gt": OperatorRule(_ordering(operator.gt), _NUMBER, "more than"),
    "gte": OperatorRule(_ordering(operator.ge), _NUMBER, "at least"),
    "regex": OperatorRule(
        _regex, "an RE2 pattern", "the pattern is found in the string; anchor it where you mean all of it"
    ),
    "contains": OperatorRule(_contains, "any value", "a string has it as a part, or a list as an element"),
    "exists": OperatorRule(_exists, "true or false", "there is a value that is not null, or there is none"),
    "path_within": OperatorRule(
        _place(path_within), "a list of directories", "the absolute path lies in, or is, one of them"
    ),
    "host_in": OperatorRule(_place(host_in), "a list of hosts or `*.domain`", "the URL's host is one of them"),
    "ip_in": OperatorRule(
        _place(ip_in), "a list of CIDR blocks", "the address, or the URL's host, lies in one of them"
    ),
}
