"""`mcp-policy counters`: what a store holds, for the operator who looks after it."""

from __future__ import annotations

import json
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..calls import UNNAMED
from ..charges import CounterTotal, as_number
from ..engine.keys import read_key
from .output import Format, fail, write
from .stores import STORE_HELP, Cluster, Tenant, is_url, iso, opening, table

__all__ = ["counters"]

counters = typer.Typer(no_args_is_help=True, help="Look at the counters of a store, reset them, or begin them.")

Where = Annotated[str, typer.Argument(metavar="STORE", envvar="MCP_POLICY_STORE", help=STORE_HELP)]
OfCounter = Annotated[str | None, typer.Option("--counter", help="Only this counter.")]
OfServer = Annotated[str | None, typer.Option("--server", help="Only this server's.")]
OfGrant = Annotated[str | None, typer.Option("--grant", help="Only this grant's.")]
OfSession = Annotated[str | None, typer.Option("--session", help="Only this session's.")]


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
    format: Annotated[Format, typer.Option(help="How the counters are printed.")] = Format.TEXT,
) -> None:
    """List the counters whose window is open. Exit status 2: the store cannot be read."""
    wanted = {"counter": counter, "server": server, "grant": grant, "session": session}
    with _opened(store, tenant, cluster) as opened:
        now = time.time()
        rows = [_row(total, now) for total in opened.counters(now) if _is_wanted(total, wanted)]
    if format is Format.JSON:
        write(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
        return
    cells = []
    for row in rows:
        every = f"{row.window} s" if isinstance(row.window, int) else row.window
        cells.append((row.grant, row.server, row.session, row.counter, every, row.used, row.max, row.resets_at))
    heads = ("grant", "server", "session", "counter", "window", "used", "max", "resets at")
    write(table(heads, cells) if cells else "no counter is open\n")


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
        if is_url(store):
            begun = opened.init()
    write("ready: the counters begin empty\n" if begun else "ready: they had begun before, and are as they were\n")


def _opened(store: str, tenant: str, cluster: bool, begins: bool = False) -> AbstractContextManager[Any]:
    from .. import stores

    def make() -> stores.Store:
        if is_url(store):
            return stores.RedisStore(store, tenant=tenant, cluster=cluster, timeout=5)
        return stores.SQLiteStore(store, timeout=5)

    return opening(store, make, begins=begins)


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
        resets_at=iso(total.ends),
    )


def _plain(value: Any) -> Any:
    return value.value if value is UNNAMED else value
