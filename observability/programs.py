"""Starts programs and ends them with everything that they started, and asks them questions over HTTP."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

T = TypeVar("T")

PATIENCE = 120
"""Seconds in which a program must do what is waited for."""

_OPENER = build_opener(ProxyHandler({}))  # whatever proxy is set, all this is on loopback


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(
    command: Sequence[str | Path], log: Path, *, prints: bool = False, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A program that runs until the block ends; what it writes is in `log`, or can be read by `printed`."""
    with log.open("w") as stream:
        program = subprocess.Popen(
            command,
            encoding="utf-8",
            env={**os.environ, **(environment or {})},
            start_new_session=True,
            stderr=stream,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if prints else stream,
        )
    try:
        yield program
    finally:
        _end(program)


def _end(program: subprocess.Popen[str]) -> None:
    """End a program, in peace where it can, and whatever is left of its group."""
    program.terminate()
    try:
        program.wait(10)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()
    with suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)
    if program.stdout is not None:
        program.stdout.close()


def printed(program: subprocess.Popen[str]) -> str | None:
    """A line that a program prints; None while there is none."""
    stream = program.stdout
    return stream.readline() if stream and select.select([stream], [], [], 0)[0] else None


def until(what: str, ask: Callable[[], T | None], program: subprocess.Popen[str]) -> T:
    """What `ask` says, once it says something.

    Raises:
        TimeoutError: It did not in `PATIENCE` seconds, or the program has ended.
    """
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and program.poll() is None:
        try:
            answer = ask()
        except OSError:  # it does not listen yet
            answer = None
        if answer:
            return answer
        time.sleep(0.2)
    raise TimeoutError(f"waited in vain for {what}")


def fetched(url: str, body: Any = None) -> Any:
    """What an address answers: JSON, or text where it is none.

    Raises:
        OSError: It cannot be reached, or refuses.
    """
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"Content-Type": "application/json"})  # noqa: S310  an address of ours
    try:
        with _OPENER.open(request, timeout=30) as answer:
            text = answer.read().decode()
    except HTTPError as error:
        raise OSError(f"{url}: {error.code} {error.read().decode()}") from None
    try:
        return json.loads(text)
    except ValueError:
        return text
