"""`mcp-policy demo`: a scripted agent meets two real servers, and a policy stands between them."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..errors import DocumentError, MissingDependency
from ..policy import Policy, load_directory, load_policy

__all__ = ["demo"]


def demo(
    policy: Annotated[
        Path | None,
        typer.Option(help="A policy file for every call, or a directory with `git.json` and `shop.json`."),
    ] = None,
) -> None:
    """Run a scripted agent on a Git and an SQL server under a policy; needs no key and no network.

    Everything happens in a temporary directory. Exit status 2: the policy does not read.
    """
    try:
        documents = _documents(policy)
    except DocumentError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    try:
        from .demo_agent import run_demo
    except (ImportError, MissingDependency) as error:
        typer.echo(f"{error}\nthe demo needs: pip install 'mcp-policy-middleware[demo]'", err=True)
        raise typer.Exit(1) from None
    run_demo(documents, Console())


def _documents(path: Path | None) -> Policy | dict[str, Policy]:
    if path is None:
        with as_file(files(__package__) / "demo_policies") as folder:
            return load_directory(folder)
    return load_directory(path) if path.is_dir() else load_policy(path)
