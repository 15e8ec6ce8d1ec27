"""What may become of an approval request: the one table that stores, tests and documentation go by (PL-7.2)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

__all__ = ["TRANSITIONS", "Event", "State"]


class State(StrEnum):
    """Where an approval request stands."""

    PENDING = "pending"
    """A person has been asked and has not answered."""
    APPROVED = "approved"
    """A person said yes, and the call has not been made yet."""
    DENIED = "denied"
    """A person said no."""
    EXPIRED = "expired"
    """The time was up before an answer, or before the call was made."""
    CANCELLED = "cancelled"
    """The question could not be put, or was withdrawn."""
    CONSUMED = "consumed"
    """The call was let go on, once."""


class Event(StrEnum):
    """What can happen to an approval request."""

    APPROVE = "approve"
    """A person says yes."""
    DENY = "deny"
    """A person says no."""
    EXPIRE = "expire"
    """The time is up, or a person takes the question or the answer back."""
    CANCEL = "cancel"
    """The approver fails, or whoever asked goes away."""
    CONSUME = "consume"
    """The call is let go on."""


TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = {
    (State.PENDING, Event.APPROVE): State.APPROVED,
    (State.PENDING, Event.DENY): State.DENIED,
    (State.PENDING, Event.EXPIRE): State.EXPIRED,
    (State.PENDING, Event.CANCEL): State.CANCELLED,
    (State.APPROVED, Event.CONSUME): State.CONSUMED,
    (State.APPROVED, Event.EXPIRE): State.EXPIRED,
}
"""Where each event leads; whatever is not here changes nothing."""
