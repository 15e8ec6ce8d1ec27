"""The payment server of `plain_server` on the SDK's own, 1.x and 2.x, for clients in this process.

It is low-level, so that it answers with exactly the errors, `_meta` and structured content that a test asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import mcp
from mcp import types
from mcp.server.lowlevel import Server
from plain_server import ARGUMENTS, Refused, result_of, schema

__all__ = ["V2", "Note", "build", "sdk_error"]

V2 = hasattr(mcp, "MCPError")
Note = Callable[[str, dict[str, Any]], None]


def sdk_error(code: int) -> Exception:
    """The SDK's error for a JSON-RPC error with that code."""
    if V2:
        return mcp.MCPError(code, "refused")
    return mcp.McpError(types.ErrorData(code=code, message="refused"))


def build(note: Note, listed: Any = None) -> Any:
    """A low-level server that tells `note` of every call before it acts; it lists its tools unless told otherwise."""
    inside: list[str] = []
    met = anyio.Event()

    async def act(name: str, arguments: dict[str, Any]) -> Any:
        note(name, arguments)
        if name == "hang":
            await anyio.sleep_forever()
        if name == "meet":
            inside.append(name)
            if len(inside) == 2:
                met.set()
            with anyio.fail_after(10):
                await met.wait()
        try:
            wire = result_of(name, arguments) | ({"resultType": "complete"} if V2 else {})
        except Refused as refused:
            raise sdk_error(refused.code) from None
        return types.CallToolResult.model_validate(wire, **({"by_name": False} if V2 else {}))

    key = "input_schema" if V2 else "inputSchema"
    if listed is None:
        listed = types.ListToolsResult(tools=[types.Tool(name=name, **{key: schema(name)}) for name in ARGUMENTS])
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
