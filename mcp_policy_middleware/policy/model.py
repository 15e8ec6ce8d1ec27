"""What an author writes, as values: `Policy` and its parts (PL-1 to PL-5).

The classes are the grammar: keys, kinds and what each field may hold. What concerns several fields
at once is in `rules.py`; places and wording of problems are in `reader.py`.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Annotated, Any, Final, Literal, TypeAlias

import re2
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from ..canonical import digest

__all__ = [
    "MAX_TOTAL",
    "WINDOW_SECONDS",
    "AllTools",
    "Condition",
    "Limit",
    "Mode",
    "Operator",
    "Policy",
    "Predicate",
    "RateLimit",
    "ToolRules",
    "compile_pattern",
    "compile_pattern_set",
    "parse_path",
]

Mode: TypeAlias = Literal["enforce", "shadow"]
Operator: TypeAlias = Literal["eq", "neq", "in", "not_in", "lt", "lte", "gt", "gte", "regex", "contains", "exists"]

MAX_TOTAL: Final = 9_007_199_254
"""What a counter's total may reach (PL-5.3): in millionths it is below 2^53, exact in any store."""

WINDOW_SECONDS: Final = {"minute": 60, "hour": 3_600, "day": 86_400}
_LONGEST_WINDOW: Final = 86_400 * 31

NonBlank: TypeAlias = Annotated[str, Field(min_length=1, pattern=r"\S")]


def compile_pattern(pattern: str) -> Any:
    """An RE2 program over UTF-8 bytes, which is three times as fast as one over text (PL-3.4).

    Raises:
        re2.error: The pattern is not RE2.
    """
    return re2.compile(pattern.encode(), _pattern_options())


def compile_pattern_set(pattern: str) -> Any:
    """The same pattern as RE2's set of one: no captures, so it only says whether it matches."""
    patterns = re2.Set.SearchSet(_pattern_options())
    patterns.Add(pattern.encode())
    patterns.Compile()
    return patterns


def _pattern_options() -> Any:
    options = re2.Options()
    options.log_errors = False  # a pattern is reported with its line, not on stderr
    return options


def parse_path(path: str) -> tuple[str, ...]:
    """The names that lead from the arguments to a value: `args.a.b` is `("a", "b")` (PL-3.2).

    Raises:
        ValueError: It is no path; the message is the problem's.
    """
    root, _, rest = path.partition(".")
    if root != "args":
        raise ValueError(f"path `{path}` does not start with `args.`")
    names = tuple(rest.split("."))
    if "" in names:
        raise ValueError(f"path `{path}` has an empty step")
    for name in names:
        if "[" in name or "]" in name:
            raise ValueError(f"path `{path}` has brackets, which are not read yet")
    return names


def _problem(message: str, help: str = "") -> PydanticCustomError:
    # the message is passed as a value: an author's `{` must not be taken for a placeholder
    return PydanticCustomError("policy", "{message}", {"message": message, "help": help})


class _Part(BaseModel):
    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", ser_json_inf_nan="constants", arbitrary_types_allowed=False
    )


class Condition(_Part):
    """One test of one value: `{"path": "args.amount", "op": "gt", "value": 100}` (PL-3.2)."""

    path: str
    op: Operator
    value: Any

    @field_validator("path")
    @classmethod
    def _check_path(cls, path: str) -> str:
        try:
            parse_path(path)
        except ValueError as error:
            raise _problem(str(error), "write `args.` and the argument's name, with a dot for each level") from None
        return path

    @field_validator("value")
    @classmethod
    def _check_value(cls, value: Any, info: ValidationInfo) -> Any:
        op = info.data.get("op")
        if op in ("in", "not_in"):
            if type(value) is not list:
                raise _problem(f"operator `{op}` needs a list", 'write for example ["usd", "eur"]')
        elif op in ("lt", "lte", "gt", "gte"):
            if type(value) not in (int, float) or not math.isfinite(value):
                raise _problem(f"operator `{op}` needs a number", "write a finite number, without quotes")
        elif op == "exists":
            if type(value) is not bool:
                raise _problem("operator `exists` needs `true` or `false`", "write it without quotes")
        elif op == "regex":
            _check_pattern(value)
        return value


def _check_pattern(value: Any) -> None:
    if type(value) is not str:
        raise _problem("operator `regex` needs a pattern", "write an RE2 pattern in quotes")
    try:
        compile_pattern(value)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        raise _problem(
            f"pattern `{value}` is not RE2: {reason}",
            "RE2 has no look-around and no back-references; the end of the text is `$` or `\\z`",
        ) from None


class Predicate(_Part):
    """Conditions that must all hold for the predicate to hold (PL-3.1)."""

    conditions: tuple[Condition, ...] = Field(strict=False)
    on_deny: str | None = None


class Limit(_Part):
    """A ceiling on what calls may charge to a counter within a window (PL-5.1)."""

    counter: NonBlank
    window: Literal["minute", "hour", "day"] | Annotated[int, Field(ge=1, le=_LONGEST_WINDOW)]
    max: Annotated[int | float, Field(ge=0, le=MAX_TOTAL, allow_inf_nan=False)]
    scope: Literal["grant", "session"] = "grant"
    on_deny: str | None = None

    @property
    def seconds(self) -> int:
        """The window's length in seconds."""
        return self.window if isinstance(self.window, int) else WINDOW_SECONDS[self.window]


class RateLimit(_Part):
    """The seed page's shorthand for one limit on calls per session (PL-2)."""

    max: Annotated[int | float, Field(ge=0, le=MAX_TOTAL, allow_inf_nan=False)]
    window: Literal["minute", "hour", "day"] | Annotated[int, Field(ge=1, le=_LONGEST_WINDOW)]

    def as_limit(self, tool: str) -> Limit:
        """The limit it stands for, on the counter `<tool>_rate`."""
        return Limit(counter=f"{tool}_rate", window=self.window, max=self.max, scope="session")


class ToolRules(_Part):
    """What holds for calls of one tool (PL-2)."""

    action: Literal["allow", "deny", "require_approval"] = "allow"
    reason: str | None = None
    require: tuple[Predicate, ...] = Field(default=(), strict=False)
    deny_if: tuple[Predicate, ...] = Field(default=(), strict=False)
    limits: tuple[Limit, ...] = Field(default=(), strict=False)
    rate_limit: RateLimit | None = None
    mode: Mode | None = None


class AllTools(_Part):
    """What holds for every call that gets that far (PL-1.4)."""

    require: tuple[Predicate, ...] = Field(default=(), strict=False)
    deny_if: tuple[Predicate, ...] = Field(default=(), strict=False)
    limits: tuple[Limit, ...] = Field(default=(), strict=False)


class Policy(_Part):
    """A validated policy document (PL-1.4); made by `load_policy` and `parse_policy`.

    Attributes:
        name: The document's name: its file's name, or the one given to `parse_policy`.
    """

    version: Literal["1"]
    default: Literal["allow", "deny"]
    description: str | None = None
    schema_: str | None = Field(default=None, alias="$schema")
    hide: tuple[NonBlank, ...] = Field(default=(), strict=False)
    all_tools: AllTools = AllTools()
    tools: dict[NonBlank, ToolRules] = Field(default_factory=dict)
    mode: Mode = "enforce"
    _name: str = PrivateAttr(default="(unnamed)")

    @property
    def name(self) -> str:
        """The document's name."""
        return self._name

    def model_post_init(self, context: Any, /) -> None:
        """Take the document's name from the reader, which knows its file."""
        if context is not None:
            self._name = context["name"]

    @cached_property
    def digest(self) -> str:
        """The document's version (PL-9.3): SHA-256 of what the author wrote, in canonical form."""
        return digest(self.model_dump(mode="json", by_alias=True, exclude_unset=True))
