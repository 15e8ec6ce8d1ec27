"""`mcp-policy validate`: what is wrong with policies, and what is unwise."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from ..errors import DocumentError, Problem
from ..policy import load_directory, parse_policy
from ..policy.lint import Advice, ToolList, lint, read_tool_list
from ..policy.portable import extensions
from ..policy.syntax import MAX_BYTES, reason_of
from ..printable import visible
from .output import write

__all__ = ["validate"]

_SUFFIXES: Final = (".json", ".yaml", ".yml")


class Format(StrEnum):
    """How findings are printed."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


@dataclass(slots=True)
class _File:
    """What was found in one file: what is wrong, and what is unwise."""

    path: str
    problems: list[Problem] = field(default_factory=list)
    advice: list[Advice] = field(default_factory=list)

    @property
    def findings(self) -> list[Problem | Advice]:
        """Both, what is wrong first."""
        return [*self.problems, *self.advice]


def validate(
    files: Annotated[list[Path], typer.Argument(help="Policies, or directories of policies.", metavar="FILE...")],
    portable: Annotated[
        bool, typer.Option("--portable", help="List what other readers of policy.json do not know.")
    ] = False,
    tools: Annotated[
        list[Path] | None,
        typer.Option(help="A server's `tools/list` answer, in JSON, to compare names and arguments with; repeatable."),
    ] = None,
    output_format: Annotated[Format, typer.Option("--format", help="How to print what is found.")] = Format.TEXT,
) -> None:
    """Check policies: every problem with its place, and advice on what is valid and unwise.

    A list of tools that names its server is for that server's policies: `stripe` for `stripe.json` and
    `stripe@support.json`. Where no file is named after it, it is for every file.

    Exit status 0: good. 1: there is advice. 2: a document does not read, or a file cannot be read.
    """
    found: list[_File] = []
    lists: list[ToolList] = []
    for path in tools or ():
        try:
            lists.append(read_tool_list(_bytes(path), str(path)))
        except DocumentError as error:
            found.append(_File(str(path), list(error.problems)))
    places = list(dict.fromkeys(file for path in files for file in _files_of(path, found)))
    found += [_checked(path, _tools_for(path, places, lists), portable=portable) for path in places]
    for path in files:
        if path.is_dir():
            _check_names(path, found)
    write(_PRINTERS[output_format](found))
    if any(file.problems for file in found):
        raise typer.Exit(2)
    if any(file.advice for file in found):
        raise typer.Exit(1)


def _files_of(path: Path, found: list[_File]) -> list[Path]:
    """The file itself, or the policies in a directory (PL-9.1)."""
    try:
        if not path.is_dir():
            return [path]
        return sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and not file.name.startswith("."))
    except (OSError, ValueError) as error:
        problem = Problem(str(path), 0, 0, "", f"the directory cannot be read: {reason_of(error)}", "")
        found.append(_File(str(path), [problem]))
        return []


def _check_names(folder: Path, found: list[_File]) -> None:
    """What is wrong with a directory as a whole: no policy in it, or a file's name that names no server."""
    known = {problem for file in found for problem in file.problems}
    try:
        load_directory(folder)
    except DocumentError as error:
        for problem in error.problems:
            if problem not in known:
                file = next((one for one in found if one.path == problem.source), None)
                if file is None:
                    file = _File(problem.source)
                    found.append(file)
                file.problems.insert(0, problem)


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        message = f"the file cannot be read: {reason_of(error)}"
        raise DocumentError([Problem(str(path), 0, 0, "", message, "give the path of a file")]) from None


def _checked(path: Path, tools: ToolList | None, *, portable: bool) -> _File:
    file = _File(str(path))
    try:
        data = _bytes(path)
        policy = parse_policy(data, file.path)
    except DocumentError as error:
        file.problems = list(error.problems)
        return file
    file.advice = lint(data, policy, tools, source=file.path)
    if portable:
        file.advice += extensions(data, policy, source=file.path)
        file.advice.sort(key=lambda advice: (advice.line, advice.column))
    return file


def _tools_for(path: Path, files: Sequence[Path], lists: Sequence[ToolList]) -> ToolList | None:
    """The lists of the policy's server, and those that are for no file's server alone."""
    servers = {_server_of(file) for file in files}
    mine = [one for one in lists if one.server is None or one.server not in servers or one.server == _server_of(path)]
    return ToolList.union(mine) if mine else None


def _server_of(path: Path) -> str:
    return path.stem.partition("@")[0]


def _as_text(files: Sequence[_File]) -> str:
    console = Console(highlight=False, soft_wrap=True)
    with console.capture() as captured:
        for file in files:
            for one in file.findings:
                kind = Text("error", "bold red") if isinstance(one, Problem) else Text("warning", "bold yellow")
                place = f"{one.source}:{one.line}:{one.column}" if one.line else one.source
                code = "" if isinstance(one, Problem) else f"[{one.code}]"
                console.print(Text.assemble(f"{visible(place)}: ", kind, f"{code}: {visible(one.message)}"))
                if one.help:
                    console.print(Text(f"  help: {visible(one.help)}", "dim"))
        errors, warnings = (sum(len(getattr(file, kind)) for file in files) for kind in ("problems", "advice"))
        total = f"{_count(len(files), 'file')}: {_count(errors, 'error')}, {_count(warnings, 'warning')}"
        console.print(Text(total, "bold"))
    return captured.get()


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number or 'no'} {what}s"


def _as_json(files: Sequence[_File]) -> str:
    document = {
        "files": [
            {
                "path": file.path,
                "problems": [_plain(one) for one in file.problems],
                "advice": [_plain(one) | {"code": one.code} for one in file.advice],
            }
            for file in files
        ]
    }
    return json.dumps(document, indent=2) + "\n"


def _plain(one: Problem | Advice) -> dict[str, Any]:
    return {
        "line": one.line,
        "column": one.column,
        "pointer": one.pointer,
        "message": one.message,
        "help": one.help,
    }


def _as_github(files: Sequence[_File]) -> str:
    """Workflow commands, which GitHub shows beside the lines they are about."""
    lines = []
    for file in files:
        for one in file.findings:
            error = isinstance(one, Problem)
            title = "policy does not read" if isinstance(one, Problem) else one.code
            place = f",line={one.line},col={one.column}" if one.line else ""
            text = f"{one.message}\nhelp: {one.help}" if one.help else one.message
            command = f"{'error' if error else 'warning'} file={_property(one.source)}{place},title={_property(title)}"
            lines.append(f"::{command}::{_escaped(text)}\n")
    return "".join(lines)


def _escaped(text: str) -> str:
    """As GitHub's toolkit escapes; what is not text, as in a file's name, is spelled out."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


_PRINTERS: Final[dict[Format, Callable[[Sequence[_File]], str]]] = {
    Format.TEXT: _as_text,
    Format.JSON: _as_json,
    Format.GITHUB: _as_github,
}
