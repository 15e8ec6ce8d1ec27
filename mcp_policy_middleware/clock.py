"""The time as stores and limits count it: seconds since the Unix epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from .errors import PolicyError

__all__ = ["seconds_of"]


def seconds_of(clock: Callable[[], datetime] | None) -> Callable[[], float]:
    """A clock that counts seconds.

    Args:
        clock: Returns aware datetimes; left out, it is the system's clock.
    """
    if clock is None:
        return time.time

    def now() -> float:
        moment = clock()
        if moment.tzinfo is None:
            raise PolicyError("the clock gave a time without a time zone: return an aware datetime")
        return moment.timestamp()

    return now
