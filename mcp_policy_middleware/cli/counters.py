"""`mcp-policy counters`: what a store holds, for the operator who looks after it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..calls import UNNAMED
from ..charges import CounterTotal, as_number
from ..engine.keys import read_key
from ..errors import PolicyError
from ..printable import visible
from ..stores import Store
from .output import fail, write

__all__ = ["counters"]

counters = typer.Typer(no_args_is_help=True, help="Look at the counters of a store, reset them, or begin them.")

Where = Annotated[
    str,
    typer.Argument(metavar="STORE", envvar="MCP_POLICY_STORE", help="A SQLite file, or the URL of a Redis server."),
]
Tenant = Annotated[str, typer.Option(help="Whose counters, on a Redis server that several share.")]
Cluster = Annotated[bool, typer.Option("--cluster", help="The Redis server is a node of a cluster.")]
OfCounter = Annotated[str | None, typer.Option("--counter", help="Only this counter.")]
OfServer = Annotated[str | None, typer.Option("--server", help="Only this server's.")]
OfGrant = Annotated[str | None, typer.Option("--grant", help="Only this grant's.")]
OfSession = Annotated[str | None, typer.Option("--session", help="Only this session's.")]


class _Format(StrEnum):
    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class _Row:
    """One counter, as it is shown; amounts as numbers, times in ISO 8601."""

    grant: str | None
    server: str | None
    session: str | None
    counter: str
    window: str | int | None
    scope: str | None
    used: float
    max: float
    resets_at: str


@counters.command("list")
def list_(
    store: Where,
    tenant: Tenant = "default",
    cluster: Cluster = False,
    counter: OfCounter = None,
    server: OfServer = None,
    grant: OfGrant = None,
    session: OfSession = None,
    format: Annotated[_Format, typer.Option(help="How the counters are printed.")] = _Format.TEXT,
) -> None:
    """List the counters whose window is open. Exit status 2: the store cannot be read."""
    wanted = {"counter": counter, "server": server, "grant": grant, "session": session}
    with _opened(store, tenant, cluster) as opened:
        now = time.time()
        rows = [_row(total, now) for total in opened.counters(now) if _is_wanted(total, wanted)]
    if format is _Format.JSON:
        write(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
        return
    table = Table("grant", "server", "session", "counter", "window", "used", "max", "resets at", box=None)
    for row in rows:
        every = f"{row.window} s" if isinstance(row.window, int) else row.window
        cells = (row.grant, row.server, row.session, row.counter, every, row.used, row.max, row.resets_at)
        table.add_row(*("-" if cell is None else escape(visible(str(cell))) for cell in cells))
    console = Console(width=max(100, Console().width), soft_wrap=True)
    with console.capture() as printed:
        console.print(table if rows else "no counter is open")
    write(printed.get())


@counters.command()
def reset(
    store: Where,
    tenant: Tenant = "default",
    cluster: Cluster = False,
    counter: OfCounter = None,
    server: OfServer = None,
    grant: OfGrant = None,
    session: OfSession = None,
    all: Annotated[bool, typer.Option("--all", help="Reset every counter.")] = False,
) -> None:
    """Reset counters, so that their limits begin afresh. Exit status 2: the store cannot be written."""
    wanted = {"counter": counter, "server": server, "grant": grant, "session": session}
    if all == any(value is not None for value in wanted.values()):
        raise fail("say which counters: give `--counter`, `--server`, `--grant` or `--session`, or `--all` alone")
    with _opened(store, tenant, cluster) as opened:
        keys = [total.key for total in opened.counters(time.time()) if _is_wanted(total, wanted)]
        opened.reset(keys)
    write(f"{len(keys)} reset\n")


@counters.command()
def init(store: Where, tenant: Tenant = "default", cluster: Cluster = False) -> None:
    """Say that a store is meant to be empty, once: before first use, or after a Redis server lost its data.

    Exit status 2: the store cannot be written.
    """
    begun = not Path(store).exists()
    with _opened(store, tenant, cluster, begins=True) as opened:
        if _is_url(store):
            begun = opened.init()
    write("ready: the counters begin empty\n" if begun else "ready: they had begun before, and are as they were\n")


@contextmanager
def _opened(store: str, tenant: str, cluster: bool, begins: bool = False) -> Iterator[Any]:
    """The store; whatever it cannot do is said in one message."""
    from ..stores import RedisStore, SQLiteStore

    try:
        opened: Store
        if _is_url(store):
            opened = RedisStore(store, tenant=tenant, cluster=cluster, timeout=5)
        elif begins or Path(store).exists():
            opened = SQLiteStore(store, timeout=5)
        else:
            raise fail(f"`{store}` does not exist", "name the file of a `SQLiteStore`, or the URL of a Redis server")
        with closing(opened):
            yield opened
    except PolicyError as error:
        raise fail(str(error)) from None


def _is_url(store: str) -> bool:
    return "://" in store


def _is_wanted(total: CounterTotal, wanted: dict[str, str | None]) -> bool:
    key = read_key(total.key)
    known = {name: _plain(getattr(key, name, None)) for name in wanted}
    return all(value is None or value == known[name] for name, value in wanted.items())


def _row(total: CounterTotal, now: float) -> _Row:
    key = read_key(total.key)
    return _Row(
        **({name: _plain(getattr(key, name, None)) for name in ("grant", "server", "session", "window", "scope")}),
        counter=key.counter if key else total.key,
        used=as_number(total.counted(now, sliding=key is not None and key.algorithm == "sliding")),
        max=as_number(total.limit),
        resets_at=f"{datetime.fromtimestamp(total.ends, UTC):%Y-%m-%dT%H:%M:%SZ}",
    )


def _plain(value: Any) -> Any:
    return value.value if value is UNNAMED else value
