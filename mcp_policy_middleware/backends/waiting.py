"""Waiting without blocking, in whichever event loop is running."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import TypeVar

__all__ = ["in_asyncio", "in_thread", "sleep"]

T = TypeVar("T")


def in_asyncio() -> bool:
    """Whether the caller runs in an asyncio loop, and not in trio's."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def sleep(seconds: float) -> None:
    """Sleep in the loop that is running, asyncio's or trio's."""
    if in_asyncio():
        await asyncio.sleep(seconds)
    else:
        await sys.modules["trio"].sleep(seconds)  # whose loop runs has imported it


async def in_thread(work: Callable[[], T]) -> T:
    """Let a thread of trio's do what would block its loop."""
    return await sys.modules["trio"].to_thread.run_sync(work)  # type: ignore[no-any-return]  # what the work returns
