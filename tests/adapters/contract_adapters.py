"""How each adapter is set up for the contract; a new one joins by an entry in `SETUPS`, and by its place in `PLACES`.

Every setup is the same stack, from the application down to an MCP server or to LangChain tools of this process, with
a guard at one place of it, or at two.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import mcp
from anyio.to_thread import run_sync
from contract_server import V2, build, sdk_error
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from langgraph.errors import GraphInterrupt
from langgraph.graph import MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Interrupt
from mcp import ClientSession, ClientSessionGroup, StdioServerParameters, stdio_client, types
from mcp_sessions import connected, is_error
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from plain_server import ARGUMENTS, Refused, result_of, schema

from mcp_policy_middleware import Guard, Outcome, Policy, Telemetry, ToolCall, ToolDenied, parse_policy
from mcp_policy_middleware.adapters.langchain import PolicyCallbackHandler, PolicyMiddleware, guard_tool, guard_tools
from mcp_policy_middleware.adapters.langgraph import policy_tool_node, tool_node_wrappers
from mcp_policy_middleware.adapters.mcp import (
    DECISION_KEY,
    guard_client,
    guard_group,
    guard_session,
    install,
)
from mcp_policy_middleware.adapters.mcp import (
    server as named,
)
from mcp_policy_middleware.stores import MemoryStore
from mcp_policy_middleware.testing import FakeToolCallingModel, FrozenClock

ADAPTERS_BRIDGE = importlib.util.find_spec("langchain_mcp_adapters") is not None
"""Whether this is the world of langchain-mcp-adapters; in the other one the bridge is `langchain.mcp`."""

SERVER = Path(__file__).parents[1] / "servers" / "plain_server.py"
NO = "ask a person to pay"
Call = tuple[str, dict[str, Any]]


def policy(most: int = 100, **more: Any) -> Policy:
    """Every tool is counted on one counter, but `fail_free`, which is charged for success alone."""
    limit = {"counter": "calls", "window": "hour", "max": most}
    tools: dict[str, Any] = {name: {"limits": [limit]} for name in ARGUMENTS if name != "secret"}
    tools["fail_free"] = {"limits": [{**limit, "counter": "successes", "charge_on": "success"}]}
    small = {"conditions": [{"path": "args.amount", "op": "lte", "value": 10}], "on_deny": NO}
    tools["pay"]["require"] = [small]
    tools["echo"]["deny_if"] = [{"conditions": [{"path": "args.note", "op": "gt", "value": 3}]}]
    document = {"version": "1", "default": "deny", "hide": ["secret"], "tools": tools, **more}
    return parse_policy(json.dumps(document), name="contract")


@dataclass
class Bench:
    """One guard, everything that tells what it did, and what the tools were given."""

    directory: Path
    policies: dict[str, Policy] = field(default_factory=lambda: {"stripe": policy()})
    store: Any = field(default_factory=MemoryStore)
    mode: Any = None
    identity_of: Callable[[Any], dict[str, Any]] | None = None
    reached: list[Call] = field(default_factory=list)
    spans: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)

    def __post_init__(self) -> None:
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.clock = FrozenClock()
        self.ledger = self.directory / "ledger.jsonl"
        self.ledger.touch()
        self.guard = Guard(
            self.policies,
            store=self.store,
            clock=self.clock,
            mode=self.mode,
            telemetry=Telemetry(tracer_provider=provider),
        )

    def note(self, name: str, arguments: dict[str, Any]) -> None:
        self.reached.append((name, arguments))

    def arrived(self) -> list[str]:
        """The names of the calls that a tool or a server got."""
        over_stdio = [json.loads(line)[0] for line in self.ledger.read_text(encoding="utf-8").splitlines()]
        return [name for name, _ in self.reached] + over_stdio

    def arguments(self) -> list[dict[str, Any]]:
        """What they got."""
        over_stdio = [json.loads(line)[1] for line in self.ledger.read_text(encoding="utf-8").splitlines()]
        return [arguments for _, arguments in self.reached] + over_stdio

    def used(self, tool: str = "look", **identity: Any) -> int:
        """How much of the tool's counter is charged."""
        call = ToolCall(tool, {"amount": 1} if tool == "pay" else {}, **{"server": "stripe", **identity})
        (charge,) = self.guard.explain(call).charges
        totals = {each.key: each.used for each in self.store.counters(self.clock().timestamp())}
        return int(totals.get(charge.key, 0) // 1_000_000)

    def decisions(self) -> list[tuple[str, str]]:
        """Tool and reason of every decision that has a span."""
        found = [span.attributes or {} for span in self.spans.get_finished_spans()]
        return [(str(each["gen_ai.tool.name"]), str(each["mcp_policy.reason.code"])) for each in found]


@dataclass
class Answer:
    """What the application got for a call, in one shape for all frameworks.

    `whole` is all that a program can read of it, without what is random.
    """

    text: str = ""
    is_error: bool = False
    decision: dict[str, Any] | None = None
    error: BaseException | None = None
    whole: Any = None


def answer_from(result: Any) -> Answer:
    """An MCP result or a LangChain message as an `Answer`."""
    if isinstance(result, ToolMessage):
        blocks = [result.content] if isinstance(result.content, str) else result.content
        texts = [block if isinstance(block, str) else block["text"] for block in blocks]  # type: ignore[index]
        plain = [block if isinstance(block, str) else {**block, "id": None} for block in blocks]
        artifact = result.artifact if isinstance(result.artifact, dict) else {}
        whole = [plain, result.status, result.name, result.artifact]
        return Answer("".join(texts), result.status == "error", artifact.get("policy"), None, whole)
    if isinstance(result, types.CallToolResult):
        text = "".join(block.text for block in result.content)  # type: ignore[union-attr]
        decision = (result.meta or {}).get(DECISION_KEY)
        return Answer(text, is_error(result), decision, None, result.model_dump(mode="json", by_alias=True))
    return Answer(whole=repr(result))


def answer_from_error(error: BaseException) -> Answer:
    """An exception as an `Answer`."""
    if isinstance(error, ToolDenied):
        return Answer(error.decision.text, True, error.decision.as_dict(), error, str(error))
    return Answer(error=error, whole=[type(error).__name__, str(error)])


# --- from the bottom up ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setup:
    """One way to set the stack up.

    Attributes:
        name: The adapter, or the adapters.
        guards: At which places the guard stands.
        front: What LangChain calls tools through: `tool` itself, a tool `node`, an `agent`; None without LangChain.
        tools: What a LangChain tool does: `sync`, `async` and `both` are bodies in this process; `mcp` calls a
            session by hand, `bridge` through the bridge of the world.
        session: The kind of MCP session beneath: `memory`, `stdio`, `client`, `group` or `fastmcp`.
        aborts: A denial is raised and ends the run.
        lists: Whether tools pass through it as a list.
    """

    name: str
    guards: frozenset[str]
    front: str | None = None
    tools: str = "mcp"
    session: str = "memory"
    aborts: bool = False
    lists: bool = False

    @property
    def local(self) -> bool:
        """Whether the tools are bodies in this process."""
        return self.tools in ("sync", "async", "both")

    @property
    def ways(self) -> list[str]:
        """How it can be called."""
        return ["sync", "async"] if self.tools in ("sync", "both") else ["async"]

    def bare(self) -> Setup:
        """The same without any guard."""
        return replace(self, guards=frozenset())

    @asynccontextmanager
    async def opened(self, bench: Bench, server: str = "stripe", beneath: str | None = None) -> AsyncIterator[Line]:
        """A fresh stack on the bench; the application calls the server by that name, or the session by another."""
        async with AsyncExitStack() as stack:
            line = Line(self, bench, server, beneath or server)
            if "install" in self.guards:
                stack.enter_context(install(bench.guard, identity_of=bench.identity_of))
                stack.enter_context(named(line.beneath))
            if not self.local:
                await line.connect(stack)
            if self.front is not None:
                await line.load_tools()
            yield line


class Line:
    """An open stack: calls go in at its top."""

    sends: Callable[[str, dict[str, Any]], Call] = staticmethod(lambda name, arguments: (name, arguments))
    """What a tool that calls a session by hand makes of a call."""

    def __init__(self, setup: Setup, bench: Bench, server: str, beneath: str) -> None:
        self.setup = setup
        self.bench = bench
        self.options: dict[str, Any] = {"server": server, "identity_of": bench.identity_of}
        self.server, self.beneath = server, beneath
        self.session: Any = None
        self.client: Any = None
        self.tools: dict[str, BaseTool] = {}
        self.offered: list[str] = []
        self._inside: list[str] = []
        self._both_threads, self._both_tasks = threading.Barrier(2), anyio.Event()

    def has(self, place: str) -> bool:
        return place in self.setup.guards

    # the MCP side

    async def connect(self, stack: AsyncExitStack) -> None:
        """Open the session of the setup's kind."""
        bench, guard, kind = self.bench, self.bench.guard, self.setup.session
        options = {**self.options, "server": self.beneath}
        if kind == "client":
            self.client = mcp.Client(build(bench.note))
            if self.has("client"):
                guard_client(self.client, guard, **options)
            await stack.enter_async_context(self.client)
            self.session = self.client.session
        elif kind == "fastmcp":
            self.client = fastmcp_client(bench)
            if self.has("client"):
                guard_client(self.client, guard, **options)
            await stack.enter_async_context(self.client)
            self.session = self.client.session
        elif kind == "stdio":
            asked = StdioServerParameters(command=sys.executable, args=[str(SERVER), str(bench.ledger)])
            streams = await stack.enter_async_context(stdio_client(asked))
            self.session = await stack.enter_async_context(ClientSession(*streams))
            await self.session.initialize()
        else:
            self.session = await stack.enter_async_context(connected(build(bench.note)))
        if self.has("session"):
            guard_session(self.session, guard, **options)
        if kind == "group":
            self.client = ClientSessionGroup()
            if self.has("group"):
                name = self.beneath
                guard_group(self.client, guard, server_of=lambda info: name, identity_of=bench.identity_of)
            await self.client.connect_with_session(types.Implementation(name="x", version="1"), self.session)

    async def send(self, name: str, arguments: dict[str, Any]) -> Any:
        """Call the tool the way a user of the session, client or group does."""
        group = self.setup.session == "group"
        if self.setup.session == "client" or (group and name in self.client.tools):  # a group does not know hidden ones
            return await self.client.call_tool(name, arguments)
        if self.setup.session == "fastmcp":
            return await self.client.call_tool_mcp(name, arguments)
        return await self.session.call_tool(name, arguments)

    # the LangChain side

    async def load_tools(self) -> None:
        """The LangChain tools, guarded where the setup says so."""
        plain = await self._plain_tools()
        if self.has("tool"):
            self.offered = [tool.name for tool in guard_tools(plain, self.bench.guard, **self.options)]
            plain = [guard_tool(tool, self.bench.guard, **self.options) for tool in plain]
        self.tools = {tool.name: tool for tool in plain}

    async def _plain_tools(self) -> list[BaseTool]:
        if self.setup.tools == "bridge" and ADAPTERS_BRIDGE:
            from langchain_mcp_adapters.tools import load_mcp_tools

            from mcp_policy_middleware.adapters.langchain import PolicyInterceptor

            mine = PolicyInterceptor(self.bench.guard, identity_of=self.bench.identity_of)
            interceptors: list[Any] = [mine] if self.has("interceptor") else []
            return await load_mcp_tools(self.session, tool_interceptors=interceptors, server_name=self.server)
        if self.setup.tools == "bridge":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # `langchain.mcp` says that it is in beta
                from langchain.mcp.tools import as_langchain_tool

            return [await as_langchain_tool(tool, self.client) for tool in await self.client.list_tools()]
        return [self._tool(name) for name in ARGUMENTS]

    def _tool(self, name: str) -> BaseTool:
        kind = self.setup.tools
        act, aact = functools.partial(self._act, name), functools.partial(self._aact, name)

        def func(**arguments: Any) -> Any:
            return act(arguments)

        async def coroutine(**arguments: Any) -> Any:
            return await aact(arguments)

        return StructuredTool(
            name=name,
            description=name,
            args_schema=schema(name),
            func=func if kind in ("sync", "both") else None,
            coroutine=coroutine if kind != "sync" else None,
            response_format="content_and_artifact",
            handle_tool_error=True,
        )

    def _act(self, name: str, arguments: dict[str, Any]) -> Any:
        self.bench.note(name, arguments)
        if name == "pause":
            raise GraphInterrupt((Interrupt(value="may I?", id="1"),))
        if name == "meet":
            self._both_threads.wait(10)
        try:
            wire = result_of(name, arguments)
        except Refused as refused:
            raise sdk_error(refused.code) from None
        if wire["isError"]:
            raise ToolException(wire["content"][0]["text"])
        return wire["content"][0]["text"], wire.get("structuredContent")

    async def _aact(self, name: str, arguments: dict[str, Any]) -> Any:
        if not self.setup.local:
            result = await self.send(*self.sends(name, arguments))
            if is_error(result):
                raise ToolException(result.content[0].text)
            return result.content[0].text, None
        if name == "hang":
            self.bench.note(name, arguments)
            await anyio.sleep_forever()
        if name == "meet":
            self.bench.note(name, arguments)
            self._inside.append(name)
            if len(self._inside) == 2:
                self._both_tasks.set()
            with anyio.fail_after(10):
                await self._both_tasks.wait()
            return "met", None
        return self._act(name, arguments)

    # calls

    async def call(self, tool: str, arguments: dict[str, Any] | None = None, way: str = "async") -> Answer:
        """One call; an exception is an answer too."""
        return (await self.batch([(tool, arguments or {})], way))[0]

    async def batch(self, calls: list[Call], way: str = "async") -> list[Answer]:
        """Several calls at once, as the framework makes them."""
        if self.setup.front in ("node", "agent"):
            return await self._turn(calls, way)
        answers: list[Answer] = [Answer() for _ in calls]

        async def one(index: int, name: str, arguments: dict[str, Any]) -> None:
            try:
                answers[index] = answer_from(await self._around(name, arguments, way))
            except Exception as error:
                answers[index] = answer_from_error(error)
            except GraphInterrupt as error:
                answers[index] = answer_from_error(error)

        async with anyio.create_task_group() as tasks:
            for index, (name, arguments) in enumerate(calls):
                tasks.start_soon(one, index, name, arguments)
        return answers

    async def _around(self, name: str, arguments: dict[str, Any], way: str) -> Any:
        if not self.has("caller"):
            return await self._one(name, arguments, way)
        call = ToolCall(name, arguments, server=self.server)
        return await self.bench.guard.arun(call, lambda: self._one(name, arguments, way), _outcome)

    async def _one(self, name: str, arguments: dict[str, Any], way: str) -> Any:
        if self.setup.front is None:
            return await self.send(name, arguments)
        asked = {"name": name, "args": arguments, "id": "call-1", "type": "tool_call"}
        tool, config = self.tools[name], self._config()
        if way == "async":
            return await tool.ainvoke(asked, config)
        return await run_sync(lambda: tool.invoke(asked, config))

    async def _turn(self, calls: list[Call], way: str) -> list[Answer]:
        """All calls in one message of a model."""
        asked = [
            {"name": name, "args": arguments, "id": str(index), "type": "tool_call"}
            for index, (name, arguments) in enumerate(calls)
        ]
        graph, given = self._graph(asked)
        config = self._config()
        try:
            if way == "async":
                state = await graph.ainvoke(given, config)
            else:
                state = await run_sync(lambda: graph.invoke(given, config))
        except Exception as error:
            return [answer_from_error(error)] * len(calls)
        if "__interrupt__" in state:
            return [Answer(error=GraphInterrupt(), whole="interrupted")] * len(calls)
        messages = {each.tool_call_id: each for each in state["messages"] if each.type == "tool"}
        return [answer_from(messages[str(index)]) for index in range(len(calls))]

    def _graph(self, asked: list[dict[str, Any]]) -> tuple[Any, Any]:
        tools, guard = list(self.tools.values()), self.bench.guard
        if self.setup.front == "agent":
            from langchain.agents import create_agent

            middleware = [PolicyMiddleware(guard, **self.options)] if self.has("middleware") else []
            self.model = FakeToolCallingModel(tool_calls=[asked] if asked else [])
            return create_agent(self.model, tools, middleware=middleware), {"messages": [("user", "go")]}
        if self.has("tool node"):
            node = policy_tool_node(tools, guard, **self.options)
        else:
            node = ToolNode(tools, **(tool_node_wrappers(guard, **self.options) if self.has("wrappers") else {}))
        builder = StateGraph(MessagesState)
        builder.add_node("tools", node)
        builder.set_entry_point("tools")
        return builder.compile(), {"messages": [AIMessage("", tool_calls=asked)]}

    def _config(self) -> Any:
        handler = PolicyCallbackHandler(self.bench.guard, "enforce", **self.options) if self.has("callback") else None
        return {"callbacks": [handler] if handler else []}

    async def visible(self) -> list[str]:
        """The names of the tools as the application or the model sees them."""
        if self.setup.front == "agent":
            await self._turn([], "async")
            return self.model.offered[0]
        if self.setup.front is not None:
            return self.offered
        if self.setup.session == "group":
            return list(self.client.tools)
        listing = self.client if self.setup.session == "client" else self.session
        return [tool.name for tool in (await listing.list_tools()).tools]


def _outcome(ended: Any) -> Outcome:
    """An application that knows MCP's errors."""
    refused = isinstance(ended, type(sdk_error(0))) and ended.error.code == -32602
    return Outcome.REJECTED if refused else Outcome.RETURNED


def fastmcp_client(bench: Bench) -> Any:
    """The client beneath `langchain.mcp`, on memory streams."""
    from fastmcp import Client
    from fastmcp.client.transports.base import ClientTransport
    from mcp.shared.memory import create_client_server_memory_streams

    class InMemory(ClientTransport):
        @asynccontextmanager
        async def connect_session(self, *, transport_options: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
            server = build(bench.note)
            async with create_client_server_memory_streams() as (mine, theirs), anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: server.run(*theirs, server.create_initialization_options()))
                async with ClientSession(*mine, **kwargs) as session:
                    yield session
                tasks.cancel_scope.cancel()

    return Client(InMemory())


# --- the adapters ---------------------------------------------------------------------------------------------------


def setup(name: str, guard: str, **options: Any) -> Setup:
    return Setup(name, frozenset({guard}), **options)


SETUPS = [
    setup("session", "session", lists=True),
    setup("session over stdio", "session", session="stdio", lists=True),
    setup("group", "group", session="group", lists=True),
    setup("install", "install", lists=True),
    setup("tool, sync", "tool", front="tool", tools="sync", lists=True),
    setup("tool, async", "tool", front="tool", tools="async", lists=True),
    setup(
        "tool of the bridge",
        "tool",
        front="tool",
        tools="bridge",
        session="memory" if ADAPTERS_BRIDGE else "fastmcp",
        lists=True,
    ),
    setup("middleware", "middleware", front="agent", tools="both", lists=True),
    setup("tool node", "tool node", front="node", tools="both"),
    setup("wrappers", "wrappers", front="node", tools="both"),
    setup("callback", "callback", front="tool", tools="both", aborts=True),
]
if V2:
    SETUPS.append(setup("client", "client", session="client", lists=True))
    SETUPS.append(setup("client of fastmcp", "client", session="fastmcp", lists=True))
if ADAPTERS_BRIDGE:
    SETUPS.append(setup("interceptor", "interceptor", front="node", tools="bridge"))

PLACES: list[dict[str, dict[str, Any]]] = [
    {"caller": {}},
    {"middleware": {"front": "agent"}, "tool node": {"front": "node"}, "wrappers": {"front": "node"}},
    {"callback": {}},
    {"tool": {}},
    {"interceptor": {"tools": "bridge"}} if ADAPTERS_BRIDGE else {},
    {"install": {}},
    {"client": {"session": "client"}, "group": {"session": "group"}} if V2 else {"group": {"session": "group"}},
    {"session": {}},
]
"""Where the guard can stand, from the outside in, and what that takes; of one row only one can be had."""

SESSIONS = {"install", "client", "group", "session"}
LANGCHAIN = {"caller", "middleware", "tool node", "wrappers", "callback", "tool"}
"""Those that need no MCP, and work without an event loop too."""


def _pairs() -> list[Setup]:
    found = []
    for index, row in enumerate(PLACES):
        for outer, needs in row.items():
            for inner, also in ((key, value) for below in PLACES[index + 1 :] for key, value in below.items()):
                if outer == "caller" and also.get("front"):  # one call around a turn of a model is not the same call
                    continue
                tooled = bool({outer, inner} & (LANGCHAIN - {"caller"} | {"interceptor"}))
                options = {"front": "tool" if tooled else None, "aborts": "callback" in (outer, inner)}
                options["tools"] = "bridge" if ADAPTERS_BRIDGE else "mcp"
                made = Setup(f"{outer} > {inner}", frozenset({outer, inner}), **(options | needs | also))
                found.append(made)
                if {outer, inner} <= LANGCHAIN:
                    found.append(replace(made, tools="both"))
                if tooled and inner == "client":
                    found.append(replace(made, tools="bridge", session="fastmcp"))
    return found


PAIRS = _pairs()
"""Every two adapters that can be stacked, the outer first."""
