"""Canonical JSON: RFC 8785's texts, whole numbers exactly, and what JSON cannot say (PL-7.1, PL-4.1)."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections import OrderedDict
from decimal import Decimal
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_policy_middleware.canonical import MAX_DEPTH, canonical, digest

# RFC 8785, appendix B: IEEE 754 bits and the text of the number; and ECMAScript's limits of each notation
BITS = [
    ("0000000000000000", "0"), ("8000000000000000", "0"), ("0000000000000001", "5e-324"), ("8000000000000001",
    "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"), ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"), ("c340000000000000", "-9007199254740992"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"), ("44b52d02c7e14af6", "1e+23"), ("44b52d02c7e14af7",
    "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef50", "1e+21"), ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"), ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"), ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"), ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"), ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]  # fmt: skip
NUMBERS = [
    (333333333.33333329, "333333333.3333333"), (1e30, "1e+30"), (4.50, "4.5"), (2e-3, "0.002"), (1e-27, "1e-27"),
    (1e-7, "1e-7"), (1e-6, "0.000001"), (1.5e-7, "1.5e-7"), (1e20, "100000000000000000000"), (1e21, "1e+21"),
    (1.5e300, "1.5e+300"), (-1.5, "-1.5"), (0.1, "0.1"), (100.0, "100"), (-0.0, "0"), (50, "50"), (50.0, "50"), (-7,
    "-7"),
    (123456.789, "123456.789"), (5e-324, "5e-324"),
]  # fmt: skip


@pytest.mark.parametrize(("bits", "text"), BITS)
def test_numbers_of_rfc_8785(bits: str, text: str) -> None:
    """The RFC's own numbers have its own texts."""
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical(number) == text


@pytest.mark.parametrize(("number", "text"), NUMBERS)
def test_numbers(number: float, text: str) -> None:
    """Numbers are written as ECMAScript does; equal numbers have one text."""
    assert canonical(number) == text


@pytest.mark.parametrize("number", [2**53, 2**53 + 1, -(2**53) - 1, 10**21, 10**30 + 7, 2**64 - 1])
def test_integers_are_exact(number: int) -> None:
    """Integers of any size are written digit by digit: 2^53 + 1 is not 2^53."""
    assert canonical(number) == str(number)
    assert digest(number) != digest(number + 1)


@pytest.mark.parametrize("number", [0, -1, 2**53, 2**60, 10**20])
def test_a_whole_float_below_1e21_is_its_integer(number: int) -> None:
    """A float and an integer of one value have one text."""
    assert canonical(float(number)) == canonical(number)


def test_the_object_of_rfc_8785() -> None:
    """The RFC's example of section 3.2.2 has its text."""
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    assert canonical(value) == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


def test_keys_are_in_the_order_of_utf_16() -> None:
    """Keys are sorted by UTF-16 code units, as the RFC's section 3.2.3 shows."""
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    text = canonical(dict.fromkeys(keys, 0))
    assert list(json.loads(text)) == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


STRINGS = [
    ("", '""'), ("\x00\x01\x1f", '"\\u0000\\u0001\\u001f"'), ("\b\t\n\f\r", '"\\b\\t\\n\\f\\r"'), ('"\\/',
    '"\\"\\\\/"'),
    ("\x7f\x80\u2028\u2029", '"\x7f\x80\u2028\u2029"'), ("é\U0001f600", '"é\U0001f600"'), ("e\u0301", '"e\u0301"'),
]  # fmt: skip


@pytest.mark.parametrize(("string", "text"), STRINGS, ids=range(len(STRINGS)))
def test_strings(string: str, text: str) -> None:
    """Only what must be escaped is, in the shortest way; nothing is normalized."""
    assert canonical(string) == text


def test_containers() -> None:
    """There is no white space, and nothing depends on the order in which keys were put in."""
    assert canonical({"b": [1, [], {}], "a": {"d": None, "c": True}}) == '{"a":{"c":true,"d":null},"b":[1,[],{}]}'
    assert canonical({"a": 1, "b": 2}) == canonical({"b": 2.0, "a": 1.0})


def test_digest_is_the_sha_256_of_the_text() -> None:
    """A digest names its algorithm and is that of the UTF-8 text."""
    value = {"é": [1.0, None]}
    assert digest(value) == "sha256:" + hashlib.sha256('{"é":[1,null]}'.encode()).hexdigest()


class Small(IntEnum):
    """A number that is not exactly one."""

    ONE = 1


class Text(str):
    """A string that is not exactly one."""

    __slots__ = ()


REFUSED = [
    math.nan, math.inf, -math.inf, "\ud800", {"\udfff": 1}, {1: 2}, {None: 1}, {True: 1}, (1,), {1}, b"x", Decimal(1),
    Small.ONE,
    Text("x"), {Text("x"): 1}, OrderedDict(), object(), [[math.nan]], {"a": {"b": (1,)}}, 10**5_000, range(3),
]  # fmt: skip


@pytest.mark.parametrize("value", REFUSED, ids=range(len(REFUSED)))
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    """Anything but the exact types of JSON, finite numbers and whole characters is a `ValueError` (PL-4.1)."""
    for wrapped in (value, [value], {"a": value}):
        with pytest.raises(ValueError):  # noqa: PT011  there is but one
            canonical(wrapped)


@pytest.mark.parametrize("kind", ["list", "object"])
def test_64_levels_and_no_more(kind: str) -> None:
    """64 levels are written, 65 are refused, and 100,000 are refused alike."""

    def nested(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = [value] if kind == "list" else {"a": value}
        return value

    assert json.loads(canonical(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    for depth in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(ValueError, match="levels"):
            canonical(nested(depth))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_canonical_text_reads_back_and_is_stable(value: Any) -> None:
    """The text is JSON of the same value, and the text of what it reads back to is the text."""
    text = canonical(value)
    again = json.loads(text)
    assert again == value
    assert canonical(again) == text


@settings(max_examples=500, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_reads_back(number: float) -> None:
    """No float loses anything in its text, which has no more digits than are needed."""
    text = canonical(number)
    assert float(text) == number
    assert len(text.lstrip("-").partition("e")[0].replace(".", "").strip("0")) <= 17 or number.is_integer()
