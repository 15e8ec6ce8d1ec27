"""Canonical JSON and its digest (PL-7.1): one text for equal values, so that digests compare.

RFC 8785, except that integers are written exactly: 2^53 + 1 is not 2^53.
"""

from __future__ import annotations

import hashlib
import json
import math
from decimal import Decimal
from typing import Any, Final

__all__ = ["MAX_DEPTH", "canonical", "digest"]

MAX_DEPTH: Final = 64
"""More levels than this are not JSON to us (PL-4.1)."""

_quote: Final = json.JSONEncoder(ensure_ascii=False).encode


def canonical(value: Any) -> str:
    """The canonical JSON text of a value.

    Args:
        value: dicts with string keys, lists, strings, integers, finite floats, booleans and None.

    Raises:
        ValueError: The value holds something that JSON cannot say (PL-4.1).
    """
    parts: list[str] = []
    _write(value, parts, MAX_DEPTH)
    return "".join(parts)


def digest(value: Any) -> str:
    """SHA-256 over the canonical text, as `sha256:` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(canonical(value).encode()).hexdigest()


def _write(value: Any, parts: list[str], depth: int) -> None:
    kind = type(value)
    if kind is str:
        parts.append(_text(value))
    elif value is None or kind is bool:
        parts.append({None: "null", True: "true", False: "false"}[value])
    elif kind is int:
        parts.append(_digits(value))
    elif kind is float:
        parts.append(_number(value))
    elif depth == 0:
        raise ValueError(f"more than {MAX_DEPTH} levels")
    elif kind is dict:
        _write_object(value, parts, depth)
    elif kind is list:
        for index, item in enumerate(value):
            parts.append("," if index else "[")
            _write(item, parts, depth - 1)
        parts.append("]" if value else "[]")
    else:
        raise ValueError(f"a value of type {kind.__name__} is not JSON")


def _write_object(value: dict[Any, Any], parts: list[str], depth: int) -> None:
    for key in value:
        if type(key) is not str:
            raise ValueError("an object's key is not a string")
    separator = "{"
    for key in sorted(value, key=_utf16):
        parts += (separator, _text(key), ":")
        _write(value[key], parts, depth - 1)
        separator = ","
    parts.append("}" if value else "{}")


def _utf16(key: str) -> bytes:
    return key.encode("utf-16-be", "surrogatepass")


def _text(value: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("a string holds a lone surrogate") from None
    return _quote(value)


def _digits(value: int) -> str:
    try:
        return str(value)
    except ValueError:  # Python writes no integer beyond `sys.get_int_max_str_digits()`
        raise ValueError("an integer is too long") from None


def _number(value: float) -> str:
    """ECMAScript's Number::toString, which RFC 8785 prescribes."""
    if not math.isfinite(value):
        raise ValueError("a number is not finite")
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    # no arithmetic here: it would round as the application's decimal context says
    negative, figures, exponent = Decimal(repr(value)).as_tuple()
    point = len(figures) + int(exponent)  # the value is 0.digits * 10**point
    digits = "".join(map(str, figures)).rstrip("0")
    sign = "-" if negative else ""
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{point - 1:+d}"
