"""What a record of decisions is told, whatever it is kept in: each decision before its call goes on, and each end."""

from __future__ import annotations

from typing import Protocol

from .calls import Decision, Outcome

__all__ = ["Recorder"]


class Recorder(Protocol):
    """Keeps a record of decisions: an `AuditLog`, a `DecisionLog`, or one of your own.

    One decision is told for each call, before the call goes on; one end for each call that was let go on. What these
    raise denies the call, for what is not on record is not done; a record that would rather be lenient swallows its
    own faults. What `ended` raises is logged: the call was made.
    """

    def decided(self, decision: Decision) -> None:
        """A call was decided; it has not left."""

    def ended(self, decision: Decision, outcome: Outcome) -> None:
        """A call that was let go on is over."""

    async def adecided(self, decision: Decision) -> None:
        """`decided` for async callers, whose event loop goes on meanwhile."""

    async def aended(self, decision: Decision, outcome: Outcome) -> None:
        """`ended` for async callers."""
