"""One option, the dependency world that the environment is meant to be, so that a wrong one cannot pass by skipping;
and how many examples property tests try: `HYPOTHESIS_PROFILE=many` for 20,000 each."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

import pytest
from hypothesis import HealthCheck, settings

WORLDS = {"mcp1": ("1.", "langchain-mcp-adapters"), "mcp2": ("2.", "fastmcp")}

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("few", max_examples=300, deadline=None, suppress_health_check=SLOW)
settings.register_profile("many", max_examples=20_000, deadline=None, suppress_health_check=SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "few"))


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
