"""The commands, put together."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from .approvals import approvals
from .audit import audit
from .convert import convert
from .counters import counters
from .demo import demo
from .diff import diff
from .explain import explain
from .schema import schema
from .test import test
from .validate import validate

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

app.command()(validate)
app.command()(explain)
app.command()(test)
app.command()(diff)
app.command()(convert)
app.command()(schema)
app.command()(demo)
app.add_typer(approvals, name="approvals")
app.add_typer(audit, name="audit")
app.add_typer(counters, name="counters")


@app.callback(invoke_without_command=True)
def about(
    show: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    """A deterministic policy between an agent and its tools."""
    if show:
        typer.echo(version("mcp-policy-middleware"))
        raise typer.Exit
