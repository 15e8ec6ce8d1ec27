"""The file of an audit log: rotation, torn lines, full disks, and many processes on one file."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from audit_logs import called, entries, files, guarded, written

from mcp_policy_middleware import StoreError, ToolCall
from mcp_policy_middleware.audit import AuditLog, verify
from mcp_policy_middleware.testing import FrozenClock

EUR = ToolCall("refund", {"currency": "eur"})


def kinds(*paths: Path) -> list[str]:
    """What each line tells of."""
    return [entry["kind"] for entry in entries(*paths)]


# Rotation


def test_a_full_file_makes_way_and_the_chain_goes_on(tmp_path: Path) -> None:
    """By size: each file begins with where it comes after; the numbers go on over restarts."""
    path = tmp_path / "audit.jsonl"
    for _ in range(3):
        written(path, 10, max_bytes=4_000)
    every = files(path)
    assert len(every) > 4
    lines = entries(*every)
    assert [line["seq"] for line in lines] == list(range(len(lines)))
    assert len({line["log"] for line in lines if line["kind"] == "file"}) == 1
    for before, file in itertools.pairwise(every):
        first, last = entries(file)[0], entries(before)[-1]
        assert (first["kind"], first["continues"], first["previous"]) == ("file", before.name, last["hash"])
        assert 4_000 <= before.stat().st_size < 6_000
    assert verify(every).whole
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in every}


def test_an_old_file_makes_way(tmp_path: Path) -> None:
    """By age, counted from its first line over restarts; a file that holds nothing yet is not too old."""
    path = tmp_path / "audit.jsonl"
    clock = FrozenClock()
    options: dict[str, Any] = {"max_age": timedelta(days=1), "clock": clock}
    written(path, 1, **options)
    clock.tick(86_399)
    written(path, 1, **options)
    assert files(path) == [path]
    clock.tick(1)
    written(path, 1, **options)
    assert len(files(path)) == 2
    log = AuditLog(tmp_path / "empty.jsonl", **options)
    clock.tick(100_000)
    guarded(log).begin(EUR)
    assert files(tmp_path / "empty.jsonl") == [tmp_path / "empty.jsonl"]
    log.close()
    assert verify(files(path)).whole


def test_a_rotation_that_was_killed_halfway_is_gone_through_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The full file has its name already, and no new one is there yet."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, max_bytes=3_000)
    guard = guarded(log)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(5, "input/output error")))
        while guard.begin(EUR).allowed:
            assert path.stat().st_size < 5_000
    (kept,) = tmp_path.glob("audit.jsonl.*")
    assert kept.samefile(path)
    assert verify(files(path)).whole
    assert guard.begin(EUR).allowed
    assert not kept.samefile(path)
    assert kinds(path) == ["file", "gap", "decision"]
    assert verify(files(path)).whole
    log.close()


def test_rotation_needs_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system has none, the full file is renamed."""
    monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links")))
    path = written(tmp_path / "audit.jsonl", 20, max_bytes=3_000)
    assert len(files(path)) > 2
    assert verify(files(path)).whole


def test_a_file_that_somebody_moved_is_followed_by_another(tmp_path: Path) -> None:
    """As `logrotate` does it, with `create` and without, and with `copytruncate`: no line is lost from the chain."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    guard = guarded(log)
    called(guard, 5)
    path.rename(tmp_path / "1.jsonl")
    called(guard, 5)
    path.rename(tmp_path / "2.jsonl")
    path.touch()
    called(guard, 5)
    shutil.copy(path, tmp_path / "3.jsonl")
    os.truncate(path, 0)
    called(guard, 5)
    log.close()
    every = [*(tmp_path / f"{number}.jsonl" for number in (1, 2, 3)), path]
    assert [kinds(file)[0] for file in every] == ["file"] * 4
    found = verify(every)
    assert found.whole
    assert len(found.logs) == 1


def test_a_log_that_is_cut_while_it_is_written_shows_it(tmp_path: Path) -> None:
    """The chain goes on from the line that was there, and not from the one that is left."""
    path = tmp_path / "audit.jsonl"
    for cut in (2, 400):
        log = AuditLog(path)
        guard = guarded(log)
        called(guard, 5)
        os.truncate(path, path.stat().st_size - cut)
        called(guard, 5)
        log.close()
        assert verify([path], heads=[log.head]).breaks
        path.unlink()


# Torn lines


@pytest.mark.parametrize("cut", [1, 2, 60, 200, 300, 700])
def test_a_torn_line_is_kept_told_of_and_closed_over(cut: int, tmp_path: Path) -> None:
    """Whatever a crash leaves of a line, the bytes stay, and the chain goes on from the last whole line."""
    path = written(tmp_path / "audit.jsonl", 10)
    data = path.read_bytes()[:-cut]
    path.write_bytes(data)
    assert not verify([path]).whole
    log = AuditLog(path)
    called(guarded(log), 3)
    log.close()
    assert path.read_bytes().startswith(data)
    found = verify([path])
    assert found.whole
    torn = cut > 1  # a line that lacks its line break alone is whole
    assert [note.kind for note in found.notes] == ["torn"] * torn
    damaged = path.read_bytes().replace(data[-40:], data[-40:-1] + b"#")
    path.write_bytes(damaged)
    assert not verify([path]).whole


def test_torn_lines_that_could_not_be_closed_are_closed_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk, with a file that may only be appended to, half a line follows upon another."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    guard = guarded(log)
    called(guard, 3)
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:40]))
        patch.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(PermissionError(1, "append only")))
        for _ in range(3):
            assert guard.begin(EUR).rule == "(audit)"
    assert guard.begin(EUR).allowed
    log.close()
    found = verify([path])
    assert found.whole
    assert [note.kind for note in found.notes] == ["torn", "gap"]
    (gap,) = [entry for entry in map(json.loads, path.read_bytes().splitlines()[-2:]) if entry["kind"] == "gap"]
    assert gap["missing"] == 3


def test_a_damaged_last_line_is_not_gone_on_from(tmp_path: Path) -> None:
    """It has its line break, so no crash did this: what to make of it is for a person."""
    path = written(tmp_path / "audit.jsonl", 10)
    data = path.read_bytes()
    for damaged in (data[:-80] + b"#" + data[-79:], data + b"\n", data + b"{}\n"):
        path.write_bytes(damaged)
        with pytest.raises(StoreError):
            AuditLog(path)
        assert path.read_bytes() == damaged


def test_a_log_of_another_key_is_not_gone_on_with(tmp_path: Path) -> None:
    """Nor one of no key with a key."""
    path = written(tmp_path / "audit.jsonl", 3, key=bytes(32))
    for key in (None, b"\1" * 32):
        with pytest.raises(StoreError):
            AuditLog(path, key=key)
    assert verify([written(path, 3, key=bytes(32))], key=bytes(32)).whole


# Full disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB, where this process may mount one."""
    mount = shutil.which("mount")
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        mount is None
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("this process may not mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)  # lazily: a test that fails leaves the log open


@pytest.mark.parametrize("on_failure", ["deny", "allow"])
def test_a_full_disk_does_what_was_chosen(on_failure: Any, small_disk: Path) -> None:
    """Denied, or allowed and counted; when there is room again the log says how many lines are missing."""
    path = small_disk / "audit.jsonl"
    log = AuditLog(path, on_failure=on_failure)
    guard = guarded(log)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(40_000))
    decided = [guard.begin(EUR) for _ in range(100)]
    refused = [decision for decision in decided if decision.rule == "(audit)"]
    assert log.errors > 50
    assert len(refused) == (log.errors if on_failure == "deny" else 0)
    assert verify([path]).whole
    filler.unlink()
    assert guard.begin(EUR).allowed
    log.close()
    (gap,) = [entry for entry in entries(path) if entry["kind"] == "gap"]
    assert gap["missing"] == log.errors
    assert verify([path]).whole
    assert kinds(path).count("decision") == 101 - log.errors


def test_a_limit_on_file_sizes_is_a_full_disk(tmp_path: Path) -> None:
    """Without the right to mount anything: the kernel takes part of a line and no more."""
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("fork")
    child = context.Process(target=fill, args=(path,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    found = verify([path])
    assert found.whole
    assert [note.kind for note in found.notes] == ["gap"]


def fill(path: Path) -> None:
    """Write until the limit is met, and some more once it is lifted."""
    log = AuditLog(path)
    guard = guarded(log)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    while guard.begin(EUR).allowed:
        pass
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    ok = guard.begin(EUR).allowed
    log.close()
    os._exit(0 if ok and log.errors == 1 else 1)


# Many processes


def write_some(path: Path, name: str, times: int, max_bytes: int) -> None:
    """Make calls of one session with a log of one's own."""
    log = AuditLog(path, fsync="never", max_bytes=max_bytes)
    guard = guarded(log)
    for _ in range(times):
        guard.begin(ToolCall("refund", {"currency": "eur"}, session=name))
    log.close()


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_processes_write_one_chain_while_it_rotates(start: str, tmp_path: Path) -> None:
    """8 processes of 500 decisions each: no line is lost, and the chain is whole."""
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context(start)
    running = [context.Process(target=write_some, args=(path, f"p{number}", 500, 100_000)) for number in range(8)]
    for one in running:
        one.start()
    for one in running:
        one.join(120)
        assert one.exitcode == 0
    every = files(path)
    assert len(every) > 5
    assert verify(every).whole
    told = [entry["session"] for entry in entries(*every) if entry["kind"] == "decision"]
    assert {name: told.count(name) for name in set(told)} == {f"p{number}": 500 for number in range(8)}
    assert set(kinds(*every)) == {"file", "decision"}


def test_threads_and_forks_go_on_with_a_log_that_is_open(tmp_path: Path) -> None:
    """Children of a process whose threads are writing share nothing with it but the file."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, fsync="interval", fsync_seconds=0.001, max_bytes=60_000)
    decision = guarded(log).begin(EUR)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            log.decided(decision)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    children = []
    for _ in range(6):
        child = os.fork()
        if child == 0:
            try:
                for _ in range(30):
                    log.decided(decision)
                log.close()
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    stop.set()
    for thread in threads:
        thread.join()
    log.close()
    assert statuses == [0] * 6
    assert verify(files(path)).whole
    assert log.errors == 0


def test_a_file_for_each_process(tmp_path: Path) -> None:
    """`{pid}` stands for the number of the process."""
    log = AuditLog(tmp_path / "audit-{pid}.jsonl")
    assert log.path == str(tmp_path / f"audit-{os.getpid()}.jsonl")
    log.close()


def write_until_killed(path: Path, acknowledgements: int) -> None:
    """Put decisions on record, and tell the id of each."""
    log = AuditLog(path, fsync="never", max_bytes=50_000)
    guard = guarded(log)
    while True:
        os.write(acknowledgements, f"{guard.begin(EUR).decision_id}\n".encode())


def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    """30 writers are killed with SIGKILL at random moments, in the midst of rotating too: the chain is whole."""
    path = tmp_path / "audit.jsonl"
    chance = random.Random(5)
    acknowledged: list[str] = []
    for _ in range(30):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            try:
                write_until_killed(path, writing)
            finally:
                os._exit(1)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            for _ in range(chance.randrange(1, 200)):
                acknowledged.append(pipe.readline().decode().strip())
            os.kill(child, signal.SIGKILL)
            acknowledged += [line.decode().strip() for line in pipe if line.endswith(b"\n")]
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    every = files(path)
    assert len(every) > 3
    assert verify(every).whole
    there = {entry["decision"] for file in every for entry in entries(file) if entry["kind"] == "decision"}
    assert set(acknowledged) <= there
    assert len(there) - len(set(acknowledged)) <= 30


def test_nothing_is_kept_open(tmp_path: Path) -> None:
    """A log that was closed holds no file, however often it rotated."""
    folder = Path("/proc/self/fd")
    if not folder.exists():
        folder = Path("/dev/fd")
    before = len(list(folder.iterdir()))
    written(tmp_path / "audit.jsonl", 50, max_bytes=3_000, fsync="interval")
    assert len(list(folder.iterdir())) == before
