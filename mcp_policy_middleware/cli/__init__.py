"""The command line `mcp-policy`: one file a command."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run `mcp-policy`; without the extra `cli` it says what to install."""
    try:
        from .app import app
    except ModuleNotFoundError as error:
        if error.name not in ("rich", "typer"):
            raise
        sys.exit("mcp-policy needs: pip install 'mcp-policy-middleware[cli]'")
    app()
