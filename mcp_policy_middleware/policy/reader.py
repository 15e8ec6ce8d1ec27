"""Text -> `Policy`, or every problem at once with its line and column (PL-1.1, PL-1.2)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path as FilePath
from typing import Any, Final, Literal, TypeAlias, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ..errors import DocumentError, Problem
from .model import AllTools, Condition, Limit, Policy, Predicate, RateLimit, ToolRules
from .rules import cross_check
from .syntax import MAX_BYTES, Node, Path, SyntaxProblem, pointer, read_text

__all__ = ["Dialect", "load_directory", "load_policy", "parse_policy"]

Dialect: TypeAlias = Literal["auto", "policy.json"]
"""Which language the document is in; `auto` tells by its keys (PL-1.3)."""

SUFFIXES: Final = (".json", ".yaml", ".yml")

_CONCEPTS: Final[dict[str, type[BaseModel]]] = {
    "the document": Policy,
    "all_tools": AllTools,
    "a tool's rules": ToolRules,
    "a predicate": Predicate,
    "a condition": Condition,
    "a limit": Limit,
    "a rate_limit": RateLimit,
}
_KEYS: Final = {
    concept: tuple(field.alias or name for name, field in model.model_fields.items())
    for concept, model in _CONCEPTS.items()
}
_KINDS: Final = {
    "model_type": ("an object", "write `{ ... }`"),
    "dict_type": ("an object", "write `{ ... }`"),
    "tuple_type": ("a list", "write `[ ... ]`"),
    "string_type": ("text", "put it in quotes"),
    "int_type": ("a number", "write it without quotes"),
    "float_type": ("a number", "write it without quotes"),
}
_BOUNDS: Final = {"greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most")}


def load_policy(path: str | os.PathLike[str], dialect: Dialect = "auto") -> Policy:
    """Read a policy file.

    Args:
        path: A file's path, never a document's text. `.json` is read as JSON, `.yaml` and `.yml` as YAML.
        dialect: The policy language; told from the document unless named.

    Raises:
        DocumentError: The file cannot be read or its document is not valid; `.problems` has them all.
    """
    source = os.fspath(path)
    try:
        with FilePath(source).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
        advice = "give the path of a file; text is read by `parse_policy`"
        raise DocumentError([Problem(source, 0, 0, "", f"the file cannot be read: {reason}", advice)]) from None
    return _read(data, source, dialect)


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


def load_directory(path: str | os.PathLike[str]) -> dict[str | None, Policy]:
    """Read `<server>.json|yaml|yml` files as a map of server to policy (PL-9.1).

    `_local` stands for tools of no MCP server, and is the key None. Files of other kinds are passed over.

    Raises:
        DocumentError: With the problems of every file.
    """
    folder = FilePath(path)
    policies: dict[str | None, Policy] = {}
    files: dict[str, FilePath] = {}
    problems: list[Problem] = []
    try:
        listing = sorted(folder.iterdir())
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
        advice = "give a directory of policies; one file is read by `load_policy`"
        raise DocumentError(
            [Problem(str(folder), 0, 0, "", f"the directory cannot be read: {reason}", advice)]
        ) from None
    for file in listing:
        if file.suffix not in SUFFIXES or file.name.startswith("."):
            continue
        server = file.stem
        if "@" in server:
            message = f"`{file.name}` names a grant, which is not read yet"
            problems.append(Problem(str(file), 0, 0, "", message, "name the file after the server alone"))
        elif server in files:
            message = f"server `{server}` has a second policy, in `{files[server].name}`"
            problems.append(Problem(str(file), 0, 0, "", message, "keep one of the two files"))
        else:
            files[server] = file
            try:
                policies[None if server == "_local" else server] = load_policy(file)
            except DocumentError as error:
                problems += error.problems
    if not files and not problems:
        advice = "add a file `<server>.json`, or `_local.json` for tools of no MCP server"
        problems.append(Problem(str(folder), 0, 0, "", "the directory holds no policy", advice))
    if problems:
        raise DocumentError(problems)
    return policies


def _read(data: str | bytes, source: str, dialect: Dialect) -> Policy:
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
    if dialect == "auto" and (found := _intercept_tool(tree)) is not None:
        message = "the document is Intercept YAML (a tool holds `rules`), which is not read yet"
        path: Path = ("tools", found, "rules")
        place = _place(tree, path, "extra_forbidden")
        raise DocumentError([Problem(source, *place, pointer(path), message, "write the rules as policy.json")])
    policy: Policy | None = None
    try:
        policy = Policy.model_validate(document, context={"name": FilePath(source).name or source})
    except ValidationError as error:
        known = {problem.line * 10**6 + problem.column for problem in problems}
        for where, kind, message, advice in _findings(error, document):
            place = _place(tree, where, kind)
            if place[0] * 10**6 + place[1] not in known:  # a syntax problem says it better
                problems.append(Problem(source, *place, pointer(where), message, advice))
    for where, message, advice in cross_check(document):
        problems.append(Problem(source, *_place(tree, where, "cross"), pointer(where), message, advice))
    if policy is None or problems:
        raise DocumentError(sorted(problems, key=lambda problem: (problem.line, problem.column)))
    return policy


def _intercept_tool(tree: Node) -> str | None:
    tools = tree.value.get("tools")
    entries = tools.value.items() if tools is not None and type(tools.value) is dict else ()
    return next((name for name, node in entries if type(node.value) is dict and "rules" in node.value), None)


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


def _findings(error: ValidationError, document: Any) -> Iterator[tuple[Path, str, str, str]]:
    """Path, kind, message and help of each thing pydantic found; one for each value."""
    seen: set[Path] = set()
    for details in error.errors(include_url=False):
        path, kind = _clean(details, document)
        if path not in seen:
            seen.add(path)
            yield path, kind, *_worded(path, kind, details)


def _clean(details: ErrorDetails, document: Any) -> tuple[Path, str]:
    """The path without pydantic's own steps, such as the branch of a union."""
    path: list[str | int] = []
    value = document
    for step in details["loc"]:
        if step == "[key]":
            return tuple(path), "key"
        if isinstance(value, dict) and (step in value or details["type"] == "missing"):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int):
            value = value[step] if step < len(value) else None
        else:
            continue
        path.append(step)
    return tuple(path), details["type"]


def _worded(path: Path, kind: str, details: ErrorDetails) -> tuple[str, str]:
    context: dict[str, Any] = details.get("ctx") or {}
    value: Any = details["input"]
    name = path[-1] if path else "the document"
    label = f"`{name}`" if isinstance(name, str) else f"entry {name + 1}"
    if kind == "policy":
        return context["message"], context["help"]
    if kind == "extra_forbidden":
        concept = _concept(path[:-1])
        return f"unknown key `{name}` in {concept}", _did_you_mean(str(name), _KEYS[concept])
    if kind == "missing":
        concept = _concept(path[:-1])
        return f"{concept} lacks the key `{name}`", _EXAMPLES.get(str(name), "add it")
    if kind in ("string_too_short", "string_pattern_mismatch", "key"):
        return f"{label} is blank", "give a name"
    if path and path[-1] == "window":
        return (
            f"window {_quoted(value)} is not known",
            "write `minute`, `hour`, `day`, or whole seconds from 1 to 2678400",
        )
    if kind == "literal_error":
        if path == ("version",):
            return f"version {_quoted(value)} is not known", 'write `"1"`, in quotes'
        words = [word.strip("' ") for part in context["expected"].split(",") for word in part.split(" or ")]
        return f"{label} cannot be {_quoted(value)}", _did_you_mean(str(value), words)
    if kind in _BOUNDS:
        key, bound = _BOUNDS[kind]
        return f"{label} must be {bound} {context[key]}", "write a number in that range"
    if kind in _KINDS:
        what, advice = _KINDS[kind]
        return f"{label} must be {what}", advice
    return f"{label} is not valid: {details['msg'].lower()}", ""


_EXAMPLES: Final = {
    "version": 'add `"version": "1"`',
    "default": 'add `"default": "deny"`: what happens to tools that `tools` does not list',
    "value": "add the value to compare with",
}


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


def _quoted(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text[:60]}`"


def _did_you_mean(word: str, known: Any) -> str:
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    listing = ", ".join(f"`{name}`" for name in known)
    return f"did you mean `{close[0]}`?" if close else f"known are {listing}"
