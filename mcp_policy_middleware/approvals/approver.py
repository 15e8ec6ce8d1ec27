"""The contract of an approver: who puts a question to a person, and brings the answer back."""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from enum import Enum
from typing import ClassVar, TypeVar

from ..backends.waiting import in_asyncio
from .base import ApprovalStore
from .floods import FloodLimits
from .memory import MemoryApprovals
from .requests import Answer, ApprovalRequest

__all__ = ["Approver", "AskerCancelledError", "NoAnswer", "within"]

T = TypeVar("T")


class NoAnswer(Enum):
    """Why there is no answer, where nothing went wrong."""

    LATER = "later"
    """The answer will come by another way: the call is denied as pending, and may be tried again."""
    TOO_LATE = "too late"
    """Nobody answered in time."""


class Approver(ABC):
    """Who asks people. Subclass it to ask them elsewhere; async callers use `aask`.

    Whatever `ask` raises denies the call as `approval_failed`, except for `control_flow`.

    Args:
        store: Where requests are kept; left out, this process's memory.
        floods: How much one grant may ask.

    Attributes:
        control_flow: Exceptions that are a framework's own and no failure: they pass, and the request stays pending.
    """

    control_flow: ClassVar[tuple[type[Exception], ...]] = ()

    def __init__(self, *, store: ApprovalStore | None = None, floods: FloodLimits | None = None) -> None:
        self.store = MemoryApprovals() if store is None else store
        self.floods = FloodLimits() if floods is None else floods

    @abstractmethod
    def ask(self, request: ApprovalRequest, seconds: float) -> Answer | NoAnswer:
        """Put the question to a person.

        Args:
            request: The question.
            seconds: How long an answer may take; to wait longer is useless.
        """

    @abstractmethod
    async def aask(self, request: ApprovalRequest, seconds: float) -> Answer | NoAnswer:
        """`ask` for async callers, whose event loop goes on meanwhile."""

    def resumes(self, pending: ApprovalRequest, again: ApprovalRequest) -> bool:
        """Whether a call that meets a pending request is the very call that made it, run again."""
        return False

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()

    async def aclose(self) -> None:
        """`close` for async callers."""
        await self.store.aclose()


class AskerCancelledError(Exception):
    """What was to ask was cancelled, and whoever waits for it was not."""


async def within(seconds: float, asked: Awaitable[T]) -> T | NoAnswer:
    """What is awaited, or that it came too late; it does not outlive its time.

    Raises:
        AskerCancelledError: It was cancelled from within.
    """
    if not in_asyncio():
        with sys.modules["trio"].move_on_after(seconds) as scope:  # whose loop runs has imported it
            answer = await asked
        return NoAnswer.TOO_LATE if scope.cancelled_caught else answer
    time = asyncio.timeout(seconds)
    try:
        async with time:
            return await asked
    except TimeoutError:
        if time.expired():
            return NoAnswer.TOO_LATE
        raise
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise AskerCancelledError("the question was cancelled") from None
