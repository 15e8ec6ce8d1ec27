"""`mcp-policy approvals`: what agents ask to be approved, for the people who answer."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Annotated, Any, Final

import typer
from rich.cells import chop_cells
from rich.console import Console

from ..approvals import ApprovalRequest, ApprovalStore, Event, State
from ..approvals.question import arguments_of, operating_user
from ..calls import shown
from ..printable import visible
from .output import Format, fail, write
from .stores import STORE_HELP, Cluster, Tenant, is_url, iso, opening, table

__all__ = ["approvals"]

approvals = typer.Typer(no_args_is_help=True, help="Look at what agents ask to be approved, and answer.")

_STORE: Final = "MCP_POLICY_APPROVALS"
_ID: Final = re.compile(r"[0-9a-f]{4,}")
_MARGIN: Final = 11
_GOES_ON: Final = "         |"
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="[STORE] ID",
        help=f"The store, where the variable {_STORE} does not name it; then ids, or at least 4 first characters.",
    ),
]
By = Annotated[str | None, typer.Option(help="Who answers; left out, the system's name for you. Nobody checks it.")]
Why = Annotated[str, typer.Option(help="Why; the agent is told why a call was denied.")]


@approvals.command("list")
def list_(
    store: Annotated[str, typer.Argument(metavar="STORE", envvar=_STORE, help=STORE_HELP)],
    tenant: Tenant = "default",
    cluster: Cluster = False,
    all: Annotated[bool, typer.Option("--all", help="Those that are answered or over, too.")] = False,
    grant: Annotated[str | None, typer.Option(help="Only this grant's.")] = None,
    server: Annotated[str | None, typer.Option(help="Only this server's.")] = None,
    format: Annotated[Format, typer.Option(help="How the requests are printed.")] = Format.TEXT,
) -> None:
    """List the requests that wait for an answer, without arguments. Exit status 2: the store cannot be read."""
    with _opened(store, tenant, cluster) as opened:
        now = time.time()
        found = [
            one
            for one in opened.requests(now)
            if (all or one.state is State.PENDING) and grant in (None, one.grant) and server in (None, one.server)
        ]
    if format is Format.JSON:
        write(json.dumps([_told(one, arguments=False) for one in found], indent=2) + "\n")
        return
    heads = ("id", "state", "asked", "time left", "server", "tool", "grant")
    rows = [
        (
            one.id,
            one.state,
            f"{_span(now - one.asked_at)} ago",
            _left(one, now),
            *map(_name, (one.server, one.tool, one.grant)),
        )
        for one in found
    ]
    write(table(heads, rows) if rows else f"nothing {'was asked' if all else 'waits for an answer'}\n")


@approvals.command()
def show(
    words: Words,
    tenant: Tenant = "default",
    cluster: Cluster = False,
    format: Annotated[Format, typer.Option(help="How the requests are printed.")] = Format.TEXT,
) -> None:
    """Show all that there is to know of a request, with its arguments in full.

    Exit status 2: the store cannot be read, or knows no such request.
    """
    store, ids = _read(words)
    with _opened(store, tenant, cluster) as opened:
        now = time.time()
        found = _found(opened, ids, now)
    if format is Format.JSON:
        write(json.dumps([_told(one) for one in found], indent=2) + "\n")
    else:
        write("\n".join(_described(one, now) for one in found))


@approvals.command()
def approve(words: Words, by: By = None, why: Why = "", tenant: Tenant = "default", cluster: Cluster = False) -> None:
    """Say yes: the agent may make exactly this call, once, before its time is up.

    Exit status 1: a request is answered or over already. 2: the store cannot be written, or knows no such request.
    """
    _move(words, Event.APPROVE, by, why, tenant, cluster)


@approvals.command()
def deny(words: Words, by: By = None, why: Why = "", tenant: Tenant = "default", cluster: Cluster = False) -> None:
    """Say no: it stands for the same call until the request's time is up. Exit status: as of `approve`."""
    _move(words, Event.DENY, by, why, tenant, cluster)


@approvals.command()
def expire(words: Words, by: By = None, tenant: Tenant = "default", cluster: Cluster = False) -> None:
    """Take back a question, or an approval that was not used, of which who gave it stays on record.

    Exit status: as of `approve`.
    """
    _move(words, Event.EXPIRE, by, "", tenant, cluster)


def _move(words: list[str], event: Event, by: str | None, why: str, tenant: str, cluster: bool) -> None:
    """Answer requests, all of which are known before the first is answered; a line for each."""
    store, ids = _read(words)
    by, why = (
        text.encode("utf-8", "replace").decode() for text in (operating_user() if by is None else by, why)
    )  # as typed
    refused = False
    with _opened(store, tenant, cluster) as opened:
        for request in _found(opened, ids, time.time()):
            moved = opened.move(request.id, event, time.time(), by, why)
            now_is = moved.request or request
            if moved.changed:
                write(f"{now_is.state} {visible(_titled(now_is))}\n")
                continue
            refused = True
            who = f" by {now_is.by}" if now_is.by else ""
            help = ": `mcp-policy approvals expire` takes it back" if now_is.state is State.APPROVED else ""
            typer.echo(visible(f"{now_is.id} stays as it is, {now_is.state}{who}{help}"), err=True)
    if refused:
        raise typer.Exit(1)


def _read(words: list[str]) -> tuple[str, list[str]]:
    """The store and the ids; a first word that cannot be an id is the store."""
    store = os.environ.get(_STORE, "")
    if _ID.fullmatch(words[0]) is None:
        store, *words = words
    if not store:
        raise fail(f"no store is named, and `{words[0]}` is an id", f"name the store first, or set {_STORE}")
    if not words:
        raise fail("no id is named", "`mcp-policy approvals list` has them")
    return store, words


def _found(store: ApprovalStore, ids: Iterable[str], now: float) -> list[ApprovalRequest]:
    """The requests by their ids or the beginnings of those, each once."""
    found = {}
    for id in ids:
        if _ID.fullmatch(id) is None:
            raise fail(f"`{id}` is no id: one is at least 4 of the characters 0 to 9 and a to f")
        request = store.get(id, now)
        some = [one for one in store.requests(now) if one.id.startswith(id)] if request is None else [request]
        if len(some) != 1:
            what = "begins several ids" if some else "is no request that is kept"
            raise fail(f"`{id}` {what}", "`mcp-policy approvals list --all` has every id")
        found[some[0].id] = some[0]
    return list(found.values())


def _opened(store: str, tenant: str, cluster: bool) -> AbstractContextManager[ApprovalStore]:
    from .. import approvals as kept

    def make() -> ApprovalStore:
        if is_url(store):
            return kept.RedisApprovals(store, tenant=tenant, cluster=cluster, timeout=5)
        return kept.SQLiteApprovals(store, timeout=5)

    return opening(store, make)


def _told(request: ApprovalRequest, *, arguments: bool = True) -> dict[str, Any]:
    """The request as JSON, its times in ISO 8601."""
    told = request.as_dict(arguments=arguments)
    return {name: iso(value) if name.endswith("_at") and value is not None else value for name, value in told.items()}


def _described(request: ApprovalRequest, now: float) -> str:
    """All there is to know, each under its name, which nothing beside it can pass for; the arguments come last.

    What goes on in the next line is marked there, so that no value looks like a line of its own.
    """
    left = _left(request, now)
    rows = {
        "id": request.id,
        "state": request.state,
        "server": request.server,
        "tool": request.tool,
        "rule": request.rule,
        "text": request.text,
        "grant": request.grant,
        "session": request.session,
        "policy": request.policy_name,
        "digest": request.policy_digest,
        "call id": request.call_id,
        "asked": f"{iso(request.asked_at)}, {_span(now - request.asked_at)} ago",
        "expires": iso(request.expires_at) + (f", {left} left" if left else ""),
        "answered": None if request.answered_at is None else iso(request.answered_at),
        "by": request.by,
        "why": request.why,
    }
    told = {name: visible(value or "-") for name, value in rows.items()}
    told["arguments"] = "(not kept any more)" if request.arguments is None else "\n".join(arguments_of(request))
    width = max(40, Console().width - _MARGIN)
    lines = []
    for name, text in told.items():
        head = name
        for line in text.split("\n"):
            for part in chop_cells(line, width):
                lines.append(f"{head:<{_MARGIN}}{part}\n")
                head = _GOES_ON
            head = ""
    return "".join(lines)


def _titled(request: ApprovalRequest) -> str:
    where = "" if request.server is None else f" on {request.server}"
    return f"{request.id}: {request.tool}{where} for {request.grant}"


def _name(name: str | None) -> str | None:
    return None if name is None else shown(name)


def _left(request: ApprovalRequest, now: float) -> str | None:
    """How much time an open request has; None for one that is closed."""
    return _span(request.expires_at - now) if request.state in (State.PENDING, State.APPROVED) else None


def _span(seconds: float) -> str:
    """A time in the largest unit that it fills."""
    size, unit = next((one for one in _UNITS if seconds >= one[0]), _UNITS[-1])
    return f"{max(0, int(seconds // size))} {unit}"
