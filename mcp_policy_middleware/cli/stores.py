"""What the commands about stores share: how one is named and opened, and how what it holds is listed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Protocol, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import PolicyError
from ..printable import visible
from .output import fail

__all__ = ["STORE_HELP", "Cluster", "Tenant", "is_url", "iso", "opening", "table"]

STORE_HELP: Final = "A SQLite file, or the URL of a Redis server."

Tenant = Annotated[str, typer.Option(help="Whose, on a Redis server that several share.")]
Cluster = Annotated[bool, typer.Option("--cluster", help="The Redis server is a node of a cluster.")]


class _Closing(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=_Closing)


def is_url(store: str) -> bool:
    """Whether a store's name is the URL of a server, and not a file."""
    return "://" in store


@contextmanager
def opening(store: str, make: Callable[[], T], *, begins: bool = False) -> Iterator[T]:
    """The store; whatever it cannot do is said in one message.

    Args:
        store: Its name.
        make: Opens it.
        begins: Whether a file is made where there is none.
    """
    if not (begins or is_url(store) or os.path.exists(store)):  # noqa: PTH110  which never raises
        raise fail(f"`{store}` does not exist", "name the SQLite file of a store, or the URL of a Redis server")
    try:
        with closing(make()) as made:
            yield made
    except PolicyError as error:
        raise fail(str(error)) from None


def iso(seconds: float) -> str:
    """A moment, in ISO 8601 UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def table(heads: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table of cells, a dash for each that is None; nothing in it writes to a terminal what it likes."""
    drawn = Table(*heads, box=None)
    for row in rows:
        drawn.add_row(*("-" if cell is None else escape(visible(str(cell))) for cell in row))
    console = Console(width=max(100, Console().width), soft_wrap=True)
    with console.capture() as printed:
        console.print(drawn)
    return printed.get()
