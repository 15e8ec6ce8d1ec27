"""What every framework is asked: the same turns without and with `install`, and what then reached the server."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mcp_policy_middleware import Guard, Reason, ToolCall, load_policy
from mcp_policy_middleware.adapters.mcp import install, server
from mcp_policy_middleware.stores import MemoryStore
from mcp_policy_middleware.testing import FrozenClock

HERE = Path(__file__).parent
SECONDS = 120
DENIED = "[POLICY DENIED] "


class Turn(NamedTuple):
    """One turn of an agent whose model asks for one call.

    Attributes:
        offered: The names of the tools that the framework offered its model.
        answer: What the model was told of the call.
        shape: The framework's own object for that, with its marks, without the text.
    """

    offered: list[str]
    answer: str
    shape: str


class TakeTurn(Protocol):
    """One turn of an agent."""

    async def __call__(self, amount: int) -> Turn:
        """Let the model ask for `charge` of an amount, and then be done."""


Connect = Callable[[str, list[str]], AbstractAsyncContextManager[TakeTurn]]
"""Connects the framework to the stdio server of a command and its arguments."""


def attempt(connect: Connect, *packages: str, driven_by: str, named: str = "connecting") -> None:
    """Try a framework and print one line of JSON.

    Args:
        connect: The framework.
        *packages: Their versions are reported.
        driven_by: What asks for the tool call.
        named: What `with server(...)` is put around: `connecting`, or the calls too (`always`), where the framework
            opens a session for each call or opens them in a thread of its own.
    """
    sys.addaudithook(refuse_the_network)
    with tempfile.TemporaryDirectory() as directory:
        results = asyncio.run(asyncio.wait_for(tried(connect, Path(directory), named), SECONDS))
    versions = {package: version(package) for package in (*packages, "mcp")}
    report = {**results, "driven_by": driven_by, "named": named, "versions": versions}
    sys.stdout.write(f"\n{json.dumps(report)}\n")


async def tried(connect: Connect, directory: Path, named: str) -> dict[str, Any]:
    """The turns, and what they showed."""

    def serving(ledger: str) -> AbstractAsyncContextManager[TakeTurn]:
        return connect(sys.executable, [str(HERE / "server.py"), str(directory / ledger)])

    def reached(ledger: str) -> list[str]:
        file = directory / ledger
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []

    async with serving("bare") as agent:
        bare, failed = await agent(5000), await agent(-1)

    store, clock = MemoryStore(), FrozenClock()
    guard = Guard({"ledger": load_policy(HERE / "policy.json")}, store=store, clock=clock, telemetry=False)
    install(guard)
    async with AsyncExitStack() as stack:
        with server("ledger"):
            agent = await stack.enter_async_context(serving("guarded"))
        with server("ledger") if named == "always" else nullcontext():
            denied = await agent(5000)
            after_denial = reached("guarded")
            allowed = await agent(50)
            after_allowed = reached("guarded")
            rest = [await agent(51 + number) for number in range(3)]
    last = guard.explain(ToolCall("charge", {"amount": 50}, server="ledger")).reason
    used = [counter.used for counter in store.counters(clock().timestamp())]
    return {
        "checks": {
            "reaches the server without a policy": reached("bare") == ["charged 5000"]
            and "charged 5000" in bare.answer
            and "close_account" in bare.offered,
            "denied: never reached": after_denial == [] and DENIED in denied.answer,
            "hidden: not listed": all(turn.offered == ["charge"] for turn in (denied, allowed, *rest)),
            "allowed: reached once": after_allowed == ["charged 50"]
            and "charged 50" in allowed.answer
            and DENIED not in allowed.answer,
            "shown like the server's own errors": denied.shape == failed.shape and allowed.shape == bare.shape,
            "limit of 3 admits 3": reached("guarded") == ["charged 50", "charged 51", "charged 52"]
            and DENIED in rest[-1].answer
            and last is Reason.LIMIT_EXCEEDED
            and used == [3_000_000],
        },
        "shape": denied.shape,
        "marked": denied.shape != allowed.shape,
    }


def refuse_the_network(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: sockets may speak to this machine alone."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if host not in (None, "", "localhost") and not is_loopback(host):
        raise PermissionError(f"`{host}` is not this machine: a trial speaks to nobody else")


def is_loopback(host: Any) -> bool:
    """Whether it is the address of this machine's own loopback."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
