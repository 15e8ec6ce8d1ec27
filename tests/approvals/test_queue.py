"""A queue: an agent is told that its approval is pending, somebody answers in the store, and the retry passes once."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcp_policy_middleware import Decision, Guard, Policy, PolicyError, ToolCall, parse_policy
from mcp_policy_middleware.approvals import Event, MemoryApprovals, QueueApprover, SQLiteApprovals, State
from mcp_policy_middleware.stores import MemoryStore, SQLiteStore
from mcp_policy_middleware.testing import FrozenClock

SCRIPT = Path(sysconfig.get_path("scripts")) / "mcp-policy"
ROOT = Path(__file__).parent.parent.parent

TEXT = """
version: "1"
default: deny
tools:
  refund:
    action: require_approval
    deny_if: [{conditions: [{path: context.region, op: eq, value: moon}]}]
    limits: [{counter: refunds, window: day, max: 2}]
  void: {action: require_approval}
"""
POLICY = parse_policy(TEXT, name="shop")
OTHER_POLICY = parse_policy(TEXT.replace("max: 2", "max: 3"), name="shop")

CALL = ToolCall("refund", {"amount": 500}, server="stripe", session="s1", context={"region": "eu"})


class Shop:
    """A guard over two files, as it is after any number of restarts."""

    def __init__(self, folder: Path) -> None:
        self.clock = FrozenClock()
        self.folder = folder
        self.restart()

    def restart(self, policy: Policy = POLICY) -> None:
        self.store = SQLiteApprovals(self.folder / "approvals.db")
        self.guard = Guard(
            policy,
            store=SQLiteStore(self.folder / "counters.db"),
            approver=QueueApprover(self.store),
            approval_timeout=600,
            clock=self.clock,
        )

    def asked(self, call: ToolCall = CALL) -> Decision:
        """The decision of a call that is told to be pending."""
        decision = self.guard.begin(call)
        assert decision.reason == "approval_pending"
        assert decision.approval is not None
        assert decision.approval.id in decision.message
        return decision

    def id(self, call: ToolCall = CALL) -> str:
        approval = self.asked(call).approval
        assert approval is not None
        return approval.id

    def answer(self, id: str, event: Event, why: str = "") -> None:
        """What a person says, by whatever way."""
        assert self.store.move(id, event, self.clock().timestamp(), "ann", why).changed

    def state(self, id: str) -> State:
        request = self.store.get(id, self.clock().timestamp())
        assert request is not None
        return request.state


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.store.close()


def test_a_pending_request_is_told_by_its_id_and_made_once(shop: Shop) -> None:
    """Retries of sync and async callers meet the one request, which takes no charge; looking makes none."""
    assert shop.guard.explain(CALL).reason == "approval_required"
    assert shop.store.requests(0) == []
    told = [asyncio.run(shop.guard.abegin(CALL)), shop.asked(), shop.asked(), asyncio.run(shop.guard.abegin(CALL))]
    assert {decision.reason for decision in told} == {"approval_pending"}
    (id,) = {decision.approval and decision.approval.id for decision in told}
    (request,) = shop.store.requests(shop.clock().timestamp())
    assert (request.id, request.state, request.arguments) == (id, State.PENDING, {"amount": 500})


def test_an_approved_retry_passes_exactly_once(shop: Shop) -> None:
    """The call after it is a new question with an id of its own."""
    id = shop.id()
    shop.answer(id, Event.APPROVE, "checked")
    assert shop.guard.explain(CALL).allowed
    decision = shop.guard.begin(CALL)
    assert decision.allowed
    assert decision.approval is not None
    assert decision.approval.as_dict() == {
        "id": id, "state": "consumed", "by": "ann", "why": "checked", "at": shop.clock().timestamp(),
    }  # fmt: skip
    assert shop.id() != id
    assert shop.state(id) is State.CONSUMED


def test_an_approval_does_not_lift_a_limit(shop: Shop) -> None:
    """A limit that was used up meanwhile denies the call, and its approval is there until its time is up."""
    id = shop.id()
    shop.answer(id, Event.APPROVE)
    for amount in (1, 2):
        other = replace(CALL, arguments={"amount": amount})
        shop.answer(shop.id(other), Event.APPROVE)
        assert shop.guard.begin(other).allowed
    assert shop.guard.begin(CALL).reason == "limit_exceeded"
    assert shop.state(id) is State.APPROVED


def test_a_denied_call_is_told_why_and_not_asked_again_before_its_time(shop: Shop) -> None:
    """The no stands over restarts; after the request's time the same call is a new question."""
    id = shop.id()
    shop.answer(id, Event.DENY, "no receipt")
    for _ in range(2):
        decision = shop.guard.begin(CALL)
        assert decision.approval is not None
        assert (decision.reason, decision.approval.id) == ("approval_denied", id)
        assert "no receipt" in decision.message
        shop.restart()
    shop.clock.tick(601)
    assert shop.id() != id


@pytest.mark.parametrize("answered", [False, True])
def test_a_request_expires_before_and_after_its_answer(shop: Shop, answered: bool) -> None:
    """A late answer is none, and a late call finds no approval."""
    id = shop.id()
    if answered:
        shop.answer(id, Event.APPROVE)
    shop.clock.tick(601)
    assert not shop.store.move(id, Event.APPROVE, shop.clock().timestamp()).changed
    assert shop.id() != id
    assert shop.state(id) is State.EXPIRED


def test_an_approval_that_was_taken_back_admits_nothing(shop: Shop) -> None:
    """Whoever approved may think better of it until the call is made."""
    id = shop.id()
    shop.answer(id, Event.APPROVE)
    shop.answer(id, Event.EXPIRE)
    assert shop.id() != id


CHANGED: dict[str, tuple[ToolCall, Policy]] = {
    "arguments": (replace(CALL, arguments={"amount": 501}), POLICY),
    "tool": (replace(CALL, tool="void"), POLICY),
    "server": (replace(CALL, server="adyen"), POLICY),
    "no server": (replace(CALL, server=None), POLICY),
    "grant": (replace(CALL, grant="other"), POLICY),
    "session": (replace(CALL, session="s2"), POLICY),
    "context": (replace(CALL, context={"region": "us"}), POLICY),
    "policy": (CALL, OTHER_POLICY),
}


@pytest.mark.parametrize("change", CHANGED)
def test_a_changed_call_needs_an_approval_of_its_own(shop: Shop, change: str) -> None:
    """Whatever of it is changed: the approval that was given stays for the call that it was given for."""
    id = shop.id()
    shop.answer(id, Event.APPROVE)
    call, policy = CHANGED[change]
    shop.restart(policy)
    assert shop.id(call) != id
    assert shop.state(id) is State.APPROVED
    shop.restart()
    assert shop.guard.begin(CALL).allowed


AGENT = """
import json, sys
from mcp_policy_middleware import Guard, ToolCall, load_policy
from mcp_policy_middleware.approvals import QueueApprover, SQLiteApprovals
guard = Guard(load_policy("policy.yaml"), approver=QueueApprover(SQLiteApprovals("approvals.db")))
decision = guard.begin(ToolCall("refund", {"amount": int(sys.argv[1])}))
print(json.dumps([decision.reason, decision.approval and decision.approval.id]))
"""


def test_processes_and_the_command_line_meet_in_the_file(tmp_path: Path) -> None:
    """Each call is a process of its own, and so is each answer: approved once, denied with its reason."""
    pytest.importorskip("typer")
    (tmp_path / "policy.yaml").write_text('version: "1"\ndefault: deny\ntools: {refund: {action: require_approval}}\n')

    def run(*command: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "MCP_POLICY_APPROVALS": "approvals.db"}
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def call(amount: int) -> list[Any]:
        return list(json.loads(run(sys.executable, "-c", AGENT, str(amount))))

    def approvals(*words: str) -> str:
        return run(str(SCRIPT), "approvals", *words)

    reason, id = call(5)
    assert reason == "approval_pending"
    assert call(5) == [reason, id]
    assert [one["id"] for one in json.loads(approvals("list", "--format", "json"))] == [id]
    approvals("approve", id)
    assert call(5) == ["allowed", id]
    reason, again = call(5)
    assert (reason, again == id) == ("approval_pending", False)
    approvals("deny", again[:6], "--why", "enough")
    assert call(5) == ["approval_denied", again]


def test_a_queue_may_be_answered_in_its_own_process() -> None:
    """An application that has a page of its own for it needs no file."""
    store = MemoryApprovals()
    guard = Guard(POLICY, store=MemoryStore(), approver=QueueApprover(store), clock=FrozenClock())
    assert guard.begin(CALL).reason == "approval_pending"
    now = FrozenClock()().timestamp()
    (request,) = store.requests(now)
    assert store.move(request.id, Event.APPROVE, now).changed
    assert guard.begin(CALL).allowed
    assert guard.begin(CALL).reason == "approval_pending"


@pytest.mark.parametrize("store", [None, "approvals.db", Path("approvals.db"), SQLiteApprovals])
def test_a_queue_needs_a_store(store: Any) -> None:
    """Without one nobody could answer, so nothing is taken for it, a path least of all."""
    with pytest.raises(PolicyError):
        QueueApprover(store)
