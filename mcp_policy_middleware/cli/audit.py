"""`mcp-policy audit`: whether an audit log is whole, and what it says."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from heapq import merge
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ..audit import Head, Verification
from ..audit import verify as verify_log
from ..audit.chain import hashing
from ..audit.reading import in_order, lines
from ..errors import PolicyError
from ..policy.syntax import reason_of
from ..printable import visible
from .output import Format, fail, write
from .stores import table

__all__ = ["audit"]

audit = typer.Typer(no_args_is_help=True, help="Verify an audit log, and read it.")

_BY: Final = ("effect", "reason", "server", "tool", "grant", "outcome")
_MOST: Final = 20
_HOUR: Final = len("2026-01-01T00")
_SECOND: Final = len("2026-01-01T00:00:00")

Files = Annotated[list[str], typer.Argument(metavar="FILE...", help="The files of a log, in whatever order.")]


@audit.command()
def verify(
    files: Files,
    head: Annotated[
        list[str] | None,
        typer.Option(metavar="HASH[:SEQ]", help="A line that was there once, as `verify` printed it; repeatable."),
    ] = None,
    key_file: Annotated[str | None, typer.Option(help="The file whose bytes are the log's key.")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Older files were removed on purpose.")] = False,
    format: Annotated[Format, typer.Option(help="How it is printed.")] = Format.TEXT,
) -> None:
    """Tell whether each line is as it was written and follows the one before, and where not.

    Exit status 1: a log is broken. 2: a file or the key cannot be read.
    """
    with _said():
        heads = [Head.parse(text) for text in head or ()]
        found = verify_log(files, key=_key(key_file), heads=heads, partial=partial)
    write(_as_json(found) if format is Format.JSON else _as_text(found))
    if not found.whole:
        raise typer.Exit(1)


@audit.command()
def tail(
    files: Files,
    count: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many.")] = 20,
    format: Annotated[Format, typer.Option(help="How they are printed; `json`: as they are.")] = Format.TEXT,
) -> None:
    """Show the last lines, verified or not. Exit status 2: a file cannot be read."""
    with _said():
        last = deque(_entries(files), maxlen=count)
    if format is Format.JSON:
        write("".join(f"{json.dumps(entry, ensure_ascii=False, sort_keys=True)}\n" for entry in last))
        return
    write("".join(f"{_line(entry)}\n" for entry in last) or "the log has no lines\n")


@audit.command()
def stats(
    files: Files,
    format: Annotated[Format, typer.Option(help="How they are printed.")] = Format.TEXT,
) -> None:
    """Count decisions and ends, verified or not, by what they were. Exit status 2: a file cannot be read."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in (*_BY, "hour")}
    decisions = 0
    with _said():
        for entry in _entries(files):
            for name in _BY:
                if name in entry:
                    counts[name][_told(entry, name) or ""] += 1
            if entry["kind"] == "decision":
                decisions += 1
                counts["hour"][f"{entry['time'][:_HOUR]}Z {_told(entry, 'effect')}"] += 1
    if format is Format.JSON:
        told = {name: dict(sorted(counted.items())) for name, counted in counts.items()}
        write(json.dumps({"decisions": decisions, **told}, indent=2) + "\n")
        return
    write(table(("by", "what", "count"), _rows(counts)) if decisions else "the log has no decisions\n")


def _line(entry: dict[str, Any]) -> str:
    """One line for people, at whatever width; a name cannot pass for what stands beside it."""
    what = _told(entry, "effect") or entry["kind"]
    shown = {name: _told(entry, name) for name in ("reason", "server", "tool", "grant", "rule", "decision")}
    told = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in shown.items() if value is not None)
    return visible(f"{_told(entry, 'time')} {what:<6} {' '.join(told)}".rstrip())


def _rows(counts: dict[str, Counter[str]]) -> Iterator[tuple[str, str, int]]:
    """The most frequent of each, and the last hours."""
    for name, counted in counts.items():
        rows = sorted(counted.items())[-_MOST:] if name == "hour" else counted.most_common(_MOST)
        yield from ((name, what, count) for what, count in rows)
        if len(counted) > _MOST:
            rest = counted.total() - sum(count for _, count in rows)
            yield name, f"({len(counted) - _MOST} others)", rest


def _told(entry: dict[str, Any], name: str) -> str | None:
    """A member as text, for people."""
    value = entry.get(name)
    if name == "effect" and value is not None and entry.get("enforced") is False:
        return f"{value} (shadow)"
    if name == "reason" and value is None:
        value = entry.get("outcome")
    if name == "time":
        value = f"{entry[name][:_SECOND]}Z"
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _entries(files: Iterable[str]) -> Iterator[dict[str, Any]]:
    """What the lines say that read: as they follow each other in each log, and the logs by time."""
    hashed = hashing(None)  # nobody asks here whether they are whole

    def entries(log: list[str]) -> Iterator[dict[str, Any]]:
        return (line.entry for file in log for _, _, line in lines(file, hashed) if line is not None)

    return merge(*map(entries, in_order(files, hashed).values()), key=itemgetter("time"))


def _as_text(found: Verification) -> str:
    parts = [visible(f"note: {note}") + "\n" for note in found.notes]
    parts += [visible(f"{one} ({one.kind})") + "\n" for one in found.breaks]
    for log in found.logs:
        parts.append(visible(f"log {log.id or '-'}: {log.lines:,} lines, head {log.head or '-'}") + "\n")
    count = len(found.breaks)
    parts.append("whole\n" if found.whole else f"broken: {count} {'place' if count == 1 else 'places'}\n")
    return "".join(parts)


def _as_json(found: Verification) -> str:
    logs = [{**asdict(log), "head": log.head and str(log.head)} for log in found.logs]
    told = {"whole": found.whole, "logs": logs}
    told |= {"breaks": [asdict(one) for one in found.breaks], "notes": [asdict(note) for note in found.notes]}
    return json.dumps(told, indent=2) + "\n"


def _key(file: str | None) -> bytes | None:
    if file is None:
        return None
    try:
        return Path(file).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise PolicyError(f"`{file}` cannot be read: {reason_of(error)}") from None


@contextmanager
def _said() -> Iterator[None]:
    """Whatever cannot be done is said in one message."""
    try:
        yield
    except PolicyError as error:
        raise fail(str(error)) from None
