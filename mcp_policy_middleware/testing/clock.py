"""A clock that stands still."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["FrozenClock"]


class FrozenClock:
    """A clock that moves when it is told to: give it to a guard to test limits without waiting.

    Args:
        now: Where it starts, an aware datetime; left out, the beginning of an hour, so that no window ends by chance.
    """

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.set(now)

    def __call__(self) -> datetime:
        """The time, in UTC."""
        return self._now

    def set(self, now: datetime) -> None:
        """Move to a time.

        Raises:
            ValueError: It has no time zone.
        """
        if now.tzinfo is None:
            raise ValueError("a clock needs a time zone: give an aware datetime")
        self._now = now.astimezone(UTC)

    def tick(self, seconds: float) -> None:
        """Move on; backwards where `seconds` is negative."""
        self._now += timedelta(seconds=seconds)
