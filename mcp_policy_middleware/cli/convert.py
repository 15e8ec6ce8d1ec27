"""`mcp-policy convert`: a policy in Intercept's YAML, or in YAML, as policy.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import DocumentError
from ..policy import load_policy
from .output import fail_with, write

__all__ = ["convert"]


def convert(
    file: Annotated[Path, typer.Argument(help="An Intercept document, or a policy in YAML or JSON.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file to write; stdout without it.")] = None,
) -> None:
    """Write a policy as policy.json that decides the same.

    Exit status 2: the document does not read, policy.json cannot say it, or the output cannot be written.
    """
    from ..policy.intercept import as_policy_json

    try:
        document = as_policy_json(load_policy(file))
    except DocumentError as error:
        raise fail_with(error.problems) from None
    write(json.dumps(document, indent=2, ensure_ascii=False) + "\n", output)
