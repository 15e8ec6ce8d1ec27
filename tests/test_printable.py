"""What is shown to people hides nothing."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from mcp_policy_middleware.printable import visible

UNSEEN = (
    "\x00\t\n\r\x1b\x7f\x85\x9b\xa0\xad\u034f\u061c\u115f\u1160\u17b4\u180b\u180e\u2003\u200b\u200d\u2028\u202e\u2060\u2066"
    "\u2800\u3000\u3164\ud800\ufe0f\ufeff\uffa0\ufff9\U0001d159\U0001d173\U000e0001\U000e0041\U000e0100\U000f0000"
)


@pytest.mark.parametrize("char", UNSEEN, ids=ascii)
def test_what_cannot_be_seen_is_spelled_out(char: str) -> None:
    """Controls, escapes, blanks, bidirectional and zero-width characters, tags, fillers, variation selectors."""
    assert visible(f"a{char}b") == f"a{char.encode('unicode_escape').decode()}b"


def test_what_can_be_seen_stays() -> None:
    """People read their own script."""
    text = 'plain "text" \\ é e\u0301 漢字 עברית हिन्दी 👍'
    assert visible(text) == text


def test_nothing_of_unicodes_control_kinds_is_left() -> None:
    """No character that controls, formats, separates or means nothing to Unicode is shown as itself."""
    kinds = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}
    chars = "".join(char for char in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(char) in kinds)
    assert visible(chars).isascii()
