"""One call of a guarded tool, however many of the tool's functions it passes."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from enum import IntEnum
from typing import Any, Final

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig

from ...calls import ToolCall
from ...errors import ToolDenied
from ...guard import Guard
from .answers import denial_message
from .arguments import Parameters
from .binding import Binding

__all__ = ["Invocation", "Step", "innermost", "starts_guarded"]


class Step(IntEnum):
    """How deep in a tool a function lies: each may call the next with what it was given."""

    OPENED = 0
    ARUN = 1
    RUN = 2
    BODY = 3


class Invocation:
    """One call of a guarded tool, however many of the tool's functions it passes.

    `run` and `arun` open one around the tool's work; a function that is called directly opens its own.

    Args:
        binding: Whose call it is.
        name: The tool's name as LangChain shows it; None where a function is called directly.
        call_id: The framework's id of the call; None where it has none.
        config: The configuration of the run; None stands for the surrounding run's.

    Attributes:
        outer: The invocation around this one: of a guard around this guard, or of a tool that calls this tool.
    """

    __slots__ = ("_call", "_call_id", "_config", "_given", "_step", "_token", "binding", "name", "outer")

    def __init__(
        self,
        binding: Binding,
        name: str | None = None,
        call_id: str | None = None,
        config: RunnableConfig | None = None,
    ) -> None:
        self.binding = binding
        self.name = name
        self.outer = _INVOCATION.get()
        self._call: ToolCall | None = None
        self._call_id = call_id
        self._config = config
        self._given: dict[str, Any] = {}
        self._step = Step.OPENED

    def __enter__(self) -> Invocation:
        self._token = _INVOCATION.set(self)
        return self

    def __exit__(self, *ended: object) -> None:
        self._step = Step.BODY  # what outlives the call, such as a thread, cannot go on as part of it
        _INVOCATION.reset(self._token)

    @property
    def is_fresh(self) -> bool:
        """Whether none of the tool's functions has been reached yet."""
        return self._step is Step.OPENED

    def begin(self, step: Step, given: dict[str, Any], parameters: Parameters) -> ToolCall:
        """The call, as the first of the tool's functions sees it."""
        self._step, self._given = step, given
        arguments = {**parameters.defaults, **given}
        self._call = self.binding.call(arguments, self._call_id, self._config)
        return self._call

    def goes_on(self, step: Step, given: dict[str, Any]) -> bool:
        """Whether a function is this call on its way down: deeper than before, with the same values, and once."""
        same = given.keys() == self._given.keys() and all(given[name] is self._given[name] for name in given)
        with _LOCK:
            on_its_way = same and not self.is_fresh and step > self._step
            if on_its_way:
                self._step = step
            return on_its_way

    def answer(self, denial: ToolDenied) -> ToolMessage | str:
        """What the framework gets for a denied call: a message where it can be matched to the call, else its text.

        Raises:
            ToolDenied: Another call was denied, or by another guard: to this one, that is the tool's own exception.
        """
        if denial.decision.call is not self._call:
            raise denial
        if self._call_id is None:
            return denial.decision.text
        return denial_message(denial.decision, self.name or "", self._call_id)


_LOCK: Final = threading.Lock()
_INVOCATION: Final[ContextVar[Invocation | None]] = ContextVar("mcp_policy_langchain_invocation", default=None)


def innermost(binding: Binding) -> Invocation | None:
    """The innermost call of the bound tool that this runs in."""
    invocation = _INVOCATION.get()
    while invocation is not None and invocation.binding is not binding:
        invocation = invocation.outer
    return invocation


def starts_guarded(guard: Guard, name: str) -> bool:
    """Whether a tool of this name is just being started, and this guard will decide the call inside it."""
    invocation = _INVOCATION.get()
    while invocation is not None and invocation.is_fresh:
        if invocation.binding.guard is guard and invocation.name == name:
            return True
        invocation = invocation.outer
    return False
