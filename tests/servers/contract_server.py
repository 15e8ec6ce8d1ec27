"""A server for the adapter contract, on mcp 1.x and 2.x, in this process or over stdio: it notes each call it gets.

It is low-level, so that it answers with exactly the errors, `_meta` and structured content that a test asks for.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import mcp
from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

V2 = hasattr(mcp, "MCPError")
TEXT = {"type": "string"}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "pay": {"amount": {"type": "integer"}, "note": TEXT},
    "echo": {name: TEXT for name in ("grant", "session", "context", "server", "note")},
    "look": {},
    "fail": {},
    "fail_free": {},
    "reject": {"code": {"type": "integer"}},
    "hang": {},
    "meet": {},
    "die": {},
    "pause": {},
    "secret": {"note": TEXT},
}
"""The tools and their arguments."""

Note = Callable[[str, dict[str, Any]], None]


def schema(tool: str) -> dict[str, Any]:
    """The JSON Schema of a tool's arguments."""
    return {"type": "object", "properties": ARGUMENTS[tool]}


def sdk_error(code: int) -> Exception:
    """The SDK's error for a JSON-RPC error with that code."""
    if V2:
        return mcp.MCPError(code, "refused")
    return mcp.McpError(types.ErrorData(code=code, message="refused"))


def answer_of(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The result of a call that ends by itself, as it stands on the wire."""
    text = json.dumps([name, arguments], sort_keys=True)
    result: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": name in ("fail", "fail_free")}
    if name == "look":
        result |= {"structuredContent": {"seen": 7}, "_meta": {"example.org/trace": "t-1"}}
    if name == "reject":
        raise sdk_error(arguments["code"])
    return result


def build(note: Note, listed: Any = None) -> Any:
    """A low-level server that tells `note` of every call before it acts; it lists its tools unless told otherwise."""
    inside = 0

    async def act(name: str, arguments: dict[str, Any]) -> Any:
        nonlocal inside
        note(name, arguments)
        if name == "hang":
            await anyio.sleep_forever()
        if name == "meet":
            inside += 1
            with anyio.fail_after(10):
                while inside < 2:
                    await anyio.sleep(0.001)
        if name == "die":
            os._exit(1)
        wire = answer_of(name, arguments) | ({"resultType": "complete"} if V2 else {})
        return types.CallToolResult.model_validate(wire, **({"by_name": False} if V2 else {}))

    key = "input_schema" if V2 else "inputSchema"
    listed = listed or types.ListToolsResult(tools=[types.Tool(name=name, **{key: schema(name)}) for name in ARGUMENTS])
    if V2:

        async def on_list(context: Any, params: Any) -> Any:
            return listed

        async def on_call(context: Any, params: Any) -> Any:
            return await act(params.name, params.arguments or {})

        return Server("contract", on_list_tools=on_list, on_call_tool=on_call)

    async def called(request: Any) -> Any:
        return types.ServerResult(await act(request.params.name, request.params.arguments or {}))

    async def asked(request: Any) -> Any:
        return types.ServerResult(listed)

    server: Any = Server("contract")
    server.request_handlers[types.CallToolRequest] = called
    server.request_handlers[types.ListToolsRequest] = asked
    return server


async def serve(ledger: Path) -> None:
    """Serve over stdio, with the ledger in a file."""

    def note(name: str, arguments: dict[str, Any]) -> None:
        with ledger.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps([name, arguments]) + "\n")

    server = build(note)
    async with stdio_server() as streams:
        await server.run(*streams, server.create_initialization_options())


if __name__ == "__main__":
    anyio.run(serve, Path(sys.argv[1]))
