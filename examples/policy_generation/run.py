"""PolicyLayer's published policy for `policy_generation_start`, against a server that offers that tool.

    python run.py                                                     # the stand-in beside this file
    python run.py awslabs.amazon-bedrock-agentcore-mcp-server         # the real one

An agent in a loop asks for twelve generations within a second, and for a policy engine.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from mcp_policy_middleware import Guard, load_policy
from mcp_policy_middleware.adapters.mcp import DECISION_KEY, guard_session

HERE = Path(__file__).parent
STAND_IN = [sys.executable, str(HERE / "server.py")]
DUMMY_CLOUD = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_MAX_ATTEMPTS": "1",
    "FASTMCP_LOG_LEVEL": "ERROR",
}
REQUEST = {
    "policy_engine_id": "engine-0123456789",
    "content": {"rawText": "Allow admins to call the weather tool during business hours."},
    "resource": {"arn": "arn:aws:bedrock-agentcore:us-east-1:123456789012:gateway/demo-0123456789"},
}


async def main(command: list[str], clock: Callable[[], datetime] | None = None) -> Counter[str]:
    """Make the calls and count what became of them, by reason."""
    guard = Guard(load_policy(HERE / "policy.json"), grant="policy-agent", session="run-1", clock=clock)
    server = StdioServerParameters(command=command[0], args=command[1:], env={**os.environ, **DUMMY_CLOUD})
    reasons: Counter[str] = Counter()
    async with stdio_client(server) as streams, ClientSession(*streams) as session:
        guard_session(session, guard, server="agentcore")
        await session.initialize()
        calls = [("policy_generation_start", {**REQUEST, "name": f"attempt{number}"}) for number in range(12)]
        for tool, arguments in [*calls, ("policy_engine_create", {"name": "engine"})]:
            result = await session.call_tool(tool, arguments)
            decision = (result.meta or {}).get(DECISION_KEY)
            reasons["allowed" if decision is None else decision["reason"]] += 1
            print(tool, "allowed" if decision is None else result.content[0].text)
    return reasons


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or STAND_IN))
