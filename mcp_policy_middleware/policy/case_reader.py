"""Text -> policy tests, or every problem at once with its line and column (PL-1.2)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path as FilePath
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ..errors import DocumentError, Problem
from .cases import MOST_REPEATS, Case, CaseCall, CaseDocument, Expected
from .model import Policy
from .reader import load_directory, load_policy, parse_policy
from .syntax import Node, Path, Place, SyntaxProblem, pointer, read_file, read_text

__all__ = ["CaseFile", "load_cases", "parse_cases"]

_CALLER: Final = ("server", "grant", "session", "context")
_CONCEPTS: Final[tuple[type[BaseModel], ...]] = (CaseDocument, Case, CaseCall, Expected)
_NAMES: Final = ("the document", "a case", "a call", "an expectation")
_WORDS: Final = {
    "string_type": ("must be text", "put it in quotes"),
    "int_type": ("must be a whole number", "write it without quotes"),
    "dict_type": ("must be an object", "write `key: value` pairs"),
    "model_type": ("must be an object", "write `key: value` pairs"),
    "tuple_type": ("must be a list", "write `- ` before each entry"),
    "too_short": ("is empty", "add an entry"),
    "string_too_short": ("is blank", "give a name"),
    "string_pattern_mismatch": ("is blank", "give a name"),
    "greater_than_equal": (f"must be from 1 to {MOST_REPEATS}", "write a number in that range"),
    "less_than_equal": (f"must be from 1 to {MOST_REPEATS}", "write a number in that range"),
}


@dataclass(frozen=True, slots=True)
class CaseFile:
    """A validated document of policy tests.

    Attributes:
        source: Its file or name.
        cases: The cases, whose calls have taken over the defaults of case and document.
        policy: The policy it names or holds; None where it leaves that to whoever runs it.
        lines: For each case, the line of each call; 0 where the document was no text.
    """

    source: str
    cases: tuple[Case, ...]
    policy: FilePath | Policy | None
    lines: tuple[tuple[int, ...], ...]

    def policies(self) -> Policy | dict[str, Policy]:
        """The policy of the tests, or the policies by server where it is a directory.

        Raises:
            DocumentError: It does not read, or the tests name none.
        """
        if self.policy is None:
            advice = "add `policy:` with a path from this file"
            raise DocumentError([Problem(self.source, 0, 0, "", "the tests name no policy", advice)])
        if isinstance(self.policy, Policy):
            return self.policy
        return load_directory(self.policy) if self.policy.is_dir() else load_policy(self.policy)


def load_cases(path: str | os.PathLike[str]) -> CaseFile:
    """Read a file of policy tests; `.json` is read as JSON, anything else as YAML.

    Raises:
        DocumentError: The file cannot be read or is not valid; `.problems` has them all.
    """
    source = os.fspath(path)
    data = read_file(source, "give the path of a file of policy tests")
    return _read(data, source, FilePath(source).parent, in_lines=True)


def parse_cases(document: Mapping[str, Any], name: str = "policy tests") -> CaseFile:
    """Policy tests from a document in Python; a policy's path is then from the working directory.

    Raises:
        DocumentError: The document is not valid; `.problems` has every problem.
    """
    try:
        text = json.dumps(document)
    except (TypeError, ValueError) as error:
        problem = Problem(name, 0, 0, "", f"the document is not JSON: {error}", "write plain values")
        raise DocumentError([problem]) from None
    return _read(text, name, FilePath(), in_lines=False)


def _read(data: str | bytes, source: str, folder: FilePath, *, in_lines: bool) -> CaseFile:
    try:
        tree, problems = read_text(data, source)
    except SyntaxProblem as error:
        raise DocumentError(error.problems) from None
    plain = tree.plain()
    document: CaseDocument | None = None
    try:
        document = CaseDocument.model_validate(plain)
    except ValidationError as error:
        for path, kind, message, advice in _findings(error):
            problems.append(Problem(source, *_place(tree, path, kind), pointer(path), message, advice))
    policy: FilePath | Policy | None = None
    written = plain.get("policy") if type(plain) is dict else None
    if type(written) is str:
        policy = folder / written
    elif type(written) is dict and not problems:
        try:
            policy = parse_policy(json.dumps(written), f"policy of {FilePath(source).name}")
        except DocumentError as error:
            problems += [_moved(problem, source, tree) for problem in error.problems]
    problems += _repeated(source, tree, document)
    if document is None or problems:
        if not in_lines:
            problems = [Problem(source, 0, 0, one.pointer, one.message, one.help) for one in problems]
        raise DocumentError(sorted(problems, key=lambda problem: (problem.line, problem.column)))
    cases = tuple(_completed(case.taking(document, *_CALLER, "at")) for case in document.cases)
    lines = tuple(
        tuple(_place(tree, ("cases", i, "calls", j), "")[0] if in_lines else 0 for j in range(len(case.calls)))
        for i, case in enumerate(cases)
    )
    return CaseFile(source, cases, policy, lines)


def _completed(case: Case) -> Case:
    return case.model_copy(update={"calls": tuple(call.taking(case, *_CALLER) for call in case.calls)})


def _repeated(source: str, tree: Node, document: CaseDocument | None) -> Iterator[Problem]:
    """Names are what reports call a case by."""
    known: set[str] = set()
    for index, case in enumerate(document.cases if document else ()):
        if case.name in known:
            path: Path = ("cases", index, "name")
            message = f"case `{case.name}` occurs twice"
            yield Problem(source, *_place(tree, path, ""), pointer(path), message, "give each case a name of its own")
        known.add(case.name)


def _moved(problem: Problem, source: str, tree: Node) -> Problem:
    """A problem of the policy inside, where it stands in this document."""
    inside = [step.replace("~1", "/").replace("~0", "~") for step in problem.pointer.split("/")[1:]]
    place = _place(tree, ("policy", *inside), "key" if "unknown key" in problem.message else "")
    return Problem(source, *place, f"/policy{problem.pointer}", problem.message, problem.help)


def _place(tree: Node, path: Path, kind: str) -> Place:
    """Where the value at the path stands, or its key where the key is the problem."""
    node = tree
    for index, step in enumerate(path):
        if type(node.value) is dict and str(step) in node.value:
            if index == len(path) - 1 and kind in ("extra_forbidden", "key"):
                return node.keys[str(step)]
            node = node.value[str(step)]
        elif type(node.value) is list and str(step).isdigit() and int(step) < len(node.value):
            node = node.value[int(step)]
        else:
            break
    return node.place


def _findings(error: ValidationError) -> Iterator[tuple[Path, str, str, str]]:
    """Path, kind, message and help of each thing that is wrong."""
    for details in error.errors(include_url=False):
        path = tuple(details["loc"])
        yield path, details["type"], *_worded(path, details)


def _worded(path: Path, details: ErrorDetails) -> tuple[str, str]:
    kind, context = details["type"], details.get("ctx") or {}
    name = path[-1] if path else "the document"
    label = f"`{name}`" if path and isinstance(name, str) else name if not path else f"entry {int(name) + 1}"
    if kind == "cases":
        return context["message"], context["help"]
    if kind in ("extra_forbidden", "missing"):
        level = _level(path[:-1])
        if kind == "missing":
            return f"{_NAMES[level]} lacks the key `{name}`", "add it"
        return f"unknown key `{name}` in {_NAMES[level]}", _did_you_mean(str(name), _CONCEPTS[level].model_fields)
    if kind in ("literal_error", "enum"):
        words = [word.strip("' ") for part in context["expected"].split(",") for word in part.split(" or ")]
        value = details["input"]
        shown = f"`{value[:60]}`" if isinstance(value, str) else "that"
        return f"{label} cannot be {shown}", _did_you_mean(str(value), words)
    what, advice = _WORDS.get(kind, (f"is not valid: {details['msg'].lower()}", ""))
    return f"{label} {what}", advice


def _level(path: Path) -> int:
    """Document, case, call or expectation, by the path of the object."""
    return {0: 0, 2: 1, 4: 2}.get(len(path), 3)


def _did_you_mean(word: str, known: Any) -> str:
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    listing = ", ".join(f"`{name}`" for name in known)
    return f"did you mean `{close[0]}`?" if close else f"known are {listing}"
