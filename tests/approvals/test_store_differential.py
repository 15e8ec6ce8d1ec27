"""Random sequences of operations: each store tells what the naive approvals do (PL-7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import redis
from approval_stores import NOON, draft
from hypothesis import given
from hypothesis import strategies as st
from naive_approvals import DAY, HOUR, NaiveApprovals, NaiveRequest
from redis_server import RedisServer

from mcp_policy_middleware.approvals import (
    ApprovalRequest,
    ApprovalStore,
    Event,
    Flood,
    FloodLimits,
    Found,
    MemoryApprovals,
    RedisApprovals,
    SQLiteApprovals,
)

TICK = Fraction(1, 64)  # exact as a float
LIMITS = FloodLimits(pending=3, an_hour=6)
MINUTE = 60

moves = st.tuples(st.just("move"), st.integers(0, 20), st.sampled_from([*Event, Event.APPROVE, Event.CONSUME]))
opens = st.tuples(
    st.just("open"),
    st.sampled_from(["a1", "a2", "a3", "b1", "b2"]),  # a binding, whose first letter is its grant
    st.tuples(st.sampled_from(["i", "j", "k"]), st.sampled_from([TICK, 1, MINUTE, MINUTE, HOUR, 2 * HOUR])),
)
looks = st.tuples(st.just("look"), st.just(0), st.none())
forward = st.one_of(
    st.just(0),
    st.integers(0, 640).map(lambda ticks: ticks * TICK),
    st.sampled_from([TICK, 1, MINUTE - TICK, MINUTE, HOUR - MINUTE, HOUR, DAY - HOUR, DAY, DAY + MINUTE, 3 * DAY]),
)
sequences = st.lists(st.tuples(forward, st.one_of(opens, opens, moves, moves, moves, looks)), max_size=30)


def comparable(one: Any, now: Fraction) -> Any:
    """A request of a store or of the model, in one form."""
    if isinstance(one, NaiveRequest):
        by, when = one.answered() or ("", None)
        state = one.state(now)
        shown = state in ("pending", "approved")
        return one.id, one.binding, state, shown, by, when, one.asked, one.asked + one.seconds
    if isinstance(one, ApprovalRequest):
        shown, times = one.arguments is not None, (one.answered_at, one.asked_at, one.expires_at)
        return one.id, one.binding, one.state.value, shown, one.by, *times
    return one


def opened(store: ApprovalStore, model: NaiveApprovals, binding: str, wanted: Any, now: Fraction) -> None:
    """Open on both sides, and compare."""
    id, seconds = wanted
    grant = binding[0]
    answer = store.open(draft(binding, id, grant=grant), float(seconds), LIMITS, float(now))
    stands = model.standing(binding, now)
    wait = None if stands else model.wait(grant, now)
    if wait is not None:
        assert answer == Flood(wait)
        return
    assert isinstance(answer, Found)
    assert answer.request is not None
    assert answer.changed == (stands is None)
    if stands is None:
        taken = {one.id for one in model.all if one.kept(now)}
        assert answer.request.id not in taken
        assert answer.request.id == id or id in {one.id for one in model.all}
        stands = model.open(answer.request.id, binding, grant, Fraction(seconds), now)
    assert comparable(answer.request, now) == comparable(stands, now)


def moved(store: ApprovalStore, model: NaiveApprovals, which: int, event: Event, now: Fraction) -> None:
    """Move on both sides, and compare."""
    kept = [one for one in model.all if one.kept(now)]
    if not kept:
        assert not store.move("nobody's", event, float(now)).changed
        return
    mine = kept[which % len(kept)]
    by = f"person {which}"
    found = store.move(mine.id, event, float(now), by)
    assert found.changed == model.move(mine, event.value, by, now)
    assert comparable(found.request, now) == comparable(mine, now)


def looked(store: ApprovalStore, model: NaiveApprovals, now: Fraction) -> None:
    """Look at everything on both sides, and compare; what may be forgotten may be told of, if it is closed."""
    kept = {one.id: comparable(one, now) for one in model.all if one.kept(now)}
    told = {one.id: one for one in store.requests(float(now))}
    for id, one in told.items():
        assert comparable(one, now) == kept[id] if id in kept else one.arguments is None
        assert store.get(id, float(now)) == one
    assert set(kept) <= set(told)
    times = [one.asked_at for one in store.requests(float(now))]
    assert times == sorted(times)
    for binding in ("a1", "a2", "a3", "b1", "b2"):
        assert comparable(store.find(binding, float(now)), now) == comparable(model.standing(binding, now), now)


@pytest.fixture(scope="module")
def fresh(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str, ExitStack], ApprovalStore]]:
    """Makes an empty store of a kind."""
    folder: Path = tmp_path_factory.mktemp("differential")
    number = iter(range(10**9))
    url = redis_server.url.removesuffix("/0") + "/2"  # a database of its own, quickly emptied
    on_redis = RedisApprovals(url, clock="caller", timeout=5)
    client = redis.Redis.from_url(url)

    def make(kind: str, stack: ExitStack) -> ApprovalStore:
        if kind == "memory":
            return MemoryApprovals()
        if kind == "redis":
            client.flushdb()
            return on_redis
        store = SQLiteApprovals(folder / f"{next(number)}.db", timeout=5)
        stack.callback(store.close)
        return store

    yield make
    on_redis.close()
    client.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
@given(sequences)
def test_a_store_tells_what_the_naive_approvals_do(
    fresh: Callable[[str, ExitStack], ApprovalStore], kind: str, sequence: list[Any]
) -> None:
    """States, answers, waits, ids, times, and whether the arguments are shown, whatever happens and whenever."""
    with ExitStack() as stack:
        store, model, now = fresh(kind, stack), NaiveApprovals(LIMITS.pending, LIMITS.an_hour), Fraction(NOON)
        for step, (what, which, how) in sequence:
            now += step
            if what == "open":
                opened(store, model, which, how, now)
            elif what == "move":
                moved(store, model, which, how, now)
            looked(store, model, now)
