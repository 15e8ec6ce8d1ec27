"""What commands print and write; where that fails, one clear message and status 2, never a traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TextIO

import typer

from ..errors import DocumentError, Problem
from ..policy.syntax import reason_of
from ..views.text import visible

__all__ = ["Format", "fail", "fail_with", "visible", "write"]


class Format(StrEnum):
    """How a command prints what it has to say."""

    TEXT = "text"
    JSON = "json"


def fail(message: str, help: str = "") -> typer.Exit:
    """Say on stderr why the command stops, and return what to raise: status 2."""
    typer.echo(visible(message) + (f"\n  help: {visible(help)}" if help else ""), err=True)
    return typer.Exit(2)


def fail_with(problems: Iterable[Problem]) -> typer.Exit:
    """The same, for documents that do not read."""
    typer.echo("\n".join(map(visible, str(DocumentError(problems)).splitlines())), err=True)
    return typer.Exit(2)


def write(text: str, path: Path | None = None) -> None:
    """Write a command's whole output.

    Args:
        text: What to write, with its last newline.
        path: The file; stdout where it is None.

    Raises:
        typer.Exit: It cannot be written, and that has been said.
    """
    try:
        if path is not None:
            path.write_bytes(text.encode())
            return
        stdout: TextIO | None = sys.stdout  # none where it was closed before Python began
        if stdout is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        stdout.flush()
        stdout.buffer.write(text.encode())
        stdout.buffer.flush()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path, or stdout is closed
        if path is None:
            _give_up_stdout()
        where = "the output" if path is None else f"`{path}`"
        raise fail(f"{where} cannot be written: {reason_of(error)}") from None


def _give_up_stdout() -> None:
    """Let nothing be flushed to a broken pipe when Python ends."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):  # there is none
        return
