"""Guarded tools: copies of LangChain tools that ask the policy before they run (adapters A-2).

A guarded tool is a copy whose class is a subclass of the tool's own. Two pairs of methods differ: `_run` and
`_arun` decide the call, after the arguments are validated, and `run` and `arun` turn a denial into a tool error.
The functions a tool was made of (`func`, `coroutine`) decide as well, for whoever calls them directly.

One call passes several of these: `_arun` may call `_run`, which calls `func`. An `Invocation` keeps them one call.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from langchain_core.tools import BaseTool, StructuredTool, Tool

from ...calls import ToolCall
from ...errors import PolicyError, ToolDenied
from ...guard import Guard
from ...handover import Layer
from .answers import outcome_of
from .arguments import Parameters, injected_names
from .binding import Binding, IdentityOf, bindings_of
from .invocation import Invocation, Step, innermost

__all__ = ["guard_tool", "guard_tools"]


def guard_tool(
    tool: BaseTool,
    guard: Guard,
    *,
    server: str | None = None,
    name_of: Callable[[BaseTool], str] | None = None,
    identity_of: IdentityOf | None = None,
) -> BaseTool:
    """A copy of the tool that asks the guard before each call; the tool itself stays as it is.

    Agents see the same name, description and schema. A denied call gives them an ordinary tool error, and the tool's
    code does not run; the policy sees the arguments as the tool would get them: validated, with defaults, as JSON.

    Args:
        tool: Any LangChain tool: a `Tool`, a `StructuredTool`, a class of your own, a tool of an MCP bridge.
        guard: Who decides.
        server: The name the application gave the MCP server the tool comes from; None for a tool of no server.
        name_of: Tells the tool's name as its server knows it, where LangChain shows another: so `stripe_refund`
            meets the rules for `refund`.
        identity_of: Tells `grant`, `session` and `context` of a call from the run's configuration; what it leaves out
            is the guard's. A call for which it fails is denied.

    Returns:
        The guarded copy; the tool itself where this guard guards it already under the same server and name.

    Raises:
        PolicyError: This guard guards the tool already, with another `identity_of`.
        TypeError: It is no LangChain tool.
    """
    binding = Binding(guard, server, _name(tool, name_of), identity_of)
    for earlier in bindings_of(tool):
        if earlier == binding:
            return tool
        if earlier.means(binding):
            raise PolicyError(f"tool `{tool.name}` is guarded already, with another `identity_of`: guard it once")
    return _guarded(tool, binding)


def guard_tools(
    tools: Iterable[BaseTool],
    guard: Guard,
    *,
    server: str | None = None,
    name_of: Callable[[BaseTool], str] | None = None,
    identity_of: IdentityOf | None = None,
) -> list[BaseTool]:
    """Guarded copies of the tools, in the same order, without those that the policy hides.

    Args:
        tools: LangChain tools, all of one server.
        guard: Who decides.
        server: As for `guard_tool`.
        name_of: As for `guard_tool`.
        identity_of: As for `guard_tool`.
    """
    listed = [_Listed(_name(tool, name_of), tool) for tool in tools]
    return [
        guard_tool(shown.tool, guard, server=server, name_of=name_of, identity_of=identity_of)
        for shown in guard.visible(listed, server=server)
    ]


class _Listed(NamedTuple):
    """A tool under the name its server knows it by."""

    name: str
    tool: BaseTool


def _name(tool: Any, name_of: Callable[[BaseTool], str] | None) -> str:
    if not isinstance(tool, BaseTool):
        raise TypeError(f"a LangChain tool is needed, not {type(tool).__name__}: make one of a function with `tool`")
    return tool.name if name_of is None else name_of(tool)


def _guarded(tool: BaseTool, binding: Binding) -> BaseTool:
    base = type(tool)
    injected = injected_names(tool)
    bodies = {}
    for field in ("func", "coroutine") if isinstance(tool, (StructuredTool, Tool)) else ():
        body = getattr(tool, field)
        if callable(body):
            parameters = Parameters.of_function(body, tool, injected)
            bodies[field] = _decided(binding, body, Step.BODY, parameters, awaited=field == "coroutine")

    def method(function: Callable[..., Any], step: Step) -> Callable[..., Any]:
        parameters = Parameters.of_method(function, tool, injected)
        return _decided(binding, function, step, parameters, awaited=step is Step.ARUN, skipped=1)

    run, arun = base._run, base._arun  # noqa: SLF001  what the author of a tool class overrides
    members: dict[str, Any] = {name: getattr(base, name) for name in ("__module__", "__qualname__", "__doc__")}
    members["__policy_binding__"] = binding
    members["_run"] = method(run, Step.RUN)
    if arun is not BaseTool._arun:  # noqa: SLF001  LangChain asks just this to tell what `_arun` accepts
        members["_arun"] = method(arun, Step.ARUN)
    members["run"] = _answered(binding, base.run)
    members["arun"] = _aanswered(binding, base.arun)
    metaclass: Any = type(base)
    copy = tool.model_copy(update=bodies)
    object.__setattr__(copy, "__class__", metaclass(base.__name__, (base,), members))
    return copy


def _answered(binding: Binding, function: Callable[..., Any]) -> Callable[..., Any]:
    """A tool's `run`, which answers a denied call with a tool error."""

    @functools.wraps(function)
    def run(tool: BaseTool, *args: Any, **kwargs: Any) -> Any:
        with Invocation(binding, tool.name, kwargs.get("tool_call_id"), kwargs.get("config")) as invocation:
            try:
                return function(tool, *args, **kwargs)
            except ToolDenied as denial:
                return invocation.answer(denial)

    return run


def _aanswered(binding: Binding, function: Callable[..., Any]) -> Callable[..., Any]:
    """A tool's `arun`, likewise."""

    @functools.wraps(function)
    async def arun(tool: BaseTool, *args: Any, **kwargs: Any) -> Any:
        with Invocation(binding, tool.name, kwargs.get("tool_call_id"), kwargs.get("config")) as invocation:
            try:
                return await function(tool, *args, **kwargs)
            except ToolDenied as denial:
                return invocation.answer(denial)

    return arun


def _decided(
    binding: Binding,
    function: Callable[..., Any],
    step: Step,
    parameters: Parameters,
    *,
    awaited: bool,
    skipped: int = 0,
) -> Callable[..., Any]:
    """A function of a tool, each call decided before it runs; the first `skipped` arguments are the tool itself."""
    guard = binding.guard

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with _deciding(binding, step, parameters, args[skipped:], kwargs) as call:
            call_next = functools.partial(function, *args, **kwargs)
            return call_next() if call is None else guard.run(call, call_next, outcome_of, layer=Layer.TOOL)

    @functools.wraps(function)
    async def arun(*args: Any, **kwargs: Any) -> Any:
        with _deciding(binding, step, parameters, args[skipped:], kwargs) as call:
            call_next = functools.partial(function, *args, **kwargs)
            return await (call_next() if call is None else guard.arun(call, call_next, outcome_of, layer=Layer.TOOL))

    return arun if awaited or inspect.iscoroutinefunction(function) else run


@contextmanager
def _deciding(
    binding: Binding, step: Step, parameters: Parameters, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[ToolCall | None]:
    """The call to decide before a function of the tool runs; None where it was decided on the way here."""
    given = parameters.given(args, kwargs)
    invocation = innermost(binding)
    if invocation is not None and invocation.goes_on(step, given):
        yield None
    elif invocation is not None and invocation.is_fresh:
        yield invocation.begin(step, given, parameters)
    else:
        with Invocation(binding) as own:
            yield own.begin(step, given, parameters)
