"""Calls that a server of mcp 2.x has answered with a wish for input (SEP-2322), and that will be sent again.

The client repeats the same `tools/call` with the answers and with the `requestState` that the server gave. Each round
is checked, and the charge of the first stays the call's. A round is known by what the server gave for this very call,
and by nothing that a caller could make up: whatever fits no open call, or was used before, is a call of its own.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from ..calls import Outcome, ToolCall
from ..charges import Reservation
from ..guard import Guard
from ..handover import CURRENT, Handover, Layer, current

__all__ = ["OpenCall", "OpenCalls", "sent_again"]

_MOST_OPEN: Final = 1024
_MOST_ROUNDS: Final = 11
"""As many as the SDK's own client sends unless told otherwise, the first and ten more; the next is charged again."""

_Key: TypeAlias = tuple[Any, ...]


@dataclass(slots=True, eq=False)
class OpenCall:
    """A call between two of its rounds.

    Attributes:
        call: As its first round was seen here.
        handover: Around that round: the decision with its charge, which may be an outer layer's.
        held: The charge, while it is kept from being settled; None where an outer layer settles it.
        rounds: How many rounds the server has answered.
        key: What its next round must bring.
    """

    call: ToolCall
    handover: Handover
    held: Reservation | None
    rounds: int = 1
    key: _Key = ()

    @classmethod
    def answered(cls, guard: Guard, call: ToolCall) -> OpenCall | None:
        """The call whose first round has been answered; to be asked before its end settles the charge."""
        around = current(guard)
        if around is None:
            return None
        held = None
        if around.decision.call is call:
            held, around.decision.reservation = around.decision.reservation, None
        return cls(call, around, held)

    @property
    def own(self) -> bool:
        """Whether the call was decided here, and is settled here."""
        return self.handover.decision.call is self.call

    @contextmanager
    def resumed(self, guard: Guard) -> Iterator[None]:
        """Hand the decision inwards once more, with its charge, for a later round."""
        decision = self.handover.decision
        if self.own:
            decision.reservation = self.held
        handover = Handover(guard, decision, Layer.TOOL, CURRENT.get(), answered=True)
        token = CURRENT.set(handover)
        try:
            yield
        finally:
            CURRENT.reset(token)
            handover.settled = True
            if self.own:
                self.held, decision.reservation = decision.reservation, None

    async def end(self, guard: Guard, outcome: Outcome) -> None:
        """Settle the call, where that is done here."""
        if self.own:
            self.handover.decision.reservation = self.held
            await guard.afinish(self.handover.decision, outcome)


class OpenCalls:
    """The open calls of one guarded session, or of all sessions that one guard sees to; safe for threads.

    The longest untouched are forgotten first, with their charges kept: their next round is a call of its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: deque[OpenCall] = deque(maxlen=_MOST_OPEN)

    def put(self, opened: OpenCall, state: str | None) -> None:
        """Wait for the round that brings the state."""
        if opened.rounds < _MOST_ROUNDS:
            opened.key = _key(opened.call, state)
            self.put_back(opened)

    def put_back(self, opened: OpenCall) -> None:
        """Wait for the same round again."""
        with self._lock:
            self._open.append(opened)

    def take(self, call: ToolCall, params: Mapping[str, Any]) -> OpenCall | None:
        """The open call that a request goes on with; at most one request gets it."""
        state, answers = params.get("requestState"), params.get("inputResponses")
        if not isinstance(state, str) and answers is None:
            return None
        key = _key(call, state)
        with self._lock:
            for index, opened in enumerate(self._open):
                if opened.key == key and opened.call.arguments == call.arguments:
                    del self._open[index]
                    # where an outer layer has ended, the call is settled, and this is another
                    return opened if opened.own or not opened.handover.settled else None
        return None


def _key(call: ToolCall, state: str | None) -> _Key:
    digest = hashlib.sha256(state.encode("utf-8", "surrogatepass")).digest() if isinstance(state, str) else None
    return call.server, call.tool, call.grant, call.session, digest


def sent_again(guard: Guard, call: ToolCall) -> None:
    """Let a call that a server has refused unread be sent again under the decision of an outer layer.

    A client of 2.x does so by itself after a header mismatch.
    """
    around = current(guard)
    if around is not None and around.decision.call is not call:
        around.withdraw(Layer.SESSION)
