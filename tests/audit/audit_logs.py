"""Logs for tests: made by real guards, and read again as plain JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mcp_policy_middleware import Guard, Outcome, ToolCall, parse_policy
from mcp_policy_middleware.audit import AuditLog

__all__ = ["CANARY", "POLICY", "called", "entries", "files", "guarded", "written"]

CANARY = "canary-4f1b"

POLICY = parse_policy(
    """
version: "1"
default: deny
hide: [drop]
tools:
  refund:
    require:
      - conditions: [{path: args.currency, op: in, value: [usd, eur]}]
    limits: [{counter: refunds, window: hour, max: 1000000}]
  wire: {action: require_approval}
  once: {limits: [{counter: once, window: hour, max: 1, scope: session}]}
""",
    name="refunds",
)


def guarded(log: AuditLog, **options: Any) -> Guard:
    """A guard that keeps that log."""
    return Guard(POLICY, audit=log, telemetry=False, grant="support", session="s1", **options)


def called(guard: Guard, times: int) -> None:
    """Make so many calls, every third of which is denied."""
    for number in range(times):
        currency = "gbp" if number % 3 == 0 else "eur"
        decision = guard.begin(ToolCall("refund", {"currency": currency, "amount": number}, server="stripe"))
        if decision.allowed:
            guard.finish(decision, Outcome.RETURNED)


def written(path: Path, times: int = 20, **options: Any) -> Path:
    """A log of so many calls."""
    log = AuditLog(path, **{"fsync": "never", **options})
    called(guarded(log), times)
    log.close()
    return path


def entries(*paths: Path) -> list[dict[str, Any]]:
    """What the lines say."""
    return [json.loads(line) for path in paths for line in path.read_text("utf-8").splitlines()]


def files(path: Path) -> list[Path]:
    """A log's files, the oldest first."""
    return [*sorted(path.parent.glob(f"{path.name}.*")), path]
