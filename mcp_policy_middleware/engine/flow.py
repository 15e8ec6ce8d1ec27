"""One decision as a generator: it yields what it needs to know and returns a `Decision` (PL-4).

No I/O, no clock, no framework, no `await`: a driver answers each request, and the same flow serves
enforcement, explanation, and sync and async callers. The first denial wins.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, TypeAlias

from ..calls import UNNAMED, Decision, Reason, ToolCall, Unreadable, shown
from ..charges import Charge, Refusal, Reservation, as_number
from ..errors import StoreError, log_failure
from .compiler import CompiledPolicy, Plan
from .conditions import Scene
from .limits import Where

__all__ = ["Answer", "Flow", "Peek", "Person", "Request", "Reserve", "decide"]

_LOG: Final = logging.getLogger(__name__)
_ALLOWED: Final = Reason.ALLOWED


@dataclass(slots=True)
class Peek:
    """Asks what the charges would meet; takes nothing (stage 8)."""

    charges: tuple[Charge, ...]


@dataclass(slots=True)
class Reserve:
    """Asks to take all the charges or none (stage 10), instead of what the call already holds."""

    charges: tuple[Charge, ...]
    held: Reservation | None


class Person(Enum):
    """Who answers stage 9, where a rule wants a person to agree."""

    ABSENT = "absent"
    """Nobody can be asked: the denial says so (PL-7.4)."""
    ASKED_NEXT = "asked next"
    """The caller asks: the denial's message is what the policy's author says of it, and the call is decided again."""
    AGREED = "agreed"
    """A person has agreed: the stage is passed (PL-7.3)."""


Request: TypeAlias = Peek | Reserve
Answer: TypeAlias = Reservation | Refusal
Flow: TypeAlias = Generator[Request, Answer, Decision]
"""A driver sends an `Answer` to each `Request`, or throws a `StoreError` where a store cannot answer."""


def decide(
    policy: CompiledPolicy | None,
    call: ToolCall,
    grant: str,
    session: str | None,
    suspended: str | None = None,
    held: Reservation | None = None,
    context: Mapping[str, Any] | None = None,
    lenient: bool = False,
    person: Person = Person.ABSENT,
) -> Flow:
    """Decide one call; whatever goes wrong inside is a denial (PL-4.3).

    Args:
        policy: The policy for the call's server and grant; None where there is none.
        call: The call.
        grant: The grant it is made under.
        session: The run or conversation it belongs to.
        suspended: Why every call is denied now; None where calls are decided.
        held: What an outer layer has reserved for the same call.
        context: What the application passes in for conditions on `context.*`.
        lenient: Whether a call is allowed without its limits where the store cannot answer; a condition that reads
            a counter denies all the same.
        person: Who answers where a rule wants an approval.
    """
    plan: Plan | None = None
    try:
        if suspended is not None:
            message = f"all calls are suspended: {suspended}"
            return Decision(call, grant, session, Reason.SUSPENDED, "(suspended)", message)
        arguments = call.arguments
        if type(arguments) is not dict:
            if arguments is not None:
                return Decision(call, grant, session, Reason.INVALID_CALL, "(invalid call)", _unreadable(arguments))
            arguments = {}
        if policy is None:
            return Decision(call, grant, session, Reason.NO_POLICY, "(no policy)", _no_policy(call))
        plan = policy.plans.get(call.tool) or policy.plan_for(call.tool)  # most calls: one lookup, no call
        enforced = plan.enforced
        if plan.refusal is not None:
            reason, rule, text = plan.refusal
            message = plan.reason or text.replace("{tool}", shown(call.tool))
            return Decision(call, grant, session, reason, rule, message, enforced, policy)
        scene = _scene(call, grant, session, context) if plan.looks_outside else None
        if scene is not None and plan.reads:
            where = Where(call.server, grant, session, call.tool)
            counted = yield Peek(tuple([limit.charge(where) for limit in plan.reads.values()]))
            scene.state = _totals(plan, counted)
        denial = _broken_rule(plan, arguments, scene)
        if denial is not None:
            return Decision(call, grant, session, *denial, enforced, policy)
        approval = _asked_for(plan, arguments, scene, person) if plan.may_ask else None
        charges: tuple[Charge, ...] = ()
        reservation: Reservation | None = None
        if plan.limits:
            caller = call.server, grant, session, call.tool if plan.counts_by_tool else ""
            charges = plan.known.get(caller) or plan.charges(call.server, grant, session, call.tool)  # most: no call
            if plan.reads_amounts:
                read = _amounts(plan, charges, arguments)
                if isinstance(read, Refusal):
                    denial = _unreadable_charge(plan, read)
                    return Decision(call, grant, session, *denial, enforced, policy)
                charges = read
            if held is None or (held.charges != charges and approval is None):  # else an outer layer took just this
                try:
                    answer = yield Peek(charges) if approval else Reserve(charges, held)
                    if isinstance(answer, Refusal):
                        denial, wait = _over_limit(plan, answer), answer.retry_after
                        return Decision(call, grant, session, *denial, enforced, policy, wait, None, charges)
                    held = answer
                except StoreError as error:
                    if not lenient:
                        raise
                    if approval is None:
                        _LOG.warning("a call is allowed without its limits, as `on_store_failure` says: %s", error)
                        uncounted = _ALLOWED, "", "its limits were not checked: the counter store cannot answer"
                        kind = StoreError.__name__
                        return Decision(
                            call, grant, session, *uncounted, enforced, policy, None, None, charges, kind, held
                        )
            reservation = held
        if approval is not None:
            return Decision(call, grant, session, *approval, enforced, policy, None, None, charges)
        return Decision(
            call, grant, session, _ALLOWED, "", "", enforced, policy, None, None, charges, None, reservation
        )
    except Exception as error:  # whatever goes wrong in here, the call is not made
        return _failed(call, grant, session, policy, plan, error)


Denial: TypeAlias = tuple[Reason, str, str]
"""Reason, rule and message."""


def _failed(
    call: ToolCall, grant: str, session: str | None, policy: CompiledPolicy | None, plan: Plan | None, error: Exception
) -> Decision:
    """The denial of a call that could not be decided (PL-4.3)."""
    kind = type(error).__name__
    if isinstance(error, StoreError):
        _LOG.warning("a call was denied because its limits cannot be checked: %s", error)
        kind = StoreError.__name__
        rule = plan.counting_rule if plan else ""
        denial = (Reason.STORE_UNAVAILABLE, rule, "the call's limits cannot be checked now, try again later")
    else:
        log_failure(_LOG, "a call was denied because its evaluation failed", error)
        denial = (Reason.EVALUATION_ERROR, "(evaluation error)", "the call could not be checked and was not made")
    enforced = plan is None or plan.enforced
    return Decision(call, grant, session, *denial, enforced, policy, error=kind)


def _scene(call: ToolCall, grant: str, session: str | None, context: Mapping[str, Any] | None) -> Scene:
    facts = {"tool": call.tool, "server": call.server, "grant": grant, "session": session}
    known = {name: value for name, value in facts.items() if value is not None and value is not UNNAMED}
    return Scene(known, dict(context or {}))


def _totals(plan: Plan, counted: Answer) -> dict[str, Any]:
    """What counters read before anything is reserved, as numbers."""
    if isinstance(counted, Refusal):
        raise TypeError("a store refused to be looked at")
    return dict(zip(plan.reads, map(as_number, counted.used), strict=True))


def _broken_rule(plan: Plan, arguments: dict[str, Any], scene: Scene | None) -> Denial | None:
    """Stages 6 and 7: the first requirement that does not hold, or the first `deny_if` that may hold."""
    if plan.only_arguments is not None and not arguments.keys() <= plan.only_arguments:
        extra = next(name for name in arguments if name not in plan.only_arguments)
        return Reason.UNEXPECTED_ARGUMENT, plan.closed_rule, f"argument `{shown(str(extra))}` is not expected"
    for holds, rule in plan.require:
        answer = holds(arguments, scene)
        if answer is not True:
            reason = Reason.UNDECIDABLE if answer is None else Reason.REQUIREMENT_UNMET
            return reason, rule.name, rule.message(answer, arguments, scene)
    for holds, rule in plan.deny_if:
        answer = holds(arguments, scene)
        if answer is not False:
            reason = Reason.UNDECIDABLE if answer is None else Reason.RULE_DENIED
            return reason, rule.name, rule.message(answer, arguments, scene)
    return None


def _asked_for(plan: Plan, arguments: dict[str, Any], scene: Scene | None, person: Person) -> Denial | None:
    """Stage 9: the rule that asks for an approval; what cannot be decided asks (PL-3.7)."""
    if person is Person.AGREED:
        return None
    if plan.approval:
        return Reason.APPROVAL_REQUIRED, plan.approval, _asking(plan.reason, person)
    for holds, rule in plan.approve_if:
        if holds(arguments, scene) is not False:
            return Reason.APPROVAL_REQUIRED, rule.name, _asking(rule.on_deny or plan.reason, person)
    return None


def _asking(text: str | None, person: Person) -> str:
    """What the policy's author says, and that nobody can be asked, where the caller does not ask."""
    if person is Person.ASKED_NEXT:
        return text or ""
    missing = "approval required: no approver is configured"
    return f"{text} ({missing})" if text else f"{missing}, ask the user to do it"


def _amounts(plan: Plan, charges: tuple[Charge, ...], arguments: dict[str, Any]) -> tuple[Charge, ...] | Refusal:
    """The charges with amounts read from the arguments; on one counter, the largest (PL-5.3, PL-5.5)."""
    largest: dict[str, int] = {}
    for index, (limit, charge) in enumerate(zip(plan.limits, charges, strict=True)):
        amount = limit.amount if isinstance(limit.amount, int) else limit.amount(arguments)
        if amount is None:
            return Refusal(index, None)
        largest[charge.key] = max(amount, largest.get(charge.key, 0))
    return tuple([replace(charge, amount=largest[charge.key]) for charge in charges])


def _unreadable_charge(plan: Plan, refusal: Refusal) -> Denial:
    limit = plan.limits[refusal.index]
    return Reason.UNDECIDABLE, limit.rule, limit.on_deny or f"argument `{limit.source}` could not be checked"


def _over_limit(plan: Plan, refusal: Refusal) -> Denial:
    limit = plan.limits[refusal.index]
    when = "" if refusal.retry_after is None else f", try again in {refusal.retry_after} s"
    return Reason.LIMIT_EXCEEDED, limit.rule, limit.on_deny or limit.text + when


def _unreadable(arguments: Any) -> str:
    if isinstance(arguments, Unreadable):
        return arguments.why
    return f"arguments must be an object, not {type(arguments).__name__}"


def _no_policy(call: ToolCall) -> str:
    if call.server is UNNAMED:
        return "no policy applies: the application gave this MCP session no server name"
    where = "tools of no MCP server" if call.server is None else f"server `{shown(str(call.server))}`"
    return f"no policy applies to {where}"
