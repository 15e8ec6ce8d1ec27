"""How a decision looks, and a list of them; never a value of an argument."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias, cast

from .table import Cell, Mark, Part, Table, Viewed

if TYPE_CHECKING:
    from ..calls import Approval, Decision, Outcome, ServerName

__all__ = ["DecisionView", "Told", "decisions_table", "effect_mark", "server_name", "title"]

Told: TypeAlias = "tuple[datetime | None, Decision, Outcome | None]"
"""When a call was decided, the decision, and how the call ended, as far as they are known."""


class DecisionView(Viewed):
    """What a `Decision` shows."""

    __slots__ = ()

    def _tables(self) -> Iterable[Table]:
        decision = cast("Decision", self)
        wait = decision.retry_after
        policy = f"{decision.policy_name}, {decision.policy_digest[:19]}" if decision.policy else ""
        rows: list[tuple[Cell, ...]] = [
            ("reason", Mark(decision.reason.value)),
            ("rule", Mark(decision.rule)),
            ("message", decision.message),
            ("try again in", "" if wait is None else f"{wait} s"),
            ("approval", _approval(decision.approval)),
            ("error", decision.error or ""),
            ("grant", Mark(decision.grant)),
            ("session", Mark(decision.session or "")),
            ("policy", Mark(policy)),
            ("decision id", Mark(decision.decision_id)),
        ]
        return [Table(title(decision), rows=rows)]


def title(decision: Decision) -> tuple[Part, ...]:
    """What was decided, and of which tool."""
    server = server_name(decision.call.server)
    return effect_mark(decision), Mark(_tool(decision)), *(("on", Mark(server)) if server else ())


def effect_mark(decision: Decision) -> Mark:
    """The policy's answer, and whether it holds."""
    if decision.effect == "allow":
        return Mark("allow, uncounted", "warn") if decision.uncounted else Mark("allow", "good")
    return Mark("deny", "bad") if decision.enforced else Mark("deny, not enforced", "warn")


def server_name(server: ServerName) -> str:
    """The server of a call in words; empty for a tool of no MCP server."""
    return server or "" if isinstance(server, str | None) else server.value


def _moment(at: datetime) -> Mark:
    return Mark(f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC", "time")


def decisions_table(told: Iterable[Told], note: str = "") -> Table:
    """Decisions below each other, in the order given."""
    head = ("time", "tool", "server", "effect", "reason", "outcome", "approval")
    rows: list[tuple[Cell, ...]] = [
        (
            "" if at is None else _moment(at),
            Mark(_tool(decision)),
            Mark(server_name(decision.call.server)),
            effect_mark(decision),
            (Mark(decision.reason.value), decision.message, Mark(decision.rule)),
            "" if outcome is None else outcome.value,
            _approval(decision.approval),
        )
        for at, decision, outcome in told
    ]
    return Table((), head, rows, note if rows else note or "no decisions")


def _tool(decision: Decision) -> str:
    name = decision.call.tool
    return name if type(name) is str else f"<{type(name).__name__}>"


def _approval(approval: Approval | None) -> Cell:
    """The state, who answered, when and why."""
    if approval is None:
        return ""
    by = f" by {approval.by}" if approval.by else ""
    at = "" if approval.at is None else _moment(datetime.fromtimestamp(approval.at, UTC))
    return (f"{approval.state}{by}", at, f"“{approval.why}”" if approval.why else "")
