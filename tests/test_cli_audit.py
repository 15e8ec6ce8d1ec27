"""`mcp-policy audit`: a log is verified, read and counted, and nothing in it writes to a terminal what it likes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner, Result

from mcp_policy_middleware import Guard, Outcome, ToolCall, parse_policy
from mcp_policy_middleware.audit import AuditLog, verify
from mcp_policy_middleware.cli.app import app

POLICY = parse_policy('{"version": "1", "default": "deny", "tools": {"refund": {}}}')
HOSTILE = "\x1b[31m[red]\u202e"


def run(*arguments: str | Path) -> Result:
    """Run `mcp-policy audit` in this process."""
    return CliRunner().invoke(app, ["audit", *map(str, arguments)])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of three files: 20 calls, half of which are denied."""
    path = tmp_path / "audit.jsonl"
    kept = AuditLog(path, fsync="never", max_bytes=6_000)
    guard = Guard(POLICY, audit=kept, telemetry=False, grant=HOSTILE)
    for number in range(20):
        decision = guard.begin(ToolCall(f"drop{HOSTILE}" if number % 2 else "refund", {}, server=HOSTILE))
        if decision.allowed:
            guard.finish(decision, Outcome.RETURNED)
    kept.close()
    return path


def files(log: Path) -> list[Path]:
    """A log's files, as a shell's pattern gives them."""
    return sorted(log.parent.glob("audit.jsonl*"))


def test_verify_tells_the_head_to_record_elsewhere(log: Path) -> None:
    """Exit status 0, and a head that the next `verify` finds; 1 where the log was rewritten since."""
    told = json.loads(run("verify", *files(log), "--format", "json").stdout)
    (one,) = told["logs"]
    assert (told["whole"], told["breaks"], told["notes"]) == (True, [], [])
    assert one["head"] == str(verify(files(log)).logs[0].head)
    result = run("verify", *files(log), "--head", one["head"])
    assert result.exit_code == 0
    assert one["head"] in result.stdout
    log.write_bytes(log.read_bytes().rpartition(b'{"')[0])
    cut = run("verify", *files(log), "--head", one["head"], "--format", "json")
    assert cut.exit_code == 1
    assert [one["kind"] for one in json.loads(cut.stdout)["breaks"]] == ["head"]


def test_verify_tells_each_break(log: Path) -> None:
    """A file and a line for each; a part of a log is whole where that is said."""
    data = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([data[0], *data[2:]]))
    first = files(log)[1]
    first.write_bytes(first.read_bytes().replace(b'"effect":"deny"', b'"effect":"dent"', 1))
    result = run("verify", *files(log))
    assert result.exit_code == 1
    assert f"{log}:2: " in result.stdout
    assert f"{first}:" in result.stdout
    log.write_bytes(b"".join(data))
    assert run("verify", log).exit_code == 1
    assert run("verify", log, "--partial").exit_code == 0


def test_verify_takes_a_key_from_a_file(tmp_path: Path) -> None:
    """The bytes as they are; without them the log cannot be verified, and with others it is not whole."""
    path, key = tmp_path / "audit.jsonl", tmp_path / "audit.key"
    key.write_bytes(b"0123456789abcdef\n")
    AuditLog(path, key=key.read_bytes()).close()
    assert run("verify", path, "--key-file", key).exit_code == 0
    assert run("verify", path).exit_code == 2
    key.write_bytes(b"another key, which is long enough")
    assert run("verify", path, "--key-file", key).exit_code == 1


def test_tail_shows_the_last_lines(log: Path) -> None:
    """Over the files in their order, one line each or as they are; hostile names are spelled out."""
    result = run("tail", *files(log), "-n", "5")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 5
    assert "\\x1b[31m[red]" in result.stdout
    assert "\x1b" not in result.stdout
    assert "\u202e" not in result.stdout
    assert 'reason="default_deny"' in result.stdout
    shown = [json.loads(line) for line in run("tail", *files(log), "-n", "5", "--format", "json").stdout.splitlines()]
    seqs = [one["seq"] for one in shown]
    assert seqs == list(range(seqs[0], seqs[0] + 5))
    assert seqs[-1] == json.loads(log.read_bytes().splitlines()[-1])["seq"]


def test_stats_counts(log: Path) -> None:
    """By effect, reason, server, tool, grant, outcome and hour; as a table nothing hostile is printed."""
    told = json.loads(run("stats", *files(log), "--format", "json").stdout)
    assert told["decisions"] == 20
    assert told["effect"] == {"allow": 10, "deny": 10}
    assert told["reason"] == {"allowed": 10, "default_deny": 10}
    assert told["outcome"] == {"returned": 10}
    assert sorted(told["tool"].values()) == [10, 10]
    assert sum(told["hour"].values()) == 20
    text = run("stats", *files(log)).stdout
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_stats_of_many_names_stay_short(tmp_path: Path) -> None:
    """Of tools that an agent invents, the most frequent are shown and the others counted."""
    path = tmp_path / "audit.jsonl"
    kept = AuditLog(path, fsync="never")
    guard = Guard(POLICY, audit=kept, telemetry=False)
    for number in range(100):
        guard.begin(ToolCall(f"invented{number}", {}))
    kept.close()
    text = run("stats", path).stdout
    assert len(text.splitlines()) < 40
    assert "(80 others)" in text


def test_a_damaged_log_is_still_read(log: Path) -> None:
    """What reads is shown and counted."""
    log.write_bytes(log.read_bytes() + b"garbage\n\xff\n{}\n")
    for command in ("tail", "stats"):
        assert run(command, *files(log)).exit_code == 0
    assert run("verify", *files(log)).exit_code == 1


@pytest.mark.parametrize("command", ["verify", "tail", "stats"])
def test_what_cannot_be_read_is_one_message(command: str, tmp_path: Path) -> None:
    """Exit status 2, nothing on stdout, and no traceback."""
    for path in (tmp_path, tmp_path / "missing.jsonl"):
        result = run(command, path)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "Traceback" not in result.stderr
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("options", [["--head", "abc"], ["--key-file", "missing.key"], ["--key-file", "/dev/null"]])
def test_an_option_that_does_not_fit_is_one_message(options: list[str], log: Path) -> None:
    """Exit status 2."""
    result = run("verify", log, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["verify", "tail", "stats"])
def test_an_empty_file_is_no_error(command: str, tmp_path: Path) -> None:
    """There is nothing to say of it."""
    (tmp_path / "empty.jsonl").touch()
    assert run(command, tmp_path / "empty.jsonl").exit_code == 0
