"""A payment server over stdio without any SDK, and what its tools answer: it starts at once, and may break the rules.

It notes each call in a file before it acts. With `broken` it lists a tool without a schema, which no SDK's server does.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

TEXT = {"type": "string"}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "pay": {"amount": {"type": "integer"}, "note": TEXT},
    "echo": dict.fromkeys(("grant", "session", "context", "server", "note"), TEXT),
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


class Refused(Exception):
    """A call that is answered with a JSON-RPC error."""

    def __init__(self, code: int) -> None:
        super().__init__("refused")
        self.code = code


def schema(tool: str) -> dict[str, Any]:
    """The JSON Schema of a tool's arguments."""
    return {"type": "object", "properties": ARGUMENTS[tool]}


def result_of(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The result of a call that ends by itself, as it stands on the wire.

    Raises:
        Refused: The tool is `reject`.
    """
    if name == "reject":
        raise Refused(arguments["code"])
    text = json.dumps([name, arguments], sort_keys=True)
    result: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": name in ("fail", "fail_free")}
    if name == "look":
        result |= {"structuredContent": {"seen": 7}, "_meta": {"example.org/trace": "t-1"}}
    return result


def serve(ledger: Path, broken: bool) -> None:
    """Answer requests until the input ends."""
    waiting: list[dict[str, Any]] = []

    def answer(request: dict[str, Any], **outcome: Any) -> None:
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **outcome}), flush=True)

    def call(request: dict[str, Any]) -> None:
        name, arguments = request["params"]["name"], request["params"].get("arguments") or {}
        with ledger.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps([name, arguments]) + "\n")
        if name == "die":
            os._exit(1)
        if name == "meet":
            waiting.append(request)
        try:
            result = result_of(name, arguments)
        except Refused as refused:
            answer(request, error={"code": refused.code, "message": "refused"})
            return
        if name not in ("meet", "hang"):
            answer(request, result=result)
        elif len(waiting) == 2:
            for each in waiting:
                answer(each, result=result)

    tools = [{"name": name, "inputSchema": schema(name)} for name in ARGUMENTS]
    if broken:
        del tools[0]["inputSchema"]
    for line in sys.stdin:
        request = json.loads(line)
        if request["method"] == "initialize":
            info = {"name": "plain", "version": "1"}
            version = request["params"]["protocolVersion"]
            answer(request, result={"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info})
        elif request["method"] == "tools/list":
            answer(request, result={"tools": tools})
        elif request["method"] == "tools/call":
            call(request)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), "broken" in sys.argv)
