"""`mcp-policy counters`: what a store holds is listed and reset, and an empty one is begun."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")

from redis_server import RedisServer
from typer.testing import CliRunner, Result

from mcp_policy_middleware import UNNAMED, Guard, ToolCall, parse_policy
from mcp_policy_middleware.cli.app import app
from mcp_policy_middleware.engine.keys import CounterKey, read_key
from mcp_policy_middleware.stores import SQLiteStore

POLICY = parse_policy("""
version: "1"
default: deny
tools:
  refund:
    limits:
      - {counter: spend, window: month, max: 1000.5, increment_from: args.amount}
      - {counter: calls, window: 2678400, max: 10, scope: session, algorithm: sliding}
      - {counter: everything, window: day, max: 99, scope: global}
""")


def run(*arguments: str | Path) -> Result:
    """Run `mcp-policy counters` in this process."""
    return CliRunner().invoke(app, ["counters", *map(str, arguments)])


def listed(*arguments: str | Path) -> list[dict[str, Any]]:
    """What `list` prints as JSON."""
    result = run("list", *arguments, "--format", "json")
    assert result.exit_code == 0, result.output
    return list(json.loads(result.stdout))


@pytest.fixture
def counted(tmp_path: Path) -> Path:
    """A store with the counters of three servers."""
    path = tmp_path / "counters.db"
    store = SQLiteStore(path)
    guard = Guard(POLICY, store=store, grant="support", session="s1")
    for server in ("stripe", None, UNNAMED):
        assert guard.begin(ToolCall("refund", {"amount": 12.25}, server=server)).allowed
    store.close()
    return path


def test_list_tells_whose_counters_they_are(counted: Path) -> None:
    """Each counter has its grant, server, name, window, total, ceiling and end; amounts are numbers."""
    rows = {(row["counter"], row["server"]): row for row in listed(counted)}
    assert len(rows) == 7
    spend = rows["spend", "stripe"]
    assert (spend["grant"], spend["session"], spend["window"], spend["scope"]) == ("support", None, "month", "grant")
    assert (spend["used"], spend["max"]) == (12.25, 1000.5)
    assert spend["resets_at"].endswith("-01T00:00:00Z")
    assert rows["everything", None]["used"] == 3
    assert {name for name, _ in rows} == {"spend", "calls", "everything"}
    calls = rows["calls", "(unnamed)"]
    assert (calls["session"], calls["window"], calls["used"]) == ("s1", 2_678_400, 1)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--counter", "spend"], 3),
        (["--server", "stripe"], 2),
        (["--grant", "support"], 6),
        (["--session", "s1", "--server", "stripe"], 1),
        (["--counter", "nothing"], 0),
    ],
)
def test_options_narrow_what_is_listed_and_reset(counted: Path, options: list[str], count: int) -> None:
    """What is listed with some options is what is reset with them, and nothing else."""
    chosen = listed(counted, *options)
    assert len(chosen) == count
    others = [row for row in listed(counted) if row not in chosen]
    assert run("reset", counted, *options).exit_code == 0
    assert listed(counted) == others


def test_reset_needs_to_be_told_what(counted: Path) -> None:
    """Everything is reset by name alone, and not together with a choice."""
    for options in ([], ["--all", "--counter", "spend"]):
        result = run("reset", counted, *options)
        assert (result.exit_code, result.stdout) == (2, "")
    assert len(listed(counted)) == 7
    assert run("reset", counted, "--all").exit_code == 0
    assert listed(counted) == []


def test_what_is_printed_fits_a_terminal(counted: Path) -> None:
    """The table has a line a counter; names that would write to the terminal are spelled out."""
    store = SQLiteStore(counted)
    assert Guard(POLICY, store=store, grant="\x1b[31m[red]").begin(ToolCall("refund", {"amount": 1})).allowed
    store.close()
    text = run("list", counted).stdout
    assert len(text.splitlines()) == 1 + 9
    assert "\x1b" not in text
    assert "\\x1b[31m[red]" in text
    assert run("list", counted, "--counter", "nothing").exit_code == 0


def test_a_counter_that_no_policy_named_is_shown_by_its_key(counted: Path) -> None:
    """A key that another program wrote is listed as it is."""
    from mcp_policy_middleware.charges import Charge, Window

    store = SQLiteStore(counted)
    store.reserve((Charge("mine", Window(3600), 1, 5),), 4_000_000_000.0)
    store.close()
    (row,) = [row for row in listed(counted) if row["counter"] == "mine"]
    assert (row["grant"], row["window"], row["used"]) == (None, None, 0.000001)


def test_a_redis_server_is_begun_listed_and_reset(redis_server: RedisServer) -> None:
    """The URL of a server stands for a store; an empty one is denied until it is begun, and tenants are apart."""
    pytest.importorskip("redis")
    from mcp_policy_middleware.stores import RedisStore

    options = [redis_server.url, "--tenant", "cli"]
    store = RedisStore(redis_server.url, tenant="cli")
    guard = Guard(POLICY, store=store, grant="support")
    assert guard.begin(ToolCall("refund", {"amount": 5})).reason == "store_unavailable"
    for _ in range(2):
        assert run("init", *options).exit_code == 0
    assert guard.begin(ToolCall("refund", {"amount": 5})).allowed
    assert [(row["counter"], row["used"]) for row in listed(*options, "--counter", "spend")] == [("spend", 5)]
    assert run("reset", *options, "--all").exit_code == 0
    assert listed(*options) == []
    assert run("init", redis_server.url, "--tenant", "a b").exit_code == 2
    store.close()


def test_init_begins_a_store_once(tmp_path: Path) -> None:
    """A file is made where there is none, and left alone where there is one."""
    path = tmp_path / "new.db"
    for _ in range(2):
        assert run("init", path).exit_code == 0
    assert listed(path) == []


@pytest.mark.parametrize("command", [["list"], ["reset", "--all"], ["init"]], ids=lambda command: command[0])
@pytest.mark.parametrize("store", ["missing/counters.db", "text.txt", "redis://user:secret@127.0.0.1:1/0", "foo://x"])
def test_a_store_that_cannot_be_used_is_one_message(command: list[str], store: str, tmp_path: Path) -> None:
    """Exit status 2, one message without a traceback or a password, and no file is made."""
    if store.startswith("redis"):
        pytest.importorskip("redis")
    (tmp_path / "text.txt").write_text("not a database, and long enough to be none: " * 50)
    name, *options = command
    where = store if "://" in store else str(tmp_path / store)
    result = run(name, where, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.strip()
    assert "Traceback" not in result.stderr
    assert "secret" not in result.stderr
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    "key",
    [
        CounterKey("c", "hour", "fixed", "grant", "stripe", "g"),
        CounterKey("c", 90, "sliding", "session", None, "g", "s"),
        CounterKey("c", "day", "fixed", "session", UNNAMED, "g", None),
        CounterKey("c", "week", "fixed", "server", "x"),
        CounterKey('"[é', "month", "fixed", "global"),
    ],
    ids=repr,
)
def test_a_key_is_read_as_it_was_written(key: CounterKey) -> None:
    """Every part of a key comes back."""
    assert read_key(key.text()) == key


@pytest.mark.parametrize(
    "text", ["", "k", "[]", "{}", "1", '["c"]', '["c", "hour", "fixed", "grant", "s", "g"]', "\ud800"]
)
def test_what_is_no_key_is_not_read_as_one(text: str) -> None:
    """Only the canonical text of a key is one."""
    assert read_key(text) is None
