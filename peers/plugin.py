"""A pytest plugin: other people's tests, with a guard under every session, tool or agent they make.

Loaded by `-p peers.plugin` before any `conftest.py` is, so that whatever a test imports is guarded already. The tests
themselves stay as they were released.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mcp_policy_middleware import Decision, Guard, Telemetry, parse_policy
from mcp_policy_middleware.stores import MemoryStore

ALLOW = """{"version": "1", "default": "allow", "all_tools": {"limits": [
    {"counter": "calls", "window": "day", "max": 1000000000}
]}}"""
"""Admits everything; the limit nobody reaches makes every call reserve and settle."""

DENY = '{"version": "1", "default": "allow", "all_tools": {"deny_if": [{"conditions": [], "on_deny": "no calls"}]}}'
"""Denies every call and hides no tool, so that lists of tools are what they are."""


class Tally(Telemetry):
    """Counts the guard's own decisions, in the place of a tracer.

    Attributes:
        decided: One entry a guarded call: whether it was admitted and the store took its charge.
    """

    def __init__(self) -> None:
        super().__init__()
        self.recording = lambda: True
        self.decided: list[bool] = []

    def record(self, decision: Decision, *_: object) -> None:
        """Count a decision; guards stacked on one call decide it once."""
        self.decided.append(decision.allowed and decision.reservation is not None)


def guarded_sessions(guard: Guard) -> None:
    """Every MCP client session of the process."""
    from mcp_policy_middleware.adapters.mcp import install

    install(guard)


def guarded_tools(guard: Guard) -> None:
    """Every LangChain tool that is made, of whatever class: the call of the class returns the guarded copy."""
    from langchain_core.tools import BaseTool

    from mcp_policy_middleware.adapters.langchain import guard_tool

    metaclass: Any = type(BaseTool)
    make = metaclass.__call__

    def call(cls: Any, *args: Any, **kwargs: Any) -> Any:
        made = make(cls, *args, **kwargs)
        return guard_tool(made, guard) if isinstance(made, BaseTool) else made

    metaclass.__call__ = call


def guarded_agents(guard: Guard) -> None:
    """Every agent of `create_agent`: the policy is the last of its middleware."""
    from langchain import agents
    from langchain.agents import factory

    from mcp_policy_middleware.adapters.langchain import PolicyMiddleware

    make = factory.create_agent

    def create_agent(*args: Any, middleware: Any = (), **kwargs: Any) -> Any:
        return make(*args, middleware=[*middleware, PolicyMiddleware(guard)], **kwargs)

    agents.create_agent = factory.create_agent = create_agent


MODES: dict[str, Callable[[Guard], None]] = {
    "sessions": guarded_sessions,
    "tools": guarded_tools,
    "agents": guarded_agents,
}


class Recorder:
    """Writes what became of each test as it ends, so that a run that is cut short still tells.

    One JSON array a line: node id, phase, outcome; and at the end the numbers of admitted and other decisions.
    """

    def __init__(self, file: Path, tally: Tally) -> None:
        self._lines = file.open("w", encoding="utf-8", buffering=1)
        self._tally = tally

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note one phase of one test."""
        outcome = "xfailed" if hasattr(report, "wasxfail") else report.outcome
        self._write(report.nodeid, report.when, outcome)

    def pytest_sessionfinish(self) -> None:
        """Note the decisions."""
        admitted = sum(self._tally.decided)
        self._write(admitted, len(self._tally.decided) - admitted)

    def pytest_unconfigure(self) -> None:
        """Close the file."""
        self._lines.close()

    def _write(self, *what: object) -> None:
        self._lines.write(json.dumps(what) + "\n")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare what `run.py` passes."""
    group = parser.getgroup("peers")
    group.addoption("--peers-mode", choices=sorted(MODES), help="what is guarded; left out, nothing")
    group.addoption("--peers-deny", action="store_true", help="deny every call")
    group.addoption("--peers-results", type=Path, help="where results go")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    """Guard before the tests' own code is imported."""
    options = early_config.known_args_namespace
    tally = Tally()
    if options.peers_mode:
        policy = parse_policy(DENY if options.peers_deny else ALLOW, name="peers")
        MODES[options.peers_mode](Guard(policy, store=MemoryStore(), telemetry=tally))
    early_config.pluginmanager.register(Recorder(options.peers_results, tally), "peers-recorder")
    return (yield)
