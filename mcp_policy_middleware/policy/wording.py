"""Pydantic's findings -> what an author reads: one sentence with their own words, and what to do about it (PL-1.2).

The words of a language of documents come from its `Grammar`; nothing here knows a particular one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final, TypeAlias

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from .syntax import Path

__all__ = ["Found", "Grammar", "findings", "keys_of"]

Found: TypeAlias = tuple[Path, str, str, str]
"""Where, of what kind, what, and what to do about it; the kind tells whether the key or the value is shown."""

_KINDS: Final = {
    "model_type": ("an object", "write `{ ... }`"),
    "dict_type": ("an object", "write `{ ... }`"),
    "tuple_type": ("a list", "write `[ ... ]`"),
    "string_type": ("text", "put it in quotes"),
    "int_type": ("a number", "write it without quotes"),
    "float_type": ("a number", "write it without quotes"),
}
_BOUNDS: Final = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
}


@dataclass(frozen=True, slots=True)
class Grammar:
    """A language of documents, as far as messages speak of it.

    Attributes:
        keys: By concept, which is what messages call a part of a document, the keys that it may hold.
        concept_at: The concept at a path.
        windows: What a window may be.
        missing: By key, what to write where it is missing.
        advice: By concept and by key, or by key and value as in `action: allow`, what to do about a word that the
            language does not know and its authors nevertheless write.
    """

    keys: Mapping[str, tuple[str, ...]]
    concept_at: Callable[[Path], str]
    windows: str
    missing: Mapping[str, str]
    advice: Mapping[tuple[str, str], str] = field(default_factory=dict)


def keys_of(concepts: Mapping[str, type[BaseModel]]) -> dict[str, tuple[str, ...]]:
    """The keys of each concept, as documents write them."""
    return {
        concept: tuple(field.alias or name for name, field in model.model_fields.items())
        for concept, model in concepts.items()
    }


def findings(error: ValidationError, document: Any, grammar: Grammar) -> Iterator[Found]:
    """Path, kind, message and help of each thing pydantic found; one for each value."""
    seen: set[Path] = set()
    for details in error.errors(include_url=False):
        path, kind = _clean(details, document)
        if path not in seen:
            seen.add(path)
            yield path, kind, *_worded(path, kind, details, grammar)


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


def _worded(path: Path, kind: str, details: ErrorDetails, grammar: Grammar) -> tuple[str, str]:
    context: dict[str, Any] = details.get("ctx") or {}
    value: Any = details["input"]
    name = path[-1] if path else "the document"
    label = f"`{name}`" if isinstance(name, str) else f"entry {name + 1}"
    if kind == "policy":
        return context["message"], context["help"]
    if kind == "extra_forbidden":
        concept = grammar.concept_at(path[:-1])
        advice = grammar.advice.get((concept, str(name)))
        return f"unknown key `{name}` in {concept}", advice or _did_you_mean(str(name), grammar.keys[concept])
    if kind == "missing":
        concept = grammar.concept_at(path[:-1])
        return f"{concept} lacks the key `{name}`", grammar.missing.get(str(name), "add it")
    if kind in ("string_too_short", "string_pattern_mismatch", "key"):
        return f"{label} is blank", "give a name"
    if path and path[-1] == "window":
        return f"window {_quoted(value)} is not known", f"write {grammar.windows}"
    if kind == "literal_error":
        if path == ("version",):
            return f"version {_quoted(value)} is not known", 'write `"1"`, in quotes'
        advice = grammar.advice.get((grammar.concept_at(path[:-1]), f"{name}: {value}"))
        words = [word.strip("' ") for part in context["expected"].split(",") for word in part.split(" or ")]
        return f"{label} cannot be {_quoted(value)}", advice or _did_you_mean(str(value), words)
    if kind in _BOUNDS:
        key, bound = _BOUNDS[kind]
        return f"{label} must be {bound} {context[key]}", "write a number in that range"
    if kind in _KINDS:
        what, advice = _KINDS[kind]
        return f"{label} must be {what}", advice
    return f"{label} is not valid: {details['msg'].lower()}", ""


def _quoted(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text[:60]}`"


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    known = list(known)
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    listing = ", ".join(f"`{name}`" for name in known)
    return f"did you mean `{close[0]}`?" if close else f"known are {listing}"
