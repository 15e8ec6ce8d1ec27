"""What a policy sees of a LangChain call: the arguments by name, as JSON, without what the framework injects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_type_hints

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool, Tool
from langchain_core.utils.pydantic import get_fields
from pydantic_core import to_jsonable_python

from ...canonical import canonical

__all__ = ["Parameters", "as_json", "as_sent", "as_written", "injected_names"]

_FRAMEWORK_NAMES: Final = frozenset({"callbacks", "run_manager", "runtime"})
"""Parameters that LangChain and LangGraph fill in by name, where a function declares them."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """How one function of a tool names its arguments.

    Attributes:
        names: Names of positional arguments, in order.
        rest: The name under which further positional arguments are shown.
        defaults: What the function fills in for arguments that are left out.
        injected: Names that hold what the application or the framework puts in, never the agent.
    """

    names: Sequence[str]
    rest: str
    defaults: Mapping[str, Any]
    injected: frozenset[str]

    @classmethod
    def of_function(cls, function: Callable[..., Any], tool: BaseTool, injected: frozenset[str]) -> Parameters:
        """The parameters of a tool's `func` or `coroutine`."""
        mine = cls._read(function, injected, skipped=0)
        if isinstance(tool, Tool):  # whatever its function calls it, a `Tool` has one argument, named by its schema
            return cls((_single_name(tool),), mine.rest, {}, mine.injected)
        return mine

    @classmethod
    def of_method(cls, method: Callable[..., Any], tool: BaseTool, injected: frozenset[str]) -> Parameters:
        """The parameters of a tool class's `_run` or `_arun`, or of the function that a general one passes them to."""
        mine = cls._read(method, injected, skipped=1)
        body = _body(tool)
        if mine.names or body is None:
            return mine
        inner = cls.of_function(body, tool, injected)
        return cls(inner.names, inner.rest, inner.defaults, mine.injected | inner.injected)

    @classmethod
    def _read(cls, function: Callable[..., Any], injected: frozenset[str], skipped: int) -> Parameters:
        parameters = _signature(function)[skipped:]
        hidden = injected | _configs(function) | {p.name for p in parameters if p.name == "run_manager"}
        by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        return cls(
            names=tuple(p.name for p in parameters if p.kind in by_place),
            rest=next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "args"),
            defaults={p.name: p.default for p in parameters if p.default is not p.empty and p.name not in hidden},
            injected=hidden,
        )

    def given(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments a caller passed, by name."""
        named = dict(zip(self.names, args, strict=False))
        if len(args) > len(self.names):
            named[self.rest] = list(args[len(self.names) :])
        return {name: value for name, value in {**named, **kwargs}.items() if name not in self.injected}


def injected_names(tool: BaseTool) -> frozenset[str]:
    """Arguments that the framework or the application puts in, and the schema shown to a model leaves out.

    Whatever else a model sends is its own and is seen, even where the tool never asked for it.
    """
    names = set(tool._injected_args_keys)  # noqa: SLF001  LangChain's own answer, which it runs the tool by
    schema = tool.tool_call_schema
    if isinstance(schema, dict):
        shown = set(schema.get("properties", ()))
    else:
        shown = set(get_fields(schema))
        names |= set(get_fields(tool.get_input_schema())) - shown
    body = _body(tool)
    declared = set() if body is None else {parameter.name for parameter in _signature(body)}
    return frozenset(names | ((_FRAMEWORK_NAMES & declared) - shown))


def as_written(tool: BaseTool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A model's own arguments, before anything validates them, under the names that a guarded tool shows."""
    injected = injected_names(tool)  # LangGraph puts its own values over what a model wrote there
    written = {name: value for name, value in arguments.items() if name not in injected}
    if isinstance(tool, Tool) and len(written) == 1:
        written = {_single_name(tool): value for value in written.values()}
    return as_json(written)


def as_sent(tool: BaseTool, arguments: Mapping[str, Any], call_id: str | None, *, awaited: bool) -> dict[str, Any]:
    """A model's arguments as a guarded tool would show them: validated, with defaults, without what is injected.

    The tool validates them twice for this, and a third time when it runs. Arguments that do not validate are shown as
    they were written, for the tool will refuse them; so are those that JSON cannot say, and those that come out
    otherwise each time, such as with a default that is a fresh id: nobody can agree to what is not there yet.
    """
    first, second = (_validated(tool, arguments, call_id, awaited=awaited) for _ in range(2))
    return first if first is not None and _is_same(first, second) else as_written(tool, arguments)


def _validated(
    tool: BaseTool, arguments: Mapping[str, Any], call_id: str | None, *, awaited: bool
) -> dict[str, Any] | None:
    kind = type(tool)
    by_async = awaited and kind._arun is not BaseTool._arun  # noqa: SLF001  as LangChain asks
    injected = injected_names(tool)
    parameters = Parameters.of_method(kind._arun if by_async else kind._run, tool, injected)  # noqa: SLF001
    written = {name: value for name, value in arguments.items() if name not in injected}
    try:
        checking = tool.model_copy(update={"args_schema": _without(tool.args_schema, injected)})
        args, kwargs = checking._to_args_and_kwargs(written, call_id)  # noqa: SLF001  what `run` passes on
    except Exception:  # of a validator, which may be anybody's code
        return None
    return as_json({**parameters.defaults, **parameters.given(args, kwargs)})


def _is_same(first: Any, second: Any) -> bool:
    try:
        return canonical(first) == canonical(second)
    except ValueError:  # JSON cannot say it, so nobody could be shown it
        return False


def _without(schema: Any, injected: frozenset[str]) -> Any:
    """A model of arguments that does not ask for what is injected, with all its validators."""
    names = injected & get_fields(schema).keys() if isinstance(schema, type) else frozenset()
    if not names:
        return schema
    fields = {**dict.fromkeys(names), "__annotations__": dict.fromkeys(names, Any), "__module__": schema.__module__}
    return type(schema)(schema.__name__, (schema,), fields)


def as_json(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as JSON (PL-4.1): models, dates, enums and the like as a server would get them.

    What JSON cannot say stays as it is, and the engine denies where a rule looks at it.
    """
    return {name: _json(value) for name, value in arguments.items()}


def _json(value: Any) -> Any:
    if isinstance(value, Iterator):  # reading it here would leave the tool nothing
        return value
    try:
        return to_jsonable_python(value)
    except Exception:  # whatever a value's own serializer raises, the value is not JSON
        return value


def _body(tool: BaseTool) -> Callable[..., Any] | None:
    """The function a tool was made of; None for a class of its own."""
    return (tool.func or tool.coroutine) if isinstance(tool, (StructuredTool, Tool)) else None


def _single_name(tool: Tool) -> str:
    return next(iter(tool.args), "tool_input")


def _signature(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a built-in function that does not tell
        return []


def _configs(function: Callable[..., Any]) -> frozenset[str]:
    """Parameters that take the run's configuration; LangChain finds them by their annotation."""
    try:
        hints = get_type_hints(function)
    except (AttributeError, NameError, TypeError):  # annotations that do not resolve get nothing from LangChain
        return frozenset()
    return frozenset(name for name, hint in hints.items() if hint is RunnableConfig)
