"""What becomes of a call's charge once the call is over (PL-5.6), and what is put on record of the call."""

from __future__ import annotations

import logging
from collections.abc import Generator
from functools import partial
from typing import Any, Final

from .answers import Release
from .approvals.asking import Consult
from .calls import Decision, Outcome, Reason
from .errors import log_failure
from .recording import Recorder

__all__ = ["put_end_on_record", "put_on_record", "settle"]

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
        except Exception as error:  # the call was made: what a store raises now must not replace its result
            log_failure(_LOG, "a charge could not be given back and is kept", error)


def put_on_record(recorder: Recorder, decision: Decision) -> Generator[Any, Any, None]:
    """Put a decision on record; where that cannot be done, the call is denied and keeps no charge."""
    try:
        yield Consult(partial(recorder.decided, decision), partial(recorder.adecided, decision))
    except Exception as error:  # whatever a record of decisions fails with, what is not on record is not done
        log_failure(_LOG, "a decision could not be put on record, and the call is denied", error)
        yield from settle(decision, Outcome.NOT_SENT)
        if decision.allowed:
            decision.reason, decision.rule, decision.enforced = Reason.EVALUATION_ERROR, "(audit)", True
            decision.message = "the decision could not be put on record, and the call was not made"
        decision.error = type(error).__name__


def put_end_on_record(recorder: Recorder, decision: Decision, outcome: Outcome) -> Generator[Any, Any, None]:
    """Put a call's end on record; the call was made, so a fault is only logged."""
    try:
        yield Consult(partial(recorder.ended, decision, outcome), partial(recorder.aended, decision, outcome))
    except Exception as error:  # likewise, but it is too late to deny
        log_failure(_LOG, "the end of a call could not be put on record", error)
