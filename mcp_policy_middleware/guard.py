"""The enforcement point: decides every call before it leaves, once, and settles it afterwards.

What happens to one call is told in `passage.py`: it is decided, let go on, and settled.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

from .answers import (
    PROCEED,
    OnStoreFailure,
    OutcomeOf,
    Proceed,
    Release,
    aanswer,
    alook,
    answer,
    is_lenient,
    look,
    outcome_of_any,
    unwrapped,
)
from .approvals.approver import Approver
from .approvals.function import Ask
from .approving import ApprovalTimeout, Approving
from .calls import Decision, Outcome, ServerName, ToolCall
from .clock import seconds_of
from .engine import Request
from .engine.trace import Trace
from .errors import DocumentError, PolicyError
from .handover import Layer
from .passage import Passage
from .policy.model import Mode
from .recording import Recorder
from .selection import select
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
        approver: Asks a person where the policy wants an approval: an `Approver`, or a function that takes an
            `ApprovalRequest` and returns True, False or an `Answer`, or awaits one; left out, such calls are denied.
        approval_timeout: Seconds, or a `timedelta`, until an answer and the call itself come too late (PL-7.2).
        on_store_failure: `deny` a call whose limits cannot be checked, or `allow` it, and no limit holds meanwhile.
        mode: Overrides the `mode` of documents and tools: `enforce` or `shadow` (PL-4.4).
        clock: Returns the time as an aware datetime; for tests.
        telemetry: A `Telemetry`; left out, one on the global providers; False turns all of it off.
        audit: Keeps a record of decisions and of how calls ended; a call that cannot be put on record is denied.

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
        approver: Approver | Ask | None = None,
        approval_timeout: ApprovalTimeout = 1_800,
        on_store_failure: OnStoreFailure = "deny",
        mode: Mode | None = None,
        clock: Callable[[], datetime] | None = None,
        telemetry: Telemetry | bool | None = None,
        audit: Recorder | None = None,
    ) -> None:
        if not isinstance(grant, str) or not grant:
            raise PolicyError("a grant is a name: give a text that is not empty")
        selection = select(policy, mode)
        self._reloading = threading.RLock()
        self._owns_store = store is None
        self._store = selection.memory_store() if store is None else store
        now = seconds_of(clock)
        self._answer = partial(answer, self._store, now)
        self._aanswer = partial(aanswer, self._store, now)
        self._look = partial(look, self._store, now)
        self._alook = partial(alook, self._store, now)
        told = Telemetry() if telemetry is None or telemetry is True else telemetry or None
        approving = None if approver is None else Approving(approver, approval_timeout, now, self._answer, told)
        lenient = is_lenient(on_store_failure)
        self._passage = Passage(self, selection, grant, session, context, lenient, approving, told, audit)
        self._recorded = self._passage.recorded
        self._unrecorded = audit is None

    def explain(self, call: ToolCall) -> Decision:
        """What would happen now; never changes anything and makes no span."""
        return drive(self._passage.looked_at(call), self._look)

    async def aexplain(self, call: ToolCall) -> Decision:
        """`explain` for async callers."""
        return await adrive(self._passage.looked_at(call), self._alook)

    def trace(self, call: ToolCall) -> Trace:
        """`explain`, stage by stage; where a person would be asked, it ends with `approval_required`."""
        return drive(self._passage.traced(call), self._look)

    async def atrace(self, call: ToolCall) -> Trace:
        """`trace` for async callers."""
        return await adrive(self._passage.traced(call), self._alook)

    def observe(self, call: ToolCall) -> Decision:
        """`explain`, with a span that says not enforced: for a call that goes on whatever the policy says."""
        return drive(self._passage.recorded(call, observing=True), self._look)

    @property
    def pauses(self) -> bool:
        """Whether asking a person ends whatever makes the call, which is run again for the answer."""
        approving = self._passage.approving
        return approving is not None and bool(approving.approver.control_flow)

    def ask(self, calls: Iterable[ToolCall]) -> list[Decision | None]:
        """Ask people about calls that will be made together, before any of them is.

        Returns:
            For each call the denial that asking came to; None where the call is decided when it is made.
        """
        return drive(self._passage.ahead(calls), self._look)

    async def aask(self, calls: Iterable[ToolCall]) -> list[Decision | None]:
        """`ask` for async callers."""
        return await adrive(self._passage.ahead(calls), self._alook)

    def begin(self, call: ToolCall) -> Decision:
        """Decide a call and take its charges; whoever asks must heed `allowed` and call `finish`."""
        return drive(self._recorded(call), self._answer)

    async def abegin(self, call: ToolCall) -> Decision:
        """`begin` for async callers."""
        return await adrive(self._recorded(call), self._aanswer)

    def finish(self, decision: Decision, outcome: Outcome) -> None:
        """Settle an admitted call: its outcome keeps the charge or gives it back, once (PL-5.6)."""
        if outcome is _RETURNED and self._unrecorded:  # most calls: the charge is kept, no store is asked
            decision.reservation = None
        else:
            drive(self._passage.ended(decision, outcome), self._answer)

    async def afinish(self, decision: Decision, outcome: Outcome) -> None:
        """`finish` for async callers."""
        await adrive(self._passage.ended(decision, outcome), self._aanswer)

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

        return unwrapped(drive(self._passage.around(call, outcome_of, layer), reply_to))  # type: ignore[no-any-return]

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

        return unwrapped(await adrive(self._passage.around(call, outcome_of, layer), reply_to))  # type: ignore[no-any-return]

    def visible(self, tools: Iterable[T], *, server: ServerName = None, grant: str | None = None) -> list[T]:
        """The tools of a list, names or objects with a `name`, that are not hidden from a grant, in the same order."""
        return self._passage.selection.visible(tools, server, self._passage.grant if grant is None else grant)

    def suspend(self, reason: str) -> None:
        """A kill switch: deny every call from now on, in shadow mode too, and tell the agent why."""
        self._passage.suspended = reason

    def resume(self) -> None:
        """Decide calls by policy again."""
        self._passage.suspended = None

    @property
    def telemetry(self) -> Telemetry | None:
        """Where decisions are recorded; None for nowhere."""
        return self._passage.telemetry

    @property
    def sources(self) -> Sources:
        """Where the documents came from."""
        return self._passage.selection.sources

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
            while before is not self._passage.selection:  # a signal's handler may reload meanwhile, on this thread
                before = self._passage.selection
                after, problems = before.renewed(policies, seen, lasting=not self._owns_store)
            self._passage.selection = after
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
