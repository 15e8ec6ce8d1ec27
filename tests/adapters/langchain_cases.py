"""What the LangChain suites share: one policy, a desk that watches it, and a tool of every kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest

pytest.importorskip("langchain_core")

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, InjectedToolArg, InjectedToolCallId, StructuredTool, Tool, tool
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel

from mcp_policy_middleware import Guard, Telemetry, ToolCall, parse_policy
from mcp_policy_middleware.stores import MemoryStore
from mcp_policy_middleware.testing import FrozenClock

POLICY: dict[str, Any] = {
    "version": "1",
    "default": "deny",
    "hide": ["secret"],
    "tools": {
        "pay": {
            "require": [{"conditions": [{"path": "args.amount", "op": "lte", "value": 10}]}],
            "limits": [{"counter": "payments", "window": "hour", "max": 100}],
        },
        "look": {},
        "web_search": {},
        "code_interpreter": {"action": "deny"},
    },
}
AMOUNT_SCHEMA = {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]}


@dataclass
class Desk:
    """A guard, and everything that tells what it did."""

    policy: dict[str, Any] = field(default_factory=lambda: POLICY)
    clock: FrozenClock = field(default_factory=FrozenClock)
    store: MemoryStore = field(default_factory=MemoryStore)
    spans: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    by_server: bool = False

    def __post_init__(self) -> None:
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        policy = parse_policy(json.dumps(self.policy), name="desk")
        self.guard = Guard(
            {"stripe": policy} if self.by_server else policy,
            store=self.store,
            clock=self.clock,
            telemetry=Telemetry(tracer_provider=provider),
        )

    def used(self, **call: Any) -> int:
        """How much of `payments` is charged."""
        charges = self.guard.explain(ToolCall("pay", {"amount": 1}, **call)).charges
        return self.store.peek(charges, self.clock().timestamp()).used[0] // 1_000_000

    def decisions(self) -> list[tuple[str, str]]:
        """Tool and reason of every decision with a span."""
        found = [span.attributes for span in self.spans.get_finished_spans()]
        return [(each["gen_ai.tool.name"], each["mcp_policy.reason.code"]) for each in found]


def called(name: str = "pay", call_id: str = "call-1", /, **args: Any) -> dict[str, Any]:
    """A tool call as a model makes it."""
    return {"name": name, "args": args, "id": call_id, "type": "tool_call"}


def reason(message: Any) -> str | None:
    """Why a tool message says that its call was denied; None where it was not."""
    if not isinstance(message, ToolMessage) or not isinstance(message.artifact, dict):
        return None
    return message.artifact.get("policy", {}).get("reason")


class AmountArgs(BaseModel):
    amount: int
    note: str = "none"


class SyncOnly(BaseTool):
    name: str = "pay"
    description: str = "Pay."
    args_schema: type[BaseModel] = AmountArgs
    ran: Any

    def _run(self, amount: int, note: str = "none") -> str:
        self.ran.append(amount)
        return f"paid {amount}"


class AsyncOnly(BaseTool):
    name: str = "pay"
    description: str = "Pay."
    args_schema: type[BaseModel] = AmountArgs
    ran: Any

    def _run(self, *args: Any, **kwargs: Any) -> str:
        raise NotImplementedError("async only")

    async def _arun(self, amount: int, note: str = "none") -> str:
        self.ran.append(amount)
        return f"paid {amount}"


class Both(SyncOnly):
    """Its async side hands on to its sync side, so that one call passes both."""

    async def _arun(self, amount: int, note: str = "none") -> str:
        return self._run(amount, note=note)


class PayerArgs(BaseModel):
    amount: int
    payer: Annotated[str, InjectedToolArg] = "house"


class InjectedBySchema(BaseTool):
    name: str = "pay"
    description: str = "Pay."
    args_schema: type[BaseModel] = PayerArgs
    ran: Any

    def _run(self, **arguments: Any) -> str:
        self.ran.append(arguments["amount"])
        return f"paid {arguments['amount']}"


class NoSchema(BaseTool):
    name: str = "pay"
    description: str = "Pay."
    ran: Any

    def _run(self, amount: int, run_manager: Any = None) -> str:
        assert run_manager is not None
        self.ran.append(amount)
        return f"paid {amount}"


class OwnRun(StructuredTool):
    """A class between LangChain's and the application's."""

    def _run(self, *args: Any, config: RunnableConfig, run_manager: Any = None, **kwargs: Any) -> Any:
        return super()._run(*args, config=config, run_manager=run_manager, **kwargs)


def _function(ran: list[Any]) -> BaseTool:
    @tool
    def pay(amount: int, note: str = "none") -> str:
        """Pay."""
        ran.append(amount)
        return f"paid {amount}"

    return pay


def _coroutine(ran: list[Any]) -> BaseTool:
    @tool
    async def pay(amount: int, note: str = "none") -> str:
        """Pay."""
        ran.append(amount)
        return f"paid {amount}"

    return pay


def _sync_and_async(ran: list[Any]) -> BaseTool:
    return StructuredTool.from_function(func=_function(ran).func, coroutine=_coroutine(ran).coroutine, name="pay")


def _own_run(ran: list[Any]) -> BaseTool:
    return OwnRun.from_function(func=_function(ran).func, name="pay")


def _artifact(ran: list[Any]) -> BaseTool:
    @tool(response_format="content_and_artifact")
    def pay(amount: int) -> tuple[str, dict[str, int]]:
        """Pay."""
        ran.append(amount)
        return f"paid {amount}", {"receipt": amount}

    return pay


def _return_direct(ran: list[Any]) -> BaseTool:
    @tool(return_direct=True)
    def pay(amount: int) -> str:
        """Pay."""
        ran.append(amount)
        return f"paid {amount}"

    return pay


def _call_id(ran: list[Any]) -> BaseTool:
    @tool
    def pay(amount: int, tool_call_id: Annotated[str, InjectedToolCallId]) -> str:
        """Pay."""
        assert tool_call_id == "call-1"
        ran.append(amount)
        return f"paid {amount}"

    return pay


def _injected(ran: list[Any]) -> BaseTool:
    @tool
    def pay(amount: int, payer: Annotated[str, InjectedToolArg] = "house") -> str:
        """Pay."""
        ran.append(amount)
        return f"paid {amount}"

    return pay


def _like_mcp(ran: list[Any]) -> BaseTool:
    async def call_tool(runtime: Annotated[Any, InjectedToolArg] = None, **arguments: Any) -> tuple[str, None]:
        ran.append(arguments["amount"])
        return f"paid {arguments['amount']}", None

    return StructuredTool(
        name="pay",
        description="Pay.",
        args_schema=AMOUNT_SCHEMA,
        coroutine=call_tool,
        response_format="content_and_artifact",
    )


def _with_config(ran: list[Any]) -> BaseTool:
    def pay(amount: int, settings: RunnableConfig) -> str:
        """Pay."""
        assert "configurable" in settings
        ran.append(amount)
        return f"paid {amount}"

    return tool(pay)


KINDS: dict[str, Callable[[list[Any]], BaseTool]] = {
    "function": _function,
    "coroutine": _coroutine,
    "sync and async": _sync_and_async,
    "own class of StructuredTool": _own_run,
    "class, sync": lambda ran: SyncOnly(ran=ran),
    "class, async": lambda ran: AsyncOnly(ran=ran),
    "class, both": lambda ran: Both(ran=ran),
    "class, injected by schema": lambda ran: InjectedBySchema(ran=ran),
    "class, no schema": lambda ran: NoSchema(ran=ran),
    "artifact": _artifact,
    "return direct": _return_direct,
    "injected call id": _call_id,
    "injected argument": _injected,
    "config": _with_config,
    "like MCP": _like_mcp,
}
"""Makers of a tool `pay(amount)` of each kind; what its body is given goes to the list."""

ASYNC_ONLY = {"coroutine", "class, async", "like MCP"}
NEEDS_CALL_ID = {"injected call id"}


def single(ran: list[Any]) -> Tool:
    """The oldest kind: one text in, one text out."""

    def run(query: str) -> str:
        ran.append(query)
        return f"found {query}"

    return Tool(name="search", func=run, description="Search.")
