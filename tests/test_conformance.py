"""The published cases of the policy.json dialect, each met or overruled by name (PL-2 to PL-5)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mcp_policy_middleware import Decision, DocumentError, Guard, Outcome, ToolCall, parse_policy
from mcp_policy_middleware.stores import MemoryStore

DATA = Path(__file__).parent / "data"
CASES: list[dict[str, Any]] = json.loads((DATA / "policylayer_cases.json").read_text(encoding="utf-8"))
OVERRULED: dict[tuple[str, int], dict[str, Any]] = {
    (entry["case"], entry["call"]): entry
    for entry in json.loads((DATA / "policylayer_overruled.json").read_text(encoding="utf-8"))
}
UPSTREAM = {"ok": Outcome.RETURNED, "jsonrpc_error": Outcome.UNKNOWN}  # the error is -32603 (PL-5.6)
MORNING = "2026-03-04T10:00:00Z"


class Clock:
    """The time a case gives, call by call."""

    now = datetime(2026, 3, 4, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def decide_all(case: dict[str, Any], decide: Callable[[Guard, ToolCall, Outcome], tuple[Decision, Decision]]) -> None:
    """Make the calls of a case in turn and compare each decision with what the case, or its overruling, says."""
    clock = Clock()
    policies: Any = {} if case["policy"] is None else parse_policy(json.dumps(case["policy"]), case["id"])
    guard = Guard(policies, store=MemoryStore(), clock=clock, telemetry=False)
    for index, (call, expected) in enumerate(zip(case["calls"], case["expected"], strict=True)):
        clock.now = datetime.fromisoformat(call.get("at", MORNING))
        made = ToolCall(call["tool"], call["args"], grant=call.get("grant"))
        explained, decision = decide(guard, made, UPSTREAM[call.get("upstream", "ok")])
        where = f"{case['id']}, call {index}"
        got = {"effect": decision.effect, "reason": decision.reason.value, "rule": decision.rule}
        assert (explained.effect, explained.rule) == (decision.effect, decision.rule), where
        overruled = OVERRULED.get((case["id"], index))
        if overruled is None:
            assert (decision.allowed, decision.rule) == (expected["allowed"], expected["rule"]), where
            if expected["message"] is not None:
                assert decision.message == expected["message"], where
            if "denied_text" in case and not decision.allowed:
                assert decision.text == case["denied_text"], where
        else:
            assert got == overruled["ours"], where


def sync_driver(guard: Guard, call: ToolCall, outcome: Outcome) -> tuple[Decision, Decision]:
    """Explain, decide and settle by the sync driver."""
    explained = guard.explain(call)
    decision = guard.begin(call)
    guard.finish(decision, outcome)
    return explained, decision


def async_driver(guard: Guard, call: ToolCall, outcome: Outcome) -> tuple[Decision, Decision]:
    """Explain, decide and settle by the async driver."""

    async def main() -> tuple[Decision, Decision]:
        explained = await guard.aexplain(call)
        decision = await guard.abegin(call)
        await guard.afinish(decision, outcome)
        return explained, decision

    return asyncio.run(main())


@pytest.mark.parametrize("driver", [sync_driver, async_driver], ids=["sync", "async"])
@pytest.mark.parametrize("case", [case for case in CASES if case.get("valid", True)], ids=lambda case: case["id"])
def test_case_is_decided_as_published_or_as_overruled(case: dict[str, Any], driver: Any) -> None:
    """Every call of a published case is decided as the case says, or as a named overruling does."""
    decide_all(case, driver)


@pytest.mark.parametrize("case", [case for case in CASES if not case.get("valid", True)], ids=lambda case: case["id"])
def test_invalid_document_is_refused(case: dict[str, Any]) -> None:
    """A document that the vendor calls invalid is refused here too."""
    with pytest.raises(DocumentError):
        parse_policy(json.dumps(case["policy"]))


@pytest.mark.parametrize("entry", OVERRULED.values(), ids=lambda entry: f"{entry['case']}-{entry['call']}")
def test_overruling_still_diverges(entry: dict[str, Any]) -> None:
    """A listed overruling concerns an inferred value and still differs from it, else it is to be struck off."""
    (case,) = [case for case in CASES if case["id"] == entry["case"]]
    expected = case["expected"][entry["call"]]
    assert case["status"] == "INFERRED"
    assert {key: expected[key] for key in ("allowed", "rule")} == entry["says"]
    assert (entry["ours"]["effect"] == "allow", entry["ours"]["rule"]) != (expected["allowed"], expected["rule"])
    assert entry["section"].startswith("PL-")
    assert entry["why"]
