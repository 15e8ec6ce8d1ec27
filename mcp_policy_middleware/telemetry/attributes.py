"""Every attribute of every signal in one table, and what a decision and an approval say in them.

Tests hold that each signal has just the attributes that the table gives it; the documentation is drawn from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from ..calls import OTHER, UNNAMED, Approval, Decision, Reason, shown

__all__ = ["ATTRIBUTES", "Attribute", "Signal", "Value", "named", "of_approval", "of_decision"]

MOST_KEYS: Final = 64
_ALLOWED: Final = Reason.ALLOWED

Value: TypeAlias = str | bool | list[str]


class Signal(StrEnum):
    """What carries attributes: two spans, the application's own, an event, and metrics."""

    DECISION = "span policy_decision"
    APPROVAL = "span policy_approval"
    CURRENT = "current span"
    EVENT = "event mcp_policy.decision"
    DURATION = "mcp_policy.decision.duration"
    ANSWERS = "mcp_policy.approval.duration"
    WAITING = "mcp_policy.approval.waiting"
    USED = "mcp_policy.limit.used_ratio"
    ERRORS = "mcp_policy.telemetry.errors"


_TOLD: Final = (Signal.DECISION, Signal.EVENT)
_ASKED: Final = (Signal.DECISION, Signal.APPROVAL, Signal.EVENT)


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute: what it means, on which signals it is, and when."""

    key: str
    meaning: str
    signals: tuple[Signal, ...]
    when: str = "always"


ATTRIBUTES: Final = (
    Attribute(
        "mcp_policy.effect",
        "the policy's answer: `allow` or `deny`",
        (Signal.DECISION, Signal.CURRENT, Signal.EVENT, Signal.DURATION),
    ),
    Attribute("mcp_policy.reason.code", "why, from the closed list of reasons", (*_TOLD, Signal.DURATION)),
    Attribute("mcp_policy.enforced", "false in shadow mode", (*_TOLD, Signal.DURATION)),
    Attribute(
        "mcp_policy.stage",
        "which stage of the evaluation denied: `require`, `limits`, `approval`, ...; `allowed` where none did",
        (Signal.DURATION,),
    ),
    Attribute(
        "mcp_policy.decision.id",
        "joins trace, log and the tool's answer",
        (Signal.DECISION, Signal.CURRENT, Signal.EVENT),
    ),
    Attribute("mcp_policy.policy.name", "the document's name", _TOLD, "a policy applied"),
    Attribute("mcp_policy.policy.version", "the document's digest", _TOLD, "a policy applied"),
    Attribute(
        "mcp_policy.rule.name",
        "the rule that fired, as a JSON Pointer",
        (Signal.DECISION, Signal.CURRENT, Signal.EVENT),
        "a rule fired; on the current span always, and empty where none did",
    ),
    Attribute("mcp_policy.server", "the name that the application gave the server", _TOLD, "the tool is a server's"),
    Attribute("mcp_policy.grant", "the grant that the call is made under", _TOLD),
    Attribute(
        "mcp_policy.arguments.keys",
        f"names of the arguments, sorted, at most {MOST_KEYS}; never their values",
        _TOLD,
    ),
    Attribute(
        "mcp_policy.arguments.values",
        "values of the arguments that `Telemetry(arguments=...)` names, as JSON",
        _TOLD,
        "such an argument was given",
    ),
    Attribute(
        "gen_ai.tool.name",
        f"the tool; on metrics `{OTHER}`, unless the policy or the server lists it by this name",
        (*_ASKED, Signal.DURATION),
    ),
    Attribute("gen_ai.tool.call.id", "the framework's id of the call", _TOLD, "it is known"),
    Attribute("mcp.session.id", "the MCP transport's session id", _TOLD, "it is known"),
    Attribute(
        "mcp_policy.uncounted",
        "true: the call was allowed without its limits, for the store could not answer",
        _TOLD,
        "it is so",
    ),
    Attribute(
        "error.type",
        "the kind of exception",
        (*_TOLD, Signal.DURATION, Signal.ERRORS),
        "the evaluation, or telemetry itself, failed",
    ),
    Attribute("mcp_policy.approval.id", "names the question to a person", _ASKED, "one was asked"),
    Attribute(
        "mcp_policy.approval.outcome",
        "what came of it: `pending`, `approved`, `consumed`, `denied`, `expired`, `cancelled`, `failed` or `flood`",
        (*_ASKED, Signal.ANSWERS),
        "a person was asked",
    ),
    Attribute("mcp_policy.approval.approver", "who answered", _ASKED, "somebody did"),
    Attribute("mcp_policy.approval.why", "what they said of it", _ASKED, "they said something"),
    Attribute(
        "mcp_policy.counter.name",
        f"the counter; `{OTHER}` where it goes by the name of a tool that a glob matched",
        (Signal.USED,),
    ),
    Attribute("mcp_policy.counter.scope", "what the counter keeps apart", (Signal.USED,)),
    Attribute(
        "openinference.span.kind",
        "`GUARDRAIL`, which Phoenix, MLflow and Langfuse show as such",
        (Signal.DECISION, Signal.APPROVAL),
        "`openinference` is on, as it is unless turned off",
    ),
)


def of_decision(decision: Decision) -> dict[str, Value]:
    """What a decision says of itself; values of arguments are never in it."""
    call, policy, approval, tool = decision.call, decision.policy, decision.approval, decision.call.tool
    told: dict[str, Value] = {
        "mcp_policy.effect": "allow" if decision.reason is _ALLOWED else "deny",
        "mcp_policy.reason.code": str(decision.reason),
        "mcp_policy.enforced": decision.enforced,
        "mcp_policy.decision.id": decision.decision_id,
        "mcp_policy.grant": decision.grant,
        "mcp_policy.arguments.keys": _keys(call.arguments),
        "gen_ai.tool.name": shown(tool) if isinstance(tool, str) else OTHER,
        "mcp_policy.policy.name": "" if policy is None else policy.name,
        "mcp_policy.policy.version": "" if policy is None else policy.digest,
    }
    if policy is None:
        del told["mcp_policy.policy.name"], told["mcp_policy.policy.version"]
    if decision.rule:
        told["mcp_policy.rule.name"] = decision.rule
    if call.server:
        told["mcp_policy.server"] = call.server.value if call.server is UNNAMED else call.server
    if call.call_id:
        told["gen_ai.tool.call.id"] = shown(call.call_id)
    if call.mcp_session_id:
        told["mcp.session.id"] = shown(call.mcp_session_id)
    if decision.error:
        told["error.type"] = decision.error
        if decision.uncounted:
            told["mcp_policy.uncounted"] = True
    if approval is not None:
        told.update(_answer(approval))
    return told


def of_approval(approval: Approval, tool: str) -> dict[str, Value]:
    """What is told of a question to a person."""
    return {"gen_ai.tool.name": named(tool), **_answer(approval)}


def named(tool: str) -> str:
    """A tool's name as signals tell it, whatever it is that was called."""
    return shown(tool) if isinstance(tool, str) else OTHER


def _answer(approval: Approval) -> dict[str, Value]:
    told = {
        "mcp_policy.approval.id": approval.id,
        "mcp_policy.approval.outcome": approval.state,
        "mcp_policy.approval.approver": shown(approval.by),
        "mcp_policy.approval.why": shown(approval.why),
    }
    return {key: value for key, value in told.items() if value}


def _keys(arguments: object) -> list[str]:
    if type(arguments) is not dict:
        return []
    try:
        every = "".join(arguments)
        if len(every) <= 128 and every.isprintable():  # most calls: all of them are fit as they are
            names = sorted(arguments)
            return names if len(names) <= MOST_KEYS else names[:MOST_KEYS]
    except TypeError:
        pass  # not all of them are texts
    return sorted([shown(name) for name in arguments if type(name) is str])[:MOST_KEYS]
