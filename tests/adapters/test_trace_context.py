"""The caller's trace goes with a tool call in `_meta` (SEP-414), on both SDK lines, and nothing else changes."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import ClientSession, StdioServerParameters, stdio_client, types
from mcp_sessions import V2
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.sdk.trace import TracerProvider

from mcp_policy_middleware import Guard, Telemetry, parse_policy
from mcp_policy_middleware.adapters.mcp import guard_session, install
from mcp_policy_middleware.approvals import Answer, ApprovalRequest

SERVER = Path(__file__).parents[1] / "servers" / "meta_server.py"
POLICY = parse_policy('{"version": "1", "default": "deny", "tools": {"meta": {}}}')
PROVIDER = TracerProvider()
TRACER = PROVIDER.get_tracer("application")

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def span() -> Iterator[trace.Span]:
    """The application's span, around the call; with baggage, which is the application's own."""
    token = context.attach(baggage.set_baggage("customer", "canary"))
    with TRACER.start_as_current_span("agent") as current:
        yield current
    context.detach(token)


@asynccontextmanager
async def served(guard: Guard | None, server: str | None = None) -> AsyncIterator[ClientSession]:
    parameters = StdioServerParameters(command=sys.executable, args=[str(SERVER)])
    async with stdio_client(parameters) as streams, ClientSession(*streams) as session:
        await session.initialize()
        yield session if guard is None else guard_session(session, guard, server=server)


async def seen(session: ClientSession, **given: Any) -> tuple[dict[str, Any], Any]:
    """What the server got: `_meta` and arguments."""
    with anyio.fail_after(20):
        result = await session.call_tool("meta", {"a": 1}, **given)
    meta, arguments = json.loads(result.content[0].text)  # type: ignore[union-attr]
    return meta or {}, arguments


def trace_of(meta: dict[str, Any]) -> int:
    return trace.get_current_span(propagate.extract(meta)).get_span_context().trace_id


async def test_the_servers_side_can_join_the_callers_trace(span: trace.Span) -> None:
    async with served(Guard(POLICY, telemetry=Telemetry(PROVIDER))) as session:
        meta, arguments = await seen(session)
    assert trace_of(meta) == span.get_span_context().trace_id
    assert arguments == {"a": 1}
    if not V2:  # the SDK's 2.x does this itself, baggage included
        assert "baggage" not in meta


async def test_so_it_is_in_every_session_of_the_process(span: trace.Span) -> None:
    guard = Guard(POLICY, telemetry=Telemetry(PROVIDER))
    async with served(None) as session:
        with install(guard):
            meta, _ = await seen(session)
    assert trace_of(meta) == span.get_span_context().trace_id


async def test_without_a_span_nothing_is_added() -> None:
    async with served(Guard(POLICY, telemetry=Telemetry(PROVIDER))) as session:
        assert "traceparent" not in (await seen(session))[0]


@pytest.mark.skipif(V2, reason="the SDK's 2.x does this itself")
async def test_a_guard_without_telemetry_adds_nothing(span: trace.Span) -> None:
    async with served(Guard(POLICY, telemetry=False)) as session:
        assert (await seen(session))[0] == {}


@pytest.mark.skipif(V2, reason="the SDK's 2.x does this itself")
async def test_what_is_in_meta_stays(span: trace.Span) -> None:
    """A trace context that the caller put there is not overwritten, and other keys are kept beside ours."""
    mine = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "example.org/x": 1}
    async with served(Guard(POLICY, telemetry=Telemetry(PROVIDER))) as session:
        assert (await seen(session, meta=mine))[0] == mine
        meta, _ = await seen(session, meta={"example.org/x": 1})
        assert (meta["example.org/x"], trace_of(meta)) == (1, span.get_span_context().trace_id)


@pytest.mark.skipif(V2, reason="the SDK's 2.x does this itself")
@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_request_is_not_changed_for_its_caller(span: trace.Span, wrapped: bool) -> None:
    """Raw requests carry it too, and the caller's own object stays as it was."""
    request: Any = types.CallToolRequest(params=types.CallToolRequestParams(name="meta", arguments={"a": 1}))
    sent = types.ClientRequest(request) if wrapped else request
    async with served(Guard(POLICY, telemetry=Telemetry(PROVIDER))) as session:
        result = await session.send_request(sent, types.CallToolResult)
    meta, arguments = json.loads(result.content[0].text)  # type: ignore[union-attr]
    assert (trace_of(meta), arguments) == (span.get_span_context().trace_id, {"a": 1})
    assert request.params.meta is None


@pytest.mark.skipif(V2, reason="the SDK's 2.x does this itself")
@pytest.mark.parametrize("meta", [None, {}, {"example.org/x": 1}, {"traceparent": "mine"}, "odd"])
async def test_so_does_a_request_with_plain_parameters(span: trace.Span, meta: Any) -> None:
    """A vendor's request whose parameters are a dict; what its `_meta` is, it stays."""
    params = {"name": "meta", "arguments": {"a": 1}} | ({} if meta is None else {"_meta": meta})
    request: Any = types.Request[dict[str, Any], str](method="tools/call", params=dict(params))
    async with served(Guard(POLICY, telemetry=Telemetry(PROVIDER))) as session:
        result = await session.send_request(request, types.CallToolResult)
    sent, _ = json.loads(result.content[0].text)  # type: ignore[union-attr]
    if meta in ("odd", {"traceparent": "mine"}):
        assert sent == meta
    else:
        assert trace_of(sent) == span.get_span_context().trace_id
        assert (meta or {}).items() <= sent.items()
    assert request.params == params


@pytest.mark.skipif(V2, reason="the SDK's 2.x does this itself")
async def test_the_parent_hook_tells_whose_trace_goes_along() -> None:
    elsewhere = trace.set_span_in_context(TRACER.start_span("tool"))
    async with served(Guard(POLICY, telemetry=Telemetry(PROVIDER, parent=lambda: elsewhere))) as session:
        meta, _ = await seen(session)
    assert trace_of(meta) == trace.get_current_span(elsewhere).get_span_context().trace_id


@pytest.mark.skipif(V2, reason="the SDK's 2.x does this itself")
async def test_a_propagator_that_raises_disturbs_no_call(span: trace.Span, monkeypatch: pytest.MonkeyPatch) -> None:
    def bad(*args: Any, **named: Any) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr(propagate, "inject", bad)
    telemetry = Telemetry(PROVIDER)
    async with served(Guard(POLICY, telemetry=telemetry)) as session:
        assert await seen(session) == ({}, {"a": 1})
    assert telemetry.errors == 1


async def test_an_approval_binds_no_trace_context() -> None:
    """The same call under another trace meets the same approval request: `_meta` is no part of it."""
    asked: list[ApprovalRequest] = []

    def ask(request: ApprovalRequest) -> Answer:
        asked.append(request)
        return Answer(False)

    tools = {"meta": {"action": "require_approval"}}
    policy = parse_policy(json.dumps({"version": "1", "default": "deny", "tools": tools}))
    guard = Guard(policy, approver=ask, telemetry=Telemetry(PROVIDER))
    async with served(guard) as session:
        for name in ("first", "second"):
            with TRACER.start_as_current_span(name):
                await session.call_tool("meta", {"a": 1})
    assert len(asked) == 1
