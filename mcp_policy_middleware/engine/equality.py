"""Equality of a policy's value with an argument (PL-3.5): true, false or undecidable.

Undecidable is what a lenient server might take for the policy's value although it is not: `"50.0"` for 50, `1`
for true, a string of JSON for the object it spells.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeAlias

from ..canonical import canonical

__all__ = [
    "MAX_TEXT",
    "Tristate",
    "all_answers",
    "any_of",
    "equal",
    "false_if_json",
    "has_foreign_key",
    "is_text",
    "json_text",
    "may_be_foreign",
    "may_be_number",
]

Tristate: TypeAlias = bool | None
"""True, False, or None for undecidable."""

MAX_TEXT: Final = 64 * 1024
"""Bytes of UTF-8 that are searched or parsed; a longer text is undecidable (PL-3.4)."""

_TRUE_WORDS: Final = frozenset({"1", "true", "yes", "on", "t", "y"})
_FALSE_WORDS: Final = frozenset({"0", "false", "no", "off", "f", "n"})


def equal(wanted: Any) -> Callable[[Any], Tristate]:
    """A test for equality with a policy's value; it takes any Python value, null included."""
    kind = type(wanted)
    if kind is str:
        return _equal_text(wanted)
    if kind is bool:
        return _equal_boolean(wanted)
    if kind is int or kind is float:
        return _equal_number(wanted)
    if kind is list:
        return _equal_list(wanted)
    if kind is dict:
        return _equal_object(wanted)
    return lambda value: True if value is None else false_if_json(value)


def any_of(answers: Iterable[Tristate]) -> Tristate:
    """Kleene's OR."""
    result: Tristate = False
    for answer in answers:
        if answer is True:
            return True
        if answer is None:
            result = None
    return result


def is_text(value: str) -> bool:
    """Whether JSON can say it: it holds no lone surrogate."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def false_if_json(value: Any) -> Tristate:
    """False, or undecidable where JSON cannot say the value (PL-4.1); containers are not walked."""
    kind = type(value)
    if kind is str:
        return False if is_text(value) else None
    if kind is float:
        return False if math.isfinite(value) else None
    return False if value is None or kind in (bool, int, list, dict) else None


def has_foreign_key(value: dict[Any, Any]) -> bool:
    """Whether an object has a key that is no string: it may be written as any name."""
    return any(type(name) is not str for name in value)


def may_be_foreign(name: str) -> bool:
    """Whether a key that is no string may be written as this name beside the string, as 1 and `"1"` are."""
    return not name[:1].isalpha() or name in ("true", "false", "null", "NaN", "Infinity")


def _equal_text(wanted: str) -> Callable[[Any], Tristate]:
    def test(value: Any) -> Tristate:
        kind = type(value)
        if kind is str:
            return True if value == wanted else false_if_json(value)
        if kind is bool or kind is int or kind is float:
            try:
                return json_text(value) == wanted
            except ValueError:  # not finite, or too long to be written
                return None
        return false_if_json(value)

    return test


def json_text(value: float | bool) -> str:
    """The JSON text of a number or boolean, of a whole float its integer's."""
    return str(int(value)) if type(value) is float and value.is_integer() else canonical(value)


def _equal_number(wanted: float) -> Callable[[Any], Tristate]:
    text = json_text(wanted)

    def test(value: Any) -> Tristate:
        kind = type(value)
        if kind is int:
            return bool(value == wanted)
        if kind is float:
            return value == wanted if math.isfinite(value) else None
        if kind is bool:
            return None if value == wanted else False
        if kind is str:
            if value == text:
                return True
            return None if may_be_number(value, (wanted,)) else false_if_json(value)
        return false_if_json(value)

    return test


_READERS: Final[tuple[Callable[[str], Any], ...]] = (
    lambda digits: int(digits, 0),
    lambda digits: int(digits, 8) if digits.lstrip("+-").startswith("0") else int(digits),
    float,
    Decimal,
)


def may_be_number(text: str, wanted: Iterable[float]) -> bool:
    """Whether some lenient reader takes the text for one of the numbers; the text is read once."""
    text = text.replace("\ufeff", " ").strip().replace("_", "").replace(",", "")
    if not text:
        return 0 in wanted
    readings = []
    for read in _READERS:
        try:
            readings.append(read(text))
        except (ValueError, InvalidOperation):
            continue
    return any(reading == number for reading in readings for number in wanted)


def _equal_boolean(wanted: bool) -> Callable[[Any], Tristate]:
    text = "true" if wanted else "false"
    words = _TRUE_WORDS if wanted else _FALSE_WORDS

    def test(value: Any) -> Tristate:
        kind = type(value)
        if kind is bool:
            return value is wanted
        if kind is int or kind is float:
            return None if value == wanted else false_if_json(value)
        if kind is str:
            if value == text:
                return True
            # no word is longer than five letters, white space apart
            return None if value.strip().lower() in words else false_if_json(value)
        return false_if_json(value)

    return test


def _equal_list(wanted: list[Any]) -> Callable[[Any], Tristate]:
    checks = tuple(equal(item) for item in wanted)

    def test(value: Any) -> Tristate:
        if type(value) is str:
            return _spelled(value, test)
        if type(value) is not list:
            return false_if_json(value)
        if len(value) != len(checks):
            return False
        return all_answers(check(item) for check, item in zip(checks, value, strict=True))

    return test


def _equal_object(wanted: dict[str, Any]) -> Callable[[Any], Tristate]:
    checks = {name: equal(item) for name, item in wanted.items()}

    def test(value: Any) -> Tristate:
        if type(value) is str:
            return _spelled(value, test)
        if type(value) is not dict:
            return false_if_json(value)
        if has_foreign_key(value):
            return None
        if value.keys() != checks.keys():
            return False
        return all_answers(check(value[name]) for name, check in checks.items())

    return test


def all_answers(answers: Iterable[Tristate]) -> Tristate:
    """Kleene's AND."""
    result: Tristate = True
    for answer in answers:
        if answer is False:
            return False
        if answer is None:
            result = None
    return result


def _spelled(text: str, test: Callable[[Any], Tristate]) -> Tristate:
    """Undecidable where the text is JSON for the wanted list or object, else false."""
    if len(text) > MAX_TEXT:
        return None
    try:
        value = json.loads(text)
    except RecursionError:
        return None
    except ValueError:
        return false_if_json(text)
    if type(value) is str:
        return false_if_json(text)
    return False if test(value) is False else None
