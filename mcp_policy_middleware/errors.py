"""The whole error tree.

    Exception
    ├── PolicyError              something is wrong around a call
    │   ├── DocumentError        the author's: a policy document does not read; `.problems`
    │   ├── StoreError           the operator's: a store cannot answer
    │   └── MissingDependency    the installer's: names the extra that is needed
    └── ToolDenied               nobody's: the policy said no; `.decision`

`ToolDenied` is apart from `PolicyError`, because a denial is an answer and not a
failure, and apart from every framework's tool error, because frameworks treat
their own errors in ways that hide or repeat a denial.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .calls import Decision

__all__ = [
    "DocumentError",
    "MissingDependency",
    "PolicyError",
    "Problem",
    "StoreError",
    "ToolDenied",
    "log_failure",
]


class PolicyError(Exception):
    """Something around a call is wrong: a document, a store, an installation or a setting."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a policy document (PL-1.2).

    Args:
        source: The document's file or name.
        line: Line, counted from 1; 0 where the problem is the file as a whole.
        column: Column in characters, counted from 1; 0 as for `line`.
        pointer: JSON Pointer (RFC 6901) of the offending key or value.
        message: One lower-case sentence that quotes the author's words in backticks.
        help: What to do next; may be empty.
    """

    source: str
    line: int
    column: int
    pointer: str
    message: str
    help: str = ""

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        where = f" (at {self.pointer})" if self.pointer else ""
        advice = f"\n  help: {self.help}" if self.help else ""
        return f"{place}: {self.message}{where}{advice}"


class DocumentError(PolicyError):
    """A policy document does not read; nothing of it is used.

    Attributes:
        problems: Every `Problem` found, in the order of the document, never empty.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        count = len(self.problems)
        title = "1 problem" if count == 1 else f"{count} problems"
        return "\n".join([f"the policy does not read: {title}", *map(str, self.problems)])


class StoreError(PolicyError):
    """A store cannot answer; the guard denies with `store_unavailable`, or `approval_failed` (stores 6)."""


class MissingDependency(PolicyError, ImportError):  # noqa: N818  the name says what is missing
    """An optional part was used without its extra.

    Args:
        feature: What was asked for, in the user's words.
        extra: The extra of this package that brings it.
    """

    def __init__(self, feature: str, extra: str) -> None:
        self.extra = extra
        super().__init__(f"{feature} needs: pip install 'mcp-policy-middleware[{extra}]'")


class ToolDenied(Exception):  # noqa: N818  a denial is an answer, not an error
    """A call was denied by policy and has not been sent.

    Attributes:
        decision: The `Decision`, with its reason, rule and message.
    """

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        super().__init__(decision.text)


def log_failure(log: logging.Logger, message: str, error: BaseException) -> None:
    """Log what failed: its kind and traceback, and no text but our own, for others may quote an argument."""
    said = f" ({error})" if isinstance(error, PolicyError) else ""
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s: %s%s, at\n%s", message, type(error).__name__, said, frames)
