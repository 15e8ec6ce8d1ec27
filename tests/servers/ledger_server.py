"""A payment server over stdio that writes every call it carries out to a file; runs on mcp 1.x and 2.x."""

from __future__ import annotations

import json
import sys
from pathlib import Path

try:
    from mcp.server.mcpserver import MCPServer as Server
except ImportError:
    from mcp.server.fastmcp import FastMCP as Server

LEDGER = Path(sys.argv[1])
server = Server("ledger")


def write(entry: list[object]) -> None:
    """Add one line to the ledger."""
    with LEDGER.open("a", encoding="utf-8") as ledger:
        ledger.write(json.dumps(entry) + "\n")


@server.tool()
def pay(amount: int, note: str = "none") -> str:
    """Pay an amount."""
    write(["pay", amount])
    return f"paid {amount}"


@server.tool()
def secret() -> str:
    """Tell a secret."""
    write(["secret"])
    return "told"


@server.tool()
def fail() -> str:
    """Act, and then fail."""
    write(["fail"])
    raise ValueError("after acting")


if __name__ == "__main__":
    server.run("stdio")
