"""People asked by pausing the graph: `interrupt(...)`, and `Command(resume=...)` with an answer (PL-7).

LangGraph runs a paused task again from its start, with every value it was ever resumed with, in order. So an answer
names its request: a value counts for the request it names, once, whichever question of the task is put first.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, ClassVar, Final, NamedTuple

from ..approvals import Answer, ApprovalRequest, ApprovalStore, Approver, FloodLimits, NoAnswer
from ..errors import MissingDependency, PolicyError

try:
    from langgraph.config import get_config
    from langgraph.errors import GraphBubbleUp
    from langgraph.types import Interrupt, interrupt
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("langchain_core", "langgraph"):
        raise
    raise MissingDependency("pausing LangGraph", "agents") from error

__all__ = ["InterruptApprover", "approve", "deny"]

_MOST_TASKS: Final = 1024
_SHOWN: Final = ("id", "server", "tool", "arguments", "grant", "rule", "text", "expires_at")
_NO_PAUSE: Final = (
    "a person could not be asked, for no graph could be paused: make the call in a node of a graph that is compiled "
    "with a checkpointer and run with a `thread_id`"
)
_NO_ANSWER: Final = (
    "a graph was resumed with something that answers no request, and the call was denied: resume it with "
    "`Command(resume=approve(interrupt))` or `deny(interrupt)`"
)


class InterruptApprover(Approver):
    """Pauses the graph until a person's answer resumes it.

    The interrupt's value is a dict of `id`, `server`, `tool`, `arguments`, `grant`, `rule`, `text` and `expires_at`.
    `approve(interrupt)` and `deny(interrupt)` build the value to resume with. An answer to another request, or one
    given too late, counts for nothing and the graph pauses again; what is no answer at all denies the call.

    With approvals in memory a restart forgets that an answer was used, and starts the time for it anew: a process that
    dies between a call and its checkpoint makes the call again. A store that lasts does neither, and there
    a request may also be answered from outside: then any value resumes the graph.

    Args:
        store: Where requests are kept; left out, this process's memory.
        floods: How much one grant may ask.
    """

    control_flow: ClassVar[tuple[type[Exception], ...]] = (GraphBubbleUp,)

    def __init__(self, *, store: ApprovalStore | None = None, floods: FloodLimits | None = None) -> None:
        super().__init__(store=store, floods=floods)
        self._heard: dict[tuple[Any, Any], dict[str, _Told]] = {}
        self._lock = threading.Lock()

    def ask(self, request: ApprovalRequest, seconds: float) -> Answer | NoAnswer:
        """The answer that the graph was resumed with.

        Raises:
            GraphInterrupt: There is none yet: the graph pauses.
            PolicyError: No graph can be paused, or it was resumed with what is no answer.
        """
        config = _config_of_graph()
        heard = self._heard_in(config)
        question = {name: getattr(request, name) for name in _SHOWN}
        now = request.expires_at - seconds
        while True:
            told = heard.pop(request.id, None) or _told(_interrupted(question))
            if told.id != request.id:
                heard[told.id] = told  # for another question of the same task, which may come later
            elif now < told.expires_at:
                return told.answer

    async def aask(self, request: ApprovalRequest, seconds: float) -> Answer | NoAnswer:
        """`ask`, which waits for nothing."""
        return self.ask(request, seconds)

    def resumes(self, pending: ApprovalRequest, again: ApprovalRequest) -> bool:
        """Whether it is the same call of the model's, run again."""
        return pending.call_id == again.call_id

    def _heard_in(self, config: Mapping[str, Any]) -> dict[str, _Told]:
        """Answers that one task was resumed with, and that no question has taken yet."""
        task = (config.get("thread_id"), config.get("checkpoint_ns"))
        with self._lock:
            heard = self._heard.pop(task, {})
            if len(self._heard) >= _MOST_TASKS:  # a task that is run again hears its answers again
                del self._heard[next(iter(self._heard))]
            self._heard[task] = heard
            return heard


def approve(pending: Interrupt | Mapping[str, Any], *, by: str = "", why: str = "") -> dict[str, Any]:
    """A yes, to resume a graph with.

    Args:
        pending: The interrupt, or its value.
        by: Who says so, by whatever name the application knows them.
        why: Why.

    Raises:
        PolicyError: It is no interrupt of an `InterruptApprover`.
    """
    return _answer(pending, approved=True, by=by, why=why)


def deny(pending: Interrupt | Mapping[str, Any], *, by: str = "", why: str = "") -> dict[str, Any]:
    """A no, likewise; the agent is told why."""
    return _answer(pending, approved=False, by=by, why=why)


def _answer(pending: Interrupt | Mapping[str, Any], *, approved: bool, by: str, why: str) -> dict[str, Any]:
    question = pending.value if isinstance(pending, Interrupt) else pending
    if not isinstance(question, Mapping) or not question.keys() >= set(_SHOWN):
        raise PolicyError("this interrupt asks for no approval: give one of an `InterruptApprover`, or its value")
    named = {"id": question["id"], "expires_at": question["expires_at"]}
    return {**named, "approved": approved, "by": by, "why": why}


class _Told(NamedTuple):
    """An answer, and which request it answers."""

    id: str
    expires_at: float
    answer: Answer


def _told(value: Any) -> _Told:
    """What a graph was resumed with.

    Raises:
        PolicyError: It is no answer.
    """
    match value:
        case {"id": str(id), "expires_at": int() | float() as ends, "approved": bool(approved), **rest}:
            return _Told(id, ends, Answer(approved, str(rest.get("by", "")), str(rest.get("why", ""))))
    raise PolicyError(_NO_ANSWER)


def _config_of_graph() -> Mapping[str, Any]:
    """The configuration of the surrounding graph, which can be paused.

    Raises:
        PolicyError: There is none.
    """
    try:
        config: Mapping[str, Any] = get_config().get("configurable", {})
    except RuntimeError:  # outside of any run
        config = {}
    if not config.get("__pregel_checkpointer"):  # without it `interrupt` ends the graph, and nothing resumes it
        raise PolicyError(_NO_PAUSE)
    return config


def _interrupted(question: dict[str, Any]) -> Any:
    """What the graph was resumed with.

    Raises:
        PolicyError: It cannot be paused.
    """
    try:
        return interrupt(question)
    except GraphBubbleUp:
        raise
    except Exception as error:  # it finds no graph in many ways
        raise PolicyError(f"{_NO_PAUSE} ({type(error).__name__})") from error
