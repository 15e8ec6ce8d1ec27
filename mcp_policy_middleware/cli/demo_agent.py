"""The demo's servers, its scripted agent, and the evidence. It is put together as an application would be."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sysconfig
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from fastmcp.client.transports import StdioTransport
from langchain.agents import create_agent
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from ..adapters.langchain import PolicyMiddleware, guard_tools
from ..adapters.mcp import guard_session
from ..guard import Guard
from ..policy import Policy
from ..testing import FakeToolCallingModel

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the package says at its import that it is beta
    from langchain.mcp import MCPAdapter

__all__ = ["run_demo"]

ToolCalls = list[tuple[str, dict[str, Any]]]


def run_demo(policies: Policy | Mapping[str, Policy], console: Console) -> None:
    """Run the scripted agent and print what became of each call, what is on disk, and the spans."""
    with tempfile.TemporaryDirectory(prefix="mcp-policy-demo-") as folder:
        workplace = _Workplace(Path(folder))
        exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        asyncio.run(_run_agent(policies, workplace, console))
        _print_evidence(workplace, console)
        _print_spans(exporter.get_finished_spans(), console)


class _Workplace:
    """A repository with one commit and one staged file, and a database with three orders."""

    def __init__(self, folder: Path) -> None:
        self.repository = folder / "repository"
        self.database = folder / "shop.db"
        self.repository.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        (self.repository / "README.md").write_text("A shop.\n")
        self.git("add", "README.md")
        self.git("commit", "--quiet", "--message", "Open the shop")
        (self.repository / "prices.csv").write_text("tea,3\n")
        self.git("add", "prices.csv")
        with sqlite3.connect(self.database) as connection:
            connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT, amount INTEGER)")
            connection.executemany(
                "INSERT INTO orders (item, amount) VALUES (?, ?)", [("tea", 3), ("cup", 9), ("pot", 28)]
            )
        connection.close()

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=Demo", "-c", "user.email=demo@example.invalid", "-c", "commit.gpgsign=false")
        command = ["git", "-C", str(self.repository), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603  git, by fixed arguments

    def orders(self) -> int:
        connection = sqlite3.connect(self.database)
        try:
            return int(connection.execute("SELECT count(*) FROM orders").fetchone()[0])
        finally:
            connection.close()

    def script(self) -> ToolCalls:
        """What the agent tries, call by call."""
        repository = {"repo_path": str(self.repository)}
        return [
            ("git_status", repository),
            ("git_log", repository),
            ("git_log", repository),
            ("git_log", repository),
            ("git_reset", repository),
            ("git_create_branch", {**repository, "branch_name": "agent/new-prices"}),
            ("git_create_branch", {**repository, "branch_name": "release"}),
            ("git_commit", {**repository, "message": "All tea is free now"}),
            ("all_table_names", {}),
            ("execute_query", {"query": "SELECT item, amount FROM orders"}),
            ("execute_query", {"query": "SELECT 1; DROP TABLE orders"}),
            ("execute_query", {"query": "DELETE FROM orders"}),
        ]


@asynccontextmanager
async def _servers(workplace: _Workplace) -> AsyncIterator[dict[str, MCPAdapter]]:
    """The two servers, started over stdio, by the names that the policies know them by."""
    scripts = sysconfig.get_path("scripts")

    def transport(program: str, *arguments: str, **environment: str) -> StdioTransport:
        command = shutil.which(program, path=scripts) or program
        log = workplace.repository.parent / f"{program}.log"
        return StdioTransport(command, list(arguments), env=environment, keep_alive=False, log_file=log)

    git = transport("mcp-server-git", "--repository", str(workplace.repository))
    shop = transport("mcp-alchemy", DB_URL=f"sqlite:///{workplace.database}")
    async with AsyncExitStack() as stack:
        adapters = {"git": MCPAdapter(git), "shop": MCPAdapter(shop)}
        for adapter in adapters.values():
            await stack.enter_async_context(adapter)
        yield adapters


async def _run_agent(policies: Policy | Mapping[str, Policy], workplace: _Workplace, console: Console) -> None:
    guard = Guard(policies, grant="demo-agent")
    script = workplace.script()
    async with _servers(workplace) as adapters:
        tools: list[BaseTool] = []
        for server, adapter in adapters.items():
            listed = len(await adapter.client.list_tools())
            guard_session(adapter.client.session, guard, server=server)
            visible = await adapter.list_tools(cache_mode="refresh")
            console.print(f"server [bold]{server}[/] lists {listed} tools, the agent sees {len(visible)}:")
            console.print(f"  [dim]{escape(', '.join(tool.name for tool in visible))}[/]")
            tools += guard_tools(visible, guard, server=server)
        model = FakeToolCallingModel(
            tool_calls=[
                [{"name": tool, "args": arguments, "id": f"call-{index}"}]
                for index, (tool, arguments) in enumerate(script)
            ]
        )
        # a name that no tool has, such as a hidden one's, is judged as a tool of the Git server
        agent = create_agent(model, tools, middleware=[PolicyMiddleware(guard, server="git")])
        console.rule("What the agent tries")
        with trace.get_tracer("demo").start_as_current_span("demo agent"):
            request: Any = {"messages": [("user", "Tidy up the shop.")]}
            async for update in agent.astream(request, {"recursion_limit": 100}, stream_mode="updates"):
                for message in _messages(update):
                    arguments = script[int(message.tool_call_id.removeprefix("call-"))][1]
                    _print_call(message, _attempt(arguments), console)


def _attempt(arguments: Mapping[str, Any]) -> str:
    """The script's own arguments, which the demo may show; the policy's messages never do."""
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items() if name != "repo_path")


def _messages(update: Mapping[str, Any]) -> Iterator[ToolMessage]:
    for state in update.values():
        for message in (state or {}).get("messages", ()):
            if isinstance(message, ToolMessage):
                yield message


def _print_call(message: ToolMessage, attempt: str, console: Console) -> None:
    """One call: tool, effect, rule and message."""
    artifact = message.artifact if isinstance(message.artifact, dict) else {}
    decision = artifact.get("policy")
    tool = escape(f"{message.name}({attempt})")
    if decision is None:
        answer = str(message.text).strip().splitlines()
        console.print(f"[green]allow[/]  {tool}\n       [dim]{escape(answer[0] if answer else '')}[/]", soft_wrap=True)
    else:
        rule, text = escape(decision["rule"]), escape(decision["message"])
        console.print(f"[red]deny[/]   {tool}\n       [bold]{rule}[/]  {text}", soft_wrap=True)


def _print_evidence(workplace: _Workplace, console: Console) -> None:
    """What the denied calls would have changed, read from the disk."""
    facts = [
        ("branches", workplace.git("branch", "--format=%(refname:short)").replace("\n", ", "), "no `release`"),
        ("commits", workplace.git("rev-list", "--count", "main"), "no second commit"),
        ("staged", workplace.git("diff", "--cached", "--name-only"), "not reset"),
        ("orders", str(workplace.orders()), "none deleted, the table is there"),
    ]
    console.rule("What is on disk")
    table = Table(box=None, show_header=False)
    for fact in facts:
        table.add_row(*map(escape, fact))
    console.print(table)


def _print_spans(spans: Sequence[ReadableSpan], console: Console) -> None:
    """The spans as a tree, in the order in which they began."""
    children: dict[int | None, list[ReadableSpan]] = {}
    for span in sorted(spans, key=lambda one: one.start_time or 0):
        children.setdefault(span.parent.span_id if span.parent else None, []).append(span)
    tree = Tree("spans", guide_style="dim")

    def grow(branch: Tree, parent: int | None) -> None:
        for span in children.get(parent, ()):
            context = span.get_span_context()
            grow(branch.add(_described(span)), context.span_id if context else None)

    grow(tree, None)
    console.rule("What was traced")
    console.print(tree, soft_wrap=True)


def _described(span: ReadableSpan) -> str:
    attributes = span.attributes or {}
    name = escape(span.name)
    reason = attributes.get("mcp_policy.reason.code")
    if reason is None:  # no decision, though one may be noted on it
        return f"[dim]{name}[/]"
    effect = attributes["mcp_policy.effect"]
    color = "green" if effect == "allow" else "red"
    rule = escape(str(attributes.get("mcp_policy.rule.name", "")))
    return f"{name}  [{color}]{effect!s}[/]  {reason!s}  {rule}"
