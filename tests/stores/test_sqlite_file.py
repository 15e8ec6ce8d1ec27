"""A SQLite file whatever it holds: private where it is to be, and told apart from one that holds something else."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_policy_middleware import StoreError
from mcp_policy_middleware.backends.sqlite_contents import Contents
from mcp_policy_middleware.backends.sqlite_file import SQLiteFile
from mcp_policy_middleware.stores import SQLiteStore

NOTES = Contents("notes", "list", 0x6E6F_7465, 1, ("CREATE TABLE notes (note TEXT)",), private=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "notes.db"


@pytest.fixture(autouse=True)
def mask() -> Iterator[None]:
    """What the operator lets others read, unless a program says otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


def opened(path: Path) -> SQLiteFile:
    """A file of notes."""
    return SQLiteFile(path, NOTES, timeout=0.25, fsync=False)


def note(file: SQLiteFile) -> int:
    """Write one; how many there are."""
    database = file.opened()
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO notes VALUES ('x')")
    (count,) = database.execute("SELECT count(*) FROM notes").fetchone()
    database.execute("COMMIT")
    return int(count)


def stored(path: Path) -> int:
    """How many notes another process finds."""
    code = f"""
import sqlite3
database = sqlite3.connect({str(path)!r})
print(*database.execute("SELECT count(*) FROM notes").fetchone())
database.close()
"""
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)


def modes(folder: Path) -> dict[str, int]:
    """Each file of a folder, and who may read and write it."""
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


def no_links(*_: object, **__: object) -> None:
    """As on a file system that has none."""
    raise PermissionError(errno.EPERM, "no hard links")


@pytest.mark.parametrize("links", [True, False])
def test_a_private_file_is_the_owners_alone(path: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the log and the index of it, and nothing is left beside them."""
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    file = opened(path)
    assert file.run(note) == 1
    assert modes(path.parent) == dict.fromkeys(("notes.db", "notes.db-wal", "notes.db-shm"), 0o600)
    file.close()


def test_counters_are_made_as_the_operator_lets_them(tmp_path: Path) -> None:
    """They hold no secret, and processes of several users may share them."""
    SQLiteStore(tmp_path / "counters.db").close()
    assert modes(tmp_path) == {"counters.db": 0o644}


def test_a_file_that_is_there_keeps_its_mode(path: Path) -> None:
    """Whoever made it for a group meant it so."""
    path.touch(0o660)
    opened(path).close()
    assert modes(path.parent) == {"notes.db": 0o660}


@pytest.mark.parametrize("links", [True, False])
def test_whoever_is_slower_keeps_the_locks_of_the_quicker(
    path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two make the file at once in one process; another process must not take itself for the last user of the file
    then, and remove the log under the first, whose later notes nobody would see."""
    link = os.link
    quicker: list[SQLiteFile] = []

    def slow(*names: str) -> None:
        monkeypatch.setattr(os, "link", link)
        quicker.append(opened(path))
        assert quicker[0].run(note) == 1
        (link if links else no_links)(*names)

    monkeypatch.setattr(os, "link", slow)
    slower = opened(path)
    slower.close()
    assert stored(path) == 1
    assert quicker[0].run(note) == 2
    assert stored(path) == 2
    quicker[0].close()


def test_what_holds_something_else_is_refused(path: Path) -> None:
    """Counters are no notes, nor notes counters."""
    opened(path).close()
    with pytest.raises(StoreError):
        SQLiteStore(path)
    other = path.with_name("counters.db")
    SQLiteStore(other).close()
    with pytest.raises(StoreError):
        opened(other)


def test_a_file_that_vanishes_is_not_made_again(path: Path) -> None:
    """Nor is an empty one taken for it."""
    file = opened(path)
    path.unlink()
    with pytest.raises(StoreError):
        file.run(note)
    assert not path.exists()
    sqlite3.connect(path).close()
    with pytest.raises(StoreError):
        file.run(note)
