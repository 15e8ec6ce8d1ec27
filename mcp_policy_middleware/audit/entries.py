"""What an audit log says of a decision and of a call's end; of values only those that are asked for by name."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from ..calls import UNNAMED, Approval, Decision, Outcome, shown
from ..canonical import canonical

__all__ = ["Entries", "Entry", "iso", "seconds"]

_MOST_NAMES: Final = 64
_LONGEST_VALUE: Final = 4_096  # characters of JSON

Entry = dict[str, Any]
"""Members of a line, by name; what there is nothing to say of is left out."""


@dataclass(slots=True)
class Entries:
    """Makes entries of what a guard tells.

    Attributes:
        arguments: The arguments whose values are written down.
        digested: Whether a digest of all arguments is.
        key: Keys the digest.
    """

    arguments: tuple[str, ...] = ()
    digested: bool = False
    key: bytes | None = field(default=None, repr=False)

    def decided(self, decision: Decision) -> Entry:
        """A call was decided."""
        call = decision.call
        arguments = call.arguments if type(call.arguments) is dict else {}
        names = sorted(shown(name) for name in arguments if type(name) is str)
        optional = {
            "arguments_left_out": max(0, len(names) - _MOST_NAMES),
            "arguments_digest": self._digest(call.arguments) if self.digested else None,
            "approval": decision.approval and _approval(decision.approval),
            "call": call.call_id and shown(str(call.call_id)),
            "charges": [{"amount": charge.amount, "key": _text(charge.key)} for charge in decision.charges],
            "error": decision.error and shown(decision.error),
            "policy": _text(decision.policy_name),
            "policy_digest": decision.policy_digest,
            "rule": _text(decision.rule),
            "server": _text(call.server.value if call.server is UNNAMED else call.server or ""),
            "session": decision.session and _text(str(decision.session)),
            "values": self._values(arguments),
        }
        entry: Entry = {
            "kind": "decision",
            "arguments": names[:_MOST_NAMES],
            "decision": decision.decision_id,
            "effect": decision.effect,
            "enforced": decision.enforced,
            "grant": _text(str(decision.grant)),
            "reason": decision.reason.value,
            "tool": shown(str(call.tool)),
        }
        entry.update((name, value) for name, value in optional.items() if value)
        if decision.retry_after is not None:
            entry["retry_after"] = decision.retry_after
        return entry

    def ended(self, decision: Decision, outcome: Outcome) -> Entry:
        """A call that was let go on is over."""
        return {"kind": "end", "decision": decision.decision_id, "outcome": Outcome(outcome).value}

    def _values(self, arguments: dict[Any, Any]) -> Entry:
        """The values that are asked for; one that is no JSON, or is long, is left out."""
        found = {}
        for name in self.arguments:
            try:
                if name in arguments and len(canonical({"values": {name: arguments[name]}})) <= _LONGEST_VALUE:
                    found[name] = arguments[name]
            except ValueError:
                continue
        return found

    def _digest(self, arguments: Any) -> str | None:
        try:
            text = canonical({} if arguments is None else arguments).encode()
        except ValueError:
            return None
        if self.key is None:
            return "sha256:" + hashlib.sha256(text).hexdigest()
        return "hmac-sha256:" + hmac.digest(self.key, b"arguments\n" + text, "sha256").hex()


def iso(seconds: float) -> str:
    """A moment in ISO 8601 UTC, with microseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def seconds(moment: str) -> float:
    """What `iso` was given."""
    return datetime.fromisoformat(moment).timestamp()


def _approval(approval: Approval) -> Entry:
    told = {"id": approval.id, "state": approval.state, "by": approval.by, "why": approval.why}
    entry: Entry = {name: _text(value) for name, value in told.items() if value}
    if approval.at is not None:
        entry["at"] = iso(approval.at)
    return entry


def _text(text: str) -> str:
    """The text as UTF-8 can say it."""
    return text.encode("utf-8", "backslashreplace").decode()
