"""The watcher: whatever way files change, what is whole and valid is taken, and nothing else is (PL-9.4)."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from mcp_policy_middleware import (
    DocumentError,
    Guard,
    MissingDependency,
    PolicyError,
    ToolCall,
    load_policy,
    parse_policy,
    watcher,
)
from mcp_policy_middleware.sources import Fingerprint, Sources
from mcp_policy_middleware.watcher import PolicyWatcher, watch

watchfiles = pytest.importorskip("watchfiles")

OPEN = '{"version": "1", "default": "allow"}'
SHUT = '{"version": "1", "default": "deny"}'
BROKEN = '{"version": "1", "default": "perhaps"}'
DEADLINE = 30.0
THREAD = "mcp-policy-watcher"


class Recorded(Guard):
    """A guard without spans that knows which documents were ever in force."""

    def __init__(self, policies: Any) -> None:
        super().__init__(policies, telemetry=False)
        self.changed = threading.Condition()
        self.digests = [self.digest()]

    def digest(self) -> str:
        """The document of server `policy`, or the one for every call."""
        return self.explain(ToolCall("t", {}, server="policy")).policy_digest

    def reload(self, policies: Any = None, **how: Any) -> None:
        """Reload, and write down what is then in force."""
        try:
            super().reload(policies, **how)
        finally:
            with self.changed:
                self.digests.append(self.digest())
                self.changed.notify_all()

    def allows(self, server: str = "policy", **more: Any) -> bool:
        """Whether a call would be let go on."""
        return self.explain(ToolCall("t", {}, server=server, **more)).allowed

    def becomes(self, condition: Callable[[], bool]) -> bool:
        """Whether the condition comes to hold after some reload."""
        with self.changed:
            return self.changed.wait_for(condition, DEADLINE)


class Watched:
    """A guard under a watcher, and the problems that it was told of."""

    def __init__(self, policies: Any) -> None:
        self.guard = Recorded(policies)
        self.problems: Queue[PolicyError] = Queue()
        self.watcher = watch(self.guard, on_problems=self.problems.put)

    def problem(self) -> DocumentError:
        """The next problem that is told."""
        error = self.problems.get(timeout=DEADLINE)
        assert isinstance(error, DocumentError)
        return error

    def begins(self) -> bool:
        """Whether the watcher has its first look."""
        return self.guard.becomes(lambda: len(self.guard.digests) > 1)

    def opens(self, server: str = "policy", **more: Any) -> bool:
        """Whether calls come to be let go on."""
        return self.guard.becomes(lambda: self.guard.allows(server, **more))

    def shuts(self, server: str = "policy", **more: Any) -> bool:
        """Whether calls come to be denied."""
        return self.guard.becomes(lambda: not self.guard.allows(server, **more))


class Looks:
    """Counts how often a watcher looks at the files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._looked = threading.Condition()
        self._count = 0
        look = Sources.fingerprint

        def counted(of: Sources) -> Fingerprint:
            with self._looked:
                self._count += 1
                self._looked.notify_all()
            return look(of)

        monkeypatch.setattr(Sources, "fingerprint", counted)

    def several(self) -> bool:
        """Whether the watcher goes on looking."""
        with self._looked:
            enough = self._count + 3
            return self._looked.wait_for(lambda: self._count >= enough, DEADLINE)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A policy file that permits everything, in a directory of its own."""
    path = tmp_path / "policies" / "policy.json"
    path.parent.mkdir()
    path.write_text(OPEN)
    return path


@pytest.fixture
def watched(request: pytest.FixtureRequest, file: Path) -> Iterator[Watched]:
    """A guard of the file, or of its directory, under a watcher that has had its first look."""
    watched = Watched(load_policy(file) if getattr(request, "param", "file") == "file" else file.parent)
    with watched.watcher:
        assert watched.begins()
        yield watched


@pytest.fixture(autouse=True)
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a link far away leads to is looked at ten times a second."""
    monkeypatch.setattr(watcher, "_AT_LEAST_EVERY", 0.1)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Whatever a test does, its watcher's thread ends with it."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def replace(path: Path, text: str) -> None:
    """Put a whole file in place, as most editors do."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.rename(path)


EITHER = pytest.mark.parametrize("watched", ["file", "directory"], indirect=True)

# ---- one file


@EITHER
@pytest.mark.parametrize("write", [replace, Path.write_text])
def test_a_changed_file_is_taken(write: Callable[[Path, str], object], watched: Watched, file: Path) -> None:
    """A file that is replaced by renaming, or written in place, is taken each time."""
    for _ in range(3):
        write(file, SHUT)
        assert watched.shuts()
        write(file, OPEN)
        assert watched.opens()
    assert write is not replace or watched.problems.empty()


@EITHER
def test_an_invalid_file_is_told_and_then_mended(watched: Watched, file: Path) -> None:
    """The old policy stays until the file is valid again."""
    file.write_text(BROKEN)
    assert [problem.pointer for problem in watched.problem().problems] == ["/default"]
    assert watched.guard.allows()
    file.write_text(SHUT)
    assert watched.shuts()


@EITHER
def test_a_deleted_file_is_told_and_may_return(watched: Watched, file: Path) -> None:
    """The old policy stays until the file is there again."""
    file.unlink()
    assert watched.problem().problems
    assert watched.guard.allows()
    file.write_text(SHUT)
    assert watched.shuts()


@EITHER
def test_a_file_written_in_pieces_is_taken_when_it_is_whole(watched: Watched, file: Path) -> None:
    """A writer that pauses for long is told of each time, and no piece of what it writes is in force."""
    text = json.dumps({"version": "1", "default": "deny", "tools": {f"t{n}": {} for n in range(9)}})
    pieces = [text[at : at + 60] for at in range(0, len(text), 60)]
    with file.open("w") as slow:
        for piece in pieces[:-1]:
            slow.write(piece)
            slow.flush()
            assert watched.problem().problems
            assert watched.guard.allows()
        slow.write(pieces[-1])
    assert watched.shuts()
    assert set(watched.guard.digests) == {parse_policy(OPEN).digest, parse_policy(text).digest}


def test_half_a_document_that_is_valid_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that grows from look to look is left alone, though each part of it would be a wider document."""
    file = tmp_path / "policy.yaml"
    file.write_text("version: '1'\ndefault: deny\n")
    parts = ["version: '1'\n", "default: allow\n", "tools:\n", *(f"  t{n}: {{action: deny}}\n" for n in range(9))]
    whole = parse_policy("".join(parts), "policy.yaml")
    unwritten: list[str] = []
    look = Sources.fingerprint

    def write_and_look(of: Sources) -> Fingerprint:
        if unwritten:
            with file.open("a") as growing:
                growing.write(unwritten.pop(0))
        return look(of)

    monkeypatch.setattr(Sources, "fingerprint", write_and_look)
    watched = Watched(load_policy(file))
    with watched.watcher:
        assert watched.begins()
        before = watched.guard.digest()
        file.write_text("")
        unwritten.extend(parts)
        assert watched.guard.becomes(lambda: watched.guard.digest() == whole.digest)
    assert set(watched.guard.digests) == {before, whole.digest}


@EITHER
def test_a_write_that_begins_before_the_reading_is_not_taken(
    watched: Watched, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a document that is put in the place of one at rest, just before that is read, is never in force."""
    half, whole = (OPEN.replace("}", f', "description": "{part}"}}') for part in ("half", "whole"))
    reload = Guard.reload
    caught: list[bool] = []

    def overtaken(guard: Guard, policies: Any = None, **how: Any) -> None:
        if caught:
            reload(guard, policies, **how)
            return
        caught.append(True)
        file.write_text(half)
        try:
            reload(guard, policies, **how)
        finally:
            watched.guard.digests.append(watched.guard.digest())
            file.write_text(whole)

    monkeypatch.setattr(Guard, "reload", overtaken)
    replace(file, SHUT)
    assert watched.guard.becomes(lambda: watched.guard.digest() == parse_policy(whole).digest)
    assert watched.problem().problems
    assert set(watched.guard.digests) == {parse_policy(text).digest for text in (OPEN, whole)}


def test_a_file_that_never_rests_is_told_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that keep changing are a problem that names them; they are taken once they rest."""
    monkeypatch.setattr(watcher, "_AT_REST", 0.001)
    monkeypatch.setattr(watcher, "_MOST_LOOKS", 3)
    ages = count()
    rests = threading.Event()
    look = Sources.fingerprint
    monkeypatch.setattr(
        Sources, "fingerprint", lambda of: look(of) if rests.is_set() else {**look(of), str(file): (next(ages),)}
    )
    looks = Looks(monkeypatch)
    watched = Watched(load_policy(file))
    with watched.watcher:
        file.write_text(SHUT)
        assert [problem.source for problem in watched.problem().problems] == [str(file)]
        assert looks.several()
        assert looks.several()
        assert watched.problems.empty()
        assert watched.guard.allows()
        rests.set()
        assert watched.shuts()


def test_a_problem_is_told_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the files are as they were, looking at them again tells nothing, and reads nothing."""
    looks = Looks(monkeypatch)
    watched = Watched(load_policy(file))
    with watched.watcher:
        replace(file, BROKEN)
        watched.problem()
        reloads = len(watched.guard.digests)
        assert looks.several()
        assert watched.problems.empty()
        assert len(watched.guard.digests) == reloads


def test_what_changed_before_the_watcher_began_is_taken(file: Path) -> None:
    """A change between building the guard and watching it is no change that was missed."""
    guard = Recorded(load_policy(file))
    file.write_text(SHUT)
    with watch(guard):
        assert guard.becomes(lambda: not guard.allows())


# ---- directories and links


@pytest.mark.parametrize("watched", ["directory"], indirect=True)
def test_new_files_of_a_directory_are_taken(watched: Watched, file: Path) -> None:
    """A server's new file, and one for a grant, are taken."""
    assert not watched.guard.allows("new")
    replace(file.with_name("new.json"), OPEN)
    assert watched.opens("new")
    replace(file.with_name("policy@ops.json"), SHUT)
    assert watched.shuts(grant="ops")
    assert watched.guard.allows()
    assert watched.problems.empty()


@pytest.mark.parametrize("of", ["file", "directory"])
def test_a_config_map_is_taken_when_its_link_is_swapped(of: str, tmp_path: Path) -> None:
    """As Kubernetes does it: the file is a link through `..data`, which is a link that is replaced."""
    mount = tmp_path / "mount"
    mount.mkdir()

    def publish(version: str, text: str) -> None:
        (mount / version).mkdir()
        (mount / version / "policy.json").write_text(text)
        (mount / "..data_tmp").symlink_to(version)
        (mount / "..data_tmp").rename(mount / "..data")

    publish("..2026_01", OPEN)
    (mount / "policy.json").symlink_to("..data/policy.json")
    watched = Watched(load_policy(mount / "policy.json") if of == "file" else mount)
    with watched.watcher:
        assert watched.begins()
        publish("..2026_02", SHUT)
        shutil.rmtree(mount / "..2026_01")
        assert watched.shuts()
        publish("..2026_03", OPEN)
        assert watched.opens()
    assert watched.problems.empty()


@pytest.mark.parametrize("of", ["file", "directory"])
def test_a_directory_is_replaced_through_a_link(of: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to a release is swapped, and the directory that it leads to then is watched anew."""
    begun: Queue[str] = Queue()
    begin = watchfiles.watch
    monkeypatch.setattr(
        watchfiles, "watch", lambda path, **how: begun.put(Path(path).resolve().name) or begin(path, **how)
    )
    for name, text in (("one", OPEN), ("two", SHUT)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy.json").write_text(text)
    current = tmp_path / "current"
    current.symlink_to("one")
    watched = Watched(load_policy(current / "policy.json") if of == "file" else current)
    with watched.watcher:
        assert begun.get(timeout=DEADLINE) == "one"
        (tmp_path / "next").symlink_to("two")
        (tmp_path / "next").rename(current)
        assert watched.shuts()
        replace(tmp_path / "two" / "policy.json", OPEN)
        assert watched.opens()
        assert begun.get(timeout=DEADLINE) == "two"
    assert watched.problems.empty()


@EITHER
def test_a_directory_is_deleted_and_made_again(watched: Watched, file: Path) -> None:
    """Its policies stay, what comes back is taken, and the new directory is watched."""
    shutil.rmtree(file.parent)
    assert watched.problem().problems
    assert watched.guard.allows()
    file.parent.mkdir()
    replace(file, SHUT)
    assert watched.shuts()
    replace(file, OPEN)
    assert watched.opens()


def test_policies_that_the_guard_is_given_are_watched_instead(
    watched: Watched, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload with another directory moves the watch, one with a text leaves nothing to watch or to tell."""
    looks = Looks(monkeypatch)
    other = tmp_path / "other"
    other.mkdir()
    (other / "policy.json").write_text(OPEN)
    watched.guard.reload(other)
    replace(other / "policy.json", SHUT)
    assert watched.shuts()
    watched.guard.reload(parse_policy(OPEN))
    assert looks.several()
    assert watched.problems.empty()
    watched.guard.reload(load_policy(file))
    replace(file, SHUT)
    assert watched.shuts()


# ---- the thread


def test_an_event_is_enough_and_closing_does_not_wait_for_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change is taken long before the next look is due, and closing ends a wait of an hour."""
    monkeypatch.setattr(watcher, "_AT_LEAST_EVERY", 3600.0)
    guard = Recorded(load_policy(file))
    deadline = time.monotonic() + DEADLINE
    with watch(guard):
        assert THREAD in {thread.name for thread in threading.enumerate()}
        while guard.allows() and time.monotonic() < deadline:  # the first event may come before the watch stands
            replace(file, SHUT)
            with guard.changed:
                guard.changed.wait_for(lambda: not guard.allows(), 1)
    assert not guard.allows()
    assert THREAD not in {thread.name for thread in threading.enumerate()}


def test_a_watcher_may_be_closed_again_and_by_its_own_thread(file: Path, watched: Watched) -> None:
    """Closing twice, at the end of a `with` block, or where a problem is told, is fine; nothing is taken any more."""
    with watched.watcher as same:
        assert same is watched.watcher
    watched.watcher.close()
    file.write_text(SHUT)
    closing: list[PolicyWatcher] = []
    told = threading.Event()

    def close(_: PolicyError) -> None:
        closing[0].close()
        told.set()

    guard = Recorded(load_policy(file))
    closing.append(watch(guard, on_problems=close))
    file.write_text(BROKEN)
    assert told.wait(DEADLINE)
    closing[0].close()
    assert watched.guard.allows()


def test_faults_of_the_application_do_not_end_the_watch(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An `on_problems` that raises and a reload that fails in no known way are logged, and later changes are taken."""
    called = threading.Event()

    def broken(_: PolicyError) -> None:
        called.set()
        raise RuntimeError

    guard = Recorded(load_policy(file))
    with watch(guard, on_problems=broken):
        file.write_text(BROKEN)
        assert called.wait(DEADLINE)
        with monkeypatch.context() as patched:
            patched.setattr(Guard, "reload", lambda *_, **__: 1 / 0)
            reloads = len(guard.digests)
            replace(file, OPEN)
            assert guard.becomes(lambda: len(guard.digests) > reloads)
        replace(file, SHUT)
        assert guard.becomes(lambda: not guard.allows())
    kinds = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert kinds == [RuntimeError, ZeroDivisionError]


def test_without_events_files_are_looked_at_all_the_same(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system cannot watch another directory, a change is taken at the next look."""

    def full(*_: object, **__: object) -> Iterator[object]:
        raise OSError("no space left on device")

    monkeypatch.setattr(watchfiles, "watch", full)
    monkeypatch.setattr(watcher, "_AT_LEAST_EVERY", 0.01)
    guard = Recorded(load_policy(file))
    with watch(guard):
        replace(file, SHUT)
        assert guard.becomes(lambda: not guard.allows())


def test_an_async_application_is_reloaded_alike(watched: Watched, file: Path) -> None:
    """A task that awaits its calls sees the new policy between two of them."""

    async def main() -> None:
        async def send() -> str:
            return "sent"

        assert await watched.guard.arun(ToolCall("t", {}, server="policy"), send) == "sent"
        replace(file, SHUT)
        assert await asyncio.to_thread(watched.shuts)
        assert not (await watched.guard.aexplain(ToolCall("t", {}, server="policy"))).allowed

    asyncio.run(main())


@pytest.mark.parametrize("policies", [parse_policy(OPEN), {"x": parse_policy(OPEN)}], ids=["one", "map"])
def test_a_guard_of_texts_has_nothing_to_watch(policies: Any) -> None:
    """Watching what is in no file is refused."""
    with pytest.raises(PolicyError):
        watch(Guard(policies, telemetry=False))


def test_without_watchfiles_the_extra_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watching without `watchfiles` names what to install."""
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(MissingDependency) as caught:
        watch(Guard(load_policy(file), telemetry=False))
    assert caught.value.extra == "watch"
