"""A server over stdio without any SDK, whose one tool `meta` answers with the `_meta` and arguments of its request."""

from __future__ import annotations

import json
import sys
from typing import Any


def serve() -> None:
    """Answer requests until the input ends."""
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        params = request.get("params") or {}
        results = {
            "initialize": {
                "protocolVersion": params.get("protocolVersion"),
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "meta", "version": "1"},
            },
            "tools/list": {"tools": [{"name": "meta", "inputSchema": {"type": "object"}}]},
            "tools/call": {
                "content": [{"type": "text", "text": json.dumps([params.get("_meta"), params.get("arguments")])}]
            },
        }
        if request["method"] in results:
            answer = {"jsonrpc": "2.0", "id": request["id"], "result": results[request["method"]]}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
