"""Used once, over processes: of two that retry one approved call at the same moment, one passes."""

from __future__ import annotations

import multiprocessing
import secrets
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from retrying import Shared, call, retry

from mcp_policy_middleware import Reason
from mcp_policy_middleware.approvals import Event, State
from mcp_policy_middleware.charges import MILLION

ROUNDS = 200
LOST = {Reason.APPROVAL_FAILED, Reason.APPROVAL_PENDING}
"""It was used by the other; or it had been used already, and this call is a new question."""


@pytest.fixture(params=["sqlite", "redis"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Shared:
    """Where the processes meet."""
    if request.param == "sqlite":
        return Shared(str(tmp_path))
    made = Shared(request.getfixturevalue("redis_server").url, tenant=secrets.token_hex(4))
    counters = made.counters()
    counters.init()
    counters.close()
    return made


def test_of_two_processes_that_retry_one_approved_call_one_passes(shared: Shared) -> None:
    """In each of 200 rounds, with one charge and one approval used; the other is told so, or is a new question."""
    spawn = multiprocessing.get_context("spawn")
    start, results = spawn.Barrier(3), spawn.SimpleQueue()
    workers = [spawn.Process(target=retry, args=(shared, ROUNDS, start, results), daemon=True) for _ in range(2)]
    with ExitStack() as stack:
        stack.callback(results.close)
        guard, approvals, counters = shared.guard(stack), shared.approvals(), shared.counters()
        stack.callback(approvals.close)
        stack.callback(counters.close)
        for worker in workers:
            worker.start()
            stack.callback(worker.kill)
        for number in range(ROUNDS):
            asked = guard.begin(call(number))
            assert asked.reason is Reason.APPROVAL_PENDING
            assert asked.approval is not None
            assert approvals.move(asked.approval.id, Event.APPROVE, time.time(), "ann").changed
            start.wait(60)
            decided = [results.get() for _ in workers]
            assert sorted(allowed for allowed, _ in decided) == [False, True]
            assert {reason for allowed, reason in decided if not allowed} <= LOST
            assert approvals.get(asked.approval.id, time.time()).state is State.CONSUMED
            assert [one.used for one in counters.counters(time.time())] == [(number + 1) * MILLION]
        for worker in workers:
            worker.join(60)
            assert worker.exitcode == 0
