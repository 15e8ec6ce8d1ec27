"""`mcp-policy schema`: the JSON Schema of policy.json, for editors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..policy.schema import schema_text
from .output import write

__all__ = ["schema"]


def schema(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file to write; stdout without it.")] = None,
) -> None:
    """Print the JSON Schema of policy.json (draft 2020-12); name it in a document's `$schema` to have it checked.

    Exit status 2: the output cannot be written.
    """
    write(schema_text(), output)
