"""What every approver of `contract_approvers.py` promises, through a real guard, for sync and async callers."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
from contract_approvers import ENTRIES, WHY, Script, Subject
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mcp_policy_middleware import Decision, Guard, Reason, Telemetry, ToolCall, ToolDenied, parse_policy
from mcp_policy_middleware.approvals import ApprovalRequest, State
from mcp_policy_middleware.backends.waiting import sleep
from mcp_policy_middleware.stores import MemoryStore

LONG = 30.0
SHORT = 0.3
CANARY = "canary-51de"
POLICY = parse_policy(
    json.dumps({
        "version": "1", "default": "deny",
        "tools": {"pay": {
            "action": "require_approval", "reason": "money leaves",
            "limits": [{"counter": "payments", "window": "hour", "max": 5}],
        }},
    })
)  # fmt: skip
CALL = ToolCall("pay", {"amount": 5, "to": {"name": CANARY}}, server="bank")
FAULTS = [(name, fault) for name, entry in ENTRIES.items() for fault in entry.faults]

every_entry = pytest.mark.parametrize("name", ENTRIES)
every_entry_that_waits = pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if not entry.later])
every_way = pytest.mark.parametrize("way", ["sync", "asyncio", "trio"])
every_async_way = pytest.mark.parametrize("way", ["asyncio", "trio"])


class Case:
    """A guard over one approver, and all that it leaves."""

    def __init__(self, subject: Subject, script: Script, timeout: float, *, later: bool) -> None:
        self.later = later
        self.subject = subject
        self.script = script
        self.store = MemoryStore()
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.guard = Guard(
            POLICY, store=self.store, approver=subject.approver, approval_timeout=timeout, telemetry=Telemetry(provider)
        )
        self.sent = 0
        self.errors: list[str] = []

    def charged(self) -> int:
        """What the calls have cost."""
        return sum(counter.used for counter in self.store.counters(time.time())) // 1_000_000

    def states(self) -> list[State]:
        """How the requests stand."""
        return [one.state for one in self.subject.approver.store.requests(time.time())]

    async def shown(self) -> None:
        """Wait for the question."""
        while not self.subject.shown.is_set():
            await sleep(0.005)

    def send(self) -> None:
        self.sent += 1

    async def asend(self) -> None:
        self.sent += 1

    def call(self, way: str) -> Decision | None:
        """The denial of one call, or None; nothing that it started is left. A pending one is made again when its person
        has answered."""
        work = self._call if way == "sync" else self.acall
        denied = alone(way, work)
        if self.later and denied is not None and denied.reason is Reason.APPROVAL_PENDING:
            assert self.subject.acted.wait(LONG)
            self.subject.acted.clear()
            denied = alone(way, work)
        return denied

    def _call(self) -> Decision | None:
        try:
            self.guard.run(CALL, self.send)
        except ToolDenied as denied:
            self.errors.append("".join(traceback.format_exception(denied)) + repr(denied))
            return denied.decision
        return None

    async def acall(self) -> Decision | None:
        """The same, for the loop that runs."""
        try:
            await self.guard.arun(CALL, self.asend)
        except ToolDenied as denied:
            self.errors.append("".join(traceback.format_exception(denied)) + repr(denied))
            return denied.decision
        return None


def alone(way: str, work: Callable[[], Any]) -> Any:
    """What the work returns; no thread and no task is left of it."""
    before = set(threading.enumerate())
    if way == "asyncio":

        async def in_asyncio() -> Any:
            tasks = asyncio.all_tasks()
            result = await work()
            assert asyncio.all_tasks() == tasks
            return result

        result = asyncio.run(in_asyncio())
    elif way == "trio":

        async def in_trio() -> Any:
            tasks = trio.lowlevel.current_statistics().tasks_living
            result = await work()
            assert trio.lowlevel.current_statistics().tasks_living == tasks
            return result

        result = trio.run(in_trio)
    else:
        result = work()
    assert set(threading.enumerate()) <= before
    return result


@contextmanager
def case(name: str, act: str, timeout: float = LONG, *, may: bool = True) -> Iterator[Case]:
    """An approver whose person acts so."""
    if name == "notebook":
        pytest.importorskip("ipywidgets")
    script = Script(act)
    if may:
        script.may.set()
    with ENTRIES[name].make(script) as subject:
        try:
            yield Case(subject, script, timeout, later=ENTRIES[name].later)
        finally:
            script.may.set()


@every_way
@every_entry
def test_yes_lets_the_call_go_once(name: str, way: str) -> None:
    """It passes, is charged once, and the next one is asked about anew."""
    with case(name, "yes") as made:
        assert made.call(way) is None
        assert (made.sent, made.charged(), made.states()) == (1, 1, [State.CONSUMED])
        assert made.call(way) is None
        assert (made.sent, made.charged(), made.subject.questions) == (2, 2, 2)


@every_way
@every_entry
def test_no_denies_and_says_why(name: str, way: str) -> None:
    """The agent is told why, and nothing is charged."""
    with case(name, "no") as made:
        denied = made.call(way)
        assert denied is not None
        assert denied.reason == Reason.APPROVAL_DENIED
        assert (WHY in denied.message) == ENTRIES[name].says_why
        assert denied.approval is not None
        assert denied.approval.by
        assert (made.sent, made.charged(), made.states()) == (0, 0, [State.DENIED])


@every_way
@pytest.mark.parametrize(("name", "fault"), FAULTS)
def test_a_fault_denies(name: str, fault: str, way: str) -> None:
    """Whatever goes wrong, nothing is sent, charged or left behind."""
    with case(name, fault) as made:
        denied = made.call(way)
        assert denied is not None
        assert denied.reason == ENTRIES[name].faults[fault]
        assert (made.sent, made.charged()) == (0, 0)


@every_way
@every_entry_that_waits
@pytest.mark.parametrize("act", ["silence", "late"])
def test_no_answer_in_time_denies(name: str, act: str, way: str) -> None:
    """The call is denied when its time is up, and a yes after that is none."""
    with case(name, act, SHORT) as made:
        started = time.monotonic()
        denied = made.call(way)
        assert denied is not None
        assert denied.reason == Reason.APPROVAL_EXPIRED
        assert time.monotonic() - started < SHORT + 5
        assert (made.sent, made.charged(), made.subject.questions) == (0, 0, 1)


@every_async_way
@every_entry_that_waits
def test_a_caller_who_is_cancelled_takes_the_question_along(name: str, way: str) -> None:
    """The cancellation passes untouched, the request is cancelled, and nothing is left of it."""
    with case(name, "silence") as made:

        async def in_asyncio() -> None:
            task = asyncio.create_task(made.acall())
            await made.shown()
            task.cancel("enough")
            with pytest.raises(asyncio.CancelledError, match="enough"):
                await task

        async def in_trio() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(made.acall)
                await made.shown()
                nursery.cancel_scope.cancel()
            assert nursery.cancel_scope.cancelled_caught

        alone(way, in_asyncio if way == "asyncio" else in_trio)
        assert (made.sent, made.charged(), made.states()) == (0, 0, [State.CANCELLED])


@every_entry_that_waits
def test_a_caller_who_is_interrupted_takes_the_question_along(name: str) -> None:
    """Ctrl-C passes untouched, too."""
    with case(name, "silence") as made:

        def interrupt() -> None:
            made.subject.shown.wait()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        def interrupted() -> None:
            with pytest.raises(KeyboardInterrupt):
                made.guard.run(CALL, made.send)

        interrupter = threading.Thread(target=interrupt)
        interrupter.start()
        alone("sync", interrupted)
        interrupter.join()
        assert (made.sent, made.charged(), made.states()) == (0, 0, [State.CANCELLED])


@every_way
@every_entry_that_waits
def test_the_same_call_twice_at_once_is_one_question(name: str, way: str) -> None:
    """The second call is told to come back, and nobody is asked twice."""
    with case(name, "yes", may=False) as made:

        def second() -> None:
            made.subject.shown.wait()
            seen.append(made._call())
            made.script.may.set()

        async def both_in_asyncio() -> None:
            first = asyncio.create_task(made.acall())
            await made.shown()
            seen.append(await made.acall())
            made.script.may.set()
            seen.append(await first)

        async def both_in_trio() -> None:
            async def first() -> None:
                answers.append(await made.acall())

            answers: list[Decision | None] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first)
                await made.shown()
                seen.append(await made.acall())
                made.script.may.set()
            seen.extend(answers)

        seen: list[Decision | None] = []
        if way == "sync":
            other = threading.Thread(target=second)
            other.start()
            first = alone("sync", made._call)
            other.join()
            seen.append(first)
        else:
            alone(way, both_in_asyncio if way == "asyncio" else both_in_trio)
        pending, passed = seen
        assert pending is not None
        assert pending.reason == Reason.APPROVAL_PENDING
        assert passed is None
        assert (made.sent, made.charged(), made.subject.questions) == (1, 1, 1)


@every_way
@pytest.mark.parametrize(
    ("name", "act"),
    [
        *((name, act) for name in ENTRIES for act in ("yes", "no")),
        *((name, "silence") for name, entry in ENTRIES.items() if not entry.later),
        *FAULTS,
    ],
)
def test_only_the_person_sees_the_arguments(
    name: str, act: str, way: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """They are on their screen, and in no log, span, message, exception or output of the program."""
    caplog.set_level(logging.DEBUG)
    with case(name, act, SHORT if act == "silence" else LONG) as made:
        denied = made.call(way)
        assert CANARY in made.subject.screen
        spans = "".join(span.to_json() for span in made.exporter.get_finished_spans())
    assert "policy_approval" in spans
    told = json.dumps(denied.as_dict()) if denied is not None else ""
    logged = "".join(logging.Formatter().format(record) for record in caplog.records)
    for text in (spans, told, logged, *made.errors, *capfd.readouterr()):
        assert CANARY not in text


def test_a_function_that_never_returns_is_left_behind_once(caplog: pytest.LogCaptureFixture) -> None:
    """Python cannot end its thread: the call is denied in time and a warning says so, and until the thread has ended
    every later question fails at once."""
    let_go = threading.Event()

    def ask(request: object) -> bool:
        return let_go.wait()

    guard = Guard(POLICY, store=MemoryStore(), approver=ask, approval_timeout=SHORT)

    def reason(amount: int) -> Reason | None:
        try:
            guard.run(ToolCall("pay", {"amount": amount}, server="bank"), lambda: None)
        except ToolDenied as denied:
            return denied.decision.reason
        return None

    before = set(threading.enumerate())
    started = time.monotonic()
    assert reason(1) == Reason.APPROVAL_EXPIRED
    assert time.monotonic() - started < SHORT + 5
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    (stuck,) = set(threading.enumerate()) - before
    assert reason(2) == Reason.APPROVAL_FAILED
    assert set(threading.enumerate()) - before == {stuck}
    let_go.set()
    stuck.join()
    assert reason(3) is None


@pytest.mark.parametrize("ended", [0, 1])
def test_of_functions_that_never_return_each_is_waited_for(ended: int) -> None:
    """Questions that were put at once may all be stuck; that one of them ends does not let further ones in."""
    let_go = [threading.Event(), threading.Event()]
    threads: dict[int, threading.Thread] = {}
    asked: list[int] = []
    reached = threading.Semaphore(0)

    def ask(request: ApprovalRequest) -> bool:
        number = (request.arguments or {})["amount"]
        asked.append(number)
        threads[number] = threading.current_thread()
        reached.release()
        return let_go[number].wait()

    guard = Guard(POLICY, store=MemoryStore(), approver=ask, approval_timeout=SHORT)
    begin = [
        threading.Thread(target=guard.begin, args=[ToolCall("pay", {"amount": number}, server="bank")])
        for number in (0, 1)
    ]
    for thread in begin:
        thread.start()
        assert reached.acquire(timeout=LONG)
    for thread in begin:
        thread.join()
    let_go[ended].set()
    threads[ended].join()
    assert guard.begin(ToolCall("pay", {"amount": 2}, server="bank")).reason is Reason.APPROVAL_FAILED
    let_go[1 - ended].set()
    threads[1 - ended].join()
    assert sorted(asked) == [0, 1]
