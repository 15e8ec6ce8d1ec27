"""Text -> `Policy`, or every problem at once with its line and column (PL-1.1, PL-1.2)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any, Final, get_args

from pydantic import ValidationError

from ..errors import DocumentError, Problem
from .intercept import read_intercept
from .model import AllTools, Condition, Dialect, Limit, Origin, Policy, Predicate, RateLimit, ToolRules
from .rules import cross_check
from .syntax import Node, Path, SyntaxProblem, pointer, read_file, read_text, reason_of
from .wording import Found, Grammar, findings, keys_of

__all__ = ["list_documents", "load_directory", "load_policy", "parse_policy", "read_directory"]

SUFFIXES: Final = (".json", ".yaml", ".yml")


def _concept(path: Path) -> str:
    if not path:
        return "the document"
    if path == ("all_tools",):
        return "all_tools"
    if len(path) == 2:
        return "a tool's rules"
    if path[-1] == "rate_limit":
        return "a rate_limit"
    return {"conditions": "a condition", "limits": "a limit"}.get(str(path[-2]), "a predicate")


_POLICY_JSON: Final = Grammar(
    keys=keys_of({
        "the document": Policy,
        "all_tools": AllTools,
        "a tool's rules": ToolRules,
        "a predicate": Predicate,
        "a condition": Condition,
        "a limit": Limit,
        "a rate_limit": RateLimit,
    }),
    concept_at=_concept,
    windows="`minute`, `hour`, `day`, `week`, `month`, or whole seconds from 1 to 2678400",
    missing={
        "version": 'add `"version": "1"`',
        "default": 'add `"default": "deny"`: what happens to tools that `tools` does not list',
        "value": "add the value to compare with",
    },
    advice={
        ("a tool's rules", "rules"): "`rules` is Intercept's, and a document is written in one language: "
        "write `require`, `deny_if` and `limits`, or give every tool `rules` alone"
    },
)  # fmt: skip


def load_policy(path: str | os.PathLike[str], dialect: Dialect = "auto") -> Policy:
    """Read a policy file.

    Args:
        path: A file's path, never a document's text. `.json` is read as JSON, `.yaml` and `.yml` as YAML.
        dialect: The policy language; told from the document unless named.

    Raises:
        DocumentError: The file cannot be read or its document is not valid; `.problems` has them all.
    """
    source = os.fspath(path)
    data = read_file(source, "give the path of a file; text is read by `parse_policy`")
    return _read(data, source, dialect, (str(FilePath(source).absolute()), dialect))


def parse_policy(text: str | bytes, name: str = "policy", dialect: Dialect = "auto") -> Policy:
    """Read a policy from its text.

    Args:
        text: The document, never a path.
        name: What problems and decisions call the document. A suffix tells JSON from YAML; without one, a
            document that starts with `{` is JSON.
        dialect: The policy language; told from the document unless named.

    Raises:
        DocumentError: The document is not valid; `.problems` has every problem.
    """
    return _read(text, name, dialect)


def load_directory(path: str | os.PathLike[str]) -> dict[str, Policy]:
    """Read the policies of a directory by the names of their files (PL-9.1).

    A file `<server>.json`, `.yaml` or `.yml` is for a server, `<server>@<grant>.json` for one grant there, and
    `_local.json` for tools of no MCP server. Files of other kinds are passed over.

    Raises:
        DocumentError: With the problems of every file.
    """
    policies, _, problems = read_directory(path)
    if problems:
        raise DocumentError(problems)
    return policies


def read_directory(
    path: str | os.PathLike[str], read: Callable[[FilePath], Policy] = load_policy
) -> tuple[dict[str, Policy], set[str], list[Problem]]:
    """Read whatever reads in a directory.

    Returns:
        The policies that read, the names of all that have a file, and the problems of every file. Of two files for one
        name none is read: nobody knows which is meant.

    Raises:
        DocumentError: The directory cannot be read.
    """
    folder = FilePath(path)
    policies: dict[str, Policy] = {}
    files: dict[str, FilePath] = {}
    problems: list[Problem] = []
    try:
        listing = list_documents(folder)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        message = f"the directory cannot be read: {reason_of(error)}"
        advice = "give a directory of policies; one file is read by `load_policy`"
        raise DocumentError([Problem(str(folder), 0, 0, "", message, advice)]) from None
    for file in listing:
        server = file.stem
        if server.startswith("@") or server.endswith("@"):
            message = f"`{file.name}` names no server or no grant"
            problems.append(Problem(str(file), 0, 0, "", message, "name it `<server>.json` or `<server>@<grant>.json`"))
        elif server in files:
            policies.pop(server, None)
            message = f"`{server}` has a second policy, in `{files[server].name}`"
            problems.append(Problem(str(file), 0, 0, "", message, "keep one of the two files"))
        else:
            files[server] = file
            try:
                policies[server] = read(file)
            except DocumentError as error:
                problems += error.problems
    if not files and not problems:
        advice = "add a file `<server>.json`, or `_local.json` for tools of no MCP server"
        problems.append(Problem(str(folder), 0, 0, "", "the directory holds no policy", advice))
    return policies, set(files), problems


def list_documents(folder: FilePath) -> list[FilePath]:
    """The files of a directory that are policies by their names, in order (PL-9.1).

    Raises:
        OSError, ValueError: It cannot be read.
    """
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix in SUFFIXES and not file.name.startswith(".") and not file.stem.endswith(".policytest")
    )


def _read(data: str | bytes, source: str, dialect: Dialect, file: tuple[str, Dialect] | None = None) -> Policy:
    if dialect not in get_args(Dialect):
        raise ValueError(f"dialect `{dialect}` is not known: give one of {', '.join(get_args(Dialect))}")
    try:
        tree, problems = read_text(data, source)
    except SyntaxProblem as error:
        raise DocumentError(error.problems) from None
    if type(tree.value) is not dict:
        problem = Problem(source, *tree.place, "", "the document is not an object", "write `{ ... }`")
        raise DocumentError([*problems, problem])
    document = tree.plain()
    is_intercept = dialect == "intercept" or (dialect == "auto" and _looks_like_intercept(document))
    read = read_intercept if is_intercept else _read_policy_json
    policy, found = read(document, Origin(FilePath(source).name or source, file=file))
    known = {problem.line * 10**6 + problem.column for problem in problems}
    for where, kind, message, advice in found:
        place = _place(tree, where, kind)
        if kind == "cross" or place[0] * 10**6 + place[1] not in known:  # a syntax problem says it better
            problems.append(Problem(source, *place, pointer(where), message, advice))
    if policy is None or problems:
        raise DocumentError(sorted(problems, key=lambda problem: (problem.line, problem.column)))
    return policy


def _looks_like_intercept(document: dict[str, Any]) -> bool:
    """Whether tools hold `rules` (PL-1.3); in a mix, which is refused either way, the commoner language's words count.

    Whatever is foreign to the language is then an unknown key, in its place.
    """
    tools = document.get("tools")
    entries = [entry for entry in tools.values() if type(entry) is dict] if type(tools) is dict else []
    rules = sum("rules" in entry for entry in entries)
    foreign = len(document.keys() & {"all_tools", "mode"}) + sum(
        len(entry.keys() & ToolRules.model_fields.keys()) for entry in entries
    )
    return rules > foreign


def _read_policy_json(document: dict[str, Any], origin: Origin) -> tuple[Policy | None, list[Found]]:
    policy: Policy | None = None
    found: list[Found] = []
    try:
        policy = Policy.model_validate(document, context=origin)
    except ValidationError as error:
        found += findings(error, document, _POLICY_JSON)
    found += [(where, "cross", message, advice) for where, message, advice in cross_check(document)]
    return policy, found


def _place(tree: Node, path: Path, kind: str) -> tuple[int, int]:
    """Where the value at the path stands, or its key where the key itself is the problem."""
    node = tree
    for index, step in enumerate(path):
        last = index == len(path) - 1
        if type(node.value) is dict and step in node.value:
            if last and kind in ("extra_forbidden", "cross", "key"):
                return node.keys[str(step)]
            node = node.value[step]
        elif type(node.value) is list and type(step) is int and step < len(node.value):
            node = node.value[step]
        else:
            break
    return node.place
