"""The policy as a callback: a hard stop for runs that cannot be guarded otherwise, or an audit (adapters A-2)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias, get_args
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler

from ...calls import Outcome, ToolCall, Unreadable
from ...errors import PolicyError, ToolDenied, log_failure
from ...guard import Guard
from ...handover import Handover, Layer, current, hand_inwards
from .answers import outcome_of
from .binding import Binding, IdentityOf
from .invocation import starts_guarded

__all__ = ["CallbackMode", "PolicyCallbackHandler"]

CallbackMode: TypeAlias = Literal["observe", "enforce"]
"""Whether a denied call is only recorded, or ends the run."""

_LOG: Final = logging.getLogger(__name__)
_MOST_OPEN: Final = 1024
_RAW_NAME: Final = "__arg1"
"""The name under which a model gives the argument of a tool that takes one text."""

_FIXED: Final = ("ignore_agent", "on_tool_start", "raise_error", "run_inline")
"""What a subclass must not change, for with it a call could pass undecided."""


class PolicyCallbackHandler(BaseCallbackHandler):
    """Ends the whole run at the first denied tool call (`enforce`), or only records what the policy says (`observe`).

    A callback cannot answer a call: in `enforce` mode a denial is a `ToolDenied` that LangChain lets through, no tool
    error reaches the model, and calls made beside the denied one may have run. Prefer guarded tools and
    `PolicyMiddleware`; use this where tools cannot be replaced. It sees tools that are run with the callbacks of the
    run, so not those called directly, in a thread of one's own, or without the run's configuration.

    `observe` charges nothing, never raises, and makes a span that says not enforced; limits are as others left them.

    Where this guard decides the call elsewhere, it is not decided twice: the decision of a guarded tool is left to
    the tool, whose denial is then an ordinary tool error; a middleware's decision is taken up; and a decision made
    here is handed on to a `PolicyInterceptor` or a guarded session beneath. The guard is asked on the caller's
    thread, so a store on the network holds up an event loop.

    It sees arguments as they were given, before they are validated. A text that is given without a name is denied,
    for no rule can name it; a `Tool` of one text takes it under any name, so guard such tools, or say `only_arguments`.

    Args:
        guard: Who decides.
        mode: `observe` or `enforce`.
        server: The name the application gave the MCP server the tools come from; None for tools of no server.
        name_of: Tells a tool's name as its server knows it, from the name that LangChain shows.
        server_of: Tells a tool's server from the name that LangChain shows; used instead of `server`.
        identity_of: Tells `grant`, `session` and `context` of a call from the configuration of the surrounding run,
            such as a graph's; what it leaves out is the guard's. A call for which it fails is denied. The metadata that
            LangChain gives callbacks is not used: a server's own annotations are among it.

    Raises:
        PolicyError: The mode is not known.
    """

    def __init__(
        self,
        guard: Guard,
        mode: CallbackMode = "observe",
        *,
        server: str | None = None,
        name_of: Callable[[str], str] | None = None,
        server_of: Callable[[str], str | None] | None = None,
        identity_of: IdentityOf | None = None,
    ) -> None:
        if mode not in get_args(CallbackMode):
            raise PolicyError(f"mode `{mode}` is not known: give `observe` or `enforce`")
        super().__init__()
        self._guard = guard
        self._enforces = mode == "enforce"
        self._server = server
        self._name_of = name_of
        self._server_of = server_of
        self._identity_of = identity_of
        self._open: dict[UUID, Handover] = {}
        self._lock = threading.Lock()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        changed = [name for name in _FIXED if getattr(cls, name) is not getattr(PolicyCallbackHandler, name)]
        if changed or AsyncCallbackHandler in cls.__mro__:  # LangChain drops what an async one raises in a sync tool
            kept = ", ".join(f"`{name}`" for name in _FIXED)
            raise TypeError(f"`{cls.__name__}` could let calls pass undecided: leave {kept} as they are, and not async")

    @property
    def raise_error(self) -> bool:  # type: ignore[override]  # a plain attribute there, which anybody could set
        """Whether LangChain lets a denial through; not to be changed, as it would then let the call through."""
        return self._enforces

    @property
    def run_inline(self) -> bool:  # type: ignore[override]  # likewise
        """Whether it runs in the caller's own context, in which a decision can be handed inwards."""
        return self._enforces

    @property
    def ignore_agent(self) -> bool:
        """Never: LangChain would start tools without asking."""
        return False

    def on_tool_start(
        self,
        serialized: dict[str, Any] | None,
        input_str: str,
        *,
        run_id: UUID,
        inputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Decide the call that is about to be made.

        Raises:
            ToolDenied: In `enforce` mode, the policy denies it; the run ends.
        """
        name = str((serialized or {}).get("name") or "")
        if starts_guarded(self._guard, name):
            return
        try:
            call = self._call(name, inputs, kwargs.get("tool_call_id"))
            around = current(self._guard)
            if around is not None and self._was_told(around, run_id, call):
                return
            if around is not None and around.concerns(call, Layer.CALLBACK):
                if self._enforces:
                    self._guard.run(call, _nothing, layer=Layer.CALLBACK)
                    around.seen = (self, run_id, call)
            elif self._enforces:
                self._begin(call, run_id)
            else:
                self._guard.observe(call)
        except NotImplementedError as error:  # which LangChain takes for a callback that is not there
            if self._enforces:
                raise PolicyError("a call could not be decided and was not made") from error

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Settle the call."""
        self._finish(run_id, outcome_of(output))

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Settle the call."""
        self._finish(run_id, outcome_of(error))

    def _was_told(self, around: Handover, run_id: UUID, call: ToolCall) -> bool:
        """Whether another callback of this guard has decided this very call; each is told of a call once."""
        seen = around.seen
        return not around.settled and seen is not None and seen[0] is not self and seen[1:] == (run_id, call)

    def _call(self, name: str, inputs: dict[str, Any] | None, call_id: str | None) -> ToolCall:
        try:
            server = self._server if self._server_of is None else self._server_of(name)
            known = name if self._name_of is None else self._name_of(name)
            binding = Binding(self._guard, server, known, self._identity_of)
        except Exception as error:  # the application's own code may raise anything
            log_failure(_LOG, "a call was denied because its server or its tool could not be told", error)
            return ToolCall(name, Unreadable("it is not known which tool of which server this is"), call_id=call_id)
        if inputs is None:
            why = Unreadable("its argument is a text without a name, which no rule can look at")
            return ToolCall(known, why, server=server, call_id=call_id)
        if inputs.keys() == {_RAW_NAME}:
            inputs = {"tool_input": inputs[_RAW_NAME]}
        return binding.call(inputs, call_id, None)

    def _begin(self, call: ToolCall, run_id: UUID) -> None:
        decision = self._guard.begin(call)
        if not decision.allowed:
            raise ToolDenied(decision)
        handover = hand_inwards(self._guard, decision, Layer.CALLBACK)
        handover.seen = (self, run_id, call)
        with self._lock:
            lost = [self._open.pop(run_id, None)]
            if len(self._open) >= _MOST_OPEN:  # tools whose end LangChain never told, such as cancelled ones
                lost.append(self._open.pop(next(iter(self._open))))
            self._open[run_id] = handover
        for each in lost:
            if each is not None:
                each.close()
                each.outer = None  # or lost calls of one context would keep each other alive

    def _finish(self, run_id: UUID, outcome: Outcome) -> None:
        with self._lock:
            handover = self._open.pop(run_id, None)
        if handover is not None:
            handover.close()
            self._guard.finish(handover.decision, outcome)


def _nothing() -> None:
    """What `Guard.run` carries out where only the decision is wanted; the layer around settles the call."""
