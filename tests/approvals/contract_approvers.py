"""How each approver is set up for the contract, with a person who acts by a script; a new one joins by an entry in
`ENTRIES`."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import queue
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from mcp_policy_middleware import Reason
from mcp_policy_middleware.approvals import (
    Answer,
    ApprovalRequest,
    Approver,
    ConsoleApprover,
    Event,
    FunctionApprover,
    MemoryApprovals,
    NoAnswer,
    NotebookApprover,
    QueueApprover,
)
from mcp_policy_middleware.backends.waiting import in_asyncio, sleep

WHY = "not today"


@dataclass
class Script:
    """What the person does with a question, once they may.

    Attributes:
        act: `yes`, `no`, `silence` (never answers), `late` (says yes when it is too late), or a fault of the entry's.
        may: Is set when they may act.
    """

    act: str
    may: threading.Event = field(default_factory=threading.Event)


@dataclass
class Subject:
    """An approver and what its person has seen.

    Attributes:
        approver: The approver.
        screen: All that the person was shown.
        questions: How many questions that were.
        shown: Is set when there was one.
        acted: Is set when its person has answered, where the answer comes by another way.
    """

    approver: Approver
    screen: str = ""
    questions: int = 0
    shown: threading.Event = field(default_factory=threading.Event)
    acted: threading.Event = field(default_factory=threading.Event)

    def show(self, what: str) -> None:
        """The person sees a question."""
        self.screen += what
        self.questions += 1
        self.shown.set()


@dataclass(frozen=True)
class Entry:
    """One approver.

    Attributes:
        make: Sets it up with a person.
        faults: What can go wrong with it, and the reason that it is denied with.
        says_why: Whether its person can say why.
        later: Whether the answer comes by another way: the call is pending, and made again when the person has acted.
    """

    make: Callable[[Script], AbstractContextManager[Subject]]
    faults: Mapping[str, Reason]
    says_why: bool = True
    later: bool = False


class Broken(Exception):
    """What an approver raises."""


def _said(act: str, request: ApprovalRequest) -> Any:
    """What a function answers."""
    if act == "raises":
        raise Broken(f"cannot ask about {request.arguments}")
    if act == "is cancelled":
        raise asyncio.CancelledError(f"of {request.arguments}")
    answers = {
        "yes": Answer(True, "ann"), "no": Answer(False, "ann", WHY), "late": True,
        "says None": None, "says text": "yes", "says 1": 1, "says a number in an answer": Answer(1, "ann"),  # type: ignore[arg-type]
    }  # fmt: skip
    return answers[act]


@contextmanager
def sync_function(script: Script) -> Iterator[Subject]:
    """A function that blocks."""

    def ask(request: ApprovalRequest) -> Any:
        subject.show(repr(request.arguments))
        script.may.wait()
        if script.act in ("silence", "late"):
            request.withdrawn.wait()
        return _said("late" if script.act == "silence" else script.act, request)

    subject = Subject(FunctionApprover(ask))
    yield subject


async def _asks(script: Script, subject: Subject, request: ApprovalRequest) -> Any:
    subject.show(repr(request.arguments))
    while not script.may.is_set() or script.act == "silence":
        await sleep(0.005)
    if script.act == "is cancelled" and not in_asyncio():
        import trio

        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.lowlevel.checkpoint()
        return None
    if script.act == "late":
        try:
            await sleep(60)
        finally:
            return _said("late", request)  # noqa: B012  it will not be told
    return _said(script.act, request)


@contextmanager
def async_function(script: Script) -> Iterator[Subject]:
    """An async function."""

    async def ask(request: ApprovalRequest) -> Any:
        return await _asks(script, subject, request)

    subject = Subject(FunctionApprover(ask))
    yield subject


@contextmanager
def function_that_returns_an_awaitable(script: Script) -> Iterator[Subject]:
    """A function that is not async, and returns what is."""
    subject = Subject(FunctionApprover(lambda request: _asks(script, subject, request)))
    yield subject


class NotedQueue(QueueApprover):
    """The queue, which also notes whom to answer."""

    def __init__(self, noted: Callable[[ApprovalRequest], None]) -> None:
        super().__init__(MemoryApprovals())
        self._noted = noted

    def ask(self, request: ApprovalRequest, seconds: float) -> Answer | NoAnswer:
        self._noted(request)
        return super().ask(request, seconds)

    async def aask(self, request: ApprovalRequest, seconds: float) -> Answer | NoAnswer:
        self._noted(request)
        return await super().aask(request, seconds)


@contextmanager
def answered_later(script: Script) -> Iterator[Subject]:
    """A queue, which does not wait."""
    asked: queue.SimpleQueue[ApprovalRequest] = queue.SimpleQueue()

    def act(leave: threading.Event) -> None:
        while not leave.wait(0.005):
            if asked.empty():
                continue
            request = asked.get()
            subject.show(repr(request.arguments))
            event = Event.DENY if script.act == "no" else Event.APPROVE
            subject.approver.store.move(request.id, event, time.time(), "ann", WHY)
            subject.acted.set()

    subject = Subject(NotedQueue(asked.put))
    with person(act):
        yield subject


@contextmanager
def person(act: Callable[[threading.Event], None]) -> Iterator[None]:
    """A person, who is a thread until told to go."""
    leave = threading.Event()
    thread = threading.Thread(target=act, args=(leave,))
    thread.start()
    try:
        yield
    finally:
        leave.set()
        thread.join()


@contextmanager
def terminal() -> Iterator[tuple[int, io.TextIOWrapper]]:
    """A pseudo-terminal: the person's side, and the program's stdin."""
    mine, theirs = pty.openpty()
    with os.fdopen(theirs, encoding="utf-8") as stdin:
        try:
            yield mine, stdin
        finally:
            with suppress(OSError):  # the person has hung up
                os.close(mine)


TYPED = {"yes": "y\n", "no": "n\n", "types something else": "yes, but\n", "ends the input": "\x04", "silence": ""}


def _types(script: Script, subject: Subject, screen: int, leave: threading.Event) -> None:
    """Read the screen, and type what the script says at each prompt."""
    seen = ""
    prompted = False
    while not leave.is_set():
        if prompted and script.may.is_set():
            prompted = False
            if script.act == "hangs up":
                os.close(screen)
                return
            os.write(screen, TYPED.get(script.act, "").encode())
        if not select.select([screen], [], [], 0.005)[0]:
            continue
        seen += os.read(screen, 65536).decode()
        if "approve? [y/N] " in seen:
            subject.show(seen)
            seen, prompted = "", True
        elif "why? " in seen:
            os.write(screen, f"{WHY}\n".encode())
            seen = ""
        elif "no longer" in seen and script.act == "late":
            os.write(screen, b"y\n")
            seen = ""


@contextmanager
def console(script: Script) -> Iterator[Subject]:
    """A terminal."""
    with terminal() as (screen, stdin):
        subject = Subject(ConsoleApprover(stdin=stdin, why=True))
        with person(partial(_types, script, subject, screen)):
            yield subject


@contextmanager
def notebook_without_a_kernel(script: Script) -> Iterator[Subject]:
    """A notebook approver where there is only a terminal."""
    with terminal() as (screen, stdin), patch.object(sys, "stdin", stdin):
        subject = Subject(NotebookApprover())
        with person(partial(_types, script, subject, screen)):
            yield subject


@contextmanager
def notebook(script: Script) -> Iterator[Subject]:
    """Buttons, and a kernel's shell channel without the kernel behind it; `test_notebook.py` has the whole."""
    import zmq
    from ipywidgets.widgets import widget
    from jupyter_client.session import Session
    from tornado.ioloop import IOLoop
    from zmq.eventloop.zmqstream import ZMQStream

    context: zmq.Context[Any] = zmq.Context()
    session = Session(key=b"key")
    loops: list[IOLoop] = []
    ready = threading.Event()

    def read() -> None:
        async def main() -> None:
            socket = context.socket(zmq.ROUTER)
            socket.bind("inproc://shell")
            stream = ZMQStream(socket)
            stream.on_recv(lambda frames: None, copy=False)
            kernel.shell_stream = stream
            loops.append(IOLoop.current())
            ready.set()
            await ended.wait()
            stream.close(0)

        asyncio.run(main())

    ended = asyncio.Event()
    thread = threading.Thread(target=read)
    kernel = SimpleNamespace(session=session, shell_channel_thread=thread)
    thread.start()
    ready.wait()
    thread.io_loop = loops[0]  # type: ignore[attr-defined]
    front_end = context.socket(zmq.DEALER)
    front_end.connect("inproc://shell")

    def click(leave: threading.Event) -> None:
        done: set[str] = set()
        buttons: dict[str, Any] = {}
        while not leave.wait(0.005):
            widgets = [one for one in list(widget._instances.values()) if one.model_id not in done]
            for text in [one for one in widgets if type(one).__name__ == "HTML" and "time left" in one.value]:
                buttons = {one.description: one for one in widgets if type(one).__name__ == "Button"}
                done |= {one.model_id for one in widgets}
                subject.show(text.value)
            closed = all(one.disabled for one in buttons.values())
            if not buttons or not script.may.is_set() or (script.act == "late" and not closed):
                continue
            if script.act != "silence":
                button = buttons["Deny" if script.act == "no" else "Approve"]
                data = {"method": "custom", "content": {"event": "click"}}
                session.send(front_end, "comm_msg", {"comm_id": button.comm.comm_id, "data": data})
            buttons = {}

    subject = Subject(NotebookApprover(kernel=kernel))
    widget._instances.clear()
    try:
        with person(click):
            yield subject
    finally:
        widget._instances.clear()
        loops[0].add_callback(ended.set)
        thread.join()
        front_end.close(0)
        context.term()


_FAILED = Reason.APPROVAL_FAILED
_FUNCTION = dict.fromkeys(
    ("raises", "is cancelled", "says None", "says text", "says 1", "says a number in an answer"), _FAILED
)
_TERMINAL = {
    "types something else": Reason.APPROVAL_DENIED, "ends the input": Reason.APPROVAL_DENIED, "hangs up": _FAILED,
}  # fmt: skip

ENTRIES = {
    "sync function": Entry(sync_function, _FUNCTION),
    "async function": Entry(async_function, _FUNCTION),
    "function that returns an awaitable": Entry(function_that_returns_an_awaitable, _FUNCTION),
    "console": Entry(console, _TERMINAL),
    "queue": Entry(answered_later, {}, later=True),
    "notebook": Entry(notebook, {}, says_why=False),
    "notebook without a kernel": Entry(notebook_without_a_kernel, _TERMINAL, says_why=False),
}
