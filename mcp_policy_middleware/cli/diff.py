"""`mcp-policy diff`: which calls of policy tests are answered otherwise under another policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..printable import visible
from .output import write
from .test import find_tests, run_files

__all__ = ["diff"]


def diff(
    before: Annotated[Path, typer.Argument(metavar="A", help="A policy file or directory.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="The one to compare it with.")],
    tests: Annotated[
        list[Path] | None,
        typer.Option(help="Files of policy tests, or directories with them; left out, this one. May be repeated."),
    ] = None,
    all: Annotated[bool, typer.Option("--all", help="Tell of changes of reason or rule, too.")] = False,
) -> None:
    """Make the calls of policy tests under two policies and tell which change effect.

    What the tests expect does not matter, nor which policy they name. A case runs whole under each policy, so that a
    call may change because one before it was counted in one of them alone. Exit status 0: none changes; 1: some do;
    2: tests or policies do not read.
    """
    files = find_tests(tests or [Path()])
    reports = run_files(files, before, after)
    lines: list[str] = []
    made = 0
    for old_report, new_report in zip(reports[::2], reports[1::2], strict=True):
        for old, new in zip(old_report.results, new_report.results, strict=True):
            made += 1
            if old.effect != new.effect or (all and old.answer != new.answer):
                call = f"`{old.case}`, call {old.call} of `{old.tool}`"
                lines.append(f"{old.place}: {call}: {old.answer} -> {new.answer}")
    calls = "1 call" if made == 1 else f"{made} calls"
    lines.append(f"{len(lines)} of {calls} changed")
    write("".join(f"{visible(line)}\n" for line in lines))
    if len(lines) > 1:
        raise typer.Exit(1)
