"""Approvers that look for an answer again and again: nothing blocks, no thread is left, and time ends it."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Generator
from typing import Final, TypeAlias, TypeVar

from ..backends.waiting import sleep
from ..steps import adrive, drive
from .approver import Approver, NoAnswer
from .requests import Answer, ApprovalRequest

__all__ = ["PAUSE", "PolledApprover", "Steps"]

T = TypeVar("T")

Steps: TypeAlias = Generator[float, None, T]
"""Yields how many seconds to wait before it looks again, and returns what it found."""

PAUSE: Final = 0.05
"""Seconds that a person does not notice."""


class PolledApprover(Approver):
    """Asks in steps that never wait themselves, one code for sync and async callers."""

    @abstractmethod
    def _asked(self, request: ApprovalRequest, seconds: float) -> Steps[Answer]:
        """Put the question, and look for its answer; closed when none is wanted any more.

        Raises:
            PolicyError: Nobody can be asked; its text is logged, so it quotes no argument.
        """

    def ask(self, request: ApprovalRequest, seconds: float) -> Answer | NoAnswer:
        """Ask, and sleep in between."""
        return drive(self._in_time(request, seconds), time.sleep)

    async def aask(self, request: ApprovalRequest, seconds: float) -> Answer | NoAnswer:
        """Ask, and let the event loop go on in between."""
        return await adrive(self._in_time(request, seconds), sleep)

    def _in_time(self, request: ApprovalRequest, seconds: float) -> Steps[Answer | NoAnswer]:
        until = time.monotonic() + seconds
        steps = self._asked(request, seconds)
        try:
            while True:
                wait = next(steps)
                left = until - time.monotonic()
                if left <= 0 or request.withdrawn.is_set():
                    return NoAnswer.TOO_LATE
                yield min(wait, left)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # what the steps return
        finally:
            steps.close()
