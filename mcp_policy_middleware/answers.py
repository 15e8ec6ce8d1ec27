"""What the guard's generators are answered with: the store's word, and what the end of a call comes to (PL-5.6)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from .approvals.asking import Consult
from .calls import Outcome
from .charges import Refusal, Reservation
from .engine import Peek, Reserve
from .errors import PolicyError, log_failure
from .stores.base import Store

__all__ = [
    "PROCEED",
    "Ended",
    "OnStoreFailure",
    "OutcomeOf",
    "Proceed",
    "Release",
    "aanswer",
    "alook",
    "answer",
    "is_lenient",
    "look",
    "outcome",
    "outcome_of_any",
    "unwrapped",
]

Ended: TypeAlias = tuple[Any, BaseException | None]
"""A call's result and its exception, one of them None."""

OutcomeOf: TypeAlias = Callable[[Any], Outcome]
"""Tells the outcome of a call from its result, or from the exception it ended with."""

OnStoreFailure: TypeAlias = Literal["deny", "allow"]
"""What becomes of a call whose limits cannot be checked."""

_LOG: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class Proceed:
    """Asks to let the call go on; answered with its result and its exception."""


@dataclass(slots=True)
class Release:
    """Asks to give a reservation back."""

    reservation: Reservation


PROCEED: Final = Proceed()


def look(store: Store, now: Callable[[], float], request: Any) -> Any:
    """A store's answer to whoever only looks; what was not taken is not to be given back."""
    if type(request) is Consult:
        return request.now()
    return _looked_at(store.peek(request.charges, now()))


async def alook(store: Store, now: Callable[[], float], request: Any) -> Any:
    """`look` for async callers."""
    if type(request) is Consult:
        return await request.later()
    return _looked_at(await store.apeek(request.charges, now()))


def _looked_at(found: Reservation | Refusal) -> Reservation | Refusal:
    if isinstance(found, Reservation):
        found.released = True
    return found


def answer(store: Store, now: Callable[[], float], request: Any) -> Any:
    """The answer to a request of the flow, of an approval or of a settlement."""
    if type(request) is Reserve:
        if request.held is None:
            return store.reserve(request.charges, now())
        return store.adjust(request.held, request.charges, now())
    if type(request) is Peek:
        return store.peek(request.charges, now())
    return request.now() if type(request) is Consult else store.release(request.reservation)


async def aanswer(store: Store, now: Callable[[], float], request: Any) -> Any:
    """`answer` for async callers."""
    if type(request) is Reserve:
        if request.held is None:
            return await store.areserve(request.charges, now())
        return await store.aadjust(request.held, request.charges, now())
    if type(request) is Peek:
        return await store.apeek(request.charges, now())
    return await (request.later() if type(request) is Consult else store.arelease(request.reservation))


def is_lenient(on_store_failure: OnStoreFailure) -> bool:
    """Whether a call is allowed without its limits where the store cannot answer."""
    if on_store_failure not in get_args(OnStoreFailure):
        raise PolicyError(f"on_store_failure `{on_store_failure}` is not known: give `deny` or `allow`")
    return on_store_failure == "allow"


def outcome_of_any(ended: Any) -> Outcome:
    """What is known of any tool: it returned, or nobody knows what happened."""
    return Outcome.UNKNOWN if isinstance(ended, BaseException) else Outcome.RETURNED


def outcome(outcome_of: OutcomeOf, ended: Ended) -> Outcome:
    """The outcome of a call; where it cannot be told, the charge is kept."""
    result, error = ended
    try:
        return Outcome(outcome_of(result if error is None else error))
    except Exception as failure:  # in reading the answer: the call did not fail, and its caller gets it
        log_failure(_LOG, "the outcome of a call could not be told; its charge is kept", failure)
        return Outcome.UNKNOWN


def unwrapped(ended: Ended) -> Any:
    """The call's result, or its exception raised again, unchanged."""
    result, error = ended
    if error is None:
        return result
    try:
        raise error
    finally:
        del ended, error  # an exception that its own traceback holds would live on
