"""How long an event loop was kept from its other tasks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Pause", "longest_pause"]


class Pause:
    """The longest time between two turns of a task that does nothing, in seconds."""

    longest = 0.0


@asynccontextmanager
async def longest_pause() -> AsyncIterator[Pause]:
    """Watch the running loop meanwhile."""
    pause = Pause()

    async def tick() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.002)
            now = time.monotonic()
            pause.longest = max(pause.longest, now - last)
            last = now

    task = asyncio.create_task(tick())
    await asyncio.sleep(0)
    try:
        yield pause
    finally:
        await asyncio.sleep(0.005)
        task.cancel()
