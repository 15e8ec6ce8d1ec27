"""How much one grant may ask, so that an agent that loops does not wear people out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from .requests import ApprovalRequest
from .states import State

__all__ = ["HOUR", "Flood", "FloodLimits", "flood"]

HOUR: Final = 3_600.0


@dataclass(frozen=True, slots=True)
class FloodLimits:
    """How much one grant may ask.

    Args:
        pending: How many of its requests may be pending at a time.
        an_hour: How many it may make within an hour.
    """

    pending: int = 20
    an_hour: int = 60


@dataclass(frozen=True, slots=True)
class Flood:
    """A request that was not made: its grant has asked too much.

    Args:
        retry_after: Whole seconds after which it may be made; sooner, where people answer.
    """

    retry_after: int


def flood(requests: Iterable[ApprovalRequest], limits: FloodLimits, now: float) -> Flood | None:
    """Why a grant may not ask now; None where it may.

    Args:
        requests: The grant's own, lapsed: those that are pending, and those of the last hour.
        limits: How much it may ask.
        now: The time, in seconds since the Unix epoch.
    """
    requests = list(requests)
    pending = [one.expires_at for one in requests if one.state is State.PENDING]
    recent = [one.asked_at + HOUR for one in requests if one.asked_at + HOUR > now]
    full = [ends for ends, most in ((pending, limits.pending), (recent, limits.an_hour)) if len(ends) >= most]
    if not full:
        return None
    return Flood(max(1, math.ceil(max(min(ends, default=now + HOUR) for ends in full) - now)))
