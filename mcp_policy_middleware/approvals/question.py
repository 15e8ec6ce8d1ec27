"""What a person is shown of a question: the whole call, with nothing in it that could hide or pretend."""

from __future__ import annotations

import getpass
import json
import os
import sys
import unicodedata

from ..printable import visible
from .requests import ApprovalRequest

__all__ = ["arguments_of", "facts_of", "operating_user", "wrapped"]


def facts_of(request: ApprovalRequest, seconds: float) -> list[tuple[str, str]]:
    """What there is to know beside the arguments, by name."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    told = {
        "server": request.server,
        "tool": request.tool,
        "grant": request.grant,
        "session": request.session,
        "policy": request.policy_name,
        "rule": request.rule,
        "it says": request.text,
        "time left": f"{minutes} min {rest} s",
    }
    return [(name, visible(value)) for name, value in told.items() if value]


def arguments_of(request: ApprovalRequest) -> list[str]:
    """The arguments in full, as lines of valid JSON, in which what cannot be seen is escaped as JSON does it."""
    text = json.dumps(request.arguments, ensure_ascii=False, indent=2)
    return [
        "".join(char if char == visible(char) else json.dumps(char)[1:-1] for char in line) for line in text.split("\n")
    ]


def wrapped(line: str, width: int) -> list[str]:
    """A line in pieces that fit a terminal, so that none of them starts where the terminal would start it."""
    pieces, piece, used = [], "", 0
    for char in line:
        wide = 2 if unicodedata.east_asian_width(char) in "WFA" else 1
        if used + wide > width:
            pieces.append(piece)
            piece, used = "", 0
        piece += char
        used += wide
    return [*pieces, piece]


def operating_user() -> str:
    """Who runs this process, as the operating system knows them and the environment cannot change."""
    if sys.platform == "win32":
        return getpass.getuser()
    import pwd  # noqa: PLC0415  there is none on Windows

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
