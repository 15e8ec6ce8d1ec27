"""Approval requests as PL-7 tells them, one sentence after the other; slow, and with nothing of the package's."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

__all__ = ["NaiveApprovals", "NaiveRequest"]

HOUR = 3_600
DAY = 86_400


@dataclass
class NaiveRequest:
    """A question and all that ever happened to it."""

    id: str
    binding: str
    grant: str
    asked: Fraction
    seconds: Fraction
    said: list[tuple[str, str, Fraction]] = field(default_factory=list)
    """What a person, the approver or the guard did that counted: event, who, when."""

    def done(self, *events: str) -> bool:
        """Whether one of these has happened."""
        return any(event in events for event, _, _ in self.said)

    def in_time(self, now: Fraction) -> bool:
        """Whether its time is not up."""
        return now < self.asked + self.seconds

    def kept(self, now: Fraction) -> bool:
        """Whether it must still be told of."""
        return now < self.asked + self.seconds + DAY

    def state(self, now: Fraction) -> str:
        """How it stands (7.2)."""
        for event, state in (("deny", "denied"), ("cancel", "cancelled"), ("consume", "consumed")):
            if self.done(event):
                return state
        if self.done("expire") or not self.in_time(now):
            return "expired"
        return "approved" if self.done("approve") else "pending"

    def answered(self) -> tuple[str, Fraction] | None:
        """Who ended the waiting, and when."""
        return next(((by, when) for _, by, when in self.said), None)


class NaiveApprovals:
    """Every request, the oldest first.

    Args:
        pending: How many of a grant may be pending at a time.
        an_hour: How many it may make in an hour.
    """

    def __init__(self, pending: int, an_hour: int) -> None:
        self.all: list[NaiveRequest] = []
        self._pending = pending
        self._an_hour = an_hour

    def standing(self, binding: str, now: Fraction) -> NaiveRequest | None:
        """What the same call meets: a question, a yes that was not used, or a no; each until its time is up."""
        for one in self.all:
            if one.binding == binding and one.in_time(now) and one.state(now) in ("pending", "approved", "denied"):
                return one
        return None

    def wait(self, grant: str, now: Fraction) -> int | None:
        """Whole seconds until the grant may ask, where nobody answers; None where it may now."""
        ends = [one.asked + one.seconds for one in self.all if one.grant == grant and one.state(now) == "pending"]
        hours = [one.asked + HOUR for one in self.all if one.grant == grant]
        moments = sorted({now, *(end for end in (*ends, *hours) if end > now)})
        free = next(
            moment
            for moment in moments
            if sum(end > moment for end in ends) < self._pending and sum(end > moment for end in hours) < self._an_hour
        )
        return None if free == now else max(1, math.ceil(free - now))

    def open(self, id: str, binding: str, grant: str, seconds: Fraction, now: Fraction) -> NaiveRequest:
        """A new question."""
        self.all.append(NaiveRequest(id, binding, grant, now, seconds))
        return self.all[-1]

    def move(self, one: NaiveRequest, event: str, by: str, now: Fraction) -> bool:
        """Whether it counts: each happens once, and only an open request, or a yes, has a future (7.2)."""
        may = {"pending": ("approve", "deny", "expire", "cancel"), "approved": ("consume", "expire")}
        counts = event in may.get(one.state(now), ())
        if counts:
            one.said.append((event, by, now))
        return counts
