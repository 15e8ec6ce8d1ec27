"""The agent that is observed: it is put together as an application would be, and its model reads from a script.

    python observability/agent.py OTLP_TRACES_URL

Prints one line of JSON once the agent is done, and then serves its metrics until somebody ends it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import sysconfig
import tempfile
import warnings
from pathlib import Path
from typing import Any

from fastmcp.client.transports import StdioTransport
from langchain.agents import create_agent
from openinference.instrumentation.langchain import LangChainInstrumentor
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import start_http_server

from mcp_policy_middleware import Guard, Telemetry, load_policy
from mcp_policy_middleware.adapters.langchain import PolicyMiddleware, guard_tools
from mcp_policy_middleware.approvals import Answer, ApprovalRequest
from mcp_policy_middleware.telemetry.openinference import langchain_parent
from mcp_policy_middleware.testing import FakeToolCallingModel

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the package says at its import that it is beta
    from langchain.mcp import MCPAdapter

POLICY = Path(__file__).with_name("policy.json")
PROJECT = "release-notes"


def script(repository: str) -> list[list[tuple[str, dict[str, str]]]]:
    """What the model asks for, turn by turn."""
    here = {"repo_path": repository}
    return [
        [("git_status", here), ("git_log", here)],
        [
            ("git_log", here),
            ("git_create_branch", {**here, "branch_name": "agent/notes"}),
            ("git_create_branch", {**here, "branch_name": "release"}),
            ("git_reset", here),
        ],
        [("git_add", {**here, "files": ["NOTES.md"]}), ("git_commit", {**here, "message": "Tell what is new"})],
    ]


def answer(request: ApprovalRequest) -> Answer:
    """The person who is asked: files may be staged."""
    return Answer(request.tool == "git_add", by="maintainer")


def instrument(traces: str) -> TracerProvider:
    """Set the application's providers; the guard finds them by itself."""
    tracer_provider = TracerProvider(resource=Resource({"openinference.project.name": PROJECT}))
    tracer_provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=traces)))
    trace.set_tracer_provider(tracer_provider)
    metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()]))
    LangChainInstrumentor().instrument(tracer_provider=tracer_provider)
    return tracer_provider


def repository_in(folder: Path) -> Path:
    """A repository with one commit, and a file that is not staged."""
    identity = ("-c", "user.name=Demo", "-c", "user.email=demo@example.invalid", "-c", "commit.gpgsign=false")
    for arguments in (("init", "--quiet"), ("commit", "--quiet", "--allow-empty", "--message", "Begin")):
        subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True)
    (folder / "NOTES.md").write_text("# What is new\n")
    return folder


async def converse(repository: Path) -> None:
    """Let the agent work through its script."""
    telemetry = Telemetry(parent=langchain_parent())
    guard = Guard(load_policy(POLICY), grant="notes-agent", approver=answer, telemetry=telemetry)
    turns = script(str(repository))
    program = Path(sysconfig.get_path("scripts"), "mcp-server-git")
    transport = StdioTransport(
        str(program), ["--repository", str(repository)], keep_alive=False, log_file=repository.with_suffix(".log")
    )
    async with MCPAdapter(transport) as server:
        tools = guard_tools(await server.list_tools(), guard, server="git")
        model = FakeToolCallingModel(
            tool_calls=[
                [{"name": tool, "args": args, "id": f"call-{turn}-{at}"} for at, (tool, args) in enumerate(batch)]
                for turn, batch in enumerate(turns)
            ]
        )
        agent = create_agent(model, tools, middleware=[PolicyMiddleware(guard, server="git")], name="notes-agent")
        request: Any = {"messages": [("user", "Write the release notes.")]}
        with trace.get_tracer(PROJECT).start_as_current_span(
            "request", attributes={"openinference.span.kind": "CHAIN"}
        ):
            await agent.ainvoke(request)


def main() -> None:
    """Run the agent once, and keep its metrics to be scraped."""
    provider = instrument(sys.argv[1])
    server, _ = start_http_server(0, "127.0.0.1")
    with tempfile.TemporaryDirectory(prefix="mcp-policy-observed-") as folder:
        (Path(folder) / "repository").mkdir()
        asyncio.run(converse(repository_in(Path(folder) / "repository")))
    provider.force_flush()
    print(json.dumps({"project": PROJECT, "metrics": f"127.0.0.1:{server.server_port}"}), flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
