"""Text for people's eyes: what cannot be seen is spelled out, and what could move the eye does not."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["visible"]

_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U0001d159\U000e0100-\U000e01ef]"
)
"""What Unicode has as printable and draws as nothing: fillers, variation selectors, an empty Braille cell."""


def visible(text: str) -> str:
    """The text with everything unprintable spelled out, so that nobody writes to a terminal what they like.

    That is controls, line ends, escapes, spaces but the plain one, bidirectional and zero-width characters, tags,
    fillers and variation selectors.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _is_seen(char) else char.encode("unicode_escape").decode() for char in text)


def _is_seen(char: str) -> bool:
    return char.isprintable() and not _UNSEEN.match(char)
