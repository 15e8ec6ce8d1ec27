"""What an audit log says, what it never says, and what becomes of a call that cannot be put on record."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import logging
import os
import stat
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from audit_logs import CANARY, called, entries, guarded, written

from mcp_policy_middleware import UNNAMED, Outcome, PolicyError, StoreError, ToolCall, ToolDenied
from mcp_policy_middleware.approvals import Answer
from mcp_policy_middleware.audit import AuditLog, verify
from mcp_policy_middleware.audit.chain import NOTHING
from mcp_policy_middleware.canonical import canonical, digest
from mcp_policy_middleware.stores import MemoryStore
from mcp_policy_middleware.testing import FrozenClock

EVERY_LINE = {"format", "hash", "kind", "previous", "seq", "time"}
DECIDED = {"arguments", "decision", "effect", "enforced", "grant", "reason", "tool"}


def RETURNS() -> int:
    return 7


def decisions(path: Path) -> list[dict[str, Any]]:
    """The decisions' lines."""
    return [entry for entry in entries(path) if entry["kind"] == "decision"]


def test_a_decision_and_an_end_say_just_this(tmp_path: Path) -> None:
    """The members of each kind of line, by name and by value; what there is nothing to say of is left out."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, clock=FrozenClock(datetime(2026, 3, 1, 9, 30, 0, 25, tzinfo=UTC)))
    guard = guarded(log)
    call = ToolCall("refund", {"currency": "eur", "amount": 3}, server="stripe", call_id="call-1")
    assert guard.run(call, RETURNS) == 7
    first, decided, ended = entries(path)
    assert set(first) == {*EVERY_LINE, "chain", "log"}
    assert set(decided) == {
        *EVERY_LINE, *DECIDED, "call", "charges", "policy", "policy_digest", "server", "session",
    }  # fmt: skip
    assert set(ended) == {*EVERY_LINE, "decision", "outcome"}
    assert (first["kind"], first["chain"], first["seq"], first["previous"]) == ("file", "sha256", 0, "0" * 64)
    assert decided["time"] == "2026-03-01T09:30:00.000025Z"
    assert (decided["effect"], decided["reason"], decided["enforced"]) == ("allow", "allowed", True)
    assert (decided["tool"], decided["server"], decided["grant"]) == ("refund", "stripe", "support")
    assert (decided["session"], decided["call"], decided["arguments"]) == ("s1", "call-1", ["amount", "currency"])
    assert (decided["policy"], decided["policy_digest"][:7]) == ("refunds", "sha256:")
    assert decided["charges"] == [
        {"amount": 1_000_000, "key": canonical(["refunds", "hour", "fixed", "grant", "stripe", "support"])}
    ]
    assert (ended["decision"], ended["outcome"]) == (decided["decision"], "returned")
    log.close()


def test_a_denial_says_its_rule_and_when_to_come_back(tmp_path: Path) -> None:
    """And in shadow mode that it was not enforced."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    guard = guarded(log)
    for _ in range(2):
        guard.begin(ToolCall("once", {}))
    guard.begin(ToolCall("refund", {"currency": "gbp"}, server=UNNAMED))
    guarded(log, mode="shadow").begin(ToolCall("refund", {"currency": "gbp"}))
    guard.begin(ToolCall("invented\x1b[31m\ud800" + "x" * 200, {"a\nb": 1}, grant="g\ud800"))
    limited, denied, shadowed, invented = decisions(path)[1:]
    assert (limited["reason"], limited["rule"]) == ("limit_exceeded", "/tools/once/limits/once")
    assert 0 <= limited["retry_after"] <= 3600
    assert "retry_after" not in denied
    assert denied["server"] == "(unnamed)"
    assert (denied["effect"], denied["enforced"]) == ("deny", True)
    assert (shadowed["effect"], shadowed["enforced"]) == ("deny", False)
    assert invented["tool"].startswith("invented\\x1b[31m\\ud800x")
    assert len(invented["tool"]) == 128
    assert invented["arguments"] == ["a\\nb"]
    assert invented["grant"] == "g\\ud800"
    log.close()
    assert verify([path]).whole


def test_an_answer_is_on_record(tmp_path: Path) -> None:
    """Who said what, when, and of which request."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    guard = guarded(log, approver=lambda request: Answer(False, "ann@example.com", "once is enough"))
    with pytest.raises(ToolDenied):
        guard.run(ToolCall("wire", {"to": CANARY}), RETURNS)
    (decided,) = decisions(path)
    approval = decided["approval"]
    assert (approval["state"], approval["by"], approval["why"]) == ("denied", "ann@example.com", "once is enough")
    assert approval["id"]
    datetime.fromisoformat(approval["at"])
    log.close()


def test_no_value_is_in_any_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of arguments, nor of exceptions, nor of the context: the whole file, whatever comes of the calls."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, arguments=("currency",))

    def raised(error: Exception) -> Any:
        raise error

    values: list[Any] = [CANARY, [CANARY], {CANARY: CANARY}, f"{CANARY}\ud800", {"a": {"b": CANARY}}]
    guard = guarded(log, context={"user": CANARY}, approver=lambda _: raised(ValueError(CANARY)))
    for value in values:
        for tool in ("refund", "wire", "drop", "unknown"):
            call = ToolCall(tool, {"amount": value, "note": value, "currency": "eur"})
            with pytest.raises((RuntimeError, ToolDenied)):
                guard.run(call, lambda: raised(RuntimeError(CANARY)))
    store = MemoryStore()
    monkeypatch.setattr(store, "reserve", lambda *_: raised(StoreError(CANARY)))
    down = guarded(log, store=store)
    assert down.begin(ToolCall("once", {"a": CANARY}, context={"x": CANARY})).reason == "store_unavailable"
    assert down.begin(ToolCall("once", CANARY)).reason == "invalid_call"
    log.close()
    text = path.read_text("utf-8")
    assert CANARY not in text
    assert {entry["reason"] for entry in decisions(path)} >= {"allowed", "approval_failed", "hidden", "default_deny"}
    assert {entry.get("error") for entry in decisions(path)} >= {"StoreError"}
    assert all(entry["values"] == {"currency": "eur"} for entry in decisions(path) if "currency" in entry["arguments"])


def test_values_are_written_down_by_name_alone(tmp_path: Path) -> None:
    """Those that are named; one that is no JSON or is long is left out, and the line is canonical."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, arguments=("currency", "amount", "lines", "gone"))
    guard = guarded(log)
    arguments = {
        "currency": "eur",
        "amount": 1.50,
        "note": CANARY,
        "lines": {"é": [1, {"\U0001f4b6": -0.0}], "\ufffd": 0},
    }
    guard.begin(ToolCall("refund", arguments))
    guard.begin(ToolCall("refund", {"currency": "\ud800", "amount": float("nan"), "lines": "x" * 5_000}))
    guard.begin(ToolCall("refund", {"currency": "eur", "lines": object()}))
    first, second, third = decisions(path)
    assert first["values"] == {"currency": "eur", "amount": 1.5, "lines": {"é": [1, {"\U0001f4b6": 0}], "\ufffd": 0}}
    assert "values" not in second
    assert third["values"] == {"currency": "eur"}
    log.close()
    assert verify([path]).whole


@pytest.mark.parametrize("key", [None, bytes(32)])
def test_a_digest_of_the_arguments_is_written_where_it_is_asked_for(key: bytes | None, tmp_path: Path) -> None:
    """Keyed where the log is, so that it cannot be found by trying; none of what is no JSON."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, key=key, digest_arguments=True)
    for arguments in ({"a": 1}, {"a": 1.0}, {"a": 2}, {"a": "\ud800"}):
        guarded(log).begin(ToolCall("refund", arguments))
    log.close()
    one, same, other, none = [entry.get("arguments_digest") for entry in decisions(path)]
    assert one == same != other
    assert none is None
    assert (one == digest({"a": 1})) == (key is None)
    assert one.startswith("sha256:" if key is None else "hmac-sha256:")
    assert key is None or hashlib.sha256(b'{"a":1}').hexdigest() not in path.read_text()


def test_many_arguments_are_counted(tmp_path: Path) -> None:
    """64 names and the number of the others."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    guarded(log).begin(ToolCall("refund", {f"a{number:03}": 1 for number in range(100)}))
    (decided,) = decisions(path)
    assert (len(decided["arguments"]), decided["arguments_left_out"]) == (64, 36)
    log.close()


def test_every_time_is_the_clocks(tmp_path: Path) -> None:
    """A clock without a time zone is refused."""
    with pytest.raises(StoreError):
        AuditLog(tmp_path / "audit.jsonl", clock=lambda: datetime(2026, 1, 1))


@pytest.mark.parametrize(
    "settings",
    [
        {"on_failure": "ignore"},
        {"fsync": "sometimes"},
        {"fsync_seconds": 0},
        {"max_bytes": 0},
        {"max_age": timedelta(0)},
        {"arguments": "currency"},
        {"key": b"short"},
    ],
    ids=str,
)
def test_a_setting_that_does_not_fit_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    """At once, and no file is made."""
    with pytest.raises(PolicyError):
        AuditLog(tmp_path / "audit.jsonl", **settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("on_failure", ["deny", "allow"])
def test_a_log_that_cannot_be_opened_is_refused(on_failure: Any, tmp_path: Path) -> None:
    """Where its folder is missing, it is a folder, or it holds something else, which is left as it is."""
    (tmp_path / "notes.txt").write_text("somebody's notes")
    for path in (tmp_path, tmp_path / "missing" / "audit.jsonl", tmp_path / "notes.txt"):
        with pytest.raises(StoreError):
            AuditLog(path, on_failure=on_failure)
    assert (tmp_path / "notes.txt").read_text() == "somebody's notes"


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    """And so are those that come after it; one that was made with other rights keeps them."""
    path = written(tmp_path / "audit.jsonl", max_bytes=3_000)
    modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert len(list(tmp_path.iterdir())) > 2
    assert modes == {0o600}
    path.chmod(0o640)
    written(path, max_bytes=3_000)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_the_head_is_the_last_line(tmp_path: Path) -> None:
    """What is recorded elsewhere is what is in the file."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    called(guarded(log), 5)
    last = entries(path)[-1]
    assert (log.head.hash, log.head.seq, str(log.head)) == (last["hash"], last["seq"], f"{last['hash']}:{last['seq']}")
    assert log.path == str(path)
    assert verify([path], heads=[log.head]).logs[0].head == log.head
    assert log.head != NOTHING
    log.close()


# What cannot be put on record


class Refusing:
    """Makes each write fail, as a disk does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: str = "write") -> None:
        real = getattr(os, call)
        self.fails = False

        def refused(*arguments: Any) -> Any:
            if self.fails:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(*arguments)

        monkeypatch.setattr(os, call, refused)


def test_what_is_not_on_record_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call is denied and keeps no charge; a line tells later how many are missing."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    guard = guarded(log)
    disk = Refusing(monkeypatch)
    disk.fails = True
    for _ in range(3):
        with pytest.raises(ToolDenied) as caught:
            guard.run(ToolCall("once", {}), RETURNS)
        decision = caught.value.decision
        assert (decision.reason, decision.rule, decision.error) == ("evaluation_error", "(audit)", "StoreError")
    disk.fails = False
    assert log.errors == 3
    assert guard.run(ToolCall("once", {}), RETURNS) == 7
    assert [entry["kind"] for entry in entries(path)] == ["file", "gap", "decision", "end"]
    gap = entries(path)[1]
    assert (gap["missing"], gap["error"]) == (3, "OSError")
    log.close()
    found = verify([path])
    assert found.whole
    assert [note.kind for note in found.notes] == ["gap"]


def test_a_lenient_log_shouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls go on; each line that is missing is an error in the log and a count, and is told of in the end."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, on_failure="allow")
    guard = guarded(log)
    disk = Refusing(monkeypatch)
    disk.fails = True
    for _ in range(3):
        assert guard.run(ToolCall("refund", {"currency": "eur"}), RETURNS) == 7
    assert log.errors == 6
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 6
    with pytest.raises(StoreError):
        log.close()
    disk.fails = False
    log.close()
    assert [(entry["kind"], entry.get("missing")) for entry in entries(path)] == [("file", None), ("gap", 6)]
    assert verify([path]).whole


def test_the_end_of_a_call_that_was_made_does_not_replace_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is too late to deny."""
    log = AuditLog(tmp_path / "audit.jsonl")
    disk = Refusing(monkeypatch)

    def call() -> int:
        disk.fails = True
        return 7

    assert guarded(log).run(ToolCall("refund", {"currency": "eur"}), call) == 7
    disk.fails = False
    log.close()
    assert [entry["kind"] for entry in entries(tmp_path / "audit.jsonl")] == ["file", "decision", "gap"]


def test_a_disk_that_takes_half_a_line_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written of it is taken back, and the file stays whole."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[: len(data) // 2]))
    assert guarded(log).begin(ToolCall("once", {})).rule == "(audit)"
    assert verify([path]).whole
    monkeypatch.undo()
    log.close()
    assert [entry["kind"] for entry in entries(path)] == ["file", "gap"]


@pytest.mark.parametrize("fsync", ["always", "interval"])
def test_a_disk_that_cannot_be_written_through_is_noticed(
    fsync: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, or with the next decision after it was found in the background; a call that follows goes on."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, fsync=fsync, fsync_seconds=0.001)
    guard = guarded(log)
    assert guard.begin(ToolCall("refund", {"currency": "eur"})).allowed
    disk = Refusing(monkeypatch, "fsync")
    disk.fails = True
    while guard.begin(ToolCall("refund", {"currency": "eur"})).allowed:
        assert fsync == "interval"
    disk.fails = False
    assert log.errors == 1
    log.close()
    assert guard.begin(ToolCall("refund", {"currency": "eur"})).allowed
    log.close()
    assert verify([path]).whole


@pytest.mark.parametrize("fsync", ["always", "never"])
def test_written_through_as_it_was_asked_for(fsync: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each call goes on, or not at all."""
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), real(descriptor))[1])
    log = AuditLog(tmp_path / "audit.jsonl", fsync=fsync)
    guard = guarded(log)
    for number in range(3):
        before = len(synced)
        assert guard.begin(ToolCall("refund", {"currency": "eur", "n": number})).allowed
        assert len(synced) - before == (fsync == "always")
    log.close()


def test_an_interval_is_one_write_through_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the background, once the time has passed; and on closing."""
    synced = threading.Semaphore(0)
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (real(descriptor), synced.release())[0])
    slow = AuditLog(tmp_path / "slow.jsonl", fsync="interval", fsync_seconds=10_000)
    called(guarded(slow), 3)
    assert not synced.acquire(blocking=False)
    slow.close()
    assert synced.acquire(blocking=False)
    log = AuditLog(tmp_path / "audit.jsonl", fsync="interval", fsync_seconds=0.01)
    for _ in range(3):  # the file, its folder, and what is written then
        assert synced.acquire(timeout=10)
        called(guarded(log), 3)
    log.close()


@pytest.mark.parametrize("run", [lambda main: asyncio.run(main()), trio.run], ids=["asyncio", "trio"])
def test_the_loop_goes_on_while_the_disk_is_waited_for(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread waits; the line is there before the call goes on."""
    threads: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (threads.append(threading.get_ident()), real(descriptor))[1])
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, fsync="always")
    threads.clear()

    async def call() -> str:
        return str(decisions(path)[-1]["decision"])

    async def main() -> None:
        guard = guarded(log)
        assert await guard.arun(ToolCall("refund", {"currency": "eur"}), call)
        with pytest.raises(ToolDenied):
            await guard.arun(ToolCall("refund", {"currency": "gbp"}), call)

    run(main)
    assert len(threads) == 3
    assert threading.get_ident() not in threads
    assert [entry["kind"] for entry in entries(path)] == ["file", "decision", "end", "decision"]
    log.close()


def test_async_callers_without_fsync_use_no_thread(tmp_path: Path) -> None:
    """An append is cheaper than a thread."""
    log = AuditLog(tmp_path / "audit.jsonl", fsync="never")

    async def main() -> int:
        guard = guarded(log)
        calls: list[Awaitable[Any]] = [guard.abegin(ToolCall("refund", {"currency": "eur"})) for _ in range(10)]
        decided = await asyncio.gather(*calls)
        await asyncio.gather(*(guard.afinish(decision, Outcome.UNKNOWN) for decision in decided))
        return threading.active_count()

    before = threading.active_count()
    assert asyncio.run(main()) == before
    log.close()
    assert len(entries(tmp_path / "audit.jsonl")) == 21
    assert json.loads((tmp_path / "audit.jsonl").read_bytes().splitlines()[-1])["outcome"] == "unknown"
