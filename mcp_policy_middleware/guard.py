"""The enforcement point: decides every call before it leaves, once, and settles it afterwards.

`Guard._passage` is the whole account of a guarded call: decide, let it go on, settle.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

from .answers import (
    PROCEED,
    Ended,
    OnStoreFailure,
    OutcomeOf,
    Proceed,
    Release,
    aanswer,
    alook,
    answer,
    is_lenient,
    look,
    outcome,
    outcome_of_any,
    unwrapped,
)
from .calls import Decision, Layer, Outcome, ServerName, ToolCall
from .clock import seconds_of
from .engine import CompiledPolicy, Flow, Request, decide
from .errors import DocumentError, PolicyError, ToolDenied
from .handover import CURRENT, Handover, current
from .policy.model import Mode
from .selection import select
from .settlement import settle
from .sources import Fingerprint, Policies, Sources
from .steps import adrive, drive
from .stores.base import Store
from .telemetry import Telemetry

__all__ = ["Guard", "OutcomeOf"]

T = TypeVar("T")
_RETURNED: Final = Outcome.RETURNED


class Guard:
    """Decides every call before it leaves; one per application, safe for threads and tasks.

    Args:
        policy: One `Policy` for every call; or a map of server name to policy, where `_local` is for tools
            of no MCP server; or the path of a directory that holds `<server>.json` files (PL-9.1).
        store: Where counters live; left out, memory, which will not do for a limit's window of more than an hour.
        grant: The name under which the agent was given access; counters are kept per grant.
        session: The id of the run or conversation, for limits of scope `session`.
        context: Values for conditions on `context.*`, which a call may bring its own of.
        on_store_failure: `deny` a call whose limits cannot be checked, or `allow` it, and no limit holds meanwhile.
        mode: Overrides the `mode` of documents and tools: `enforce` or `shadow` (PL-4.4).
        clock: Returns the time as an aware datetime; for tests.
        telemetry: A `Telemetry`; left out, one on the global tracer provider; False turns spans off.

    Raises:
        PolicyError: A setting does not fit; `DocumentError` where documents of a directory do not read.
    """

    def __init__(
        self,
        policy: Policies,
        *,
        store: Store | None = None,
        grant: str = "default",
        session: str | None = None,
        context: Mapping[str, Any] | None = None,
        on_store_failure: OnStoreFailure = "deny",
        mode: Mode | None = None,
        clock: Callable[[], datetime] | None = None,
        telemetry: Telemetry | bool | None = None,
    ) -> None:
        if not isinstance(grant, str) or not grant:
            raise PolicyError("a grant is a name: give a text that is not empty")
        self.grant = grant
        self.session = session
        self.context = context
        self._selection = select(policy, mode)
        self._reloading = threading.RLock()
        self._owns_store = store is None
        self._store = self._selection.memory_store() if store is None else store
        now = seconds_of(clock)
        self._answer = partial(answer, self._store, now)
        self._aanswer = partial(aanswer, self._store, now)
        self._look = partial(look, self._store, now)
        self._alook = partial(alook, self._store, now)
        self._telemetry = Telemetry() if telemetry is None or telemetry is True else telemetry or None
        self._recording = self._telemetry.recording if self._telemetry else bool  # which is False
        self._lenient = is_lenient(on_store_failure)
        self._suspended: str | None = None

    def explain(self, call: ToolCall) -> Decision:
        """What would happen now; never changes anything and makes no span."""
        return drive(self._flow(call), self._look)

    async def aexplain(self, call: ToolCall) -> Decision:
        """`explain` for async callers."""
        return await adrive(self._flow(call), self._alook)

    def observe(self, call: ToolCall) -> Decision:
        """`explain`, with a span that says not enforced: for a call that goes on whatever the policy says."""
        return drive(self._recorded(call, enforced=False), self._look)

    def begin(self, call: ToolCall) -> Decision:
        """Decide a call and take its charges; whoever asks must heed `allowed` and call `finish`."""
        return drive(self._recorded(call), self._answer)

    async def abegin(self, call: ToolCall) -> Decision:
        """`begin` for async callers."""
        return await adrive(self._recorded(call), self._aanswer)

    def finish(self, decision: Decision, outcome: Outcome) -> None:
        """Settle an admitted call: its outcome keeps the charge or gives it back, once (PL-5.6)."""
        if outcome is _RETURNED:  # most calls: the charge is kept, and no store is asked
            decision.reservation = None
        else:
            drive(settle(decision, outcome), self._answer)

    async def afinish(self, decision: Decision, outcome: Outcome) -> None:
        """`finish` for async callers."""
        await adrive(settle(decision, outcome), self._aanswer)

    def run(
        self,
        call: ToolCall,
        call_next: Callable[[], T],
        outcome_of: OutcomeOf = outcome_of_any,
        *,
        layer: Layer = Layer.CALLER,
    ) -> T:
        """Decide, call, settle.

        Args:
            call: What is about to be called.
            call_next: Carries it out; called once, or not at all.
            outcome_of: Tells the outcome from the result or the exception.
            layer: Where in a stack of guards this is; a deeper layer takes up an outer one's decision.

        Returns:
            What `call_next` returns; its exceptions pass unchanged.

        Raises:
            ToolDenied: The policy denies the call; `call_next` was not called.
        """

        def reply_to(request: Request | Release | Proceed) -> Any:
            if request is not PROCEED:
                return self._answer(request)
            try:
                return call_next(), None
            except BaseException as error:  # the call is settled before it is raised again
                return None, error

        return unwrapped(drive(self._passage(call, outcome_of, layer), reply_to))  # type: ignore[no-any-return]

    async def arun(
        self,
        call: ToolCall,
        call_next: Callable[[], Awaitable[T]],
        outcome_of: OutcomeOf = outcome_of_any,
        *,
        layer: Layer = Layer.CALLER,
    ) -> T:
        """`run` for async callers; `call_next` is awaited."""

        async def reply_to(request: Request | Release | Proceed) -> Any:
            if request is not PROCEED:
                return await self._aanswer(request)
            try:
                return await call_next(), None
            except BaseException as error:  # the call is settled before it is raised again
                return None, error

        return unwrapped(await adrive(self._passage(call, outcome_of, layer), reply_to))  # type: ignore[no-any-return]

    def visible(self, tools: Iterable[T], *, server: ServerName = None, grant: str | None = None) -> list[T]:
        """The tools of a list, names or objects with a `name`, that are not hidden from a grant, in the same order."""
        return self._selection.visible(tools, server, self.grant if grant is None else grant)

    def suspend(self, reason: str) -> None:
        """A kill switch: deny every call from now on, in shadow mode too, and tell the agent why."""
        self._suspended = reason

    def resume(self) -> None:
        """Decide calls by policy again."""
        self._suspended = None

    @property
    def sources(self) -> Sources:
        """Where the documents came from."""
        return self._selection.sources

    def reload(self, policies: Policies | None = None, *, seen: Fingerprint | None = None) -> None:
        """Take documents as they are now, between two decisions; counters stay (PL-9.4, PL-5.8).

        A call in flight finishes under the policy that admitted it. What does not read keeps its old policy.

        Args:
            policies: What to take instead, whole or not at all; left out, the guard's files are read again.
            seen: How those files look at rest; one that looks otherwise is being written.

        Raises:
            PolicyError: There is nothing to read; `DocumentError` where some do not read, and the others were taken.
        """
        with self._reloading:
            before = None
            while before is not self._selection:  # a signal's handler may reload meanwhile, on this thread
                before = self._selection
                after, problems = before.renewed(policies, seen, lasting=not self._owns_store)
            self._selection = after
        if problems:
            raise DocumentError(problems)

    def close(self) -> None:
        """Let go of the store, where this guard made it."""
        if self._owns_store:
            self._store.close()

    async def aclose(self) -> None:
        """`close` for async callers."""
        if self._owns_store:
            await self._store.aclose()

    def _flow(self, call: ToolCall) -> Flow:
        grant = self.grant if call.grant is None else call.grant
        session = self.session if call.session is None else call.session
        context = self.context if call.context is None else call.context
        policy = self._selection.policy_for(call.server, grant)
        return decide(policy, call, grant, session, self._suspended, None, context, self._lenient)

    def _recorded(self, call: ToolCall, *, enforced: bool = True) -> Flow:
        started = time.time_ns() if self._recording() else 0
        decision = yield from self._flow(call)
        decision.enforced = decision.enforced and enforced
        if started:
            self._record(decision, started)
        return decision

    def _record(self, decision: Decision, started: int) -> None:
        if self._telemetry is not None:
            self._telemetry.record(decision, started, time.time_ns(), self._selection.knows)

    def _passage(self, call: ToolCall, outcome_of: OutcomeOf, layer: Layer) -> Generator[Any, Any, Ended]:
        """One guarded call, as one layer sees it."""
        around = current(self)
        if around is not None and around.accepts(call, layer):
            return (yield from self._inner_passage(call, outcome_of, around))
        decision = yield from self._recorded(call)
        if not decision.allowed:
            raise ToolDenied(decision)
        handover = Handover(self, decision, layer, CURRENT.get())
        token = CURRENT.set(handover)
        try:
            ended: Ended = yield PROCEED
        finally:
            CURRENT.reset(token)
            handover.settled = True
        yield from settle(decision, handover.told or outcome(outcome_of, ended))
        return ended

    def _inner_passage(self, call: ToolCall, outcome_of: OutcomeOf, around: Handover) -> Generator[Any, Any, Ended]:
        """The same call seen deeper: decided on what is seen here, with the one reservation.

        A layer that agrees with the outer one makes no second span.
        """
        outer = around.decision
        policy = outer.policy if isinstance(outer.policy, CompiledPolicy) else None
        started = time.time_ns() if self._recording() else 0
        decision = yield from decide(
            policy,
            call,
            outer.grant,
            outer.session,
            self._suspended,
            outer.reservation,
            next((one for one in (call.context, outer.call.context) if one is not None), self.context),
            self._lenient,
        )
        if started and decision.effect != outer.effect:
            self._record(decision, started)
        if decision.reservation is not None:
            outer.reservation = decision.reservation
        elif decision.effect == "deny" and not around.answered:
            yield from settle(outer, Outcome.NOT_SENT)
        if not decision.allowed:
            raise ToolDenied(decision)
        ended: Ended = yield PROCEED
        around.tell(outcome(outcome_of, ended))
        return ended
