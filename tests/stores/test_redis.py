"""Redis at its worst: stopped, frozen, slow, empty, full, behind a broken network. Denied in time, and exact after."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import trio
from racing import MILLION, NOON, charge, used
from redis.crc import key_slot
from redis_server import RedisServer, cluster, free_port, server
from tcp_proxy import Proxy, proxied
from watching import longest_pause

import mcp_policy_middleware.stores as stores_package
from mcp_policy_middleware import (
    Decision,
    Guard,
    MissingDependency,
    PolicyError,
    Reason,
    StoreError,
    ToolCall,
    parse_policy,
)
from mcp_policy_middleware.charges import Charge, Refusal, Reservation, Window
from mcp_policy_middleware.stores import RedisStore

POLICY = parse_policy(
    '{"version": "1", "default": "deny", '
    '"tools": {"t": {"limits": [{"counter": "c", "window": "month", "max": 1000}]}}}'
)
CALL = ToolCall("t", {})


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that the test may harm."""
    with server(tmp_path / "own") as running:
        yield running


@pytest.fixture
def proxy(own: RedisServer) -> Iterator[Proxy]:
    """A proxy before that server."""
    with proxied(own.port) as made:
        yield made


@pytest.fixture
def stores() -> Iterator[Callable[..., RedisStore]]:
    """Makes stores, which are closed in the end."""
    made: list[RedisStore] = []

    def make(url: str, **settings: Any) -> RedisStore:
        made.append(RedisStore(url, **{"timeout": 5, **settings}))  # where time is not what is tested
        return made[-1]

    yield make
    for store in made:
        store.close()


Stores = Callable[..., RedisStore]


def guarded(store: RedisStore) -> Guard:
    """A guard of one limit."""
    return Guard(POLICY, store=store, telemetry=False)


def begin(store: RedisStore) -> Decision:
    """One decision."""
    return guarded(store).begin(CALL)


def admit(store: RedisStore, times: int = 1) -> None:
    """Decisions that must admit."""
    for _ in range(times):
        assert begin(store).reason is Reason.ALLOWED


def denied(store: RedisStore) -> bool:
    """Whether a call is denied for want of the store."""
    return begin(store).reason is Reason.STORE_UNAVAILABLE


def total(store: RedisStore) -> float:
    """What the limit's counter holds."""
    return sum(one.used for one in store.counters(time.time())) / MILLION


def recovers(store: RedisStore, within: float = 10) -> None:
    """A decision admits, soon."""
    until = time.monotonic() + within
    while not begin(store).allowed:
        assert time.monotonic() < until


def comes_to(store: RedisStore, expected: float, within: float = 10) -> None:
    """The counter holds this, once the server has read what was sent to it."""
    until = time.monotonic() + within
    while total(store) != expected:
        assert time.monotonic() < until, total(store)
        time.sleep(0.005)


def begun(store: RedisStore, times: int = 1) -> RedisStore:
    """A store that is in use."""
    store.init()
    for _ in range(times):
        recovers(store)
    return store


# ---- gone, and empty


def test_a_server_that_is_gone_denies_at_once_and_recovers(own: RedisServer, stores: Stores) -> None:
    """Nobody listens: denied without waiting; it is back and empty: denied until an operator says that it is meant."""
    store, other = begun(stores(own.url)), stores(own.url)
    admit(other)
    own.stop()
    started = time.monotonic()
    assert denied(store)
    assert time.monotonic() - started < 0.3
    with pytest.raises(StoreError):
        store.init()
    own.start()
    for one in (store, other, stores(own.url)):
        assert denied(one)
    assert other.init()
    assert not store.init()
    admit(store)
    admit(other)
    assert total(store) == 2


@pytest.mark.parametrize("missing", ["redis", "ssl"])
def test_without_the_client_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Whoever asks for the store without its library is told what to install; another fault is told as it is."""

    def absent(*_: object) -> None:
        raise ModuleNotFoundError(name=missing)

    assert stores_package.__getattr__("RedisStore") is RedisStore
    monkeypatch.setattr(stores_package, "import_module", absent)
    with pytest.raises(ImportError) as raised:
        stores_package.__getattr__("RedisStore")
    assert isinstance(raised.value, MissingDependency) == (missing == "redis")
    with pytest.raises(AttributeError):
        stores_package.__getattr__("PostgresStore")


def test_what_could_not_be_given_back_is_kept(own: RedisServer, stores: Stores) -> None:
    """A release that is not answered is a fault of the store, and nothing is given back later for it."""
    store = begun(stores(own.url))
    held = begin(store).reservation
    assert held is not None
    own.stop()
    with pytest.raises(StoreError):
        store.release(held)
    assert not held.released
    assert not store._abandoned


def test_another_process_is_denied_by_an_empty_server_too(own: RedisServer, stores: Stores) -> None:
    """An empty server is not a fresh one for whoever comes new."""
    code = (
        "from mcp_policy_middleware import StoreError\nfrom mcp_policy_middleware.stores import RedisStore\n"
        f"try: RedisStore({own.url!r}).reserve((), 0.0)\nexcept StoreError: print('denied')"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert ran.stdout == b"denied\n"
    assert denied(stores(own.url))


def test_with_an_append_only_file_acknowledged_charges_survive_a_kill(tmp_path: Path, stores: Stores) -> None:
    """A server that writes each command through loses none when it is killed."""
    with server(tmp_path, "redis-server", "--appendonly", "yes", "--appendfsync", "always") as own:
        store = begun(stores(own.url), 20)
        for expected in (20, 21):
            own.stop()
            assert denied(store)
            own.start()
            assert total(store) == expected
            admit(store)


def test_charges_of_an_earlier_generation_take_nothing_off(own: RedisServer, stores: Stores) -> None:
    """A store that another has emptied and begun anew is not charged less by what was given back late."""
    store, other = begun(stores(own.url)), stores(own.url)
    held = begin(store).reservation
    own.ask("FLUSHALL")
    other.init()
    admit(other, 2)
    assert held is not None
    store.release(held)
    assert total(store) == 2
    moved = store.adjust(held, held.charges, 0.0)
    assert isinstance(moved, Reservation)
    assert total(store) == 3


# ---- frozen, and slow


def test_a_frozen_server_denies_within_300_ms_and_the_count_is_exact(own: RedisServer, stores: Stores) -> None:
    """Denied in time, on an open connection and on a new one; then admitted, and what was not answered given back."""
    store = begun(stores(own.url, timeout=0.25))
    first, second = [], []
    expected = total(store)
    for _ in range(3):
        own.freeze()
        for times in (first, second):
            started = time.monotonic()
            assert denied(store)
            times.append(time.monotonic() - started)
        own.thaw()
        recovers(store)
        expected += 1
        comes_to(store, expected)
    print(f"denied after {min(first) * 1000:.0f} ms, {min(second) * 1000:.0f} ms")
    assert min(first) < 0.3
    assert min(second) < 0.3
    assert max(first + second) < 2


def test_a_frozen_server_leaves_the_event_loop_free(own: RedisServer, stores: Stores) -> None:
    """The same for async callers, 20 at once; other tasks go on meanwhile."""

    async def main() -> None:
        store = stores(own.url, timeout=0.25)
        store.init()
        guard = guarded(store)
        expected, times, pauses = 0, [], []
        while expected < 20:
            expected += sum(one.allowed for one in await asyncio.gather(*(guard.abegin(CALL) for _ in range(20))))
        for _ in range(3):
            own.freeze()
            started = time.monotonic()
            async with longest_pause() as pause:
                decision = await guard.abegin(CALL)
                times.append(time.monotonic() - started)
                rest = await asyncio.gather(*(guard.abegin(CALL) for _ in range(20)))
            pauses.append(pause.longest)
            assert {one.reason for one in [decision, *rest]} == {Reason.STORE_UNAVAILABLE}
            own.thaw()
            until = time.monotonic() + 10
            while not (await guard.abegin(CALL)).allowed:
                assert time.monotonic() < until
            expected += 1
            until = time.monotonic() + 10
            while total(store) != expected:  # four are given back with each call
                assert time.monotonic() < until
                await store.areserve((), 0.0)
        print(f"async: denied after {min(times) * 1000:.0f} ms, longest pause {min(pauses) * 1000:.0f} ms")
        assert min(times) < 0.3
        assert max(times) < 2
        assert min(pauses) < 0.1
        await store.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("pause", ["CLIENT PAUSE 500 ALL", "DEBUG SLEEP 0.5"])
def test_a_paused_server_denies_and_recovers(own: RedisServer, stores: Stores, pause: str) -> None:
    """What was asked for meanwhile and not answered counts nothing in the end."""
    store = begun(stores(own.url, timeout=0.25))
    asking = threading.Thread(target=own.ask, args=(pause,))
    asking.start()
    until = time.monotonic() + 10
    expected = 1
    while begin(store).allowed:
        expected += 1
        assert time.monotonic() < until
    asking.join()
    recovers(store)
    comes_to(store, expected + 1)


def test_slow_answers_deny_and_count_nothing(proxy: Proxy, stores: Stores) -> None:
    """The server charges, the answer is late: denied, and given back with the next call."""
    store = begun(stores(proxy.url, timeout=0.25))
    proxy.delay = 0.4
    started = time.monotonic()
    assert denied(store)
    assert time.monotonic() - started < 2
    proxy.delay = 0
    recovers(store)
    comes_to(store, 2)


# ---- requests that are repeated, late or broken off


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_connection_that_breaks_after_the_charge_charges_once(
    proxy: Proxy, stores: Stores, asynchronous: bool
) -> None:
    """Once: the request is sent again and answered the same. Twice: denied, and given back with the next call."""
    store = begun(stores(proxy.url))

    async def in_loop() -> None:
        guard = guarded(store)
        assert (await guard.abegin(CALL)).allowed
        proxy.cuts = 1
        assert (await guard.abegin(CALL)).allowed
        proxy.cuts = 2
        assert (await guard.abegin(CALL)).reason is Reason.STORE_UNAVAILABLE
        assert (await guard.abegin(CALL)).allowed
        await store.aclose()

    if asynchronous:
        asyncio.run(in_loop())
    else:
        admit(store)
        proxy.cuts = 1
        admit(store)
        assert proxy.cuts == 0
        proxy.cuts = 2
        assert denied(store)
        admit(store)
    comes_to(store, 4)


def ask(store: RedisStore, *request: Any) -> Any:
    """Send the script's request as it is."""
    return store._server.run(store._evaluate(store._request(*request)))


def test_a_request_that_is_sent_twice_charges_once(own: RedisServer, stores: Stores) -> None:
    """The same answer, and nothing more is taken; of a release likewise."""
    store = stores(own.url, clock="caller")
    store.init()
    charges = (charge("a", 10), charge("b", 10, 2))
    once, twice = (ask(store, "take", None, "id", charges, NOON) for _ in range(2))
    assert once == twice
    assert used(store, "a", "b") == [1, 2]
    assert ask(store, "take", None, "other", charges, NOON)[2:] != once[2:]
    held = Reservation(charges, tuple(once[2::2]), tuple(once[3::2]), id=f"{once[1].decode()}/id")
    for _ in range(2):
        ask(store, "take", held, "", (), NOON)
    assert used(store, "a", "b") == [1, 2]


def test_a_late_request_that_was_given_back_charges_nothing(own: RedisServer, stores: Stores) -> None:
    """Given back before it came, it is not taken when it comes."""
    store = stores(own.url, clock="caller")
    store.init()
    charges = (charge("a", 10),)
    ask(store, "take", Reservation(charges, (), (), id="/id"), "", (), NOON)
    ask(store, "take", None, "id", charges, NOON)
    assert used(store, "a") == [0]


def test_a_cancelled_task_gives_its_charge_back_later(proxy: Proxy, stores: Stores) -> None:
    """Cancelled between the request and its answer: the next call gives back what was taken."""

    async def main() -> None:
        store = stores(proxy.url, timeout=20)
        store.init()
        guard = guarded(store)
        assert (await guard.abegin(CALL)).allowed
        before = proxy.scripts
        proxy.replies.clear()
        task = asyncio.create_task(guard.abegin(CALL))
        while proxy.scripts == before and not task.done():  # noqa: ASYNC110  the proxy is in threads
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        proxy.replies.set()
        assert (await guard.abegin(CALL)).allowed
        await store.aclose()
        comes_to(store, 2)

    asyncio.run(main())


def test_an_interrupted_thread_gives_its_charge_back_later(own: RedisServer, stores: Stores) -> None:
    """The same where an interrupt comes, before an answer or while something is given back."""

    class Interruption(BaseException):
        pass

    store = begun(stores(own.url))
    real = store._server._clients.sync().evalsha

    def interrupted(*words: Any) -> Any:
        real(*words)
        raise Interruption

    for _ in range(2):  # the second is interrupted while it gives back the first
        store._server._clients.sync().evalsha = interrupted
        with pytest.raises(Interruption):
            begin(store)
    store._server._clients.sync().evalsha = real
    admit(store)
    assert total(store) == 2


def test_what_two_threads_want_to_give_back_is_given_back_once(own: RedisServer, stores: Stores) -> None:
    """A thread that finds nothing left to give back goes on."""
    store = begun(stores(own.url))
    steps = store._replace(None, (), 0.0)
    store._abandoned.append(Reservation((), (), (), id="/a"))
    steps_two = store._give_back_abandoned()
    next(steps)
    store._abandoned.clear()
    with pytest.raises(StopIteration):
        next(steps_two)
    steps.close()


# ---- what the server is told, and what it refuses


def test_a_decision_is_one_round_trip(proxy: Proxy, own: RedisServer, stores: Stores) -> None:
    """One request a decision, once the store is in use; the server counts as many scripts."""
    store = begun(stores(proxy.url), 3)
    own.ask("CONFIG RESETSTAT")
    requests = proxy.requests
    admit(store, 10)
    assert proxy.requests == requests + 10
    assert b"cmdstat_evalsha:calls=10," in own.ask("INFO commandstats")


def test_scripts_that_were_flushed_are_sent_again(own: RedisServer, stores: Stores) -> None:
    """As after a restart."""
    store = begun(stores(own.url))
    for _ in range(3):
        own.ask("SCRIPT FLUSH")
        admit(store)
    assert total(store) == 4


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "volatile-ttl", "allkeys-random"])
def test_a_server_that_may_evict_counters_is_refused(own: RedisServer, stores: Stores, policy: str) -> None:
    """Until it keeps what it is given: a counter that is evicted would begin again."""
    own.ask(f"CONFIG SET maxmemory-policy {policy}")
    store = stores(own.url)
    with pytest.raises(StoreError, match=policy):
        store.init()
    assert denied(store)
    own.ask("CONFIG SET maxmemory-policy noeviction")
    begun(store)


def test_a_full_server_denies_and_recovers(own: RedisServer, stores: Stores) -> None:
    """Out of memory it takes nothing; with room again it counts on from where it was."""
    store = begun(stores(own.url), 2)
    held = begin(store).reservation
    assert held is not None
    own.ask("CONFIG SET maxmemory 1")
    for _ in range(3):
        assert denied(store)
    with pytest.raises(StoreError):
        store.release(held)
    own.ask("CONFIG SET maxmemory 0")
    admit(store)
    store.release(held)
    assert total(store) == 3


def test_a_replica_denies_until_it_is_promoted(own: RedisServer, tmp_path: Path, stores: Stores) -> None:
    """It may be looked at and takes nothing; promoted, it counts on from what it has."""
    store = begun(stores(own.url), 3)
    own.ask("CONFIG SET repl-diskless-sync-delay 0")
    with server(tmp_path / "replica", "redis-server", "--replicaof", "127.0.0.1", str(own.port)) as replica:
        until = time.monotonic() + 20
        while b"master_link_status:up" not in replica.ask("INFO replication") or own.ask("WAIT 1 10") != b":1\r\n":
            assert time.monotonic() < until
            time.sleep(0.01)
        other = stores(replica.url)
        assert denied(other)
        assert total(other) == total(store) == 3
        own.stop()
        replica.ask("REPLICAOF NO ONE")
        admit(other)
        assert total(other) == 4


def test_a_counter_that_does_not_read_denies(own: RedisServer, stores: Stores) -> None:
    """What somebody else wrote under a counter's key is not taken for zero."""
    store = begun(stores(own.url))
    client = redis.Redis.from_url(own.url)
    (key,) = client.scan_iter("*}:c:*")
    client.set(key, "garbage")
    client.close()
    assert denied(store)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey"])
@pytest.mark.parametrize("listening", [True, False])
def test_errors_do_not_tell_the_password(own: RedisServer, stores: Stores, scheme: str, listening: bool) -> None:
    """A wrong password, a wrong port, TLS to a port without: a fault of the store, told without what is secret."""
    own.ask("CONFIG SET requirepass right")
    store = stores(f"{scheme}://user:canary@127.0.0.1:{own.port if listening else free_port()}/0", timeout=0.25)
    with pytest.raises(StoreError) as raised:
        store.init()
    texts: list[str] = []
    error: BaseException | None = raised.value
    while error is not None:
        texts.append(f"{error}{error!r}")
        error = error.__cause__ or error.__context__
    assert "canary" not in "".join(texts)
    assert "127.0.0.1" in texts[0]
    assert denied(store)


@pytest.mark.parametrize(
    "url",
    [
        "", "redis:", "http://127.0.0.1", "redis://:canary/x@127.0.0.1/0", "redis://:12/canary@127.0.0.1/0",
        "redis://u:12/canary@127.0.0.1/0", "redis://:canary?x@127.0.0.1", "redis://:1?canary@127.0.0.1/0",
        "redis://:1#canary@127.0.0.1/0", "redis://127.0.0.1:canary/0", "redis://127.0.0.1?socket_timeout=canary",
    ],
)  # fmt: skip
def test_urls_that_do_not_read_are_refused_unquoted(url: str) -> None:
    """Most often a password that is not escaped: refused at once, and not shown."""
    with pytest.raises(PolicyError) as raised:
        RedisStore(url)
    assert "canary" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_settings_that_do_not_fit_are_refused() -> None:
    """A tenant's name with braces would break its hash tag."""
    for settings in ({"tenant": ""}, {"tenant": "a}b"}, {"clock": "sundial"}):
        with pytest.raises(PolicyError):
            RedisStore("redis://127.0.0.1/0", **settings)  # type: ignore[arg-type]


# ---- keys


def test_every_key_but_the_marker_expires(own: RedisServer, stores: Stores) -> None:
    """Not later than its window, or two where it slides, and two minutes."""
    store = begun(stores(own.url))
    windows = {"m": 60, "h": 3_600, "d": 86_400}
    for name, seconds in windows.items():
        for sliding in (False, True):
            made = Charge(f"{name}{sliding}", Window(seconds), MILLION, 10 * MILLION, sliding)
            held = store.reserve((made,), 0.0)
            assert isinstance(held, Reservation)
            assert isinstance(store.reserve((made,), 0.0), Reservation)
            store.release(held)
    client = redis.Redis.from_url(own.url, decode_responses=True)
    kinds = set()
    for key in client.scan_iter():
        kind, _, name = key.partition("}:")[2].partition(":")
        kinds.add(kind)
        if kind == "marker":
            assert client.pttl(key) == -1
            continue
        longest = 60 if kind == "r" else windows.get(name[:1], 31 * 86_400) * (2 if name.endswith("True") else 1)
        assert 0 < client.pttl(key) <= (longest + 120) * 1_000
    assert kinds == {"marker", "c", "r"}
    client.close()


def test_a_tenant_is_in_one_slot_and_two_are_apart(own: RedisServer, stores: Stores) -> None:
    """A cluster runs the script on one node, and two tenants share no counter."""
    client = redis.Redis.from_url(own.url)
    slots = []
    for tenant, calls in (("one", 1), ("two", 2)):
        store = begun(stores(own.url, tenant=tenant), calls)
        keys = list(client.scan_iter(f"*{{{tenant}}}*"))
        assert len(keys) == 2 + calls
        slots.append({key_slot(key) for key in keys})
        assert total(store) == calls
    client.close()
    assert [len(one) for one in slots] == [1, 1]
    assert slots[0] != slots[1]


def test_counters_are_listed_and_forgotten(own: RedisServer, stores: Stores) -> None:
    """Those whose window is open, by key; one that vanishes meanwhile is left out."""
    store = stores(own.url, clock="caller")
    store.init()
    store.reserve((charge("b", 5), charge("a", 5)), NOON)
    assert [one.key for one in store.counters(NOON)] == ["a", "b"]
    steps = store._list(NOON)
    client = store._server._clients.sync()
    command = next(steps)
    with contextlib.suppress(StopIteration):
        while True:
            reply = command(client)
            if isinstance(reply, list) and reply and str(reply[0]).find(":c:") > 0:
                store.reset(["a"])
            command = steps.send(reply)
    assert [one.key for one in store.counters(NOON)] == ["b"]
    store.reset([])
    assert used(store, "a", "b") == [0, 1]


def test_amounts_beyond_every_limit_are_refused(own: RedisServer, stores: Stores) -> None:
    """However large a number is."""
    store = stores(own.url, clock="caller")
    store.init()
    for amount in (2**63, 10**30, 10**400):
        assert store.reserve((Charge("k", Window(60), amount, 5 * MILLION),), NOON) == Refusal(0, None)


# ---- loops, threads and processes


def test_event_loops_have_connections_of_their_own(own: RedisServer, stores: Stores) -> None:
    """One loop after the other, and two at the same time in threads."""
    store = stores(own.url)
    store.init()

    async def main() -> None:
        for _ in range(5):
            assert (await guarded(store).abegin(CALL)).allowed
        await store.aclose()
        await store.aclose()

    for _ in range(2):
        asyncio.run(main())
    failed: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert total(store) == 20


def test_trio_counts_too(own: RedisServer, stores: Stores) -> None:
    """In threads of trio's, since the client knows asyncio alone."""
    store = stores(own.url)
    store.init()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(guarded(store).abegin, CALL)
        await store.arelease((await guarded(store).abegin(CALL)).reservation)  # type: ignore[arg-type]

    trio.run(main)
    assert total(store) == 5


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(own: RedisServer, stores: Stores) -> None:
    """Parent and child both count with a store that was open, on connections that differ."""
    store = begun(stores(own.url))
    mine = store._server._clients.sync().client_id()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(BaseException):
            admit(store, 20)
            os.write(writing, str(store._server._clients.sync().client_id()).encode())
            status = 0
        os._exit(status)
    admit(store, 20)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert int(os.read(reading, 100)) != mine == store._server._clients.sync().client_id()
    os.close(reading)
    os.close(writing)
    assert total(store) == 41


# ---- a cluster


def test_a_cluster_whose_node_freezes_denies_in_bounded_time(tmp_path: Path, stores: Stores) -> None:
    """The tenant's node answers nothing: denied, and exact when it goes on."""
    with cluster(tmp_path) as nodes:
        tenant = "default"
        slot = key_slot(f"{{{tenant}}}".encode())
        node = next(one for number, one in enumerate(nodes) if slot < 16_384 * (number + 1) // 3)
        store = begun(stores(nodes[0].url, tenant=tenant, cluster=True, timeout=0.25))
        node.freeze()
        try:
            started = time.monotonic()
            assert denied(store)
            elapsed = time.monotonic() - started
        finally:
            node.thaw()
        print(f"cluster: denied after {elapsed * 1000:.0f} ms")
        assert elapsed < 4
        recovers(store)
        next(one for one in nodes if one is not node).ask("CONFIG SET maxmemory-policy allkeys-lru")
        with pytest.raises(StoreError, match="allkeys-lru"):
            stores(nodes[0].url, tenant=tenant, cluster=True).init()


def test_valkey_runs_the_same_suite() -> None:
    """`conftest.py` adds it where it is installed; this tells where it is not."""
    if shutil.which("valkey-server") is None:
        pytest.skip("valkey-server is not installed: the contract was not run on it")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_clients_of_loops_that_ended_are_let_go(redis_server: RedisServer) -> None:
    """An application that begins a loop for each request and closes nothing does not pile up connections."""
    store = RedisStore(redis_server.url, tenant="loops")
    store.init()
    for _ in range(8):
        asyncio.run(store.apeek((charge("k", 1),), NOON))
        assert len(store._server._clients._by_loop) == 1
    store.close()
    del store
    gc.collect()
