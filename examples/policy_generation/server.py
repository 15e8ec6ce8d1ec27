"""Stands in for the Bedrock AgentCore server: two of its tools, with the same arguments, and no cloud behind them."""

from __future__ import annotations

from typing import Any

try:
    from mcp.server.mcpserver import MCPServer  # mcp 2.x
except ImportError:
    from mcp.server.fastmcp import FastMCP as MCPServer  # mcp 1.x

server = MCPServer("agentcore-stand-in", log_level="WARNING")


@server.tool()
def policy_generation_start(
    policy_engine_id: str,
    name: str,
    content: dict[str, Any],
    resource: dict[str, Any],
    client_token: str | None = None,
) -> dict[str, Any]:
    """Start an AI-powered Cedar policy generation from natural language. Each one is billed."""
    return {"status": "GENERATING", "name": name}


@server.tool()
def policy_engine_create(name: str) -> dict[str, Any]:
    """Create a policy engine."""
    return {"status": "CREATING", "name": name}


if __name__ == "__main__":
    server.run()
