"""Asks the person at the terminal."""

from __future__ import annotations

import sys
import threading
import time
from typing import Final, TextIO

from ..printable import visible
from .base import ApprovalStore
from .floods import FloodLimits
from .polling import PAUSE, PolledApprover, Steps
from .question import arguments_of, facts_of, operating_user, wrapped
from .requests import Answer, ApprovalRequest
from .terminal import terminal_of

__all__ = ["ConsoleApprover"]

_YES: Final = ("y", "yes")
_LONGEST_WHY: Final = 500


class ConsoleApprover(PolledApprover):
    """Asks on the terminal, one question at a time; only a typed `y` or `yes` approves.

    The question goes to the terminal that stdin reads from, and nowhere else, wherever stdout goes. What was typed
    before it was shown is dropped. Without a terminal the call is denied as `approval_failed`.

    Args:
        store: As for `Approver`.
        floods: As for `Approver`.
        why: Whether to ask for a reason too, which the agent is told where the answer is no.
        stdin: Whose terminal is asked; left out, the `sys.stdin` of the moment.
    """

    def __init__(
        self,
        *,
        store: ApprovalStore | None = None,
        floods: FloodLimits | None = None,
        why: bool = False,
        stdin: TextIO | None = None,
    ) -> None:
        super().__init__(store=store, floods=floods)
        self._why = why
        self._stdin = stdin
        self._turn = threading.Lock()

    def _asked(self, request: ApprovalRequest, seconds: float) -> Steps[Answer]:
        until = time.monotonic() + seconds
        terminal = terminal_of(self._stdin or sys.stdin, self._turn)
        last = ""
        try:
            while not terminal.take():
                yield PAUSE
            last = "\n(no longer asked)\n"
            yield from terminal.write(_shown(request, until - time.monotonic(), terminal.width))
            terminal.forget()
            yield from terminal.write("approve? [y/N] ")
            line = yield from terminal.line()
            approved = line is not None and line.strip().lower() in _YES
            why = "end of input" if line is None else ""
            if self._why and line is not None:
                yield from terminal.write("why? ")
                why = visible((yield from terminal.line()) or "").strip()[:_LONGEST_WHY]
            last = "approved\n" if approved else "denied\n"
            return Answer(approved, operating_user(), why)
        finally:
            terminal.close(last)


def _shown(request: ApprovalRequest, seconds: float, width: int) -> str:
    """The question; long arguments come first, so that what they belong to stays in sight.

    Each line starts with a mark, so that no value looks like a line of its own.
    """
    facts = [(f"{name:9} ", value) for name, value in facts_of(request, seconds)]
    arguments = [("| ", line) for line in arguments_of(request)]
    lines = ["", "An agent wants to call a tool with these arguments:"]
    for mark, text in [*arguments, *facts]:
        first, *rest = wrapped(text, width - len(mark))
        lines += [mark + first, *(" " * (len(mark) - 2) + "| " + piece for piece in rest)]
    return "\n".join(lines) + "\n"
