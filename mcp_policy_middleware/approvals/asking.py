"""How a question is asked, once, and what is kept of the answer; sync and async callers are served by one code."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

from ..errors import log_failure
from .approver import Approver, NoAnswer
from .floods import Flood
from .requests import Answer, ApprovalRequest, Found
from .states import Event, State

__all__ = ["Asking", "Consult", "asking", "consume", "look"]

_LOG: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class Consult:
    """Asks an approver or its store: in one way for sync callers, in the other for async ones."""

    now: Callable[[], Any]
    later: Callable[[], Awaitable[Any]]


Asking: TypeAlias = Generator[Consult, Any, ApprovalRequest | Flood]
"""Yields whom to consult, and returns how the request stands."""


def asking(approver: Approver, draft: ApprovalRequest, timeout: float, clock: Callable[[], float]) -> Asking:
    """Ask a person about a call, unless they were asked before.

    Args:
        approver: Who asks.
        draft: The question.
        timeout: Seconds until its time is up.
        clock: Tells the time, in seconds since the Unix epoch.

    Raises:
        StoreError: The store of requests cannot answer.
        Exception: One of the approver's `control_flow`.
    """
    store = approver.store
    opening = (draft, timeout, approver.floods, clock())
    found: Found | Flood = yield Consult(partial(store.open, *opening), partial(store.aopen, *opening))
    if isinstance(found, Flood):
        return found
    request = _there(found)
    if request.state is not State.PENDING or not (found.changed or approver.resumes(request, draft)):
        return request
    seconds = timeout if found.changed else request.expires_at - clock()
    event, by, why = Event.CANCEL, "", ""
    try:
        answer = yield Consult(partial(approver.ask, request, seconds), partial(approver.aask, request, seconds))
        if answer is NoAnswer.LATER:
            return request
        event, by, why = _event(answer)
    except approver.control_flow:
        raise
    except Exception as error:
        log_failure(_LOG, "an approval failed, and the call was denied", error)
    except BaseException:  # whoever asked is cancelled or interrupted, and waits for nothing any more
        store.move(request.id, Event.CANCEL, clock())
        raise
    moving = (request.id, event, clock(), by, why)
    try:
        moved: Found = yield Consult(partial(store.move, *moving), partial(store.amove, *moving))
    except GeneratorExit:  # whoever asked is gone: the answer stands, for nobody else would give one
        store.move(*moving)
        raise
    return _there(moved)


def look(approver: Approver, draft: ApprovalRequest, clock: Callable[[], float]) -> Asking:
    """What stands for a call; asks nobody and changes nothing."""
    store = approver.store
    finding = (draft.binding, clock())
    found: ApprovalRequest | None = yield Consult(partial(store.find, *finding), partial(store.afind, *finding))
    return draft if found is None else found


def consume(approver: Approver, request: ApprovalRequest, clock: Callable[[], float]) -> Generator[Consult, Any, Found]:
    """Use an approval; `changed` tells whether it was there to be used, which it is once."""
    moving = (request.id, Event.CONSUME, clock())
    found: Found = yield Consult(partial(approver.store.move, *moving), partial(approver.store.amove, *moving))
    return found


def _event(answer: Any) -> tuple[Event, str, str]:
    """What an answer means for the request.

    Raises:
        TypeError: It is none.
    """
    if answer is NoAnswer.TOO_LATE:
        return Event.EXPIRE, "", ""
    if type(answer) is not Answer or type(answer.approved) is not bool:
        raise TypeError("an approver gave no answer")
    return Event.APPROVE if answer.approved else Event.DENY, str(answer.by), str(answer.why)


def _there(found: Found) -> ApprovalRequest:
    if found.request is None:
        raise LookupError("an approval request vanished")
    return found.request
