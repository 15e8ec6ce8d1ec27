"""`explain`, `test` and `diff`: what they print, what they never print, and their exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

testing = pytest.importorskip("typer.testing")
app = pytest.importorskip("mcp_policy_middleware.cli.app").app

FOLDER = Path(__file__).parent / "data" / "policytests"
POLICY = str(FOLDER / "policy.json")
SERVERS = str(FOLDER / "servers")
CANARY = "canary-7f3a"
BAD_POLICIES = {
    "empty": b"",
    "binary": bytes(range(256)),
    "cut off": b'{"version": "1", "default": "deny", "tools": {"x": {"requ',
    "misspelt": b'{"version": "1", "defualt": "deny"}',
}


def run(*arguments: str, input: str | None = None) -> Any:
    """A command's result; an exception that reaches the user fails the test."""
    result = testing.CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(app, list(arguments), input=input)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def written(folder: Path, *calls: dict[str, Any], policy: Any = POLICY, name: str = "x.policytest.json") -> str:
    """The path of a file of policy tests with one case of these calls."""
    path = folder / name
    path.write_text(json.dumps({"policy": policy, "cases": [{"name": "one", "calls": list(calls)}]}))
    return str(path)


def explained(*arguments: str, input: str | None = None) -> dict[str, Any]:
    """What `explain --format json` tells."""
    result = run("explain", *arguments, "--format", "json", input=input)
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


# ---- explain


def test_explain_tells_stage_by_stage() -> None:
    """Every stage is there, with the rule that decides, the kinds that conditions saw, and the counters."""
    arguments = json.dumps({"amount": CANARY, "currency": "usd"})
    result = run("explain", POLICY, "--tool", "create_refund", "--arguments", arguments, "--at", "2026-01-15T10:00:00Z")
    assert result.exit_code == 0
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert lines[0] == "create_refund for default at 2026-01-15T10:00:00Z"
    stages = [line.lstrip("» ").split()[0] for line in lines]
    assert [stage for stage in dict.fromkeys(stages) if stage.isdigit()] == [str(number) for number in range(1, 11)]
    (deciding,) = [line for line in lines if line.startswith("»")]
    assert deciding.split() == ["»", "7", "deny_if", "undecidable", "/tools/create_refund/deny_if/args.amount-gt"]
    assert "args.amount gt: saw string of 11 characters, undecidable" in lines
    assert "counter refunds: 0 -> 0 of 2 per hour, scope grant" in lines
    assert CANARY not in result.output


def test_explain_as_json_is_the_trace() -> None:
    """The same call gives the same JSON, and an admitted call moves its counters."""
    arguments = ("--arguments", '{"amount": 50, "currency": "usd"}', "--at", "2026-01-15T10:00:00Z")
    told = explained(POLICY, "--tool", "create_refund", *arguments)
    assert told == explained(POLICY, "--tool", "create_refund", *arguments)
    assert told["decision"]["effect"] == "allow"
    assert [(one["counter"], one["before"], one["after"]) for one in told["counters"]] == [
        ("refunds", 0, 1),
        ("refunded", 0, None),
    ]


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--tool", "delete_repo", "--server", "git"], "/tools/delete_repo/action"),
        (["--tool", "delete_repo", "--server", "git", "--grant", "admin"], ""),
        (["--tool", "delete_repo"], "(no policy)"),
    ],
)
def test_explain_chooses_from_a_directory(options: list[str], rule: str) -> None:
    """Server and grant choose the policy."""
    assert explained(SERVERS, *options)["decision"]["rule"] == rule


def test_explain_takes_arguments_from_a_file_and_the_input(tmp_path: Path) -> None:
    """`@FILE` and `-` stand for the text; what is no object is an invalid call."""
    (tmp_path / "arguments.json").write_text('{"amount": 101, "currency": "usd"}')
    from_file = explained(POLICY, "--tool", "create_refund", "--arguments", f"@{tmp_path / 'arguments.json'}")
    assert from_file["decision"]["reason"] == "rule_denied"
    from_input = explained(POLICY, "--tool", "create_refund", "--arguments", "-", input="[1]")
    assert from_input["decision"]["reason"] == "invalid_call"


def test_explain_takes_context() -> None:
    """What the application would pass in is seen by conditions."""
    asked = explained(POLICY, "--tool", "send_mail", "--context", '{"tier": "free"}')
    assert asked["decision"]["reason"] == "approval_required"
    assert explained(POLICY, "--tool", "send_mail", "--context", '{"tier": "gold"}')["decision"]["effect"] == "allow"


def test_explain_escapes_names_that_an_agent_made_up() -> None:
    """A tool's name cannot write to the terminal or pass for markup."""
    result = run("explain", POLICY, "--tool", "[red]x\x1b[2J[/]")
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert "[red]x" in result.stdout


@pytest.mark.parametrize(
    "options",
    [
        ["--arguments", '{"a": '],
        ["--arguments", f'{{"a": "{CANARY}"'],
        ["--arguments", "@/nowhere/arguments.json"],
        ["--arguments", "[" * 100_000],
        ["--arguments", "@nul\0"],
        ["--context", "[]"],
        ["--at", "yesterday"],
        ["--at", "2026-01-15T10:00:00"],
        ["--at", "9999-12-31T23:59:59Z"],
        ["--at", "0001-01-01T00:00:00+05:00"],
    ],
)
def test_explain_refuses_what_it_cannot_read(options: list[str]) -> None:
    """Exit status 2, one line, no value of an argument."""
    result = run("explain", POLICY, "--tool", "create_refund", *options)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert CANARY not in result.output


@pytest.mark.parametrize("kind", [*BAD_POLICIES, "missing"])
def test_a_bad_policy_is_unreadable_to_every_command(kind: str, tmp_path: Path) -> None:
    """Exit status 2, the file's name, and no traceback."""
    path = tmp_path / "policy.json"
    if kind in BAD_POLICIES:
        path.write_bytes(BAD_POLICIES[kind])
    tests = written(tmp_path, {"tool": "x", "expect": "deny"}, policy=str(path))
    for arguments in (
        ("explain", str(path), "--tool", "x"),
        ("test", tests),
        ("test", str(FOLDER), "--policy", str(path)),
        ("diff", POLICY, str(path), "--tests", str(FOLDER)),
    ):
        result = run(*arguments)
        assert result.exit_code == 2
        assert str(path) in result.stderr
        assert "Traceback" not in result.stderr
        assert result.stdout == ""


# ---- test


def test_tests_that_pass_are_counted() -> None:
    """Files are found by their names; untested rules are listed and no finding."""
    result = run("test", str(FOLDER))
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "untested: (default deny) (git@admin.json)",
        "26 passed, 0 failed, 1 of 19 rules untested",
    ]


def test_untested_rules_fail_where_coverage_is_required() -> None:
    """With `--require-coverage` an untested rule is a finding."""
    assert run("test", str(FOLDER), "--require-coverage").exit_code == 1
    assert run("test", str(FOLDER / "refunds.policytest.yaml"), "--require-coverage").exit_code == 0


def test_a_failure_has_its_line(tmp_path: Path) -> None:
    """A failed call is told with file, line, expected and actual answer, and never with its arguments."""
    path = tmp_path / "x.policytest.yaml"
    path.write_text(
        f"policy: {POLICY}\ncases:\n  - name: one\n    calls:\n      - {{tool: nope, expect: deny}}\n"
        f"      - {{tool: nope, arguments: {{a: {CANARY}}}, expect: allow}}\n"
    )
    result = run("test", str(path))
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0].startswith(f"{path}:6: `one`, call 2 of `nope`: expected allow, got deny")
    assert "1 passed, 1 failed" in result.stdout.splitlines()[-1]
    assert CANARY not in result.output


def test_another_policy_can_be_tested() -> None:
    """`--policy` stands in for the one the tests name."""
    result = run("test", str(FOLDER / "refunds.policytest.yaml"), "--policy", SERVERS)
    assert result.exit_code == 1


def test_problems_of_all_files_come_together(tmp_path: Path) -> None:
    """Every file that does not read is reported, and nothing is counted."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.policytest.yaml").write_text("cases: []\npolicies: {}\n")
    result = run("test", str(tmp_path))
    assert result.exit_code == 2
    first, *rest = result.stderr.splitlines()
    assert first == "the policy tests do not read: 4 problems"
    assert {line.split(":")[0] for line in rest if not line.startswith(" ")} == {
        str(tmp_path / "a.policytest.yaml"),
        str(tmp_path / "b.policytest.yaml"),
    }
    assert result.stdout == ""


def test_a_place_without_tests_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing found is not a pass; hidden directories are not searched."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".venv").mkdir()
    written(tmp_path / ".venv", {"tool": "nope", "expect": "deny"})
    assert run("test").exit_code == 2
    (tmp_path / "deep" / "er").mkdir(parents=True)
    written(tmp_path / "deep" / "er", {"tool": "nope", "expect": "deny"}, name="x.policytest.yml")
    assert run("test").exit_code == 0
    assert run("test", "missing.policytest.yaml").exit_code == 2


def test_junit_is_xml_with_counts_and_places(tmp_path: Path) -> None:
    """A suite for each file, a test for each call, a failure with both answers; odd characters do no harm."""
    path = tmp_path / "x.policytest.json"
    calls = [{"tool": "nope", "expect": "deny"}, {"tool": 'a<b&"\x07\U0001f600', "expect": "allow"}]
    written(tmp_path, *calls)
    report = tmp_path / "junit.xml"
    assert run("test", str(path), str(FOLDER), "--junit", str(report)).exit_code == 1
    root = ElementTree.parse(report).getroot()
    assert root.tag == "testsuites"
    assert (root.attrib["tests"], root.attrib["failures"], root.attrib["errors"]) == ("28", "1", "0")
    suites = {Path(suite.attrib["name"]).name: suite for suite in root}
    assert list(suites) == ["x.policytest.json", "refunds.policytest.yaml", "servers.policytest.yaml"]
    cases = suites["x.policytest.json"].findall("testcase")
    assert [case.attrib["name"] for case in cases] == ["call 1: nope", 'call 2: a<b&"\ufffd\U0001f600']
    assert [len(case.findall("failure")) for case in cases] == [0, 1]
    failure = cases[1].find("failure")
    assert failure is not None
    assert failure.attrib["message"] == "expected allow, got deny default_deny (default deny)"
    for suite in root:
        assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))
        assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure"))
    places = [(case.attrib["file"], case.attrib["line"]) for case in suites["servers.policytest.yaml"]]
    assert places == [(str(FOLDER / "servers.policytest.yaml"), str(line)) for line in (6, 7, 8, 9)]


def test_junit_has_rules_where_coverage_is_required(tmp_path: Path) -> None:
    """An untested rule is then a failure of its own."""
    report = tmp_path / "junit.xml"
    run("test", str(FOLDER), "--junit", str(report), "--require-coverage")
    (rules,) = ElementTree.parse(report).getroot().findall("testsuite[@name='rules']")
    assert (rules.attrib["tests"], rules.attrib["failures"]) == ("19", "1")
    (untested,) = [case for case in rules if case.find("failure") is not None]
    assert (untested.attrib["classname"], untested.attrib["name"]) == ("git@admin.json", "(default deny)")


def test_junit_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Exit status 2 where the report has no place to go."""
    result = run("test", str(FOLDER), "--junit", str(tmp_path / "missing" / "junit.xml"))
    assert result.exit_code == 2
    assert "junit.xml" in result.stderr


# ---- diff


def changed_policy(folder: Path, **change: Any) -> str:
    """The path of the policy with something changed among the rules of `create_refund`."""
    document = json.loads(Path(POLICY).read_text())
    document["tools"]["create_refund"].update(change)
    path = folder / "changed.json"
    path.write_text(json.dumps(document))
    return str(path)


def test_a_policy_does_not_differ_from_itself() -> None:
    """Exit status 0, and nothing but the count."""
    result = run("diff", POLICY, POLICY, "--tests", str(FOLDER / "refunds.policytest.yaml"))
    assert result.exit_code == 0
    assert result.stdout.splitlines() == ["0 of 22 calls changed"]


def test_calls_that_change_effect_are_told(tmp_path: Path) -> None:
    """Each with its place and both answers."""
    other = changed_policy(tmp_path, deny_if=[])
    result = run("diff", POLICY, other, "--tests", str(FOLDER / "refunds.policytest.yaml"))
    assert result.exit_code == 1
    *changes, total = result.stdout.splitlines()
    assert [line.partition(": ")[0].rpartition(":")[2] for line in changes] == ["10"]
    assert changes[0].endswith("deny rule_denied /tools/create_refund/deny_if/args.amount-gt -> allow allowed")
    assert total == "1 of 22 calls changed"


def test_other_changes_are_told_on_request(tmp_path: Path) -> None:
    """A call that is denied by another rule changes nothing but with `--all`."""
    tests = written(tmp_path, {"tool": "create_refund", "arguments": {"amount": 101}, "expect": "deny"})
    other = changed_policy(tmp_path, require=[])
    assert run("diff", POLICY, other, "--tests", tests).exit_code == 0
    result = run("diff", POLICY, other, "--tests", tests, "--all")
    assert result.exit_code == 1
    assert "requirement_unmet" in result.stdout
    assert "rule_denied" in result.stdout


def test_diff_needs_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a test set there is nothing to compare."""
    monkeypatch.chdir(tmp_path)
    assert run("diff", POLICY, POLICY).exit_code == 2
