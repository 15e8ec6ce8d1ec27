"""Decide once: how a decision reaches the inner layers of one call (architecture 2, adapters A-2).

Guards may be stacked: middleware around a guarded tool around a guarded session. The outermost layer
decides and charges. A ContextVar hands that decision inwards, where each deeper layer may take it up once,
for the same tool of the same server, until the call is settled. It is not an "inside the guard" flag: with
in-process servers the caller's context is visible inside the server, where a nested call is a call of its own.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from .calls import Decision, Outcome, ToolCall

__all__ = ["Handover", "Layer", "current", "hand_inwards"]

_LOCK: Final = threading.Lock()


class Layer(IntEnum):
    """Where in a stack of guards a call is seen, from the outermost inwards.

    One call may pass several guarded layers. A decision is handed inwards only, from a layer to a
    deeper one, so each layer can use it once and a nested call of the same kind is decided anew.
    """

    CALLER = 0
    MIDDLEWARE = 1
    CALLBACK = 2
    TOOL = 3
    INTERCEPTOR = 4
    SESSION = 5


@dataclass(slots=True, eq=False)
class Handover:
    """A decision on its way inwards.

    Attributes:
        guard: Whose decision it is; another guard's layers decide for themselves.
        decision: The decision; it holds the one reservation of all layers, and the policy that admitted the call,
            which a reload meanwhile does not change.
        layer: The innermost layer that has seen the call.
        outer: The handover around this one, of another call or another guard.
        settled: Whether the call is over.
        answered: Whether a server has answered an earlier round of the call: then nothing is given back for a
            later one that is not sent.
        told: How the call failed, as the deepest layer saw it, before those around it made a message of the exception.
        seen: Who was told of the call and of what, for hooks that may stand twice in one place.
    """

    guard: object
    decision: Decision
    layer: Layer
    outer: Handover | None
    settled: bool = field(default=False)
    answered: bool = field(default=False, kw_only=True)
    told: Outcome | None = field(default=None)
    seen: tuple[object, ...] | None = field(default=None)

    def concerns(self, call: ToolCall, layer: Layer) -> bool:
        """Whether a deeper layer of the same call may take the decision up."""
        mine = self.decision
        return (
            not self.settled
            and layer > self.layer
            and call.tool == mine.call.tool
            and call.server == mine.call.server
            and call.grant in (None, mine.grant)
            and call.session in (None, mine.session)
        )

    def accepts(self, call: ToolCall, layer: Layer) -> bool:
        """Take the decision up for a deeper layer of the same call; True at most once a layer."""
        with _LOCK:
            if not self.concerns(call, layer):
                return False
            self.layer = layer
            self.told = None  # it goes out again: how it failed before does not count
            return True

    def tell(self, outcome: Outcome) -> None:
        """Say how the call failed, if it did; the deepest layer says it first, and it counts."""
        if self.told is None and outcome in (Outcome.UNKNOWN, Outcome.REJECTED):
            self.told = outcome

    def withdraw(self, layer: Layer) -> None:
        """Let the innermost layer take the decision up again: what it sent was refused unread."""
        with _LOCK:
            if layer == self.layer:
                self.layer = Layer(layer - 1)

    def close(self) -> None:
        """End a handover of `hand_inwards`, in whatever context: nothing takes the decision up any more."""
        self.settled = True
        if CURRENT.get() is self:
            CURRENT.set(self.outer)


CURRENT: Final[ContextVar[Handover | None]] = ContextVar("mcp_policy_handover", default=None)


def hand_inwards(guard: object, decision: Decision, layer: Layer) -> Handover:
    """Hand a begun decision to what this context does next, for hooks that cannot nest.

    It may stay in the context after it is closed in another one, so the next one leaves it out.
    """
    outer = CURRENT.get()
    while outer is not None and outer.settled:
        outer = outer.outer
    handover = Handover(guard, decision, layer, outer)
    CURRENT.set(handover)
    return handover


def current(guard: object) -> Handover | None:
    """The innermost handover of this guard, whatever call it is of."""
    handover = CURRENT.get()
    while handover is not None and handover.guard is not guard:
        handover = handover.outer
    return handover
