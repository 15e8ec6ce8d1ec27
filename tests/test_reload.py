"""Reload: documents change between two decisions, and calls in flight do not notice (PL-9.4, PL-5.8)."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcp_policy_middleware import (
    DocumentError,
    Guard,
    Outcome,
    Policy,
    PolicyError,
    ToolCall,
    ToolDenied,
    load_policy,
    parse_policy,
    sources,
)
from mcp_policy_middleware.handover import Layer
from mcp_policy_middleware.stores import MemoryStore
from mcp_policy_middleware.testing import FrozenClock


def document(tool: str = "t", window: Any = "hour", top: int = 1, **more: Any) -> str:
    """A document that permits one tool, so many times in a window."""
    limits = [{"counter": "c", "window": window, "max": top}]
    return json.dumps({"version": "1", "default": "deny", "tools": {tool: {"limits": limits}}, **more})


OPEN = '{"version": "1", "default": "allow"}'
SHUT = '{"version": "1", "default": "deny"}'
BROKEN = '{"version": "1", "default": "perhaps"}'


def guarded(policies: Any, **settings: Any) -> Guard:
    """A guard without spans and with a clock that stands still."""
    return Guard(policies, **({"clock": FrozenClock(), "telemetry": False} | settings))


def allows(guard: Guard, server: str | None = None, tool: str = "t", **more: Any) -> bool:
    """Whether a call would be let go on."""
    return guard.explain(ToolCall(tool, {}, server=server, **more)).allowed


def problems_of(reload: Callable[[], None]) -> list[str]:
    """The names of the files or documents that a reload finds problems in."""
    with pytest.raises(DocumentError) as caught:
        reload()
    assert all(problem.message and problem.help for problem in caught.value.problems if not problem.line)
    return [Path(problem.source).name for problem in caught.value.problems]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A policy file that permits everything."""
    path = tmp_path / "policy.json"
    path.write_text(OPEN)
    return path


# ---- where a policy came from


def test_where_a_policy_came_from_is_no_part_of_it(file: Path) -> None:
    """A file's policy equals, and is written and identified as, that of the same text."""
    read, parsed = load_policy(file), parse_policy(OPEN, "policy.json")
    assert read == parsed
    assert (read.digest, read.model_dump(), repr(read)) == (parsed.digest, parsed.model_dump(), repr(parsed))
    assert read.model_json_schema() == parsed.model_json_schema()
    assert guarded(pickle.loads(pickle.dumps(read))).sources == guarded(read).sources != guarded(parsed).sources


def test_a_relative_path_is_kept_as_it_was_meant(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that changes its directory reads the same files again."""
    monkeypatch.chdir(file.parent)
    guards = [guarded(load_policy("policy.json")), guarded({"x": load_policy("policy.json")}), guarded(".")]
    monkeypatch.chdir("/")
    file.write_text(SHUT)
    for guard, server in zip(guards, (None, "x", "policy"), strict=True):
        assert allows(guard, server)
        guard.reload()
        assert not allows(guard, server)


def test_a_file_is_read_again_in_the_language_it_was_read_in(tmp_path: Path) -> None:
    """A document read as Intercept's by name stays Intercept's, where its keys alone would not tell."""
    path = tmp_path / "p.yaml"
    path.write_text("version: '1'\ndefault: deny\n")
    guard = guarded(load_policy(path, "intercept"))
    path.write_text("version: '1'\ndefault: deny\ndescription: changed\n")
    guard.reload()
    messages = [
        guarded(load_policy(path, dialect)).explain(ToolCall("t", {})).message for dialect in ("intercept", "auto")
    ]
    assert guard.explain(ToolCall("t", {})).message == messages[0] != messages[1]


@pytest.mark.parametrize("policies", [parse_policy(OPEN), {"x": parse_policy(OPEN)}, {}], ids=repr)
def test_texts_cannot_be_read_again(policies: Any) -> None:
    """A guard none of whose policies came from a file asks for the policies."""
    guard = guarded(policies)
    with pytest.raises(PolicyError) as caught:
        guard.reload()
    assert not isinstance(caught.value, DocumentError)


# ---- files, maps and directories


@pytest.mark.parametrize("way", ["in place", "by renaming"])
def test_a_changed_file_is_taken(way: str, file: Path) -> None:
    """A file that was rewritten or replaced is read; until then nothing changes."""
    guard = guarded(load_policy(file))
    if way == "in place":
        file.write_text(SHUT)
    else:
        new = file.with_suffix(".new")
        new.write_text(SHUT)
        new.rename(file)
    assert allows(guard)
    guard.reload()
    assert not allows(guard)
    assert guard.explain(ToolCall("t", {})).policy_digest == load_policy(file).digest


@pytest.mark.parametrize("spoil", [lambda f: f.write_text(BROKEN), lambda f: f.write_text(""), lambda f: f.unlink()])
def test_a_file_that_does_not_read_keeps_its_policy_until_it_is_mended(
    spoil: Callable[[Path], object], file: Path
) -> None:
    """An invalid, an empty and a deleted file keep the old policy and are told; a good one is then taken."""
    guard = guarded(load_policy(file))
    spoil(file)
    for _ in range(2):
        assert problems_of(guard.reload) == ["policy.json"]
        assert allows(guard)
    file.write_text(SHUT)
    guard.reload()
    assert not allows(guard)


def test_a_file_that_changes_while_it_is_read_is_not_taken(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read of a file that somebody is writing is not taken, valid or not, though it is as long as before."""
    for half in (OPEN, BROKEN):
        file.write_text(SHUT)
        guard = guarded(load_policy(file))

        def read(path: Path, dialect: Any, half: str = half) -> Policy:
            file.write_text(half)
            try:
                return load_policy(path, dialect)
            finally:
                file.write_text(SHUT.replace("deny", "deny "))

        with monkeypatch.context() as patched:
            patched.setattr(sources, "load_policy", read)
            with pytest.raises(DocumentError) as caught:
                guard.reload()
        assert [problem.line for problem in caught.value.problems] == [0]
        assert not allows(guard)


@pytest.mark.parametrize("of", ["file", "directory"])
def test_a_file_that_was_seen_otherwise_is_not_taken(of: str, file: Path) -> None:
    """Whoever has seen files at rest gets what they held then, or a problem; a new file was not seen."""
    guard = guarded({"policy": load_policy(file)} if of == "file" else file.parent)
    seen = guard.sources.fingerprint()
    guard.reload(seen=seen)
    file.write_text(SHUT)
    file.with_name("new.json").write_text(OPEN)
    told = problems_of(lambda: guard.reload(seen=seen))
    assert told == (["policy.json"] if of == "file" else ["new.json", "policy.json"])
    assert allows(guard, "policy")
    guard.reload(seen=guard.sources.fingerprint())
    assert (allows(guard, "policy"), allows(guard, "new")) == (False, of == "directory")


def test_each_document_of_a_map_is_taken_by_itself(tmp_path: Path) -> None:
    """What is wrong with one does not keep another, and a text stays as it is."""
    for name in "abc":
        (tmp_path / f"{name}.json").write_text(OPEN)
    policies = {name: load_policy(tmp_path / f"{name}.json") for name in "abc"}
    guard = guarded({**policies, "text": parse_policy(OPEN)})
    (tmp_path / "a.json").write_text(SHUT)
    (tmp_path / "b.json").write_text(BROKEN)
    (tmp_path / "c.json").unlink()
    assert problems_of(guard.reload) == ["b.json", "c.json"]
    assert [allows(guard, name) for name in ("a", "b", "c", "text")] == [False, True, True, True]


def test_each_document_of_a_directory_is_taken_by_itself(tmp_path: Path) -> None:
    """New, changed, invalid, doubled, misnamed and deleted files, and one for a grant, each have their own end."""
    for name in ("changed", "invalid", "doubled", "deleted", "kept"):
        (tmp_path / f"{name}.json").write_text(OPEN)
    guard = guarded(tmp_path)
    (tmp_path / "changed.json").write_text(SHUT)
    (tmp_path / "invalid.json").write_text(BROKEN)
    (tmp_path / "doubled.json").write_text(SHUT)
    (tmp_path / "doubled.yaml").write_text(SHUT)
    (tmp_path / "deleted.json").unlink()
    (tmp_path / "new.json").write_text(OPEN)
    (tmp_path / "newly broken.json").write_text(BROKEN)
    (tmp_path / "kept@ops.json").write_text(SHUT)
    (tmp_path / "@nobody.json").write_text(SHUT)
    told = problems_of(guard.reload)
    assert told == ["@nobody.json", "doubled.yaml", "invalid.json", "newly broken.json", tmp_path.name]
    answers = {"changed": False, "invalid": True, "doubled": True, "deleted": True, "new": True, "newly broken": False}
    assert {name: allows(guard, name) for name in answers} == answers
    assert (allows(guard, "kept"), allows(guard, "kept", grant="ops")) == (True, False)


def test_a_directory_that_is_gone_or_empty_keeps_its_policies(tmp_path: Path) -> None:
    """Neither takes a policy away, and what comes back is taken."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "x.json").write_text(OPEN)
    guard = guarded(folder)
    (folder / "x.json").unlink()
    assert problems_of(guard.reload)
    assert allows(guard, "x")
    shutil.rmtree(folder)
    assert problems_of(guard.reload) == ["policies"]
    assert allows(guard, "x")
    folder.mkdir()
    (folder / "x.json").write_text(SHUT)
    guard.reload()
    assert not allows(guard, "x")


def test_a_directory_behind_a_link_is_the_one_the_link_leads_to_now(tmp_path: Path) -> None:
    """A release that is put in place by swapping a link is read through the link."""
    for name, text in (("one", OPEN), ("two", SHUT)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.json").write_text(text)
    (tmp_path / "current").symlink_to("one")
    guard = guarded(tmp_path / "current")
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(tmp_path / "current")
    guard.reload()
    assert not allows(guard, "x")


# ---- other policies


def test_policies_that_are_given_take_the_place_of_all() -> None:
    """One policy, a map and one again: what the new ones do not name is gone."""
    guard = guarded(parse_policy(OPEN))
    guard.reload({"x": parse_policy(OPEN), "x@ops": parse_policy(SHUT)})
    assert (allows(guard), allows(guard, "x"), allows(guard, "x", grant="ops")) == (False, True, False)
    guard.reload({"y": parse_policy(OPEN)})
    assert (allows(guard, "x"), allows(guard, "y")) == (False, True)
    guard.reload(parse_policy(SHUT))
    assert not allows(guard, "y")


def test_policies_that_are_given_say_what_is_read_again(file: Path) -> None:
    """A directory or files that were given are read again from then on; a directory forgets what it holds no longer."""
    guard = guarded(parse_policy(SHUT))
    guard.reload(file.parent)
    assert allows(guard, "policy")
    file.with_name("other.json").write_text(OPEN)
    file.unlink()
    assert problems_of(guard.reload) == [file.parent.name]
    guard.reload(file.parent)
    assert (allows(guard, "policy"), allows(guard, "other")) == (False, True)
    guard.reload()
    guard.reload(parse_policy(SHUT))
    with pytest.raises(PolicyError):
        guard.reload()


@pytest.mark.parametrize("policies", [5, {"x": OPEN}, {"@x": parse_policy(OPEN)}, "missing"], ids=repr)
def test_policies_that_are_none_change_nothing(policies: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a guard would not be built of is refused, and the guard is as it was."""
    monkeypatch.chdir(tmp_path)
    guard = guarded({"x": parse_policy(OPEN)})
    with pytest.raises(PolicyError):
        guard.reload(policies)
    assert allows(guard, "x")


def test_a_given_directory_with_a_problem_is_not_taken_at_all(tmp_path: Path) -> None:
    """Other policies are taken whole or not at all: half of them beside half of the old is nobody's wish."""
    (tmp_path / "x.json").write_text(SHUT)
    (tmp_path / "y.json").write_text(BROKEN)
    guard = guarded({"x": parse_policy(OPEN)})
    assert problems_of(lambda: guard.reload(tmp_path)) == ["y.json"]
    assert allows(guard, "x")


# ---- what stays: the mode, what was learnt, what was compiled


def test_the_guards_mode_applies_to_what_is_taken(file: Path) -> None:
    """A guard in shadow mode stays in shadow, whatever the new document says (PL-4.4)."""
    guard = guarded(load_policy(file), mode="shadow")
    file.write_text('{"version": "1", "default": "deny", "mode": "enforce"}')
    guard.reload()
    decision = guard.explain(ToolCall("t", {}))
    assert (decision.effect, decision.allowed) == ("deny", True)


def test_names_that_a_list_taught_are_still_known(file: Path) -> None:
    """Tools that the server listed are known after a reload, to decisions before and after it."""
    guard = guarded(load_policy(file))
    guard.visible(["listed"])
    file.write_text(SHUT)
    guard.reload()
    for tool, known in (("listed", True), ("invented", False)):
        assert guard._passage.selection.knows(guard.explain(ToolCall(tool, {}))) is known


def test_an_unchanged_document_keeps_its_compiled_policy(tmp_path: Path) -> None:
    """A document written otherwise, with the same digest, keeps what was compiled; a changed one does not."""
    for name in "xy":
        (tmp_path / f"{name}.json").write_text(OPEN)
    guard = guarded(tmp_path)
    x, y = (guard._passage.selection.policy_for(name, "default") for name in "xy")
    (tmp_path / "x.json").write_text(json.dumps(json.loads(OPEN), indent=4))
    (tmp_path / "y.json").write_text('{"version": "1", "default": "allow", "description": "new"}')
    guard.reload()
    assert guard._passage.selection.policy_for("x", "default") is x
    assert guard._passage.selection.policy_for("y", "default") is not y
    guard.reload(tmp_path)
    assert guard._passage.selection.policy_for("x", "default") is x


def test_values_that_only_python_takes_for_equal_are_a_change(file: Path) -> None:
    """`true` in the place of 1 is another document."""
    rule = '{"version": "1", "default": "allow", "all_tools": {"deny_if": [{"conditions": [%s]}]}}'
    file.write_text(rule % '{"path": "args.a", "op": "eq", "value": 1}')
    guard = guarded(load_policy(file))
    assert not guard.explain(ToolCall("t", {"a": 1})).allowed
    file.write_text(rule % '{"path": "args.a", "op": "eq", "value": true}')
    guard.reload()
    assert not guard.explain(ToolCall("t", {"a": True})).allowed
    assert guard.explain(ToolCall("t", {"a": 1})).reason != "rule_denied"


# ---- counters (PL-5.8)


def test_counters_survive_and_a_changed_window_starts_afresh(file: Path) -> None:
    """A higher limit counts on from what was used; another window's counter is another counter."""
    file.write_text(document(top=1))
    guard = guarded(load_policy(file))
    call = ToolCall("t", {})
    assert guard.begin(call).allowed
    file.write_text(document(top=2))
    guard.reload()
    assert [guard.begin(call).allowed for _ in range(2)] == [True, False]
    file.write_text(document(top=2, window="minute"))
    guard.reload()
    assert [guard.begin(call).allowed for _ in range(3)] == [True, True, False]
    file.write_text(document(top=2))
    guard.reload()
    assert not guard.begin(call).allowed


@pytest.mark.parametrize(("window", "refused"), [("hour", False), (3601, True), ("day", True), ("month", True)])
def test_a_long_window_is_refused_where_nobody_named_a_store(window: Any, refused: bool, tmp_path: Path) -> None:
    """Its old policy stays, other documents are taken, and a guard that was given a store takes it."""
    for name in "xy":
        (tmp_path / f"{name}.json").write_text(SHUT)
    own, given = guarded(tmp_path), guarded(tmp_path, store=MemoryStore())
    (tmp_path / "x.json").write_text(document(window=window))
    (tmp_path / "y.json").write_text(OPEN)
    if refused:
        assert problems_of(own.reload) == ["x.json"]
        assert problems_of(lambda: own.reload({"z": parse_policy(document(window=window), "z")})) == ["z"]
    else:
        own.reload()
    assert (allows(own, "x"), allows(own, "y"), allows(own, "z")) == (not refused, True, False)
    given.reload()
    assert (allows(given, "x"), allows(given, "y")) == (True, True)


# ---- calls in flight


@pytest.mark.parametrize("outcome", [Outcome.RETURNED, Outcome.NOT_SENT])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_call_in_flight_settles_under_the_policy_that_admitted_it(
    outcome: Outcome, asynchronous: bool, file: Path
) -> None:
    """A call whose tool is forbidden meanwhile ends as it began, and its charge is kept or given back."""
    file.write_text(document())
    guard = guarded(load_policy(file))
    call = ToolCall("t", {})

    def send() -> str:
        file.write_text(document(tool="other"))
        guard.reload()
        assert guard.begin(call).reason == "default_deny"
        return "sent"

    async def asend() -> str:
        return send()

    if asynchronous:
        sent = asyncio.run(guard.arun(call, asend, lambda _: outcome))
    else:
        sent = guard.run(call, send, lambda _: outcome)
    assert sent == "sent"
    assert guard.explain(call).reason == "default_deny"
    file.write_text(document())
    guard.reload()
    assert allows(guard) is (outcome is Outcome.NOT_SENT)


def test_an_inner_layer_decides_by_the_policy_that_admitted_the_call(file: Path) -> None:
    """A deeper layer of a call in flight sees other arguments, and judges them by the old document; charged once."""
    file.write_text(document(top=2))
    guard = guarded(load_policy(file))
    made: list[str] = []

    def through() -> None:
        file.write_text(SHUT)
        guard.reload()
        inner = ToolCall("t", {"seen": "deeper"})
        guard.run(inner, lambda: made.append("made"), layer=Layer.SESSION)
        with pytest.raises(ToolDenied):  # a call of its own is decided by the new document
            guard.run(inner, lambda: made.append("never"), layer=Layer.SESSION)

    guard.run(ToolCall("t", {}), through, layer=Layer.TOOL)
    assert made == ["made"]
    file.write_text(document(top=2))
    guard.reload()
    assert [guard.begin(ToolCall("t", {})).allowed for _ in range(2)] == [True, False]


# ---- threads


def test_each_decision_is_wholly_of_one_policy(file: Path) -> None:
    """While one thread reloads 200 times, each of eight threads' decisions is one document's or the other's, whole."""
    texts = [document(top=10**6), document(tool="u", top=10**6, default="allow", hide=["t"])]
    reasons = [{"t": "allowed", "u": "default_deny"}, {"t": "hidden", "u": "allowed"}]
    expected: set[tuple[str, ...]] = set()
    for text, answers in zip(texts, reasons, strict=True):
        file.write_text(text)
        expected |= {(load_policy(file).digest, *answer) for answer in answers.items()}
    guard = guarded(load_policy(file))
    seen: set[tuple[str, ...]] = set()
    faults: list[BaseException] = []
    done = threading.Event()

    def decide() -> None:
        try:
            while not done.is_set():
                for tool in "tu":
                    decision = guard.begin(ToolCall(tool, {}))
                    guard.finish(decision, Outcome.RETURNED)
                    seen.add((decision.policy_digest, tool, decision.reason.value))
                assert guard.visible(["t", "u"]) in (["t", "u"], ["u"])
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=decide) for _ in range(8)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    reloads = 0
    while reloads < 200 or (seen != expected and not faults and time.monotonic() < deadline):
        file.write_text(texts[reloads % 2])
        guard.reload()
        reloads += 1
    done.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert seen == expected


def test_two_reloads_come_one_after_the_other(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload that began earlier and read an older file cannot take the place of a later one."""
    guard = guarded(load_policy(file))
    reading, go_on = threading.Event(), threading.Event()

    def slowly(path: Path, dialect: Any) -> Policy:
        policy = load_policy(path, dialect)
        reading.set()
        assert go_on.wait(30)
        return policy

    monkeypatch.setattr(sources, "load_policy", slowly)
    first = threading.Thread(target=guard.reload)
    first.start()
    assert reading.wait(30)
    second = threading.Thread(target=guard.reload, args=(parse_policy(SHUT),))
    second.start()
    second.join(0.1)
    assert second.is_alive(), "it waits for the first"
    go_on.set()
    first.join()
    second.join()
    assert not allows(guard)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs signals")
def test_a_signal_may_reload_while_a_reload_is_under_way(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that runs in the middle of a reload, on the same thread, neither waits for itself nor is undone."""
    guard = guarded(load_policy(file))
    asked: list[bool] = []
    read_again = sources.Sources.read_again

    def interrupted(*of: Any) -> Any:
        read = read_again(*of)
        if not asked:
            asked.append(True)
            file.write_text(SHUT)
            os.kill(os.getpid(), signal.SIGUSR1)
        return read

    monkeypatch.setattr(sources.Sources, "read_again", interrupted)
    before = signal.signal(signal.SIGUSR1, lambda *_: guard.reload())
    try:
        guard.reload()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert asked
    assert not allows(guard)
