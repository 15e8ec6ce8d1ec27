"""An approval request: one question to a person about exactly one call, and how it stands (PL-7)."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from ..calls import UNNAMED, Approval, Decision
from ..canonical import canonical, digest
from .states import TRANSITIONS, Event, State

__all__ = ["STANDING", "Answer", "ApprovalRequest", "Found", "binding_of", "lapsed", "moved", "request_for", "stands"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person says.

    Args:
        approved: Whether the call may be made.
        by: Who says so, by whatever name the application knows them.
        why: Why; the agent is told why a call was denied.
    """

    approved: bool
    by: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRequest:
    """One question about exactly one call, as it stands; a snapshot, which nothing changes.

    Attributes:
        id: Names the request.
        binding: Digest of all that the answer is bound to: server, tool, arguments, grant, session, the context
            that conditions can see, and the policy (PL-7.1).
        server: The name the application gave the server; None for a tool of no server or of an unnamed session.
        tool: The tool's name, as its server knows it.
        arguments: The arguments, for the eyes of the person who is asked, and for nobody else's; None once the
            request is closed.
        grant: The grant the call is made under.
        session: The run or conversation it belongs to.
        policy_name, policy_digest: The policy that asks.
        rule: The rule that asks, as a JSON Pointer.
        text: What the policy's author says to whoever is asked; may be empty.
        call_id: The framework's id of the call, where it has one.
        asked_at: When it was asked, in seconds since the Unix epoch.
        expires_at: When the time is up, both for an answer and for the call, likewise.
        state: How it stands.
        by, why: Who answered, and what they said of it.
        answered_at: When, in seconds since the Unix epoch.
        withdrawn: Is set when no answer counts any more, for whoever waits for one in this process.
    """

    id: str
    binding: str
    server: str | None
    tool: str
    arguments: dict[str, Any] | None = field(repr=False)
    grant: str
    session: str | None
    policy_name: str
    policy_digest: str
    rule: str
    text: str
    call_id: str | None
    asked_at: float = 0.0
    expires_at: float = 0.0
    state: State = State.PENDING
    by: str = ""
    why: str = ""
    answered_at: float | None = None
    withdrawn: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)

    def as_dict(self, *, arguments: bool = True) -> dict[str, Any]:
        """The request as plain JSON.

        Args:
            arguments: Whether to tell the values of the arguments.
        """
        left_out = {"withdrawn"} if arguments else {"withdrawn", "arguments"}
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in left_out}

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> ApprovalRequest:
        """A request as `as_dict` tells it.

        Raises:
            ValueError: The state is none that there is: that is no approval (PL-7.2).
        """
        return cls(**{**told, "state": State(told["state"])})

    def approval(self) -> Approval:
        """What a decision tells of it."""
        return Approval(self.id, self.state.value, self.by, self.why, self.answered_at, self.binding)


@dataclass(frozen=True, slots=True)
class Found:
    """What a store has.

    Attributes:
        request: The request as it stands now; None where there is none.
        changed: Whether it was made, or moved, by this very step: of any number of callers, this is True for one.
    """

    request: ApprovalRequest | None
    changed: bool = False


def binding_of(decision: Decision, arguments: Any, context: dict[str, Any]) -> str:
    """Digest of all that an answer about a call is bound to (PL-7.1).

    Args:
        decision: What was decided of the call, under which grant, and by which policy.
        arguments: The arguments as the tool will get them.
        context: What conditions can see of the context.

    Raises:
        ValueError: The call holds something that JSON cannot say (PL-4.1).
    """
    call = decision.call
    bound = {
        "server": {"unnamed": True} if call.server is UNNAMED else call.server,
        "tool": call.tool,
        "arguments": digest({} if arguments is None else arguments),
        "grant": decision.grant,
        "session": decision.session,
        "context": digest(context),
        "policy": decision.policy_digest,
    }
    return digest(bound)


def request_for(decision: Decision, arguments: Any, context: dict[str, Any]) -> ApprovalRequest:
    """The question about a call that a policy wants approved; the decision's message is what its author says of it.

    Raises:
        ValueError: As for `binding_of`.
    """
    call = decision.call
    binding = binding_of(decision, arguments, context)
    return ApprovalRequest(
        id=_first_id(binding, call.call_id),
        binding=binding,
        server=call.server if isinstance(call.server, str) else None,
        tool=call.tool,
        arguments=json.loads(canonical(arguments or {})),  # a copy, whatever becomes of the call's own
        grant=decision.grant,
        session=decision.session,
        policy_name=decision.policy_name,
        policy_digest=decision.policy_digest,
        rule=decision.rule,
        text=decision.message,
        call_id=call.call_id,
    )


def _first_id(binding: str, call_id: str | None) -> str:
    """An id that a call which is run again finds its request by, though the process forgot it."""
    return hashlib.sha256(canonical([binding, call_id]).encode()).hexdigest()[:16]


def lapsed(request: ApprovalRequest, now: float) -> ApprovalRequest:
    """The request as it stands at a moment: expired, where its time is up."""
    if now < request.expires_at or (request.state, Event.EXPIRE) not in TRANSITIONS:
        return request
    return _in_state(request, State.EXPIRED)


def moved(request: ApprovalRequest, event: Event, now: float, by: str = "", why: str = "") -> Found:
    """What an event makes of a request; where the table does not have it, nothing (PL-7.2)."""
    request = lapsed(request, now)
    state = TRANSITIONS.get((request.state, event))
    if state is None:
        return Found(request)
    if request.state is State.PENDING:  # else who approved, and when, stays
        request = replace(request, by=by, why=why, answered_at=now)
    return Found(_in_state(request, state), changed=True)


def stands(request: ApprovalRequest, now: float) -> bool:
    """Whether the same call meets this request instead of a new one: an open one, or a no whose time is not up."""
    return now < request.expires_at and request.state in STANDING


_OPEN: Final = (State.PENDING, State.APPROVED)
STANDING: Final = (*_OPEN, State.DENIED)
"""The states in which a request stands until its time is up."""


def _in_state(request: ApprovalRequest, state: State) -> ApprovalRequest:
    """The request in a state; nobody needs to see the arguments of one that is closed."""
    return replace(request, state=state, arguments=request.arguments if state in _OPEN else None)
