"""Two options that keep a run from passing by skipping: the dependency world that the environment is meant to be, and
that servers must be there. How many examples property tests try: `HYPOTHESIS_PROFILE=many` for 20,000 each."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import pytest
from hypothesis import HealthCheck, settings
from redis_server import RedisServer, server

WORLDS = {
    "mcp1": ("1.", "langchain-mcp-adapters"),
    "mcp2": ("2.", "fastmcp"),
    "graph": ("1.", "langgraph-prebuilt"),  # LangGraph without LangChain, and without a bridge to MCP
}
"""A world's line of mcp, and a package that it must have."""

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("few", max_examples=300, deadline=None, suppress_health_check=SLOW)
settings.register_profile("many", max_examples=20_000, deadline=None, suppress_health_check=SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "few"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--world", choices=sorted(WORLDS), help="fail unless the environment is this dependency world")
    parser.addoption("--servers", action="store_true", help="fail unless redis-server and promtool are installed")


def pytest_configure(config: pytest.Config) -> None:
    for needed in ("redis-server", "promtool"):
        if config.getoption("--servers") and shutil.which(needed) is None:
            raise pytest.UsageError(f"{needed} is not installed")
    world = config.getoption("--world")
    if world is None:
        return
    major, package = WORLDS[world]
    try:
        found, _ = version("mcp"), version(package)
    except PackageNotFoundError as error:
        raise pytest.UsageError(f"world {world} needs {error.name}") from None
    if not found.startswith(major):
        raise pytest.UsageError(f"world {world} needs mcp {major}x, found {found}")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis server that no test may harm."""
    with server(tmp_path_factory.mktemp("redis")) as running:
        yield running
