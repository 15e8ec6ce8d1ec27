"""Generators that ask, and the two drivers that answer: sync and async callers are served by one code."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

__all__ = ["adrive", "drive"]

T = TypeVar("T")


def drive(steps: Generator[Any, Any, T], reply_to: Callable[[Any], Any]) -> T:
    """Answer the requests until the generator returns; a failed answer is raised where it was asked for."""
    try:
        request = next(steps)
        while True:
            try:
                reply = reply_to(request)
            except Exception as error:  # the generator decides what it means
                request = steps.throw(error)
            else:
                request = steps.send(reply)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # what the generator returns
    except BaseException:  # interrupted: what the generator holds is let go now, not when a traceback is
        steps.close()
        raise


async def adrive(steps: Generator[Any, Any, T], reply_to: Callable[[Any], Awaitable[Any]]) -> T:
    """`drive` with answers that are awaited."""
    try:
        request = next(steps)
        while True:
            try:
                reply = await reply_to(request)
            except Exception as error:  # the generator decides what it means
                request = steps.throw(error)
            else:
                request = steps.send(reply)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # what the generator returns
    except BaseException:  # cancelled, or interrupted
        steps.close()
        raise
