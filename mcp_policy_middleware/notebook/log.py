"""The last decisions of a guard, kept in memory for whoever looks at them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..calls import Decision, Effect, Outcome, Reason
from ..clock import seconds_of
from ..errors import PolicyError
from ..recording import Recorder
from ..views.decision import decisions_table, server_name
from ..views.table import Table, View, Viewed
from .plot import plotted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["DecisionLog", "LoggedDecision", "decision_table"]


@dataclass(slots=True)
class LoggedDecision:
    """A decision as a log keeps it.

    Attributes:
        at: When it was made, in UTC.
        decision: The decision, without the call's arguments and context, its charges and its approval's binding.
        outcome: How the call ended; None where it was not let go on, or goes on still.
    """

    at: datetime
    decision: Decision
    outcome: Outcome | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as one flat row."""
        decision, call, approval = self.decision, self.decision.call, self.decision.approval
        answered = None if approval is None else approval.at
        return {
            "at": self.at,
            "decision_id": decision.decision_id,
            "tool": call.tool,
            "server": server_name(call.server),
            "effect": decision.effect,
            "allowed": decision.allowed,
            "enforced": decision.enforced,
            "reason": decision.reason.value,
            "rule": decision.rule,
            "message": decision.message,
            "retry_after": decision.retry_after,
            "outcome": self.outcome and self.outcome.value,
            "approval": approval and approval.state,
            "approval_by": approval and approval.by,
            "approval_at": None if answered is None else datetime.fromtimestamp(answered, UTC),
            "approval_why": approval and approval.why,
            "error": decision.error,
            "grant": decision.grant,
            "session": decision.session,
            "call_id": call.call_id,
            "policy": decision.policy_name,
            "policy_digest": decision.policy_digest,
        }


class DecisionLog(Viewed):
    """Keeps a guard's last decisions and how their calls ended: `Guard(policy, audit=DecisionLog())`.

    It holds no value of an argument, and nothing outlives the process: what must be proved later belongs in an
    `AuditLog`, which can stand `beside` it. Threads and tasks may share it, and guards may too. Where it is
    the last line of a cell, it shows its table.

    Args:
        keep: How many decisions are kept; older ones are forgotten.
        beside: Another record, told first: what that cannot keep is denied, and is not in this log.
        clock: Returns the time as an aware datetime; for tests.

    Raises:
        PolicyError: `keep` is less than 1.
    """

    def __init__(
        self, keep: int = 1_000, *, beside: Recorder | None = None, clock: Callable[[], datetime] | None = None
    ) -> None:
        if keep < 1:
            raise PolicyError("`keep` is how many decisions are kept: give at least 1")
        self._keep = keep
        self._beside = beside
        self._now = seconds_of(clock)
        self._kept: OrderedDict[str, LoggedDecision] = OrderedDict()
        self._lock = threading.Lock()

    def decided(self, decision: Decision) -> None:
        """A call was decided; the guard says so."""
        if self._beside is not None:
            self._beside.decided(decision)
        self._note(decision)

    def ended(self, decision: Decision, outcome: Outcome) -> None:
        """A call that was let go on is over; the guard says so."""
        self._note_end(decision, outcome)
        if self._beside is not None:
            self._beside.ended(decision, outcome)

    async def adecided(self, decision: Decision) -> None:
        """`decided` for async callers."""
        if self._beside is not None:
            await self._beside.adecided(decision)
        self._note(decision)

    async def aended(self, decision: Decision, outcome: Outcome) -> None:
        """`ended` for async callers."""
        self._note_end(decision, outcome)
        if self._beside is not None:
            await self._beside.aended(decision, outcome)

    def _note(self, decision: Decision) -> None:
        logged = LoggedDecision(datetime.fromtimestamp(self._now(), UTC), _without_values(decision))
        with self._lock:
            self._kept[decision.decision_id] = logged
            if len(self._kept) > self._keep:
                self._kept.popitem(last=False)

    def _note_end(self, decision: Decision, outcome: Outcome) -> None:
        with self._lock:
            logged = self._kept.get(decision.decision_id)
            if logged is not None:
                logged.outcome = outcome

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[LoggedDecision]:
        with self._lock:
            return iter(list(self._kept.values()))

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()

    def to_dicts(self) -> list[dict[str, Any]]:
        """Each decision as one flat row, the oldest first: `pandas.DataFrame(log.to_dicts())`."""
        return [logged.to_dict() for logged in self]

    def table(
        self,
        *,
        tool: str | None = None,
        effect: Effect | None = None,
        reason: Reason | str | None = None,
        last: int = 50,
    ) -> View:
        """The decisions, the newest first: HTML in a notebook, plain text in a terminal.

        Args:
            tool: Only calls of this tool.
            effect: Only `allow`, or only `deny`; a denial that is not enforced is a denial.
            reason: Only this reason.
            last: At most so many rows.

        Raises:
            PolicyError: There is no such effect or reason.
        """
        return View((self._table(tool, effect, reason, last),))

    def _table(self, tool: str | None, effect: str | None, reason: str | None, last: int) -> Table:
        if effect not in (None, "allow", "deny"):
            raise PolicyError(f"`{effect}` is no effect: give `allow` or `deny`")
        if reason is not None and reason not in list(Reason):
            raise PolicyError(f"`{reason}` is no reason: give a member of `Reason`, or its value")
        found = [
            logged
            for logged in self
            if (tool is None or logged.decision.call.tool == tool)
            and (effect is None or logged.decision.effect == effect)
            and (reason is None or logged.decision.reason == reason)
        ]
        rows = found[::-1][:last]
        note = "" if len(rows) == len(found) else f"the last {len(rows):,} of {len(found):,} decisions"
        return decisions_table([(logged.at, logged.decision, logged.outcome) for logged in rows], note)

    def _tables(self) -> Iterable[Table]:
        return self.table().tables

    def plot(self, *, bins: int = 40, ax: Axes | None = None) -> Axes:
        """Allows and denials over time, a lane for each tool, with matplotlib.

        Args:
            bins: Into how many spans the time is cut.
            ax: Where to draw; left out, a new figure.

        Returns:
            The axes; the figure is theirs, `log.plot().figure`.

        Raises:
            MissingDependency: matplotlib is not installed; the extra `notebook` brings it.
        """
        return plotted([(logged.at, logged.decision) for logged in self], bins, ax)


def decision_table(decisions: Iterable[Decision]) -> View:
    """Any decisions as one table, in the order given: HTML in a notebook, plain text in a terminal."""
    return View((decisions_table([(None, decision, None) for decision in decisions]),))


@dataclass(slots=True)
class _PolicyName:
    """What is kept of a policy, so that a log does not keep replaced policies alive."""

    name: str
    digest: str


def _without_values(decision: Decision) -> Decision:
    """A copy that keeps nothing by which an argument could be known: no digest of it, and no amount it charged."""
    approval = decision.approval
    return replace(
        decision,
        call=replace(decision.call, arguments=None, context=None, as_sent=None),
        approval=None if approval is None else replace(approval, binding=""),
        policy=None if decision.policy is None else _PolicyName(decision.policy_name, decision.policy_digest),
        charges=(),
        reservation=None,
        _id=decision.decision_id,
    )
