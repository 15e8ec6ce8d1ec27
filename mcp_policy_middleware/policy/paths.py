"""Paths of conditions (PL-3.2): where in a call, or beside it, a value stands.

    args.order.items[0].price      args["a.b"]      args.items[*].price      call.grant      context.tier

`state.<counter>` reads a counter; it is Intercept's alone (PL-8.2).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, TypeAlias

__all__ = ["EACH", "DocumentPath", "Root", "Step", "parse_path"]

Root: TypeAlias = Literal["args", "call", "context", "state"]


class _Each(Enum):
    EACH = "[*]"


EACH: Final = _Each.EACH
"""The step over every element of a list."""

Step: TypeAlias = str | int | _Each
"""A name descends into an object, a number into a list, `EACH` into every element of one."""

_STEP: Final = re.compile(
    r'\.(?P<name>[^.\[\]"]+)|\[(?P<index>0|[1-9][0-9]{0,8})\]|(?P<each>\[\*\])|\[(?P<quoted>"(?:[^"\\]|\\.)*")\]'
)
_CALL_NAMES: Final = ("tool", "server", "grant", "session")


@dataclass(frozen=True, slots=True)
class DocumentPath:
    """A path, taken apart.

    Attributes:
        text: As the author wrote it.
        root: Whether it leads into the arguments, the call itself, or what the application passes in.
        steps: The way from there; never empty.
    """

    text: str
    root: Root
    steps: tuple[Step, ...]

    @property
    def shown(self) -> str:
        """What messages call it: an argument without its `args.`, anything else in full."""
        return self.text.removeprefix("args.")

    @property
    def is_portable(self) -> bool:
        """Whether it uses dots and `args` alone, which every reader of the language knows (PL-1.7)."""
        return self.root == "args" and "[" not in self.text


def parse_path(text: str) -> DocumentPath:
    """Take a path apart.

    Raises:
        ValueError: It is no path; the message is the problem's.
    """
    root = re.match(r"[a-z]*", text)[0]  # type: ignore[index]  # it matches any text
    if root not in ("args", "call", "context", "state"):
        raise ValueError(f"path `{text}` does not start with `args.`")
    steps: list[Step] = []
    at = len(root)
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None:
            raise ValueError(f"path `{text}` cannot be read from `{text[at : at + 20]}` on")
        steps.append(_step(match))
        at = match.end()
    if not steps:
        raise ValueError(f"path `{text}` names nothing after `{root}`")
    if root == "call" and (len(steps) != 1 or steps[0] not in _CALL_NAMES):
        raise ValueError(f"path `{text}` is none of `call.tool`, `call.server`, `call.grant`, `call.session`")
    if root in ("context", "state") and not isinstance(steps[0], str):
        raise ValueError(f"path `{text}` does not name a value after `{root}`")
    return DocumentPath(text, root, tuple(steps))  # type: ignore[arg-type]  # one of the four


def _step(match: re.Match[str]) -> Step:
    if match["name"] is not None:
        return match["name"]
    if match["index"] is not None:
        return int(match["index"])
    if match["each"] is not None:
        return EACH
    try:
        return str(json.loads(match["quoted"]))
    except ValueError:
        raise ValueError(f"path step `{match['quoted']}` is not a JSON string") from None
