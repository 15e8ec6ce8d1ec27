"""For tests of agents under a policy: a clock that stands still, and a model that calls what it is told to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .errors import MissingDependency

if TYPE_CHECKING:
    from .adapters.langchain.fake_model import FakeToolCallingModel

__all__ = ["FakeToolCallingModel", "FrozenClock"]


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


def __getattr__(name: str) -> Any:
    if name != "FakeToolCallingModel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from .adapters.langchain.fake_model import FakeToolCallingModel  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "langchain_core":
            raise
        raise MissingDependency(f"`{name}`", "langchain") from error
    return FakeToolCallingModel
