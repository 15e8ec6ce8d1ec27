"""What an author writes, as values: `Policy` and its parts (PL-1 to PL-5).

The classes are the grammar: keys, kinds and what each field may hold. What concerns several fields
at once is in `rules.py`; places and wording of problems are in `reader.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Final, Literal, TypeAlias

import re2
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from ..canonical import digest
from .paths import EACH, DocumentPath, parse_path
from .patterns import compile_pattern
from .places import check_block, check_directory, check_host
from .syntax import Path
from .view import PolicyView

__all__ = [
    "MAX_TOTAL",
    "AllTools",
    "Condition",
    "Dialect",
    "Limit",
    "Mode",
    "Operator",
    "Origin",
    "Policy",
    "Predicate",
    "RateLimit",
    "Scope",
    "ToolRules",
    "Window",
]

Dialect: TypeAlias = Literal["auto", "policy.json", "intercept"]
"""Which language a document is in; `auto` tells by its keys (PL-1.3)."""
Mode: TypeAlias = Literal["enforce", "shadow"]
Operator: TypeAlias = Literal[
    "eq",
    "neq",
    "in",
    "not_in",
    "lt",
    "lte",
    "gt",
    "gte",
    "regex",
    "contains",
    "exists",
    "path_within",
    "host_in",
    "ip_in",
]

MAX_TOTAL: Final = 9_007_199_254
"""What a counter's total may reach (PL-5.3): in millionths it is below 2^53, exact in any store."""

_PLACES: Final[dict[str, tuple[Callable[[str], None], str]]] = {
    "path_within": (check_directory, "absolute directories"),
    "host_in": (check_host, "host names"),
    "ip_in": (check_block, "CIDR blocks"),
}
_LONGEST_WINDOW: Final = 86_400 * 31

NonBlank: TypeAlias = Annotated[str, Field(min_length=1, pattern=r"\S")]


Window: TypeAlias = Literal["minute", "hour", "day", "week", "month"] | Annotated[int, Field(ge=1, le=_LONGEST_WINDOW)]


@dataclass(frozen=True, slots=True)
class Origin:
    """What a reader knows of a document that is not written in it as policy.json; passed in as validation context.

    Attributes:
        name: The document's name.
        written: The document as its author wrote it, where that is another language; its digest goes by it.
        rule_names: By path, the names that decisions show instead of JSON Pointers.
        windows: By counter, the window of counters that conditions read (PL-8.2).
        hidden, not_permitted: What the agent reads, with `{tool}` for the tool.
        reads_counters: Whether conditions may look at `state.`.
        file: The file it was read from, and as which dialect; None for a text.
    """

    name: str = "policy"
    written: Any = None
    rule_names: Mapping[Path, str] = field(default_factory=dict)
    windows: Mapping[str, Window] = field(default_factory=dict)
    hidden: str = "tool `{tool}` is hidden by policy"
    not_permitted: str = "tool `{tool}` is not permitted by policy"
    reads_counters: bool = False
    file: tuple[str, Dialect] | None = field(default=None, compare=False)


def _origin(context: Any) -> Origin:
    return context if isinstance(context, Origin) else Origin()


def _problem(message: str, help: str = "") -> PydanticCustomError:
    # the message is passed as a value: an author's `{` must not be taken for a placeholder
    return PydanticCustomError("policy", "{message}", {"message": message, "help": help})


class _Part(BaseModel):
    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", ser_json_inf_nan="constants", arbitrary_types_allowed=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _check_not_null(cls, value: Any, info: ValidationInfo) -> Any:
        """A key without a value is a mistake: `only_arguments: null` would close nothing."""
        if value is None and cls.model_fields[str(info.field_name)].default is None:
            raise _problem(f"`{info.field_name}` cannot be `null`", "give it a value, or remove the key")
        return value


class Condition(_Part):
    """One test of one value: `{"path": "args.amount", "op": "gt", "value": 100}` (PL-3.2)."""

    path: str
    op: Operator
    value: Any

    @field_validator("path")
    @classmethod
    def _check_path(cls, path: str, info: ValidationInfo) -> str:
        if _parsed_path(path).root == "state" and not _origin(info.context).reads_counters:
            raise _problem(f"path `{path}` does not start with `args.`", "a counter is kept with `limits`")
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
        elif op in _PLACES:
            _check_places(op, value)
        return value


def _parsed_path(text: str) -> DocumentPath:
    try:
        return parse_path(text)
    except ValueError as error:
        raise _problem(str(error), "write `args.` and the argument's name, with a dot for each level") from None


def _check_places(op: str, value: Any) -> None:
    check, what = _PLACES[op]
    if type(value) is not list or not value or any(type(item) is not str for item in value):
        raise _problem(f"operator `{op}` needs a list of {what}", "write at least one, in quotes")
    for item in value:
        try:
            check(item)
        except ValueError as error:
            raise _problem(str(error), f"list {what}") from None


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


Amount: TypeAlias = Annotated[int | float, Field(ge=0, le=MAX_TOTAL, allow_inf_nan=False)]
Scope: TypeAlias = Literal["grant", "session", "server", "global"]


class Limit(_Part):
    """A ceiling on what calls may charge to a counter within a window (PL-5)."""

    counter: NonBlank
    window: Window
    max: Amount
    scope: Scope = "grant"
    algorithm: Literal["fixed", "sliding"] = "fixed"
    increment: Annotated[int | float, Field(gt=0, le=MAX_TOTAL, allow_inf_nan=False)] | None = None
    increment_from: str | None = None
    charge_on: Literal["success"] | None = None
    on_deny: str | None = None

    @field_validator("increment_from")
    @classmethod
    def _check_source(cls, text: str | None) -> str | None:
        if text is None:
            return None
        path = _parsed_path(text)
        if path.root != "args" or EACH in path.steps:
            advice = "write `args.` and the argument's name"
            raise _problem(f"`increment_from` needs one argument, not `{text}`", advice)
        return text


class RateLimit(_Part):
    """The seed page's shorthand for one limit on calls per session (PL-2)."""

    max: Amount
    window: Window

    def as_limit(self, tool: str) -> Limit:
        """The limit it stands for, on the counter `<tool>_rate`."""
        return Limit(counter=f"{tool}_rate", window=self.window, max=self.max, scope="session")


class ToolRules(_Part):
    """What holds for calls of one tool (PL-2)."""

    action: Literal["allow", "deny", "require_approval"] = "allow"
    reason: str | None = None
    require: tuple[Predicate, ...] = Field(default=(), strict=False)
    deny_if: tuple[Predicate, ...] = Field(default=(), strict=False)
    require_approval_if: tuple[Predicate, ...] = Field(default=(), strict=False)
    only_arguments: tuple[NonBlank, ...] | None = Field(default=None, strict=False)
    limits: tuple[Limit, ...] = Field(default=(), strict=False)
    rate_limit: RateLimit | None = None
    mode: Mode | None = None


class AllTools(_Part):
    """What holds for every call that gets that far (PL-1.4)."""

    require: tuple[Predicate, ...] = Field(default=(), strict=False)
    deny_if: tuple[Predicate, ...] = Field(default=(), strict=False)
    require_approval_if: tuple[Predicate, ...] = Field(default=(), strict=False)
    limits: tuple[Limit, ...] = Field(default=(), strict=False)


class Policy(PolicyView, _Part):
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
    _origin: Origin = PrivateAttr(default_factory=Origin)

    @property
    def name(self) -> str:
        """The document's name."""
        return self._origin.name

    @property
    def origin(self) -> Origin:
        """What the reader knows of the document beside its content."""
        return self._origin

    def model_post_init(self, context: Any, /) -> None:
        """Take from the reader what it knows of the document."""
        self._origin = _origin(context)

    @cached_property
    def digest(self) -> str:
        """The document's version (PL-9.3): SHA-256 of what the author wrote, in canonical form."""
        written = self._origin.written
        return digest(self.as_written() if written is None else written)

    def as_written(self) -> dict[str, Any]:
        """The document as plain JSON, with the keys that were given."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)
