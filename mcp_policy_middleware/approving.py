"""Stage 9 where a person can be asked: question, answer, and the call decided again (PL-7)."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeAlias

from .approvals.approver import Approver
from .approvals.asking import Consult, asking, consume, look
from .approvals.base import ApprovalStore
from .approvals.floods import Flood
from .approvals.function import Ask, FunctionApprover
from .approvals.requests import ApprovalRequest, binding_of, request_for
from .approvals.states import State
from .calls import Approval, Decision, Outcome, Reason
from .engine import CompiledPolicy, Flow
from .errors import PolicyError, StoreError
from .settlement import settle
from .steps import drive
from .telemetry import Telemetry

__all__ = ["ApprovalTimeout", "Approving", "Deciding", "is_bound", "required"]

ApprovalTimeout: TypeAlias = float | timedelta
"""Seconds, or a `timedelta`."""

Reply: TypeAlias = Callable[[Any], Any]
"""Answers a request of one of the guard's generators."""

Deciding: TypeAlias = Generator[Any, Any, Decision]
"""Yields what a store or an approver is asked, and returns a decision."""

_LONGEST: Final = 31 * 86_400

_REQUIRED: Final = "approval required: a person must agree"
_FAILED: Final = "approval failed: a person could not be asked, try again later"
_CHANGED: Final = "approval failed: the call or its policy changed while a person was asked, try again"
_USED: Final = "approval failed: the approval was used by another call"
_REASONS: Final = {
    State.PENDING: (Reason.APPROVAL_PENDING, "approval pending, id {id}, retry later"),
    State.APPROVED: (Reason.APPROVAL_FAILED, _FAILED),
    State.DENIED: (Reason.APPROVAL_DENIED, "approval denied{why}: do not retry with the same arguments"),
    State.EXPIRED: (Reason.APPROVAL_EXPIRED, "approval expired: nobody agreed in time"),
    State.CANCELLED: (Reason.APPROVAL_FAILED, _FAILED),
    State.CONSUMED: (Reason.APPROVAL_FAILED, _USED),
}
"""What a request that admits no call is to the agent."""


class Approving:
    """Asks people on a guard's behalf.

    Args:
        approver: Who asks.
        timeout: How long an answer may take, and the call after it.
        clock: Tells the time, in seconds since the Unix epoch.
        reply: Answers the guard's requests at once, for what is given back when a caller is cancelled.
        telemetry: Where approvals are recorded.

    Raises:
        PolicyError: A setting does not fit.
    """

    def __init__(
        self,
        approver: Approver | Ask,
        timeout: ApprovalTimeout,
        clock: Callable[[], float],
        reply: Reply,
        telemetry: Telemetry | None,
    ) -> None:
        self.approver = approver if isinstance(approver, Approver) else FunctionApprover(approver)
        self._timeout = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        if isinstance(self._timeout, bool) or not 0 < self._timeout <= _LONGEST:
            raise PolicyError("approval_timeout is more than 0 s and at most 31 days: give seconds or a `timedelta`")
        self._clock = clock
        self._reply = reply
        self._telemetry = telemetry
        if telemetry is not None:
            telemetry.watch(self.approver.store, partial(_waiting, clock))

    def decided(
        self,
        asks: Decision,
        context: Mapping[str, Any] | None,
        again: Callable[[], Flow],
        *,
        looking: bool,
        taken: set[str] | None = None,
        keeps: bool = False,
    ) -> Deciding:
        """The decision of a call that a person must agree to.

        Args:
            asks: What a policy says: that an approval is required.
            context: What the application passes in for conditions.
            again: Decides the call anew, on a fresh clock and by the policy of then, with the approval answered.
            looking: Whether nobody is asked and nothing is used.
            taken: For a call that is asked about ahead, and uses its approval when it is made: approvals of the calls
                that are made with it. None for a call that is made now.
            keeps: Whether the call keeps its charge whatever comes of it, for a server has answered a part of it.
        """
        if not asks.enforced:  # shadow mode asks nobody (PL-4.4)
            return required(asks)
        try:
            draft = request_for(asks, _arguments(asks), _seen(asks, context))
        except ValueError as error:
            return _refused(asks, Reason.INVALID_CALL, f"the call cannot be approved: {error}")
        try:
            found = yield from self._found(draft, asks, looking, ahead=taken is not None)
        except (StoreError, LookupError):
            return _refused(asks, Reason.APPROVAL_FAILED, _FAILED)
        if isinstance(found, Flood):
            words = f"too many approval requests: try again in {found.retry_after} s"
            return _refused(asks, Reason.APPROVAL_FLOOD, words, retry_after=found.retry_after)
        if found is draft:
            return required(asks)
        if found.state is not State.APPROVED:
            return _answered(asks, found)
        if taken is not None and found.id in taken:
            return _refused(asks, Reason.APPROVAL_FAILED, _USED, found.approval())
        decision = yield from again()
        if looking or taken is not None or decision.effect == "deny":
            decision.approval = found.approval()
        else:
            decision = yield from self._used(decision, found, asks, context, keeps)
        if taken is not None and decision.effect == "allow":
            taken.add(found.id)
        return decision

    def _found(
        self, draft: ApprovalRequest, asks: Decision, looking: bool, ahead: bool
    ) -> Generator[Consult, Any, ApprovalRequest | Flood]:
        """How the request stands, after a person was asked where nobody had been."""
        if looking:
            return (yield from look(self.approver, draft, self._clock))
        started = time.time_ns()
        outcome = Approval("", "failed")
        seconds = None
        try:
            found = yield from asking(self.approver, draft, self._timeout, self._clock)
            if isinstance(found, Flood):
                outcome.state = "flood"
            else:
                outcome = found.approval()
                if found.state is not State.PENDING:
                    seconds = (found.answered_at or self._clock()) - found.asked_at
            return found
        except self.approver.control_flow:
            outcome = Approval(draft.id, State.PENDING.value)
            raise
        finally:
            later = ahead and outcome.state == State.APPROVED  # the call itself will find it, and record it
            if self._telemetry is not None and not later:
                tool, policy = asks.call.tool, asks.policy
                known = isinstance(policy, CompiledPolicy) and policy.names(tool)
                self._telemetry.record_approval(outcome, tool, started, time.time_ns(), seconds, known)

    def _used(
        self,
        decision: Decision,
        found: ApprovalRequest,
        asks: Decision,
        context: Mapping[str, Any] | None,
        keeps: bool,
    ) -> Deciding:
        """The call with its charges taken and its approval used, or else neither (PL-7.3)."""
        try:
            denial = yield from self._consumed(decision, found, asks, context)
        except BaseException:  # cancelled, or interrupted: the call is not made
            if not keeps:
                drive(settle(decision, Outcome.NOT_SENT), self._reply)
            raise
        if denial is None:
            return decision
        if keeps:
            denial.reservation = decision.reservation
        else:
            yield from settle(decision, Outcome.NOT_SENT)
        return denial

    def _consumed(
        self, decision: Decision, found: ApprovalRequest, asks: Decision, context: Mapping[str, Any] | None
    ) -> Generator[Any, Any, Decision | None]:
        """Use the approval for the call as it is now; why it cannot be used."""
        changed = _refused(asks, Reason.APPROVAL_FAILED, _CHANGED, found.approval())
        try:
            if found.binding != _binding(decision, context):
                return changed
            used = yield from consume(self.approver, found, self._clock)
            if not used.changed or used.request is None:
                return _answered(asks, used.request or found)
            decision.approval = used.request.approval()
            # from here on nothing is waited for: what is compared is what is sent
            return None if found.binding == _binding(decision, context) else changed
        except (StoreError, ValueError):
            return _refused(asks, Reason.APPROVAL_FAILED, _FAILED, found.approval())


def required(asks: Decision) -> Decision:
    """The denial of a call about which nobody is asked, though somebody could be."""
    return _refused(asks, Reason.APPROVAL_REQUIRED, _REQUIRED)


def _waiting(clock: Callable[[], float], store: ApprovalStore) -> int:
    """How many requests in a store nobody has answered."""
    return sum(request.state is State.PENDING for request in store.requests(clock()))


def is_bound(approval: Approval | None, decision: Decision, context: Mapping[str, Any] | None) -> bool:
    """Whether an approval was used for the call that was decided, with all that it is bound to (PL-7.1)."""
    if approval is None or approval.state != State.CONSUMED:  # it waits, or was denied
        return False
    try:
        return approval.binding == _binding(decision, context)
    except ValueError:  # what JSON cannot say, nobody has agreed to
        return False


def _binding(decision: Decision, context: Mapping[str, Any] | None) -> str:
    return binding_of(decision, _arguments(decision), _seen(decision, context))


def _arguments(decision: Decision) -> Any:
    """The arguments as the tool will get them, as far as that is known here."""
    call = decision.call
    return call.arguments if call.as_sent is None else call.as_sent()


def _seen(decision: Decision, context: Mapping[str, Any] | None) -> dict[str, Any]:
    """What conditions about the tool can see of the context."""
    policy = decision.policy
    if not context or not isinstance(policy, CompiledPolicy):
        return {}
    names = policy.plan_for(decision.call.tool).sees
    return {name: context[name] for name in names if name in context}


def _answered(asks: Decision, request: ApprovalRequest) -> Decision:
    """The denial of a call whose request admits it not, or not yet."""
    reason, words = _REASONS[request.state]
    why = f" ({request.why})" if request.why else ""
    return _refused(asks, reason, words.format(id=request.id, why=why), request.approval())


def _refused(
    asks: Decision, reason: Reason, words: str, approval: Approval | None = None, retry_after: int | None = None
) -> Decision:
    """What the policy said of the call, with what came of it; after what its author says of it (PL-6.1)."""
    message = f"{asks.message} ({words})" if asks.message else words
    return replace(asks, reason=reason, message=message, approval=approval, retry_after=retry_after)
