"""The console approver on real pseudo-terminals: what it shows, what is an answer to it, and where it cannot ask."""

from __future__ import annotations

import asyncio
import codecs
import io
import json
import os
import re
import select
import subprocess
import sys
import termios
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from contract_approvers import terminal

from mcp_policy_middleware import Guard, Reason, ToolCall, ToolDenied, parse_policy
from mcp_policy_middleware.approvals import Answer, ApprovalRequest, ConsoleApprover, NoAnswer, NotebookApprover
from mcp_policy_middleware.approvals.terminal import terminal_of

RULES = {"action": "require_approval", "reason": "money leaves"}
POLICY = parse_policy(json.dumps({"version": "1", "default": "deny", "tools": {"pay": RULES}}), "bank.json")
PROMPT = "\napprove? [y/N] "


def question(**arguments: Any) -> ApprovalRequest:
    """A question about a call with these arguments."""
    asked: list[ApprovalRequest] = []

    def keep(request: ApprovalRequest) -> bool:
        asked.append(replace(request, withdrawn=threading.Event()))
        return True

    guard = Guard(POLICY, grant="clerk", session="run-7", approver=keep)
    guard.run(ToolCall("pay", arguments, server="bank"), lambda: None)
    return asked[0]


class Screen:
    """A terminal with a person's hands, and an approver that asks there."""

    def __init__(self, keys: int, stdin: io.TextIOWrapper) -> None:
        self.keys = keys
        self.stdin = stdin
        self.approver = ConsoleApprover(stdin=stdin)
        self.answer: Answer | NoAnswer | None = None
        self.seen = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def asking(self, request: ApprovalRequest, seconds: float = 30) -> threading.Thread:
        """Ask, and go on."""

        def ask() -> None:
            self.answer = self.approver.ask(request, seconds)

        thread = threading.Thread(target=ask)
        thread.start()
        return thread

    def until(self, text: str) -> str:
        """What is on the screen since the last look, up to a text."""
        deadline = time.monotonic() + 30
        while text not in self.seen:
            assert self.read(deadline - time.monotonic()), self.seen
        shown, _, self.seen = self.seen.partition(text)
        return shown

    def read(self, seconds: float = 0) -> bool:
        """Whether something came, which is on the screen now."""
        came = bool(select.select([self.keys], [], [], seconds)[0])
        if came:
            self.seen += self._decoder.decode(os.read(self.keys, 65536))
        return came

    def type(self, keys: str) -> None:
        os.write(self.keys, keys.encode())

    def answered(self, request: ApprovalRequest, keys: str) -> tuple[str, Answer | NoAnswer | None]:
        """What is shown, and the answer to some keys."""
        thread = self.asking(request)
        shown = self.until(PROMPT)
        self.type(keys)
        thread.join()
        return shown, self.answer


@pytest.fixture
def screen() -> Iterator[Screen]:
    with terminal() as (keys, stdin):
        yield Screen(keys, stdin)


def test_the_person_sees_the_whole_question(screen: Screen) -> None:
    """Server, tool, grant, session, policy, rule, its author's text, the time left, and the arguments, all of them."""
    shown, answer = screen.answered(question(amount=5, to=["ann", None]), "y\n")
    facts = dict(re.findall(r"^([a-z ]{9}) (.*?)\r?$", shown, re.MULTILINE))
    assert {name.strip(): value for name, value in facts.items() if name.strip() != "time left"} == {
        "server": "bank", "tool": "pay", "grant": "clerk", "session": "run-7", "policy": "bank.json",
        "rule": "/tools/pay/action", "it says": "money leaves",
    }  # fmt: skip
    assert re.fullmatch(r"0 min (29|30) s", facts["time left"])
    arguments = "".join(line[2:] for line in shown.splitlines() if line.startswith("| "))
    assert json.loads(arguments) == {"amount": 5, "to": ["ann", None]}
    assert isinstance(answer, Answer)
    assert answer.approved
    assert answer.by


def test_arguments_draw_nothing(screen: Screen) -> None:
    """No escape, no hidden character, and no line of an argument's own: a long one is broken behind a mark."""
    fake = " " * 79 + PROMPT.strip() + "\x1b[2J\r" + PROMPT + "\u202eevil\u200b\U000e0041\ufe0f"
    shown, _ = screen.answered(question(**{fake: "漢" * 3000 + fake}), "n\n")
    assert not set(shown) & set("\x1b\u202e\u200b\U000e0041\ufe0f")
    lines = shown.replace("\r\n", "\n").split("\n")
    assert not [line for line in lines if PROMPT.strip() in line and not line.startswith("| ")]
    assert max(len(line) + line.count("漢") for line in lines) <= 79
    assert shown.count("漢") == 3000
    assert shown.count("\\u202e") == 2


@pytest.mark.parametrize("keys", ["y\n", "YES\n", " yes \n", "Y\r"])
def test_an_explicit_yes_approves(screen: Screen, keys: str) -> None:
    """`y` or `yes`, in either case."""
    _, answer = screen.answered(question(), keys)
    assert isinstance(answer, Answer)
    assert answer.approved


@pytest.mark.parametrize("keys", ["\n", "n\n", "ye\n", "yy\n", "y y\n", "да\n", "\x04", "y" * 4090 + "\n", "\x1by\n"])
def test_anything_else_denies(screen: Screen, keys: str) -> None:
    """An empty line, the end of the input, and whatever is not quite yes."""
    _, answer = screen.answered(question(), keys)
    assert isinstance(answer, Answer)
    assert not answer.approved


def test_a_terminal_in_raw_mode_answers_too(screen: Screen) -> None:
    """Where somebody left it so; keys come one by one, and Enter is a carriage return."""
    modes = termios.tcgetattr(screen.stdin)
    modes[0] &= ~termios.ICRNL
    modes[3] &= ~(termios.ICANON | termios.ECHO)
    termios.tcsetattr(screen.stdin, termios.TCSANOW, modes)
    _, answer = screen.answered(question(), "yes\rno\r")
    assert isinstance(answer, Answer)
    assert answer.approved


def test_what_was_typed_before_answers_nothing(screen: Screen) -> None:
    """Keys that were pressed before the question was there are dropped."""
    screen.type("y\nyes\ny")
    assert select.select([screen.stdin], [], [], 30)[0]
    thread = screen.asking(question())
    screen.until(PROMPT)
    screen.type("\n")
    thread.join()
    assert isinstance(screen.answer, Answer)
    assert not screen.answer.approved


def test_questions_take_turns(screen: Screen) -> None:
    """The second is shown when the first is answered, whoever asks; one that waits too long was never shown."""
    first = screen.asking(question(n=1))
    screen.until(PROMPT)
    other = ConsoleApprover(stdin=screen.stdin)
    assert other.ask(question(n=2), 0.2) is NoAnswer.TOO_LATE
    screen.type("y\n")
    first.join()
    shown, _ = screen.answered(question(n=3), "y\n")
    assert '"n": 3' in shown
    assert '"n": 2' not in shown


def test_a_withdrawn_question_ends(screen: Screen) -> None:
    """The person is told, and the next question can be asked."""
    request = question()
    thread = screen.asking(request)
    screen.until(PROMPT)
    request.withdrawn.set()
    thread.join()
    assert screen.answer is NoAnswer.TOO_LATE
    screen.until("no longer asked")
    _, answer = screen.answered(question(), "y\n")
    assert isinstance(answer, Answer)


def test_a_stopped_terminal_holds_nobody(screen: Screen) -> None:
    """Where a person has pressed Ctrl-S, nothing can be written; the time is up all the same."""
    termios.tcflow(screen.stdin, termios.TCOOFF)
    try:
        assert screen.approver.ask(question(long="x" * 100_000), 0.3) is NoAnswer.TOO_LATE
    finally:
        termios.tcflow(screen.stdin, termios.TCOON)


def test_the_event_loop_goes_on(screen: Screen) -> None:
    """Other tasks run while a person thinks, and it is one of them that types."""

    async def both() -> Answer | NoAnswer:
        asked = asyncio.create_task(screen.approver.aask(question(), 30))
        while PROMPT not in screen.seen:
            await asyncio.sleep(0.005)
            screen.read()
        screen.type("y\n")
        return await asked

    answer = asyncio.run(both())
    assert isinstance(answer, Answer)
    assert answer.approved


def test_the_question_is_on_the_terminal_alone(screen: Screen, capfd: pytest.CaptureFixture[str]) -> None:
    """Wherever stdout and stderr go, the arguments do not go there."""
    shown, _ = screen.answered(question(secret="s3"), "y\n")
    assert "s3" in shown
    assert capfd.readouterr() == ("", "")


def reason(approver: Any) -> Reason:
    """Why a call is denied."""
    guard = Guard(POLICY, approver=approver)
    with pytest.raises(ToolDenied) as denied:
        guard.run(ToolCall("pay", {}), lambda: None)
    return denied.value.decision.reason


@pytest.mark.parametrize("kind", ["a pipe", "a file", "closed", "none", "text"])
@pytest.mark.parametrize("approver", [ConsoleApprover, NotebookApprover])
def test_without_a_terminal_nobody_is_asked(
    approver: type[Any], kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The call is denied at once, and the log says why; a `y` in a pipe is nobody's."""
    read, write = os.pipe()
    os.write(write, b"y\n")
    with os.fdopen(read) as pipe, os.fdopen(write), open(os.devnull) as file, open(os.devnull) as closed:  # noqa: PTH123
        closed.close()
        stdin = {"a pipe": pipe, "a file": file, "closed": closed, "none": None, "text": io.StringIO("y\n")}[kind]
        monkeypatch.setattr(sys, "stdin", stdin)
        assert reason(approver()) == Reason.APPROVAL_FAILED
    assert "stdin is no terminal" in caplog.text


BACKGROUND = """
import fcntl, json, os, signal, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
if os.fork() == 0:
    os.setpgid(0, 0)
    from mcp_policy_middleware import Guard, ToolCall, ToolDenied, parse_policy
    from mcp_policy_middleware.approvals import ConsoleApprover
    rules = {"action": "require_approval"}
    policy = parse_policy(json.dumps({"version": "1", "default": "deny", "tools": {"pay": rules}}))
    try:
        Guard(policy, approver=ConsoleApprover()).run(ToolCall("pay", {}), lambda: None)
    except ToolDenied as denied:
        print(denied.decision.reason.value, flush=True)
    os._exit(0)
_, status = os.waitpid(-1, os.WUNTRACED)
print("stopped" if os.WIFSTOPPED(status) else "ended", flush=True)
os.killpg(0, signal.SIGHUP) if os.WIFSTOPPED(status) else None
"""


def test_a_process_in_the_background_is_not_stopped() -> None:
    """The system stops who reads a terminal from the background; the call is denied instead."""
    with terminal() as (_, stdin):
        ran = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(BACKGROUND)],
            stdin=stdin, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    assert ran.stdout.split() == ["approval_failed", "ended"]


def test_an_unnamed_server_and_an_empty_text_take_no_line(screen: Screen) -> None:
    """What is not there is not shown."""
    shown, _ = screen.answered(replace(question(), server=None, session=None, text=""), "n\n")
    assert not re.search(r"^(server|session|it says) ", shown, re.MULTILINE)


def test_a_terminal_lets_go_of_its_descriptor(screen: Screen) -> None:
    """Nothing stays open, however a question ends."""
    before = os.dup(0)
    os.close(before)
    for _ in range(3):
        screen.approver.ask(question(), 0.01)
        terminal_of(screen.stdin, threading.Lock()).close()
    after = os.dup(0)
    os.close(after)
    assert after == before
