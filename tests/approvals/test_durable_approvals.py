"""Approval requests that outlive a process: shared, erased, and denied in bounded time where they cannot be told."""

from __future__ import annotations

import gc
import json
import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import trio
from approval_stores import FACTORIES, MANY, NOON, PATHS, SECRET, Later, draft, on_redis, standing
from redis.crc import key_slot
from redis_server import RedisServer, cluster, server
from retrying import POLICY, call
from tcp_proxy import proxied

import mcp_policy_middleware.approvals as approvals_package
from mcp_policy_middleware import Guard, MissingDependency, PolicyError, Reason, StoreError
from mcp_policy_middleware.approvals import (
    ApprovalStore,
    Event,
    Found,
    RedisApprovals,
    SQLiteApprovals,
    State,
)
from mcp_policy_middleware.approvals.base import KEPT
from mcp_policy_middleware.charges import MILLION
from mcp_policy_middleware.stores import MemoryStore, SQLiteStore

CLOSED = [State.DENIED, State.EXPIRED, State.CANCELLED, State.CONSUMED]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the SQLite store keeps its requests."""
    return tmp_path / "approvals.db"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that the test may harm."""
    with server(tmp_path / "own") as running:
        yield running


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Each durable store in turn."""
    made = FACTORIES[request.param](tmp_path, request)
    yield made
    made.close()


def twin(store: Any) -> Any:
    """Another store on the same file, or on the same server and tenant."""
    if isinstance(store, SQLiteApprovals):
        return SQLiteApprovals(store.path)
    made = RedisApprovals(url_of(store), timeout=5, clock="caller")
    made._requests, made._latest, made._ends = store._requests, store._latest, store._ends
    made._grants = store._grants
    return made


def url_of(store: RedisApprovals) -> str:
    """Its server, in this file's tests without a secret."""
    return store._server.name


def brought(store: ApprovalStore, state: State) -> str:
    """The id of a new request in a state."""
    found = store.open(draft(), 60, MANY, NOON)
    assert isinstance(found, Found)
    assert found.request is not None
    for event in PATHS[state]:
        store.move(found.request.id, event, NOON)
    return found.request.id


def reason(store: ApprovalStore) -> Reason:
    """Why a guard denies a call, whose charge it must not keep."""
    counters = MemoryStore()
    decision = Guard(POLICY, store=counters, approver=Later(store=store), telemetry=False).begin(call(0))
    assert not decision.allowed
    assert [one.used for one in counters.counters(time.time()) if one.used] == []
    return decision.reason


# ---- shared


def test_two_stores_see_each_other(store: Any) -> None:
    """What one makes the other finds, moves and uses; each once."""
    other = twin(store)
    made = store.open(draft(), 60, MANY, NOON).request
    assert standing(other.open(draft(id="another"), 60, MANY, NOON)) == made
    assert other.move(made.id, Event.APPROVE, NOON, "ann").changed
    assert store.find("b", NOON).state is State.APPROVED
    assert store.move(made.id, Event.CONSUME, NOON).changed
    assert other.move(made.id, Event.CONSUME, NOON).changed is False
    assert other.requests(NOON) == store.requests(NOON)
    other.close()


def test_requests_survive_a_restart(store: Any) -> None:
    """A store that is opened later has them all, whole."""
    made = store.open(draft(), 60, MANY, NOON).request
    store.close()
    later = twin(store)
    assert later.get(made.id, NOON) == made
    later.close()


def test_trio_is_served_too(store: Any) -> None:
    """Its loop waits for a thread, or sleeps."""

    async def run() -> None:
        found = await store.aopen(draft(), 60, MANY, NOON)
        assert found.changed
        assert (await store.amove("id", Event.APPROVE, NOON)).changed
        assert (await store.afind("b", NOON)).state is State.APPROVED

    trio.run(run)


# ---- erased


def stored(store: Any) -> bytes:
    """Every byte that is kept, also of the log and of what was deleted."""
    if isinstance(store, SQLiteApprovals):
        return b"".join(one.read_bytes() for one in Path(store.path).parent.iterdir() if one.is_file())
    with redis.Redis.from_url(url_of(store)) as client:
        return b"".join(client.hvals(store._requests) + client.hvals(store._latest))  # the other keys hold ids


def keep(store: Any, **given: Any) -> None:
    """Ask, so that the arguments are there to be erased."""
    assert store.open(draft(**given), 60, MANY, NOON).changed
    assert SECRET.encode() in stored(store)


@pytest.mark.parametrize("state", CLOSED)
def test_a_closed_request_leaves_no_arguments(store: Any, state: State) -> None:
    """Not in the file, its log, or what was deleted from it; nor in the server."""
    keep(store, arguments={"note": [SECRET] * 1_000})
    for event in PATHS[state]:
        store.move("id", event, NOON)
    assert store.get("id", NOON).state is state
    assert SECRET.encode() not in stored(store)


@pytest.mark.parametrize("state", [State.PENDING, State.APPROVED])
@pytest.mark.parametrize("sweep", ["open", "move"])
def test_a_request_that_lapsed_leaves_no_arguments(store: Any, state: State, sweep: str) -> None:
    """Whoever opens or moves any other request sweeps it."""
    keep(store)
    for event in PATHS[state]:
        store.move("id", event, NOON)
    if sweep == "open":
        store.open(draft("b2", "id2", arguments={}), 60, MANY, NOON + 60)
    else:
        store.move("nobody's", Event.DENY, NOON + 60)
    assert SECRET.encode() not in stored(store)
    assert store.get("id", NOON).state is State.EXPIRED  # and it stays so, though the clock goes back


def test_the_file_is_its_owners_alone(path: Path) -> None:
    """So are the files beside it, which hold arguments too."""
    store = SQLiteApprovals(path)
    store.open(draft(), 60, MANY, NOON)
    files = list(path.parent.iterdir())
    assert len(files) == 3
    assert {stat.S_IMODE(one.stat().st_mode) for one in files} == {0o600}
    store.close()


def test_a_log_that_another_process_reads_is_emptied_by_the_next(path: Path) -> None:
    """Nobody waits for that reader, and what was moved was moved once."""
    store = SQLiteApprovals(path)
    keep(store)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM requests").fetchone()
    assert store.move("id", Event.DENY, NOON).changed
    assert SECRET.encode() in stored(store)
    reader.close()
    store.open(draft("b2", "id2", arguments={}), 60, MANY, NOON)
    store.move("id2", Event.DENY, NOON)
    assert SECRET.encode() not in stored(store)
    store.close()


def test_what_redis_keeps_goes_by_itself(own: RedisServer) -> None:
    """Every key expires once all that it holds was kept long enough."""
    store = RedisApprovals(own.url, timeout=5)
    with redis.Redis.from_url(own.url) as client:
        for number, seconds in enumerate((7_200, 60)):
            store.open(draft(f"b{number}", f"id{number}"), seconds, MANY, 0.0)
            times = sorted(client.ttl(key) for key in client.scan_iter())
            assert len(times) == 4
            assert 7_100 < times[0] <= 7_200  # of the grant
            assert all(KEPT + 7_100 < one <= KEPT + 7_200 for one in times[1:])
    store.close()


# ---- what does not read is no approval


def spoil_state(record: dict[str, Any]) -> None:
    record["state"] = "granted"


def spoil_rest(record: dict[str, Any]) -> None:
    record["rest"] = '{"tool"'


def spoil_shape(record: dict[str, Any]) -> None:
    record["rest"] = "[1]"


def lose_tool(record: dict[str, Any]) -> None:
    record["rest"] = "{}"


def rewrite(store: Any, spoil: Callable[[dict[str, Any]], None]) -> None:
    """Change what is kept behind the store's back."""
    if isinstance(store, SQLiteApprovals):
        with sqlite3.connect(store.path) as database:
            state, rest = database.execute("SELECT state, rest FROM requests").fetchone()
            record = {"state": state, "rest": rest}
            spoil(record)
            database.execute("UPDATE requests SET state = ?, rest = ?", (record["state"], record["rest"]))
        database.close()
        return
    with redis.Redis.from_url(url_of(store)) as client:
        ((id, text),) = client.hgetall(store._requests).items()
        record = json.loads(text)
        spoil(record)
        client.hset(store._requests, id, json.dumps(record))


@pytest.mark.parametrize("spoil", [spoil_state, spoil_rest, spoil_shape, lose_tool])
def test_a_request_that_does_not_read_is_no_approval(store: Any, spoil: Callable[[dict[str, Any]], None]) -> None:
    """An unknown state above all (PL-7.2): whoever asks of it is told of a fault, which quotes nothing."""
    id = brought(store, State.APPROVED)
    rewrite(store, spoil)
    for ask in (
        lambda: store.find("b", NOON),
        lambda: store.get(id, NOON),
        lambda: store.requests(NOON),
        lambda: store.open(draft(), 60, MANY, NOON),
        lambda: store.move(id, Event.CONSUME, NOON),
    ):
        with pytest.raises(StoreError) as raised:
            ask()
        assert SECRET not in str(raised.value)
    assert store.open(draft("b2", grant="another"), 60, MANY, NOON).changed
    assert store.open(draft("b3", grant="another"), 60, MANY, NOON + 61).changed  # nor does it stop the sweeping


def test_an_unknown_state_is_a_denial(store: Any) -> None:
    """Through a guard."""
    asked = Guard(POLICY, store=MemoryStore(), approver=Later(store=store), telemetry=False).begin(call(0))
    assert asked.reason is Reason.APPROVAL_PENDING
    assert asked.approval is not None
    store.move(asked.approval.id, Event.APPROVE, time.time())
    rewrite(store, spoil_state)
    assert reason(store) is Reason.APPROVAL_FAILED


def test_a_record_that_redis_cannot_read_is_dropped_by_the_sweep(own: RedisServer) -> None:
    """It stands in nobody's way for longer than its time."""
    store = on_redis(own.url)
    brought(store, State.PENDING)
    with redis.Redis.from_url(own.url) as client:
        client.hset(store._requests, "id", "{")
    with pytest.raises(StoreError):
        store.get("id", NOON)
    assert store.open(draft("b2", "id2"), 60, MANY, NOON + 61).changed
    assert [one.id for one in store.requests(NOON + 61)] == ["id2"]
    store.close()


# ---- faults of a backend


def test_a_locked_file_is_a_fault_in_bounded_time(path: Path) -> None:
    """And a denial; once the lock is gone, everything is as it was."""
    store = SQLiteApprovals(path, timeout=0.1)
    id = brought(store, State.APPROVED)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    for attempt in (
        lambda: store.move(id, Event.CONSUME, NOON),
        lambda: store.open(draft("b2"), 60, MANY, NOON),
    ):
        with pytest.raises(StoreError):
            attempt()
    assert reason(store) is Reason.APPROVAL_FAILED
    assert time.monotonic() - started < 3
    other.close()
    assert store.move(id, Event.CONSUME, NOON).changed
    store.close()


@pytest.mark.parametrize("harm", ["stop", "freeze"])
def test_a_server_that_does_not_answer_is_a_fault_in_bounded_time(own: RedisServer, harm: str) -> None:
    """And a denial; a server that lost everything has approved nothing."""
    store = RedisApprovals(own.url, timeout=0.1)
    brought(store, State.APPROVED)
    getattr(own, harm)()
    started = time.monotonic()
    for attempt in (
        lambda: store.move("id", Event.CONSUME, 0.0),
        lambda: store.find("b", 0.0),
        lambda: store.get("id", 0.0),
        lambda: store.requests(0.0),
    ):
        with pytest.raises(StoreError):
            attempt()
    assert reason(store) is Reason.APPROVAL_FAILED
    assert time.monotonic() - started < 3
    own.thaw()
    own.stop()
    own.start()
    assert store.requests(0.0) == []
    assert reason(store) is Reason.APPROVAL_PENDING
    store.close()


def test_a_server_that_may_evict_approvals_is_refused(own: RedisServer) -> None:
    """For it could forget that a call was denied."""
    own.ask("CONFIG SET maxmemory-policy allkeys-lru")
    store = RedisApprovals(own.url, timeout=5)
    with pytest.raises(StoreError):
        store.requests(0.0)
    assert reason(store) is Reason.APPROVAL_FAILED
    store.close()


@pytest.mark.parametrize("cut", ["open", "consume"])
def test_a_step_whose_reply_was_lost_is_one_step(own: RedisServer, cut: str) -> None:
    """The client sends it again: it is told what the first one did, and nobody else is."""
    with proxied(own.port) as proxy:
        store = RedisApprovals(proxy.url, timeout=5, clock="caller")
        store.open(draft("warm", "warm"), 60, MANY, NOON)
        proxy.cuts = cut == "open"
        assert store.open(draft(), 60, MANY, NOON).changed  # type: ignore[union-attr]
        assert proxy.cuts == 0
        assert not store.open(draft(), 60, MANY, NOON).changed  # type: ignore[union-attr]
        assert store.move("id", Event.APPROVE, NOON).changed
        proxy.cuts = cut == "consume"
        assert store.move("id", Event.CONSUME, NOON).changed
        assert proxy.cuts == 0
        assert not store.move("id", Event.CONSUME, NOON).changed
        assert len(store.requests(NOON)) == 2
        store.close()


# ---- clocks, clusters, settings


def test_the_servers_clock_rules(own: RedisServer) -> None:
    """Whatever time the caller thinks it is."""
    store = RedisApprovals(own.url, timeout=5)
    before = time.time()
    made = store.open(draft(), 60, MANY, NOON).request  # type: ignore[union-attr]
    assert made is not None
    assert before - 1 <= made.asked_at <= time.time() + 1
    assert made.expires_at == made.asked_at + 60
    assert store.find("b", NOON + 10**9) == store.get("id", 0.0) == store.requests(0.0)[0] == made
    moved = store.move("id", Event.APPROVE, NOON + 10**9).request
    assert moved is not None
    assert made.asked_at <= moved.answered_at <= time.time() + 1  # type: ignore[operator]
    store.close()


def test_a_tenant_is_in_one_slot_and_two_are_apart(own: RedisServer) -> None:
    """So that a cluster lets one script reach all that it needs."""
    stores = [RedisApprovals(own.url, tenant=name, timeout=5) for name in ("a", "b")]
    for store in stores:
        assert store.open(draft(), 60, MANY, 0.0).changed  # type: ignore[union-attr]
    with redis.Redis.from_url(own.url) as client:
        assert len({key_slot(key) for key in client.scan_iter()}) == 2
    for store in stores:
        assert len(store.requests(0.0)) == 1
        store.close()


def test_a_cluster_keeps_requests_too(tmp_path: Path) -> None:
    """Whichever node is named."""
    with cluster(tmp_path) as nodes:
        first = on_redis(nodes[0].url, cluster=True)
        assert first.open(draft(), 60, MANY, NOON).changed  # type: ignore[union-attr]
        assert first.move("id", Event.APPROVE, NOON).changed
        assert first.move("id", Event.CONSUME, NOON).changed
        assert [one.state for one in first.requests(NOON)] == [State.CONSUMED]
        first.close()
    del first
    gc.collect()


def test_settings_that_do_not_fit_are_refused(own: RedisServer) -> None:
    """When the store is made."""
    with pytest.raises(PolicyError):
        RedisApprovals(own.url, clock="wall")  # type: ignore[arg-type]
    with pytest.raises(PolicyError):
        SQLiteApprovals(":memory:")


def test_a_file_of_counters_is_not_one_of_approvals(tmp_path: Path) -> None:
    """Nor is it touched."""
    file = tmp_path / "counters.db"
    SQLiteStore(file).close()
    before = file.read_bytes()
    with pytest.raises(StoreError):
        SQLiteApprovals(file)
    assert file.read_bytes() == before


@pytest.mark.parametrize("missing", ["redis", "ssl"])
def test_without_the_client_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Whoever asks for the store without its library is told what to install; another fault is told as it is."""

    def absent(*_: object) -> None:
        raise ModuleNotFoundError(name=missing)

    assert approvals_package.__getattr__("RedisApprovals") is RedisApprovals
    monkeypatch.setattr(approvals_package, "import_module", absent)
    with pytest.raises(ImportError) as raised:
        approvals_package.__getattr__("RedisApprovals")
    assert isinstance(raised.value, MissingDependency) == (missing == "redis")
    with pytest.raises(AttributeError):
        approvals_package.__getattr__("PostgresApprovals")


def test_a_process_that_ends_in_between_leaves_its_question(path: Path) -> None:
    """Killed after it asked: the question is there for whoever comes next, once."""
    code = (
        "import os, signal, sys\nfrom approval_stores import MANY, NOON, draft\n"
        "from mcp_policy_middleware.approvals import SQLiteApprovals\n"
        f"SQLiteApprovals({str(path)!r}).open(draft(), 60, MANY, NOON)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    folders = os.pathsep.join([str(Path(__file__).parent), str(Path(approvals_package.__file__).parents[2])])
    ran = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": folders}, check=False)
    assert ran.returncode == -9
    store = SQLiteApprovals(path)
    assert standing(store.open(draft(), 60, MANY, NOON)).id == "id"
    assert store.move("id", Event.APPROVE, NOON).changed
    store.close()


def test_a_used_approval_charges_once(store: Any) -> None:
    """Through a guard: pending, approved, allowed once with its charge; then it is a new question."""
    counters = MemoryStore()
    guard = Guard(POLICY, store=counters, approver=Later(store=store), telemetry=False)
    asked = guard.begin(call(0))
    assert asked.approval is not None
    store.move(asked.approval.id, Event.APPROVE, time.time(), "ann")
    assert guard.begin(call(0)).allowed
    assert guard.begin(call(0)).reason is Reason.APPROVAL_PENDING
    assert [one.used for one in counters.counters(time.time())] == [MILLION]
