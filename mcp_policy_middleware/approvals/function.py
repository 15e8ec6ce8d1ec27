"""A function that is asked: sync or async, for sync and async callers alike, and never for longer than there is time.

An async function is awaited where the caller is async. Everything else runs in a thread of its own, which the caller
leaves once the time is up; Python cannot end a thread, so a function that waits looks at `request.withdrawn`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from contextvars import copy_context
from typing import Any, Final, TypeAlias, TypeVar

from ..backends.waiting import sleep
from ..errors import PolicyError
from ..steps import adrive, drive
from .approver import Approver, AskerCancelledError, NoAnswer, within
from .base import ApprovalStore
from .floods import FloodLimits
from .requests import Answer, ApprovalRequest

__all__ = ["Ask", "FunctionApprover"]

Ask: TypeAlias = Callable[[ApprovalRequest], "Answer | bool | Awaitable[Answer | bool]"]
"""Asks a person: True, False, or an `Answer`, which may be awaited."""

T = TypeVar("T")

_LOG: Final = logging.getLogger(__name__)
_LONGEST_WAIT: Final = 0.05
_GRACE: Final = 1.0
"""Seconds in which a function is to notice that its question was withdrawn."""


class FunctionApprover(Approver):
    """Asks by calling a function.

    Args:
        function: Takes the `ApprovalRequest`, and returns or awaits True, False or an `Answer`; anything else denies.
            One that waits in a thread returns soon after `request.withdrawn` is set.
        store: As for `Approver`.
        floods: As for `Approver`.
    """

    def __init__(self, function: Ask, *, store: ApprovalStore | None = None, floods: FloodLimits | None = None) -> None:
        super().__init__(store=store, floods=floods)
        if not callable(function):
            raise PolicyError("an approver is a function that takes an `ApprovalRequest`, or an `Approver`")
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004  of an object with an async one
        )
        self._stuck: list[threading.Thread] = []

    def ask(self, request: ApprovalRequest, seconds: float) -> Answer | NoAnswer:
        """Call the function in a thread."""
        answer = drive(self._in_thread(_finished, request, seconds, _GRACE), time.sleep)
        return answer if isinstance(answer, NoAnswer) else _answer(answer)

    async def aask(self, request: ApprovalRequest, seconds: float) -> Answer | NoAnswer:
        """Await the function, or call it in a thread."""
        if self._is_async:
            answer = await within(seconds, self._function(request))  # type: ignore[arg-type]  # it is async
        else:
            answer = await adrive(self._in_thread(_unfinished, request, seconds, _LONGEST_WAIT), sleep)
            if inspect.isawaitable(answer):
                answer = await within(seconds, answer)
        return answer if isinstance(answer, NoAnswer) else _answer(answer)

    def _in_thread(
        self, work: Callable[..., Any], request: ApprovalRequest, seconds: float, parting: float
    ) -> Generator[float, None, Any]:
        """Let a thread ask, and wait for it; yields how long to wait in between.

        Args:
            work: What the thread does.
            request: The question.
            seconds: How long to wait for its answer.
            parting: How long a caller who is cancelled or interrupted may be held up until the thread has ended.

        Raises:
            PolicyError: An earlier question's thread has not ended: only those that were asked at once pile up.
        """
        if any(thread.is_alive() for thread in self._stuck):
            raise PolicyError("the approver's function has not returned from an earlier question")
        asking = _Asking(work, self._function, request, seconds)
        thread = asking.thread
        try:
            thread.start()  # in here, for an interrupt can meet the caller in it
            yield from _until(seconds, thread)
            in_time = not thread.is_alive()
            request.withdrawn.set()
            yield from _until(_GRACE, thread)
        finally:
            request.withdrawn.set()
            self._leave(thread, parting)
        return asking.result() if in_time else NoAnswer.TOO_LATE

    def _leave(self, thread: threading.Thread, parting: float) -> None:
        if thread.is_alive():
            thread.join(parting)
        if thread.is_alive():
            self._stuck = [*(one for one in self._stuck if one.is_alive()), thread]
            _LOG.warning(
                "the approver's function does not return although its question was withdrawn, and its thread goes on: "
                "let it look at `request.withdrawn`"
            )


def _until(seconds: float, thread: threading.Thread) -> Generator[float, None, None]:
    """Wait for a thread's end, but not for longer; yields how long to wait in between."""
    until = time.monotonic() + seconds
    wait = 0.001
    while thread.is_alive() and (left := until - time.monotonic()) > 0:
        yield min(wait, left)
        wait = min(2 * wait, _LONGEST_WAIT)


class _Asking:
    """One call of the function, in a thread that does not keep the process alive."""

    def __init__(self, work: Callable[..., Any], function: Ask, request: ApprovalRequest, seconds: float) -> None:
        self._answer: Any = None
        self._error: BaseException | None = None
        context = copy_context()

        def run() -> None:
            try:
                if request.withdrawn.is_set():
                    return
                self._answer = context.run(work, function, request, seconds)
            except BaseException as error:  # it is raised again where the answer is waited for
                self._error = error

        self.thread = threading.Thread(target=run, name="mcp-policy-approver", daemon=True)

    def result(self) -> Any:
        """What the function returned, or its exception raised again."""
        error = self._error
        if error is None:
            return self._answer
        if isinstance(error, Exception):
            raise error
        raise AskerCancelledError(f"the question ended with {type(error).__name__}") from error


def _unfinished(function: Ask, request: ApprovalRequest, seconds: float) -> Any:
    return function(request)


def _finished(function: Ask, request: ApprovalRequest, seconds: float) -> Any:
    """What the function returns; what it would have its caller await is awaited here."""
    answer = function(request)
    return asyncio.run(_awaited(answer, seconds, request.withdrawn)) if inspect.isawaitable(answer) else answer


async def _awaited(answer: Awaitable[T], seconds: float, withdrawn: threading.Event) -> T | NoAnswer:
    watching = asyncio.create_task(_cancel(asyncio.current_task(), withdrawn))
    try:
        return await within(seconds, answer)
    finally:
        watching.cancel()


async def _cancel(task: asyncio.Task[Any] | None, withdrawn: threading.Event) -> None:
    """Cancel a task when its question is withdrawn, which is told by another thread."""
    while not withdrawn.is_set():  # noqa: ASYNC110  no event loop hears of it
        await asyncio.sleep(_LONGEST_WAIT)
    if task is not None:
        task.cancel()


def _answer(said: Any) -> Answer:
    """The answer, which nothing is taken for that is none.

    Raises:
        TypeError: It is none.
    """
    if type(said) is bool:
        return Answer(said)
    if not isinstance(said, Answer) or type(said.approved) is not bool:
        raise TypeError(f"an approver answers True, False or an `Answer`, not {type(said).__name__}")
    return said
