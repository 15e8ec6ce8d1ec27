"""A stdio server, on mcp 1.x and 2.x, that notes in the file of its first argument each call that reached it."""

from __future__ import annotations

import sys
from pathlib import Path

try:
    from mcp.server.mcpserver import MCPServer  # mcp 2.x
except ImportError:
    from mcp.server.fastmcp import FastMCP as MCPServer  # mcp 1.x

LEDGER = Path(sys.argv[1])
server = MCPServer("ledger", log_level="CRITICAL")


def note(line: str) -> str:
    """Append a line to the ledger."""
    with LEDGER.open("a", encoding="utf-8") as ledger:
        ledger.write(f"{line}\n")
    return line


@server.tool()
def charge(amount: int) -> str:
    """Charge the customer.

    Args:
        amount: In whole dollars.
    """
    if amount <= 0:
        raise ValueError("there is nothing to charge")
    return note(f"charged {amount}")


@server.tool()
def close_account() -> str:
    """Close the customer's account for good."""
    return note("closed")


if __name__ == "__main__":
    server.run()
