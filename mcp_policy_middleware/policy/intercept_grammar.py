"""The grammar of Intercept's YAML (PL-8.1): keys, kinds, what does not go together, and the words for it.

Intercept ignores keys it does not know, and so a published policy denied every call. Here each is refused, with
the advice that would have helped its author.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, Field, field_validator
from pydantic_core import PydanticCustomError

from .model import MAX_TOTAL, Condition, NonBlank, ToolRules
from .rules import Finding, cross_check
from .syntax import Path, pointer
from .wording import Grammar, keys_of

__all__ = ["GRAMMAR", "InterceptDocument", "InterceptRule", "InterceptTest", "counted_as", "intercept_findings"]

InterceptWindow: TypeAlias = Literal["minute", "hour", "day"]

_RATE: Final = re.compile(r"\+?0*([1-9][0-9]{0,15})/(minute|hour|day)")


def _problem(message: str, help: str) -> PydanticCustomError:
    return PydanticCustomError("policy", "{message}", {"message": message, "help": help})


class _Part(BaseModel):
    model_config = Condition.model_config


class InterceptTest(Condition):
    """One test of an argument or a counter; what policy.json adds is not known here."""

    op: Literal["eq", "neq", "in", "not_in", "lt", "lte", "gt", "gte", "regex", "contains", "exists"]

    @field_validator("path")
    @classmethod
    def _check_path(cls, path: str) -> str:  # type: ignore[override]  # it needs no context
        if not path.startswith(("args.", "state.")):
            message = f"path `{path}` starts neither with `args.` nor with `state.`"
            raise _problem(message, "write `args.` and the argument's name, or `state.`, the tool and the counter")
        return path


class State(_Part):
    """The counter of a rule, and what a call adds to it."""

    counter: NonBlank
    window: InterceptWindow
    increment: Annotated[int, Field(ge=0, le=MAX_TOTAL)] = 1
    increment_from: str | None = None

    @field_validator("increment_from")
    @classmethod
    def _check_source(cls, path: str | None) -> str | None:
        if path is not None and not path.startswith("args."):
            raise _problem(f"`increment_from` needs an argument, not `{path}`", "write `args.` and its name")
        return path


class InterceptRule(_Part):
    """What a call of the tool must meet."""

    name: NonBlank
    action: Literal["evaluate", "deny", "require_approval"] = "evaluate"
    conditions: tuple[InterceptTest, ...] = Field(default=(), strict=False)
    on_deny: str | None = None
    rate_limit: str | None = None
    state: State | None = None

    @field_validator("rate_limit", mode="before")
    @classmethod
    def _check_rate(cls, text: Any) -> Any:
        if text is not None:
            rate = _RATE.fullmatch(text) if type(text) is str else None
            if rate is None:
                shown = f"`{text[:60]}`" if type(text) is str else "this"
                raise _problem(f"`rate_limit` needs a count and a window, not {shown}", "write for example `10/minute`")
            if int(rate[1]) > MAX_TOTAL:
                raise _problem(f"`rate_limit` must be at most {MAX_TOTAL}", "write a number in that range")
        return text

    @property
    def rate(self) -> tuple[int, InterceptWindow] | None:
        """The count and the window of `rate_limit`."""
        rate = _RATE.fullmatch(self.rate_limit) if self.rate_limit is not None else None
        return (int(rate[1]), rate[2]) if rate else None  # type: ignore[return-value]  # the pattern's windows


class InterceptTool(_Part):
    """The rules of one tool, or of all for `*`."""

    rules: tuple[InterceptRule, ...] = Field(default=(), strict=False)


class InterceptDocument(_Part):
    """A whole document."""

    version: Literal["1"]
    description: str | None = None
    default: Literal["allow", "deny"] = "allow"
    hide: tuple[NonBlank, ...] = Field(default=(), strict=False)
    tools: dict[NonBlank, InterceptTool] = Field(default_factory=dict)

    @field_validator("version", mode="before")
    @classmethod
    def _check_version(cls, version: Any) -> Any:
        return "1" if type(version) is int and version == 1 else version


def _concept(path: Path) -> str:
    if len(path) < 2:
        return "the document"
    if path[-1] == "state":
        return "a state block"
    return {"rules": "a rule", "conditions": "a condition"}.get(str(path[-2]), "a tool's entry")


_ONE_LANGUAGE: Final = (
    "`{key}` is policy.json, and a document is written in one language: "
    "write `rules`, or give every tool `require`, `deny_if` and `limits`"
)

GRAMMAR: Final = Grammar(
    keys=keys_of({
        "the document": InterceptDocument,
        "a tool's entry": InterceptTool,
        "a rule": InterceptRule,
        "a condition": InterceptTest,
        "a state block": State,
    }),
    concept_at=_concept,
    windows="`minute`, `hour` or `day`",
    missing={
        "version": 'add `version: "1"`',
        "name": "add for example `name: burst limit`: a denial shows it",
        "value": "add the value to compare with",
        "counter": "add for example `counter: daily_spend`",
        "window": "add `window: minute`, `window: hour` or `window: day`",
    },
    advice={
        **{("a tool's entry", key): _ONE_LANGUAGE.format(key=key) for key in ToolRules.model_fields},
        **{("a rule", key): _ONE_LANGUAGE.format(key=key) for key in ("require", "deny_if", "limits")},
        **{("the document", key): _ONE_LANGUAGE.format(key=key) for key in ("all_tools", "mode", "$schema")},
        ("a tool's entry", "hide"): "list the tool's name at the top of the document, as in `hide: [delete_file]`",
        ("a rule", "when"): "Intercept ignores it, so the rule meets every call: write `conditions` with `path`, `op` "
        "and `value`, which a call must meet; to deny where they hold, write policy.json with `deny_if`",
        ("a rule", "action: allow"): "leave `action` out: rules only restrict, and a call that meets all of them is "
        "allowed; to deny the tools that are not listed, write `default: deny` at the top",
        ("a rule", "reason"): "write `on_deny`",
        ("a rule", "spend"): "write a `state` block with `increment_from`, and a condition on its counter",
        ("a rule", "approval_timeout"): "the application gives it, as `approval_timeout` of its `Guard`",
        ("the document", "approvals"): "the application says who is asked, as `approver` of its `Guard`",
    },
)  # fmt: skip


def counted_as(tool: str, counter: str) -> str:
    """A counter's full name (PL-8.2), which `state.` paths give."""
    return f"{'_global' if tool == '*' else tool}.{counter}"


def intercept_findings(document: dict[str, Any]) -> Iterator[Finding]:
    """Every finding about fields that do not go together, in a document of any shape."""
    yield from cross_check({"hide": document.get("hide")})
    rules = list(_rules(document))
    counters: dict[str, Path] = {}
    for tool, path, rule in rules:
        yield from _combined(path, rule)
        for counter, where in _counted(tool, path, rule):
            if counter in counters:
                message = f"counter `{counter}` is counted a second time, after {pointer(counters[counter])}"
                advice = "name the counters apart"
                if where[-1] == "rate_limit":
                    advice = "keep one `rate_limit` per tool and window: each of them would count every call"
                yield where, message, advice
            counters.setdefault(counter, where)
    for tool, path, rule in rules:
        yield from _read_counters(tool, path, rule, counters)


def _rules(document: dict[str, Any]) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    tools = document.get("tools")
    for tool, entry in tools.items() if type(tools) is dict else ():
        rules = entry.get("rules") if type(entry) is dict else None
        for index, rule in enumerate(rules if type(rules) is list else ()):
            if type(rule) is dict:
                yield tool, ("tools", tool, "rules", index), rule


def _counted(tool: str, path: Path, rule: dict[str, Any]) -> Iterator[tuple[str, Path]]:
    """The counters of a rule by full name, and where they are named."""
    limit, state = rule.get("rate_limit"), rule.get("state")
    rate = _RATE.fullmatch(limit) if type(limit) is str else None
    if rate is not None:
        yield counted_as(tool, f"_rate_{rate[2]}"), (*path, "rate_limit")
    if type(state) is dict and type(state.get("counter")) is str:
        yield counted_as(tool, state["counter"]), (*path, "state", "counter")


def _combined(path: Path, rule: dict[str, Any]) -> Iterator[Finding]:
    """Keys of one rule that exclude one another."""
    action, state = rule.get("action", "evaluate"), rule.get("state")
    given = [key for key in ("rate_limit", "conditions", "state") if rule.get(key) not in (None, [])]
    if "rate_limit" in given:
        if len(given) > 1:
            message = f"`rate_limit` cannot stand beside `{given[1]}`"
            yield (*path, "rate_limit"), message, "write two rules, or a `state` block and a condition on its counter"
        if action in ("deny", "require_approval"):
            message = f"`rate_limit` beside `action: {action}` never applies"
            yield (*path, "rate_limit"), message, "write two rules, or remove one of the two"
    elif action == "deny" and "conditions" in given:
        message = "`conditions` beside `action: deny` never apply: the rule denies every call"
        advice = "remove `action`, and a call must meet the conditions; to deny where they hold, write policy.json"
        yield (*path, "conditions"), message, advice
    elif action == "require_approval" and "state" in given:
        advice = "count in a rule of its own, with a `lte` condition on the counter"
        yield (*path, "state"), "`state` beside `action: require_approval` counts nothing", advice
    elif action == "evaluate" and "conditions" not in given:
        advice = "add `conditions` or `rate_limit`, or write `action: deny`"
        yield path, "the rule has nothing to evaluate", advice
    if type(state) is dict and "increment" in state and "increment_from" in state:
        where = (*path, "state", "increment_from")
        yield where, "`increment` and `increment_from` both say what a call adds", "keep one of them"


def _read_counters(tool: str, path: Path, rule: dict[str, Any], counters: dict[str, Path]) -> Iterator[Finding]:
    """Conditions on counters that nothing counts, or with a ceiling that no counter can hold (PL-5.3)."""
    own = {f"state.{counter}" for counter, _ in _counted(tool, path, rule)}
    conditions = rule.get("conditions")
    for index, test in enumerate(conditions if type(conditions) is list else ()):
        if type(test) is not dict or type(test.get("path")) is not str or not test["path"].startswith("state."):
            continue
        where, counter = (*path, "conditions", index), test["path"].removeprefix("state.")
        value: Any = test.get("value")
        if counter not in counters:
            known = ", ".join(f"`state.{name}`" for name in counters)
            advice = f"counted are {known}" if known else "a rule counts with a `state` block"
            yield (*where, "path"), f"no rule counts `{counter}`", advice
        elif test["path"] not in own or test.get("op") not in ("lt", "lte") or rule.get("action") == "require_approval":
            continue
        elif type(value) in (int, float) and value > MAX_TOTAL:
            yield (*where, "value"), f"`value` must be at most {MAX_TOTAL}", "write a number in that range"
