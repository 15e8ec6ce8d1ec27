"""What becomes of a call's charge once the call is over (PL-5.6)."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import Final

from .answers import Release
from .calls import Decision, Outcome

__all__ = ["settle"]

_LOG: Final = logging.getLogger(__name__)


def settle(decision: Decision, outcome: Outcome) -> Generator[Release, None, None]:
    """Keep a charge or give it back, once; what a store cannot give back is kept."""
    outcome = Outcome(outcome)  # a name that is none is refused before the charge is touched
    reservation, decision.reservation = decision.reservation, None
    if reservation is not None and outcome is Outcome.RETURNED_ERROR:
        reservation = reservation.on_success()
    elif not outcome.releases:
        return
    if reservation is not None:
        try:
            yield Release(reservation)
        except Exception:  # the call was made: what a store raises now must not replace its result
            _LOG.warning("a charge could not be given back and is kept", exc_info=True)
