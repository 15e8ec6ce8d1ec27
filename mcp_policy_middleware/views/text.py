"""Texts of strangers, made fit to be looked at."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["visible"]

_UNSEEN: Final = re.compile(
    "[\\u034f\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180d\\u180f\\u2800\\u3164\\ufe00-\\ufe0f\\uffa0\\U000e0100-\\U000e01ef]"
)
"""What Python takes for printable though nothing is seen of it: fillers, a joiner, variation selectors."""


def visible(text: str) -> str:
    """The text with everything unprintable spelled out, so that nobody writes to a screen what they like."""
    if text.isascii() and text.isprintable():
        return text
    return "".join([char if _is_seen(char) else char.encode("unicode_escape").decode() for char in text])


def _is_seen(char: str) -> bool:
    return char.isprintable() and _UNSEEN.match(char) is None
