"""The ways a call takes to a tool, and the hooks in its way; each path asks for a forbidden amount (adapters A-3)."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import mcp
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain.agents.structured_output import ToolStrategy
from langchain_cases import Desk, called
from langchain_core.callbacks import AsyncCallbackManager
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool, ToolException, tool
from langgraph.graph import MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from mcp import ClientSession, ClientSessionGroup, StdioServerParameters, types
from mcp_sessions import V2, tool_call
from pydantic import BaseModel

from mcp_policy_middleware import Guard, ToolDenied
from mcp_policy_middleware.adapters.langchain import PolicyCallbackHandler, PolicyMiddleware, guard_tools
from mcp_policy_middleware.adapters.langgraph import policy_tool_node
from mcp_policy_middleware.adapters.mcp import guard_session, install
from mcp_policy_middleware.testing import FakeToolCallingModel

WORLD: Final = "mcp1" if importlib.util.find_spec("langchain_mcp_adapters") else "mcp2"
SERVER: Final = Path(__file__).parents[1] / "servers" / "ledger_server.py"
NAME: Final = "ledger"
"""The server's name, the same in every layer, so that they decide a call once."""
POLICY: Final[dict[str, Any]] = {
    "version": "1",
    "default": "deny",
    "tools": {
        "pay": {"require": [{"conditions": [{"path": "args.amount", "op": "lte", "value": 10}]}]},
        "look": {},
        "code_interpreter": {"action": "deny"},
    },
}
PLACES: Final[dict[str, set[str]]] = {
    "guard_tools": {"tools"},
    "PolicyMiddleware": {"middleware"},
    "policy_tool_node": {"node"},
    "PolicyInterceptor": {"interceptors"},
    "PolicyCallbackHandler": {"callbacks"},
    "guard_session": {"session"},
    "install": {"process"},
    "recommended": {"tools", "middleware", "process"},
}
"""Where each column's hook is put."""


@dataclass
class Connection:
    """A session on a server, how to load its tools for LangChain, and the SDK's own client where there is one."""

    session: ClientSession
    load: Callable[..., Awaitable[list[BaseTool]]]
    client: Any = None


@dataclass
class Site:
    """Two connections to real servers, one of them guarded, which note in one ledger what they carry out."""

    ledger: Path
    desk: Desk
    plain: Connection
    guarded: Connection
    denied: list[int] = field(default_factory=list)

    @property
    def guard(self) -> Guard:
        """The guard of all hooks."""
        return self.desk.guard

    def note(self, amount: int) -> None:
        """Note an effect that a server has no part in."""
        with self.ledger.open("a", encoding="utf-8") as ledger:
            ledger.write(json.dumps(["pay", amount]) + "\n")

    def reached(self, amount: int) -> bool:
        """Whether a call has had its effect."""
        return ["pay", amount] in map(json.loads, self.ledger.read_text(encoding="utf-8").splitlines())


@asynccontextmanager
async def opened(ledger: Path) -> AsyncIterator[Site]:
    """Start the servers."""
    desk = Desk(POLICY)
    async with AsyncExitStack() as stack:
        plain, guarded = [await stack.enter_async_context(_connected(ledger)) for _ in range(2)]
        for session in (guarded.session, *([guarded.client.session] if guarded.client else [])):
            guard_session(session, desk.guard, server=NAME)
        yield Site(ledger, desk, plain, guarded)


@asynccontextmanager
async def _connected(ledger: Path) -> AsyncIterator[Connection]:
    arguments = [str(SERVER), str(ledger)]
    if WORLD == "mcp1":
        from langchain_mcp_adapters.client import MultiServerMCPClient
        from langchain_mcp_adapters.tools import load_mcp_tools

        connection: Any = {"transport": "stdio", "command": sys.executable, "args": arguments}
        async with MultiServerMCPClient({NAME: connection}).session(NAME) as session:

            async def load(interceptors: list[Any]) -> list[BaseTool]:
                return await load_mcp_tools(session, tool_interceptors=interceptors, server_name=NAME)

            yield Connection(session, load)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `langchain.mcp` says that it is in beta
        from langchain.mcp import MCPAdapter
    from fastmcp.client.transports import StdioTransport

    parameters = StdioServerParameters(command=sys.executable, args=arguments)
    async with MCPAdapter(StdioTransport(sys.executable, arguments)) as adapter, mcp.Client(parameters) as client:
        yield Connection(adapter.client.session, lambda _: adapter.list_tools(), client)


class Hook:
    """One column of the table, which puts its hook wherever a path has the place for it."""

    def __init__(self, column: str | None, site: Site) -> None:
        self.site = site
        self.placed = False
        self._column = column
        self._places = PLACES[column] if column else set()

    def _has(self, place: str) -> bool:
        self.placed |= place in self._places
        return place in self._places

    def installed(self) -> Any:
        """The process, with the hook that it has."""
        return install(self.site.guard, server_of=lambda _: NAME) if "process" in self._places else nullcontext()

    def connection(self) -> Connection:
        """A connection, whose session is guarded where that is the hook."""
        self._has("process")
        return self.site.guarded if self._has("session") else self.site.plain

    async def unguarded(self, *outer: Any, intercepted: bool = False) -> BaseTool:
        """The server's `pay`, as its bridge makes it, with the interceptors of the application."""
        interceptors = list(outer)
        if intercepted and self._has("interceptors"):
            from mcp_policy_middleware.adapters.langchain import PolicyInterceptor

            interceptors.append(PolicyInterceptor(self.site.guard))
        return next(each for each in await self.connection().load(interceptors) if each.name == "pay")

    async def pay(self, *outer: Any) -> BaseTool:
        """The server's `pay`, as the application has it."""
        (made,) = self.tools(await self.unguarded(*outer, intercepted=True))
        return made

    def tools(self, *tools: BaseTool) -> list[BaseTool]:
        """The application's tools."""
        return guard_tools(tools, self.site.guard, server=NAME) if self._has("tools") else list(tools)

    def middleware(self) -> list[Any]:
        """An agent's middleware."""
        return [PolicyMiddleware(self.site.guard, server=NAME)] if self._has("middleware") else []

    def config(self) -> Any:
        """The configuration of a run."""
        if not self._has("callbacks"):
            return {}
        return {"callbacks": [PolicyCallbackHandler(self.site.guard, "enforce", server=NAME)]}

    async def agent(self, tools: list[Any], *calls: Any, middleware: list[Any] | None = None, **options: Any) -> Any:
        """Run an agent that makes these calls at once; its model and its state."""
        model = FakeToolCallingModel(tool_calls=[list(calls)] if calls else [])
        mine = self.middleware() if middleware is None else middleware
        agent = create_agent(model, tools, middleware=mine, **options)
        return model, await agent.ainvoke({"messages": [("user", "go")]}, self.config())

    async def graph(self, tools: list[Any], *calls: Any) -> Any:
        """Run a graph's tool node on these calls; its state."""
        node = policy_tool_node(tools, self.site.guard, server=NAME) if self._has("node") else ToolNode(tools)
        builder = StateGraph(MessagesState).add_node("tools", node).set_entry_point("tools")
        return await builder.compile().ainvoke({"messages": [AIMessage("", tool_calls=list(calls))]}, self.config())

    async def app(self, tools: list[Any], *calls: Any) -> ToolMessage:
        """Run an agent or, where the hook is a graph's, a graph; the answer to the first call."""
        state = await self.graph(tools, *calls) if "node" in self._places else (await self.agent(tools, *calls))[1]
        return answers(state)[calls[0]["id"]]

    async def elsewhere(self) -> BaseTool:
        """The application's `pay`, after an allowed call of it by what the hook is in."""
        pay = await self.pay()
        assert (await self.app([pay], called(amount=1))).status == "success"
        return pay


class Raised:
    """How a call ended that has nobody to answer to but its caller."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class Withheld:
    """The model was not offered the tool."""


def answers(state: Any) -> dict[str, ToolMessage]:
    """The tool messages, by call."""
    return {each.tool_call_id: each for each in state["messages"] if each.type == "tool"}


def parallel(hook: Hook, amount: int) -> list[dict[str, Any]]:
    """The forbidden call between two that are allowed.

    It is alone where a denial ends the run: calls beside it are cancelled then, in which mcp 1.x can lose its session.
    """
    asked = [("a", 1), ("it", amount), ("b", 2)]
    return [called("pay", key, amount=each) for key, each in (asked[1:2] if hook.config() else asked)]


def among(state: Any) -> ToolMessage:
    """The answer to the forbidden call; those beside it have theirs."""
    found = answers(state)
    assert [found[key].status for key in ("a", "b")] == ["success"] * 2
    return found["it"]


def look_tool(work: Callable[[], Awaitable[None]]) -> BaseTool:
    """A tool of the application that is allowed, and does something else."""

    @tool
    async def look(amount: int) -> str:
        """Look."""
        await work()
        return "looked"

    return look


async def nothing() -> None:
    """What a tool does that only looks."""


class Swapping(AgentMiddleware):
    """Runs a tool of its own instead of the one that was called."""

    def __init__(self, brought: BaseTool) -> None:
        super().__init__()
        self.brought = brought

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        return await handler(request.override(tool=self.brought))


# --- the paths ------------------------------------------------------------------------------------------------------


async def create_agent_parallel(hook: Hook, amount: int) -> Any:
    _, state = await hook.agent([await hook.pay()], *parallel(hook, amount))
    return among(state)


async def state_graph(hook: Hook, amount: int) -> Any:
    return among(await hook.graph([await hook.pay()], *parallel(hook, amount)))


async def agent_executor(hook: Hook, amount: int) -> Any:
    manager = AsyncCallbackManager.configure(hook.config().get("callbacks"))
    run = await manager.on_chain_start({}, {})
    prefixes = {"llm_prefix": "", "observation_prefix": ""}
    pay = await hook.pay()
    return await pay.arun({"amount": amount}, verbose=False, color="green", callbacks=run.get_child(), **prefixes)


async def manual_loop(hook: Hook, amount: int) -> Any:
    return await (await hook.elsewhere()).ainvoke(called(amount=amount), hook.config())


async def without_config(hook: Hook, amount: int) -> Any:
    return await (await hook.elsewhere()).ainvoke({"amount": amount})


async def abatch(hook: Hook, amount: int) -> Any:
    return (await (await hook.elsewhere()).abatch([called(amount=1), called(amount=amount)]))[1]


async def coroutine(hook: Hook, amount: int) -> Any:
    pay: Any = await hook.elsewhere()
    try:
        return await pay.coroutine(amount=amount)
    except (ToolDenied, ToolException) as error:
        return Raised(error)


async def sub_agent(hook: Hook, amount: int) -> Any:
    found = []
    pay = await hook.pay()

    async def ask() -> None:
        inner = create_agent(FakeToolCallingModel(tool_calls=[[called(amount=amount)]]), [pay])
        found.extend(answers(await inner.ainvoke({"messages": [("user", "pay")]})).values())

    await hook.app(hook.tools(look_tool(ask)), called("look", amount=1))
    return found[0]


async def raw_thread(hook: Hook, amount: int) -> Any:
    found: list[Any] = []
    pay = await hook.pay()
    loop = asyncio.get_running_loop()

    def work() -> None:
        found.append(asyncio.run_coroutine_threadsafe(pay.ainvoke({"amount": amount}), loop).result(30))

    async def start() -> None:
        thread = threading.Thread(target=work)
        thread.start()
        await loop.run_in_executor(None, thread.join)

    await hook.app(hook.tools(look_tool(start)), called("look", amount=1))
    return found[0]


async def swapped_inside(hook: Hook, amount: int) -> Any:
    return await _swapped(hook, amount, lambda policy, swap: [*policy, swap])


async def swapped_outside(hook: Hook, amount: int) -> Any:
    return await _swapped(hook, amount, lambda policy, swap: [swap, *policy])


async def _swapped(hook: Hook, amount: int, order: Callable[[list[Any], Any], list[Any]]) -> Any:
    tools = [await hook.pay(), *hook.tools(look_tool(nothing))]
    middleware = order(hook.middleware(), Swapping(await hook.unguarded()))
    _, state = await hook.agent(tools, called("look", amount=amount), middleware=middleware)
    return answers(state)["call-1"]


async def redirected(hook: Hook, amount: int) -> Any:
    async def redirect(request: Any, handler: Any) -> Any:
        return await handler(request.override(args={"amount": amount}))

    return await hook.app([await hook.pay(redirect)], called(amount=1))


async def session_call_tool(hook: Hook, amount: int) -> Any:
    await hook.elsewhere()
    return await hook.connection().session.call_tool("pay", {"amount": amount})


async def loaded_again(hook: Hook, amount: int) -> Any:
    await hook.elsewhere()
    return await hook.app([await hook.unguarded()], called(amount=amount))


async def send_request(hook: Hook, amount: int) -> Any:
    await hook.elsewhere()
    request = tool_call("pay", {"amount": amount})
    return await hook.connection().session.send_request(request, types.CallToolResult)


async def session_group(hook: Hook, amount: int) -> Any:
    await hook.elsewhere()
    group = ClientSessionGroup()
    await group.connect_with_session(types.Implementation(name=NAME, version="1"), hook.connection().session)
    return await group.call_tool("pay", {"amount": amount})


async def mcp_client(hook: Hook, amount: int) -> Any:
    await hook.elsewhere()
    return await hook.connection().client.call_tool("pay", {"amount": amount})


async def local_tool(hook: Hook, amount: int) -> Any:
    @tool
    def pay(amount: int) -> str:
        """Pay."""
        hook.site.note(amount)
        return "paid"

    return await hook.app(hook.tools(pay), called(amount=amount))


async def provider_tool(hook: Hook, amount: int) -> Any:
    model, _ = await hook.agent([*hook.tools(look_tool(nothing)), {"type": "code_interpreter"}])
    if "code_interpreter" not in model.offered[0]:
        return Withheld()
    hook.site.note(amount)  # from here on its provider may run it
    return None


class Receipt(BaseModel):
    """The agent's answer, which its model gives as a call."""

    amount: int


async def structured_output(hook: Hook, amount: int) -> Any:
    answer = called("Receipt", amount=amount)
    _, state = await hook.agent(hook.tools(look_tool(nothing)), answer, response_format=ToolStrategy(Receipt))
    hook.site.note(state["structured_response"].amount)
    return None


PATHS: Final[dict[str, Callable[[Hook, int], Awaitable[Any]]]] = {
    path.__name__: path
    for path in (
        create_agent_parallel,
        state_graph,
        agent_executor,
        manual_loop,
        without_config,
        abatch,
        coroutine,
        sub_agent,
        raw_thread,
        swapped_inside,
        swapped_outside,
        *(() if V2 else (redirected,)),
        session_call_tool,
        loaded_again,
        send_request,
        session_group,
        *((mcp_client,) if V2 else ()),
        local_tool,
        provider_tool,
        structured_output,
    )
}
"""The paths that this dependency world has."""
