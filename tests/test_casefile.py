"""Policy tests as documents: read strictly, run in order, and counted rule by rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mcp_policy_middleware import DocumentError, Guard, ToolCall, parse_policy
from mcp_policy_middleware.policy.case_reader import load_cases, parse_cases
from mcp_policy_middleware.stores import MemoryStore
from mcp_policy_middleware.testing import FrozenClock, Report, run_cases

FOLDER = Path(__file__).parent / "data" / "policytests"
INVALID: list[dict[str, Any]] = yaml.safe_load((FOLDER / "invalid_documents.yaml").read_text("utf-8"))
POLICY: dict[str, Any] = {
    "version": "1",
    "default": "deny",
    "tools": {"t": {"limits": [{"counter": "c", "window": "hour", "max": 1, "scope": "session"}]}, "u": {}},
}


def run(*calls: dict[str, Any], policy: dict[str, Any] | None = None, **more: Any) -> Report:
    """The report of one case with these calls."""
    case = {"name": "one", "calls": list(calls)}
    return run_cases({"policy": POLICY if policy is None else policy, "cases": [case], **more})


def passed(*calls: dict[str, Any], **more: Any) -> list[bool]:
    """Whether each call was answered as expected."""
    return [result.passed for result in run(*calls, **more).results]


@pytest.mark.parametrize("case", INVALID, ids=lambda case: case["title"])
def test_every_problem_is_found_where_it_stands(case: dict[str, Any], tmp_path: Path) -> None:
    """An invalid document reports all of its problems, with line, column and pointer."""
    path = tmp_path / "x.policytest.yaml"
    path.write_text(case["text"], "utf-8")
    with pytest.raises(DocumentError) as caught:
        load_cases(path)
    found = {f"{one.line}:{one.column} {one.pointer}": f"{one.message}: {one.help}" for one in caught.value.problems}
    assert sorted(found) == sorted(place for place, _ in case["problems"])
    for place, words in case["problems"]:
        assert words in found[place]
    assert {one.source for one in caught.value.problems} == {str(path)}


def test_a_document_in_python_has_pointers_and_no_lines() -> None:
    """There is no file to show, so a problem is at its pointer alone."""
    with pytest.raises(DocumentError) as caught:
        parse_cases({"cases": [{"name": "a", "calls": [{"tool": "t", "expect": "no"}]}], "policies": {}})
    assert {(one.line, one.pointer) for one in caught.value.problems} == {
        (0, "/cases/0/calls/0/expect"),
        (0, "/policies"),
    }


@pytest.mark.parametrize("document", [{"cases": {1, 2}}, {"cases": [float("nan")]}])
def test_a_document_that_is_not_json_is_refused(document: Any) -> None:
    """Python's own values are no part of the format."""
    with pytest.raises(DocumentError):
        parse_cases(document)


def test_tests_without_a_policy_need_one() -> None:
    """A document may leave the policy to whoever runs it, and cannot be run without."""
    document = {"cases": [{"name": "a", "calls": [{"tool": "u", "expect": "allow"}]}]}
    with pytest.raises(DocumentError):
        run_cases(document)
    assert not run_cases(document, policy=parse_policy(json.dumps(POLICY))).failures


@pytest.mark.parametrize("name", ["missing.policytest.yaml", "nul\0.policytest.yaml"])
def test_a_file_that_cannot_be_read_is_a_problem(name: str, tmp_path: Path) -> None:
    """One problem, that of the file as a whole."""
    with pytest.raises(DocumentError) as caught:
        run_cases(str(tmp_path / name))
    assert [problem.line for problem in caught.value.problems] == [0]


def test_a_policy_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    """A path that leads nowhere is told by the policy's own path."""
    path = tmp_path / "x.policytest.yaml"
    path.write_text("policy: gone.json\ncases: [{name: a, calls: [{tool: t, expect: allow}]}]\n")
    with pytest.raises(DocumentError) as caught:
        run_cases(path)
    assert [problem.source for problem in caught.value.problems] == [str(tmp_path / "gone.json")]


def test_the_examples_pass() -> None:
    """Files beside their policies: every call is answered as expected, and every rule is tested."""
    report = run_cases(FOLDER / "refunds.policytest.yaml")
    assert report.failures == ()
    assert report.untested == ()
    assert len(report.results) == 22
    first = report.results[0]
    assert (first.case, first.call, first.tool, first.line) == ("small refunds are given", 1, "create_refund", 7)
    assert first.source.endswith("refunds.policytest.yaml")


def test_a_directory_of_policies_goes_by_server_and_grant() -> None:
    """A null server is a tool of no server, whatever the document's default."""
    report = run_cases(FOLDER / "servers.policytest.yaml")
    assert [(one.effect, one.reason) for one in report.results] == [
        ("deny", "rule_denied"),
        ("allow", "allowed"),
        ("allow", "allowed"),
        ("deny", "no_policy"),
    ]
    assert {rule.policy for rule in report.coverage} == {"git.json", "git@admin.json"}
    assert [rule.rule for rule in report.untested] == ["(default deny)"]


def test_cases_start_afresh_and_calls_run_in_order() -> None:
    """Counters belong to a case."""
    call = {"tool": "t", "expect": "allow"}
    again = {"tool": "t", "expect": {"reason": "limit_exceeded", "rule": "/tools/t/limits/c"}}
    cases = [{"name": name, "calls": [call, again]} for name in ("one", "two")]
    assert not run_cases({"policy": POLICY, "cases": cases}).failures


def test_the_clock_stands_between_calls() -> None:
    """A call without a time is made when the one before it was."""
    late = {"tool": "t", "at": "2026-01-15T11:00:00Z", "expect": "allow"}
    assert (
        passed(
            {"tool": "t", "at": "2026-01-15T10:59:59+00:00", "expect": "allow"},
            {"tool": "t", "expect": "deny"},
            late,
            {"tool": "t", "expect": "deny"},
        )
        == [True] * 4
    )
    assert passed({"tool": "t", "expect": "allow"}, late, at="2026-01-15T11:30:00Z") == [True, False]


def test_outcomes_settle() -> None:
    """A rejected call gives its charge back, one that nobody knows of does not."""
    given_back = {"tool": "t", "outcome": "rejected", "expect": "allow", "repeat": 3}
    assert passed(given_back, {"tool": "t", "expect": "allow"}) == [True, True]
    assert passed({**given_back, "outcome": "unknown"}) == [False]


def test_a_repeated_call_shows_its_first_unexpected_answer() -> None:
    """The result says which repetition it was."""
    (result,) = run({"tool": "t", "repeat": 3, "expect": "allow"}).results
    assert (result.passed, result.repetition, result.reason) == (False, 2, "limit_exceeded")
    (result,) = run({"tool": "u", "repeat": 3, "expect": "allow"}).results
    assert (result.passed, result.repetition) == (True, 3)


def test_defaults_go_inwards() -> None:
    """A call's own word wins over the case's, and that over the document's."""
    conditions = [{"path": f"call.{name}", "op": "eq", "value": name} for name in ("server", "grant", "session")]
    conditions.append({"path": "context.tier", "op": "eq", "value": "gold"})
    policy = {"version": "1", "default": "deny", "tools": {"t": {"require": [{"conditions": conditions}]}}}
    known = {"server": "server", "grant": "grant", "session": "session", "context": {"tier": "gold"}}
    call = {"tool": "t", "expect": "allow"}
    assert passed(call, policy=policy, **known) == [True]
    assert passed({**call, **known}, policy=policy, **dict.fromkeys(("server", "grant"), "x")) == [True]
    assert passed({**call, "grant": "x"}, policy=policy, **known) == [False]
    case = {"name": "a", "calls": [call], **known}
    assert not run_cases({"policy": policy, "cases": [case], "session": "x"}).failures


def test_a_guard_of_ones_own_is_asked() -> None:
    """A factory gets policies and clock, once for each case."""
    made: list[FrozenClock] = []

    def factory(policies: Any, clock: FrozenClock) -> Guard:
        made.append(clock)
        return Guard(policies, store=MemoryStore(), clock=clock, grant="mine", telemetry=False)

    document = {
        "policy": {
            **POLICY,
            "tools": {"t": {"deny_if": [{"conditions": [{"path": "call.grant", "op": "eq", "value": "mine"}]}]}},
        },
        "cases": [{"name": name, "calls": [{"tool": "t", "expect": "deny"}]} for name in "ab"],
    }
    assert not run_cases(document, factory).failures
    assert len(made) == 2


def test_every_kind_of_rule_is_covered_by_the_call_it_decides() -> None:
    """Hidden names, actions, closed arguments, predicates, limits and the default are each a rule of their own."""
    report = run_cases(FOLDER / "refunds.policytest.yaml")
    lines = {rule.rule: [int(place.rpartition(":")[2]) for place in rule.calls] for rule in report.coverage}
    assert lines == {
        "(hidden) delete_account": [38],
        "(hidden) drop_*": [39],
        "/tools/create_refund/only_arguments": [16],
        "/tools/create_refund/require/args.currency-in": [15],
        "/tools/create_refund/deny_if/args.amount-gt": [10, 14],
        "/all_tools/deny_if/args.dry_run-eq": [17],
        "/tools/create_refund/limits/refunds": [24],
        "/tools/create_refund/limits/refunded": [30],
        "/tools/create_refund/action": [7, 22, 23, 25, 26, 29],
        "/tools/send_mail/require_approval_if/context.tier-neq": [35],
        "/tools/send_mail/action": [34],
        "/tools/close_account/action": [40],
        "/tools/wire_money/action": [41],
        "/tools/read_*/action": [42],
        "(default deny)": [43],
    }


@pytest.mark.parametrize(
    "part", ["require", "deny_if", "require_approval_if", "limits", "only_arguments", "rate_limit"]
)
def test_a_rule_that_no_call_meets_is_untested(part: str) -> None:
    """Each kind of rule shows until a call is decided by it."""
    predicate = [{"conditions": [{"path": "args.a", "op": "eq", "value": 1}]}]
    limit = {"counter": "c", "window": "hour", "max": 1}
    written = {"limits": [limit], "only_arguments": ["a"], "rate_limit": {"max": 1, "window": 60}}.get(part, predicate)
    policy = {"version": "1", "default": "allow", "tools": {"t": {part: written}}}
    other = run({"tool": "u", "expect": "allow"}, policy=policy)
    rule = [rule.rule for rule in other.untested]
    assert rule[0].startswith(f"/tools/t/{'limits' if part == 'rate_limit' else part}")
    assert rule[1:] == ["/tools/t/action"]
    arguments = {"a": 2 if part == "require" else 1, **({"b": 1} if part == "only_arguments" else {})}
    report = run({"tool": "t", "arguments": arguments, "repeat": 2, "expect": {"rule": rule[0]}}, policy=policy)
    assert rule[0] not in {one.rule for one in report.untested}


def test_reports_join() -> None:
    """A rule that one file tests is tested, whatever the other does."""
    one = run({"tool": "t", "expect": "allow"})
    two = run({"tool": "u", "expect": "allow"}, {"tool": "x", "expect": "allow"})
    assert {rule.rule for rule in one.untested} == {"/tools/t/limits/c", "/tools/u/action", "(default deny)"}
    joined = Report.of([one, two])
    assert [rule.rule for rule in joined.untested] == ["/tools/t/limits/c"]
    assert len(joined.coverage) == len(one.coverage)
    assert [result.tool for result in joined.failures] == ["x"]
    assert "2 passed, 1 failed" in str(joined)


def test_a_default_that_nothing_reaches_is_no_rule() -> None:
    """Where one entry takes every tool, no test could decide by the default."""
    report = run({"tool": "t", "expect": "deny"}, policy={"version": "1", "default": "deny", "hide": ["*"]})
    assert [rule.rule for rule in report.coverage] == ["(hidden) *"]


def test_what_failed_is_told_without_values() -> None:
    """A failure names the call's place and answers, and no value of its arguments."""
    report = run({"tool": "x", "arguments": {"a": "canary-7f3a"}, "expect": "allow"})
    assert "canary" not in str(report)
    assert "(default deny)" in str(report)
    assert "canary" not in repr(ToolCall("x", {"a": "canary-7f3a"}))
