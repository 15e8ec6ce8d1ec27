"""The coverage table is true (adapters A-3): each cell is tried on a real MCP server over stdio.

A cell that promises a denial fails where the server was reached, and one that promises none fails where it was not.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("langchain")
pytest.importorskip("mcp")
if not (importlib.util.find_spec("langchain_mcp_adapters") or importlib.util.find_spec("fastmcp")):
    pytest.skip("neither bridge between LangChain and MCP is installed", allow_module_level=True)

import mcp_sessions
from anyio.from_thread import BlockingPortal, start_blocking_portal
from coverage_paths import PATHS, PLACES, WORLD, Hook, Raised, Site, Withheld, opened
from langchain_cases import called, reason
from langchain_core.messages import ToolMessage
from mcp.types import CallToolResult

from mcp_policy_middleware import Reason, ToolDenied

DATA = yaml.safe_load((Path(__file__).parents[1] / "data" / "coverage.yaml").read_text(encoding="utf-8"))
AMOUNTS = itertools.count(1000)
"""Forbidden amounts, one for each call, by which the ledger tells calls apart."""


def cells() -> Iterator[Any]:
    """Row, column and word of each cell that this dependency world has."""
    for row, line in DATA["rows"].items():
        for (column, head), word in zip(DATA["columns"].items(), line["cells"], strict=True):
            if line.get("only", WORLD) == WORLD and head.get("only", WORLD) == WORLD:
                yield pytest.param(row, column, word, id=f"{row}-{column}")


@pytest.fixture(scope="module")
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal("asyncio") as running:
        yield running


@pytest.fixture(scope="module")
def site(portal: BlockingPortal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    ledger = tmp_path_factory.mktemp("coverage") / "ledger.jsonl"
    ledger.touch()
    with portal.wrap_async_context_manager(opened(ledger)) as site:
        yield site
    assert not [amount for amount in site.denied if site.reached(amount)]  # nor later, when all was over


async def found(row: str, hook: Hook) -> str:
    """The word that is true of a path with a hook."""
    amount = next(AMOUNTS)
    with hook.installed():
        try:
            async with asyncio.timeout(60):
                answer = await PATHS[row](hook, amount)
        except ToolDenied as denial:
            answer = denial
    denied = word_for(answer)
    if hook.site.reached(amount):
        assert denied is None
        return "not covered" if hook.placed else "-"
    assert denied is not None
    assert hook.placed
    hook.site.denied.append(amount)
    return denied


def word_for(answer: Any) -> str | None:
    """How an answer says that its call was denied; None where it does not."""
    if isinstance(answer, Withheld):
        return "withheld"
    if isinstance(answer, ToolDenied):
        assert answer.decision.reason is Reason.REQUIREMENT_UNMET
        return "aborts"
    if isinstance(answer, Raised):
        assert isinstance(answer.error, ToolDenied) or text_of(str(answer.error)).startswith("[POLICY DENIED] ")
        return "raises"
    if isinstance(answer, CallToolResult):
        if not mcp_sessions.is_error(answer):
            return None
        assert mcp_sessions.reason(answer) == Reason.REQUIREMENT_UNMET
        return "denied"
    if isinstance(answer, ToolMessage):
        assert (answer.status == "error") is text_of(answer.content).startswith("[POLICY DENIED] ")
        assert reason(answer) in (None, Reason.REQUIREMENT_UNMET, Reason.INVALID_CALL)  # the last of a swapped tool
        return "denied" if answer.status == "error" else None
    return "denied" if text_of(answer).startswith("[POLICY DENIED] ") else None


def text_of(content: Any) -> str:
    """The text of what a tool gave without a message around it: a text, blocks, or these with an artifact."""
    if isinstance(content, (list, tuple)):
        return text_of(content[0]) if content else ""
    return str(content["text"]) if isinstance(content, dict) else str(content)


@pytest.mark.parametrize(("row", "column", "word"), list(cells()))
def test_a_cell_is_true(row: str, column: str, word: str, site: Site, portal: BlockingPortal) -> None:
    assert portal.call(found, row, Hook(column, site)) == word


@pytest.mark.parametrize("row", list(PATHS))
def test_without_a_hook_every_path_leads_to_the_tool(row: str, site: Site, portal: BlockingPortal) -> None:
    assert portal.call(found, row, Hook(None, site)) == "-"


def test_the_recommended_hooks_decide_an_allowed_call_once(site: Site, portal: BlockingPortal) -> None:
    hook = Hook("recommended", site)

    async def main() -> None:
        with hook.installed():
            assert (await hook.app([await hook.pay()], called(amount=1))).status == "success"

    site.desk.spans.clear()
    portal.call(main)
    assert site.desk.decisions() == [("pay", "allowed")]


def test_the_table_is_whole() -> None:
    """It has every path and every hook, and no word that it does not explain."""
    assert list(PATHS) == [row for row, line in DATA["rows"].items() if line.get("only", WORLD) == WORLD]
    assert list(PLACES) == list(DATA["columns"])
    assert {word for line in DATA["rows"].values() for word in line["cells"]} == set(DATA["words"])
    for line in DATA["rows"].values():
        for head, word in zip(DATA["columns"].values(), line["cells"], strict=True):
            assert word == "-" or len({line.get("only"), head.get("only")} - {None}) < 2  # else no world tries it


def test_the_recommended_hooks_leave_out_what_no_hook_sees() -> None:
    """Where any hook denies a call, so does the recommended combination."""
    for row, line in DATA["rows"].items():
        *single, recommended = line["cells"]
        assert (recommended == "not covered") <= (set(single) <= {"not covered", "-"}), row
