"""One option: the dependency world that the environment is meant to be, so that a wrong one cannot pass by skipping."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import pytest

WORLDS = {"mcp1": ("1.", "langchain-mcp-adapters"), "mcp2": ("2.", "fastmcp")}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--world", choices=sorted(WORLDS), help="fail unless the environment is this dependency world")


def pytest_configure(config: pytest.Config) -> None:
    world = config.getoption("--world")
    if world is None:
        return
    major, bridge = WORLDS[world]
    try:
        found, _ = version("mcp"), version(bridge)
    except PackageNotFoundError as error:
        raise pytest.UsageError(f"world {world} needs {error.name}") from None
    if not found.startswith(major):
        raise pytest.UsageError(f"world {world} needs mcp {major}x, found {found}")
