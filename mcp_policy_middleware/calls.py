"""The values that pass between the rooms: a call, its outcome, and what was decided.

Plain slotted values, immutable by convention (`frozen` would cost more than deciding a call does).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Final, Literal, Protocol, TypeAlias

from .charges import Charge, Reservation

__all__ = [
    "OTHER",
    "UNNAMED",
    "Approval",
    "Decision",
    "Effect",
    "Outcome",
    "Reason",
    "ServerName",
    "ToolCall",
    "Unreadable",
    "shown",
]

Effect: TypeAlias = Literal["allow", "deny"]


class _Unnamed(Enum):
    UNNAMED = "(unnamed)"

    def __repr__(self) -> str:
        return "UNNAMED"


UNNAMED: Final = _Unnamed.UNNAMED
"""The server of an MCP session that the application gave no name (PL-9.2)."""

ServerName: TypeAlias = str | _Unnamed | None
"""A server's name as the application gave it, `UNNAMED`, or None for a tool of no MCP server."""


class Reason(StrEnum):
    """Why a call was decided as it was: the closed list of PL-4."""

    ALLOWED = "allowed"
    """Nothing denies it."""
    INVALID_CALL = "invalid_call"
    """The call is malformed: its arguments are no JSON object, or it is not known whose call it is."""
    NO_POLICY = "no_policy"
    """No policy applies to the server and grant."""
    HIDDEN = "hidden"
    """The tool is in `hide`."""
    DEFAULT_DENY = "default_deny"
    """The tool is not listed, and `default` is `deny`."""
    RULE_DENIED = "rule_denied"
    """`action` is `deny`, or a `deny_if` holds."""
    UNEXPECTED_ARGUMENT = "unexpected_argument"
    """An argument is not in `only_arguments`."""
    REQUIREMENT_UNMET = "requirement_unmet"
    """A `require` does not hold."""
    UNDECIDABLE = "undecidable"
    """A rule or a charge cannot be decided on the value that was given."""
    LIMIT_EXCEEDED = "limit_exceeded"
    """A limit is reached."""
    STORE_UNAVAILABLE = "store_unavailable"
    """The counter store cannot answer."""
    APPROVAL_REQUIRED = "approval_required"
    """A person must agree, and nobody can be asked."""
    APPROVAL_PENDING = "approval_pending"
    """A person has been asked and has not answered yet."""
    APPROVAL_DENIED = "approval_denied"
    """A person said no."""
    APPROVAL_EXPIRED = "approval_expired"
    """No answer came in time."""
    APPROVAL_FAILED = "approval_failed"
    """The question could not be asked or was withdrawn."""
    APPROVAL_FLOOD = "approval_flood"
    """Too many questions are open for the grant."""
    EVALUATION_ERROR = "evaluation_error"
    """Something went wrong inside the evaluation; the log tells what."""
    SUSPENDED = "suspended"
    """The guard is suspended."""
    DEFINITION_CHANGED = "definition_changed"
    """The tool's definition is not the one that was reviewed."""


class Outcome(StrEnum):
    """What became of an admitted call; decides whether its charge is kept (PL-5.6)."""

    RETURNED = "returned"
    """The tool answered: the charge is kept."""
    RETURNED_ERROR = "returned_error"
    """The tool answered with a tool error: the charge is kept, for the effect may have happened."""
    REJECTED = "rejected"
    """The server refused the request before acting (JSON-RPC -32700, -32600 to -32602): released."""
    NOT_SENT = "not_sent"
    """The call is known not to have left: released."""
    UNKNOWN = "unknown"
    """A timeout, a cancellation or any other failure after sending: the charge is kept."""

    @property
    def releases(self) -> bool:
        """Whether a call that ended so gives its charge back."""
        return self in (Outcome.REJECTED, Outcome.NOT_SENT)


@dataclass(slots=True)
class Unreadable:
    """Stands for the arguments of a call that an adapter could not make out; it is denied as `invalid_call`.

    Args:
        why: What the agent is told.
    """

    why: str


@dataclass(slots=True)
class ToolCall:
    """One call of one tool, as it is about to leave.

    Args:
        tool: The tool's name as its server knows it.
        arguments: A JSON object as Python values; None counts as `{}`. Anything else is denied.
        server: The name the application gave the server; None is a tool of no MCP server.
        grant: The name under which the agent was given access; left out, the guard's.
        session: The id the application gives the run or conversation; left out, the guard's.
        call_id: The framework's id of the call, for traces.
        context: Values the application passes in for conditions; left out, the guard's.
        mcp_session_id: The MCP transport's session id, for traces.
        as_sent: Tells the arguments as the tool will get them, where a framework still fills them in: a person who
            is asked about the call agrees to these.
    """

    tool: str
    arguments: Any
    server: ServerName = field(default=None, kw_only=True)
    grant: str | None = field(default=None, kw_only=True)
    session: str | None = field(default=None, kw_only=True)
    call_id: str | None = field(default=None, kw_only=True)
    context: Mapping[str, Any] | None = field(default=None, kw_only=True)
    mcp_session_id: str | None = field(default=None, kw_only=True)
    as_sent: Callable[[], Any] | None = field(default=None, kw_only=True)

    def __repr__(self) -> str:  # values of arguments are shown nowhere
        server = "" if self.server is None else f", server={self.server!r}"
        return f"ToolCall({shown(self.tool)!r}, arguments=<{type(self.arguments).__name__}>{server})"


OTHER: Final = "_OTHER"
"""Stands in metrics for names that neither the policy nor the server lists: an agent may invent any number."""


def shown(name: str, most: int = 128) -> str:
    """A name an agent chose, fit for messages and traces: escaped, and cut."""
    if len(name) <= most and name.isprintable():
        return name
    return name[:most].encode("unicode_escape").decode("ascii")[:most]


@dataclass(slots=True)
class Approval:
    """What came of asking a person about one call (PL-7).

    Attributes:
        id: Names the approval request; empty where none was made.
        state: How it stands: `pending`, `approved`, `denied`, `expired`, `cancelled` or `consumed`.
        by: Who answered, as the approver tells it.
        why: What they said of it.
        at: When they answered, in seconds since the Unix epoch.
        binding: Digest of all that the answer is bound to (PL-7.1).
    """

    id: str
    state: str
    by: str = ""
    why: str = ""
    at: float | None = None
    binding: str = field(default="", repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON, for programs."""
        return {"id": self.id, "state": self.state, "by": self.by, "why": self.why, "at": self.at}


_ALLOWED: Final = Reason.ALLOWED
_ID_LOCK: Final = threading.Lock()


class Document(Protocol):
    """What a decision knows of the policy behind it."""

    name: str
    digest: str


@dataclass(slots=True, eq=False)
class Decision:
    """What the policy said of one call, and why (PL-4).

    Test `decision.allowed`: a decision has no truth value, so that `if decision:` cannot pass for it.

    Attributes:
        reason: Why, from a closed list.
        rule: The rule that fired, as a JSON Pointer or a name in parentheses; empty when allowed.
        message: What the author or the engine says of a denial; empty when allowed, unless it is `uncounted`.
        enforced: False in shadow mode.
        retry_after: Whole seconds after which a limit admits the call; None where that is not known.
        approval: What came of asking a person, where one was asked.
        policy: The policy that decided; None where none applied.
        charges: What the call charges, in the order of the document.
        call: The call that was decided.
        grant: The grant it was made under: the call's own, or the guard's.
        session: The run or conversation it belongs to, likewise.
        error: The kind of exception behind `evaluation_error`, `store_unavailable` or an `uncounted` call.
        reservation: What the store has taken for the call; the guard's to give back.
    """

    call: ToolCall
    grant: str
    session: str | None
    reason: Reason
    rule: str = ""
    message: str = ""
    enforced: bool = True
    policy: Document | None = None
    retry_after: int | None = None
    approval: Approval | None = None
    charges: tuple[Charge, ...] = ()
    error: str | None = None
    reservation: Reservation | None = field(default=None, repr=False)
    _id: str | None = field(default=None, repr=False)

    @property
    def effect(self) -> Effect:
        """The policy's answer."""
        return "allow" if self.reason is _ALLOWED else "deny"

    @property
    def allowed(self) -> bool:
        """Whether the call may go on: the effect is allow, or it is not enforced (PL-4.4)."""
        return self.reason is _ALLOWED or not self.enforced

    @property
    def uncounted(self) -> bool:
        """Whether no limit was checked: the store could not answer, and the guard is told to allow (stores 6)."""
        return self.reason is _ALLOWED and self.error is not None

    @property
    def policy_name(self) -> str:
        """The document's name; empty where no policy applied."""
        return "" if self.policy is None else self.policy.name

    @property
    def policy_digest(self) -> str:
        """The document's digest (PL-9.3); empty where no policy applied."""
        return "" if self.policy is None else self.policy.digest

    @property
    def decision_id(self) -> str:
        """A random id that joins trace, log and tool message; made when first asked for."""
        if self._id is None:
            with _ID_LOCK:
                if self._id is None:
                    self._id = os.urandom(8).hex()
        return self._id

    @property
    def text(self) -> str:
        """What the agent reads (PL-6.1); empty when allowed."""
        return "" if self.reason is _ALLOWED else f"[POLICY DENIED] {self.message}"

    def as_dict(self) -> dict[str, Any]:
        """What programs read (PL-6.2), as plain JSON."""
        return {
            "decision_id": self.decision_id,
            "effect": self.effect,
            "reason": self.reason.value,
            "rule": self.rule,
            "message": self.message,
            "retry_after": self.retry_after,
            "approval": self.approval and self.approval.as_dict(),
        }

    def __bool__(self) -> bool:
        raise TypeError("a decision has no truth value: test `decision.allowed`")
