"""Every store, made for a test; the servers behind them run for the whole session."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis_server import RedisServer, cluster, server

from mcp_policy_middleware.stores import MemoryStore, RedisStore, SQLiteStore, Store


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Valkey server that no test may harm."""
    with server(tmp_path_factory.mktemp("valkey"), "valkey-server") as running:
        yield running


@pytest.fixture(scope="session")
def redis_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    """A cluster of three nodes."""
    with cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


def on_redis(url: str, *, cluster: bool = False) -> RedisStore:
    """A store of its own, by the clock of the test."""
    made = RedisStore(url, tenant=secrets.token_hex(4), cluster=cluster, timeout=5, clock="caller")
    made.init()
    return made


FACTORIES: dict[str, Callable[[Path, pytest.FixtureRequest], Store]] = {
    "memory": lambda folder, request: MemoryStore(),
    "sqlite": lambda folder, request: SQLiteStore(folder / "counters.db"),
    "redis": lambda folder, request: on_redis(request.getfixturevalue("redis_server").url),
    "cluster": lambda folder, request: on_redis(request.getfixturevalue("redis_nodes")[0].url, cluster=True),
}
"""How each store is made; a new store joins every suite by a line here."""

if shutil.which("valkey-server"):  # where the distribution has it; `test_redis.py` reports where it has not
    FACTORIES["valkey"] = lambda folder, request: on_redis(request.getfixturevalue("valkey_server").url)


@pytest.fixture(params=FACTORIES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each store in turn."""
    made = FACTORIES[request.param](tmp_path, request)
    yield made
    made.close()
