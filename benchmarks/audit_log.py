"""What the audit log costs: a decision that is put on record, and verifying a million lines.

    python benchmarks/audit_log.py

Times differ from machine to machine. Exit status 1: a target was missed.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from mcp_policy_middleware import Guard, Outcome, ToolCall, parse_policy
from mcp_policy_middleware.audit import AuditLog, verify
from mcp_policy_middleware.audit.syncing import Fsync

LINES = 1_000_000
LONGEST_VERIFYING = 20.0  # s
POLICY = parse_policy("""
version: "1"
default: deny
tools:
  refund:
    require:
      - conditions: [{path: args.currency, op: in, value: [usd, eur]}]
    limits: [{counter: refunds, window: hour, max: 9000000000}]
""")
CALL = ToolCall("refund", {"currency": "eur", "amount": 3}, server="stripe", call_id="call-1")


def microseconds(log: AuditLog | None, rounds: int, batch: int) -> float:
    """The median time of a decision with its settlement: two lines."""
    guard = Guard(POLICY, audit=log, telemetry=False, grant="support", session="s1")
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(batch):
            guard.finish(guard.begin(CALL), Outcome.RETURNED)
        times.append((time.perf_counter() - started) / batch * 1e6)
    return statistics.median(times)


def main() -> int:
    """Measure, print, and say which targets were missed."""
    kinds: tuple[Fsync, ...] = ("never", "interval", "always")
    with tempfile.TemporaryDirectory() as folder:
        print(f"a call without a record: {microseconds(None, 21, 500):.1f} µs")
        for fsync in kinds:
            log = AuditLog(Path(folder) / f"{fsync}.jsonl", fsync=fsync)
            took = microseconds(log, *((5, 20) if fsync == "always" else (21, 500)))
            print(f"a call on record, two lines, fsync {fsync}: {took:.1f} µs")
            log.close()
        path = Path(folder) / "million.jsonl"
        log = AuditLog(path, fsync="never", max_bytes=None)
        guard = Guard(POLICY, audit=log, telemetry=False, grant="support", session="s1")
        for _ in range(LINES - 1):
            guard.begin(CALL)
        log.close()
        started = time.perf_counter()
        found = verify([path], heads=[log.head])
        took = time.perf_counter() - started
        size = path.stat().st_size / 1e6
        print(f"{found.logs[0].lines:,} lines of decisions ({size:.0f} MB) verified in {took:.1f} s, "
              f"target {LONGEST_VERIFYING:.0f} s")  # fmt: skip
        if not found.whole or found.logs[0].lines != LINES:
            print("missed: the log is not whole")
            return 1
    return 1 if took > LONGEST_VERIFYING else 0


if __name__ == "__main__":
    sys.exit(main())
