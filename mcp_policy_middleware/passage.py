"""One guarded call from end to end: decided, let go on, settled; and the same call seen by a deeper layer.

`Passage.around` is the whole account of a guarded call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from .answers import PROCEED, Ended, OutcomeOf, outcome
from .approving import Approving, Deciding, is_bound, required
from .calls import Decision, Outcome, Reason, ToolCall
from .engine import Answer, CompiledPolicy, Flow, Person, Request, decide
from .engine.trace import Trace, trace
from .errors import ToolDenied
from .handover import CURRENT, Handover, Layer, current
from .recording import Recorder
from .selection import Selection
from .settlement import put_end_on_record, put_on_record, settle
from .telemetry import Telemetry

__all__ = ["Passage"]

_ASKS: Final = Reason.APPROVAL_REQUIRED


@dataclass(slots=True)
class Passage:
    """What a guard decides by.

    Attributes:
        guard: Whose decisions these are; layers of the same guard decide a call once.
        selection: The policies, which a reload replaces.
        grant, session, context: What goes for calls that do not bring their own.
        lenient: Whether calls are allowed without their limits while the store cannot answer.
        approving: Asks people; None where nobody can be asked.
        telemetry: Where decisions are recorded; None for nowhere.
        audit: What keeps a record of them; None for nothing.
        suspended: Why every call is denied now; None where calls are decided.
    """

    guard: object
    selection: Selection
    grant: str
    session: str | None
    context: Mapping[str, Any] | None
    lenient: bool
    approving: Approving | None
    telemetry: Telemetry | None
    audit: Recorder | None = None
    suspended: str | None = None
    _person: Person = field(init=False)
    _recording: Callable[[], bool] | None = field(init=False)

    def __post_init__(self) -> None:
        self._person = Person.ABSENT if self.approving is None else Person.ASKED_NEXT
        self._recording = self.telemetry.recording if self.telemetry else None

    def looked_at(self, call: ToolCall) -> Deciding:
        """What would be decided now, for a driver that only looks; nobody is asked."""
        decision = yield from self._flow(call, self._person)
        if decision.reason is _ASKS:
            decision = yield from self._asked(decision, call, looking=True)
        return decision

    def ahead(self, calls: Iterable[ToolCall]) -> Generator[Any, Any, list[Decision | None]]:
        """Ask people about calls before any of them is made, for a driver that only looks.

        Returns:
            For each call the denial that asking came to; None where the call is decided when it is made.
        """
        denials: list[Decision | None] = []
        taken: set[str] = set()
        for call in calls:
            started = self._now()
            decision = yield from self._flow(call, self._person)
            asks = decision.reason is _ASKS
            asked = time.time_ns()
            if asks:
                decision = yield from self._asked(decision, call, looking=False, taken=taken)
            denied = asks and not decision.allowed
            if denied:
                yield from self._told(decision, started, time.time_ns() - asked)
            denials.append(decision if denied else None)
        return denials

    def traced(self, call: ToolCall) -> Generator[Request, Answer, Trace]:
        """What would be decided now, stage by stage, for a driver that only looks; nobody is asked."""
        grant = self.grant if call.grant is None else call.grant
        session = self.session if call.session is None else call.session
        policy, context = self.selection.policy_for(call.server, grant), self._context(call)
        told = yield from trace(policy, call, grant, session, context, self.suspended, self.lenient, self._person)
        asks = told.decision.reason is _ASKS and self.approving is not None
        return replace(told, decision=required(told.decision)) if asks else told

    def recorded(self, call: ToolCall, *, observing: bool = False) -> Deciding:
        """The decision of a call that no outer layer has decided, with a span.

        Args:
            call: The call.
            observing: Whether the call goes on whatever the policy says: then nobody is asked.
        """
        recording = self._recording
        started = time.time_ns() if recording is not None and recording() else 0
        waited = 0
        grant = self.grant if call.grant is None else call.grant  # as in `_flow`, without the call
        session = self.session if call.session is None else call.session
        context = self.context if call.context is None else call.context
        policy = self.selection.policy_for(call.server, grant)
        decision = yield from decide(
            policy, call, grant, session, self.suspended, None, context, self.lenient, self._person
        )
        if decision.reason is _ASKS:
            asked = time.time_ns()
            decision = yield from self._asked(decision, call, looking=observing)
            waited = time.time_ns() - asked
        if observing:
            decision.enforced = False
        if started or self.audit is not None:  # most calls: nobody is told
            yield from self._told(decision, started, waited)
        return decision

    def around(self, call: ToolCall, outcome_of: OutcomeOf, layer: Layer) -> Generator[Any, Any, Ended]:
        """One guarded call, as one layer sees it.

        Raises:
            ToolDenied: The policy denies it.
        """
        outer = current(self.guard)
        if outer is not None and outer.accepts(call, layer):
            return (yield from self._inside(call, outcome_of, outer))
        decision = yield from self.recorded(call)
        if not decision.allowed:
            raise ToolDenied(decision)
        handover = Handover(self.guard, decision, layer, CURRENT.get())
        token = CURRENT.set(handover)
        try:
            ended: Ended = yield PROCEED
        finally:
            CURRENT.reset(token)
            handover.settled = True
        yield from self.ended(decision, handover.told or outcome(outcome_of, ended))
        return ended

    def ended(self, decision: Decision, outcome: Outcome) -> Generator[Any, Any, None]:
        """A call that was let go on is over: its charge is settled, and its end is put on record."""
        yield from settle(decision, outcome)
        if self.audit is not None:
            yield from put_end_on_record(self.audit, decision, outcome)

    def _inside(self, call: ToolCall, outcome_of: OutcomeOf, around: Handover) -> Generator[Any, Any, Ended]:
        """The same call seen deeper: decided on what is seen here, with the one reservation.

        A layer that agrees with the outer one makes no second span, and asks nobody about the same arguments.
        """
        outer = around.decision
        started = self._now()
        decision, waited = yield from self._decided_inside(call, around)
        if decision.effect != outer.effect:
            yield from self._told(decision, started, waited)
        outer.approval = decision.approval or outer.approval
        if decision.reservation is not None:
            outer.reservation = decision.reservation
        elif decision.effect == "deny" and not around.answered:
            yield from settle(outer, Outcome.NOT_SENT)
        if not decision.allowed:
            raise ToolDenied(decision)
        ended: Ended = yield PROCEED
        around.tell(outcome(outcome_of, ended))
        return ended

    def _decided_inside(self, call: ToolCall, around: Handover) -> Generator[Any, Any, tuple[Decision, int]]:
        """What is decided, and for how many nanoseconds a person was asked."""
        outer = around.decision
        policy = outer.policy if isinstance(outer.policy, CompiledPolicy) else None
        context = next((one for one in (call.context, outer.call.context) if one is not None), self.context)

        def flow(person: Person) -> Flow:
            held = outer.reservation
            return decide(policy, call, outer.grant, outer.session, self.suspended, held, context, self.lenient, person)

        decision = yield from flow(self._person)
        if decision.reason is not _ASKS or self.approving is None:
            return decision, 0
        if is_bound(outer.approval, decision, context):  # a person has agreed to just this
            return (yield from flow(Person.AGREED)), 0
        asked = time.time_ns()
        again = partial(flow, Person.AGREED)
        decision = yield from self.approving.decided(decision, context, again, looking=False, keeps=around.answered)
        return decision, time.time_ns() - asked

    def _asked(self, decision: Decision, call: ToolCall, *, looking: bool, taken: set[str] | None = None) -> Deciding:
        """The decision of a call that a person must agree to, where one can be asked."""
        if self.approving is None:
            return decision
        again = partial(self._flow, call, Person.AGREED)
        return (yield from self.approving.decided(decision, self._context(call), again, looking=looking, taken=taken))

    def _flow(self, call: ToolCall, person: Person) -> Flow:
        grant = self.grant if call.grant is None else call.grant
        session = self.session if call.session is None else call.session
        context = self.context if call.context is None else call.context
        policy = self.selection.policy_for(call.server, grant)
        return decide(policy, call, grant, session, self.suspended, None, context, self.lenient, person)

    def _now(self) -> int:
        """When an evaluation begins, in nanoseconds since the Unix epoch; 0 where nobody is told."""
        return time.time_ns() if self._recording is not None and self._recording() else 0

    def _context(self, call: ToolCall) -> Mapping[str, Any] | None:
        return self.context if call.context is None else call.context

    def _told(self, decision: Decision, started: int, waited: int) -> Generator[Any, Any, None]:
        """Put a decision on record, and in traces and metrics where those are wanted.

        Args:
            decision: The decision.
            started: When its evaluation began, in nanoseconds since the Unix epoch; 0 where nobody is told.
            waited: For how many nanoseconds a person was asked.
        """
        if self.audit is not None:
            yield from put_on_record(self.audit, decision)
        if started and self.telemetry is not None:
            self.telemetry.record(decision, started, time.time_ns(), self.selection.knows, waited)
