"""Two processes that retry one approved call at the same moment, round after round."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from approval_stores import MANY, Later

from mcp_policy_middleware import Guard, ToolCall, parse_policy
from mcp_policy_middleware.approvals import RedisApprovals, SQLiteApprovals
from mcp_policy_middleware.stores import RedisStore, SQLiteStore

__all__ = ["Shared", "call", "retry"]

POLICY = parse_policy(
    '{"version": "1", "default": "deny", "tools": {"t": {"action": "require_approval", '
    '"limits": [{"counter": "c", "window": "month", "max": 1000}]}}}'
)


def call(number: int) -> ToolCall:
    """The call of a round."""
    return ToolCall("t", {"number": number})


@dataclass(frozen=True)
class Shared:
    """Where approvals and counters are, in a form that goes to another process: a folder, or a URL and a tenant."""

    where: str
    tenant: str = ""

    def approvals(self) -> Any:
        """The requests, by a connection of this process's own."""
        if self.tenant:
            return RedisApprovals(self.where, tenant=self.tenant, timeout=5)
        return SQLiteApprovals(f"{self.where}/approvals.db", timeout=5)

    def counters(self) -> Any:
        """The counters, likewise."""
        if self.tenant:
            return RedisStore(self.where, tenant=self.tenant, timeout=5)
        return SQLiteStore(f"{self.where}/counters.db", timeout=5)

    def guard(self, stack: ExitStack) -> Guard:
        """A guard of this process's own, whose stores are closed with the stack."""
        approver, counters = Later(store=self.approvals(), floods=MANY), self.counters()
        stack.callback(approver.close)
        stack.callback(counters.close)
        return Guard(POLICY, store=counters, approver=approver, telemetry=False)


def retry(shared: Shared, rounds: int, start: Any, results: Any) -> None:
    """One process: the call of each round, at the same moment as the others, and what was decided of it."""
    with ExitStack() as stack:
        guard = shared.guard(stack)
        for number in range(rounds):
            start.wait(60)
            try:
                decision = guard.begin(call(number))
            except BaseException as error:  # so that nobody waits for this process
                results.put((False, type(error).__name__))
                raise
            results.put((decision.allowed, decision.reason.value))
