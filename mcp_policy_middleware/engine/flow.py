"""One decision as a generator: it yields what it needs to know and returns a `Decision` (PL-4).

No I/O, no clock, no framework, no `await`: a driver answers each request, and the same flow serves
enforcement, explanation, and sync and async callers. The first denial wins.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from ..calls import UNNAMED, Charge, Decision, Reason, Refusal, Reservation, ToolCall, Unreadable, shown
from ..errors import StoreError
from .compiler import CompiledPolicy, Plan

__all__ = ["Answer", "Flow", "Peek", "Request", "Reserve", "decide"]

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
) -> Flow:
    """Decide one call; whatever goes wrong inside is a denial (PL-4.3).

    Args:
        policy: The policy for the call's server and grant; None where there is none.
        call: The call.
        grant: The grant it is made under.
        session: The run or conversation it belongs to.
        suspended: Why every call is denied now; None where calls are decided.
        held: What an outer layer has reserved for the same call.
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
        plan = policy.plans.get(call.tool, policy.otherwise)
        name, digest, enforced = policy.name, policy.digest, plan.enforced
        if plan.refusal is not None:
            reason, rule, text = plan.refusal
            message = plan.reason or f"tool `{shown(call.tool)}` {text}"
            return Decision(call, grant, session, reason, rule, message, enforced, name, digest)
        denial = _broken_rule(plan, arguments)
        if denial is not None:
            return Decision(call, grant, session, *denial, enforced, name, digest)
        charges: tuple[Charge, ...] = ()
        reservation: Reservation | None = None
        if plan.limits:
            charges = plan.charges(call.server, grant, session)
            answer = yield Peek(charges) if plan.approval else Reserve(charges, held)
            if isinstance(answer, Refusal):
                denial, wait = _over_limit(plan, answer), answer.retry_after
                return Decision(call, grant, session, *denial, enforced, name, digest, wait, None, charges)
            reservation = answer
        if plan.approval:
            denial = (Reason.APPROVAL_REQUIRED, plan.approval, _approval_message(plan))
            return Decision(call, grant, session, *denial, enforced, name, digest, None, None, charges)
        return Decision(
            call, grant, session, _ALLOWED, "", "", enforced, name, digest, None, None, charges, None, reservation
        )
    except StoreError as error:
        _LOG.warning("a call was denied because its limits cannot be checked: %s", error)
        rule = plan.limits[0].rule if plan else ""
        denial = (Reason.STORE_UNAVAILABLE, rule, "the call's limits cannot be checked now, try again later")
        kind = type(error).__name__
    except Exception as error:
        _LOG.exception("a call was denied because its evaluation failed")
        denial = (Reason.EVALUATION_ERROR, "(evaluation error)", "the call could not be checked and was not made")
        kind = type(error).__name__
    name, digest = (policy.name, policy.digest) if policy else ("", "")
    enforced = plan is None or plan.enforced
    return Decision(call, grant, session, *denial, enforced, name, digest, error=kind)


Denial: TypeAlias = tuple[Reason, str, str]
"""Reason, rule and message."""


def _broken_rule(plan: Plan, arguments: dict[str, Any]) -> Denial | None:
    """Stages 6 and 7: the first requirement that does not hold, or the first `deny_if` that may hold."""
    for holds, rule in plan.require:
        answer = holds(arguments)
        if answer is not True:
            reason = Reason.UNDECIDABLE if answer is None else Reason.REQUIREMENT_UNMET
            return reason, rule.name, rule.message(answer, arguments)
    for holds, rule in plan.deny_if:
        answer = holds(arguments)
        if answer is not False:
            reason = Reason.UNDECIDABLE if answer is None else Reason.RULE_DENIED
            return reason, rule.name, rule.message(answer, arguments)
    return None


def _over_limit(plan: Plan, refusal: Refusal) -> Denial:
    limit = plan.limits[refusal.index]
    when = "" if refusal.retry_after is None else f", try again in {refusal.retry_after} s"
    return Reason.LIMIT_EXCEEDED, limit.rule, limit.on_deny or limit.text + when


def _approval_message(plan: Plan) -> str:
    missing = "approval required: no approver is configured"
    return f"{plan.reason} ({missing})" if plan.reason else f"{missing}, ask the user to do it"


def _unreadable(arguments: Any) -> str:
    if isinstance(arguments, Unreadable):
        return arguments.why
    return f"arguments must be an object, not {type(arguments).__name__}"


def _no_policy(call: ToolCall) -> str:
    if call.server is UNNAMED:
        return "no policy applies: the application gave this MCP session no server name"
    where = "tools of no MCP server" if call.server is None else f"server `{shown(str(call.server))}`"
    return f"no policy applies to {where}"
