"""Random sequences of operations: each store answers as the naive counters do (PL-5.2 to 5.6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from naive_counters import NaiveCounters, NaiveHeld
from redis_server import RedisServer

from mcp_policy_middleware.charges import Charge, Refusal, Reservation, Window
from mcp_policy_middleware.stores import MemoryStore, RedisStore, SQLiteStore, Store

MILLION = 1_000_000
TOP = 9_007_199_254 * MILLION
DAY = 86_400
BEGIN = Fraction(1_772_625_600)  # 2026-03-04 12:00 UTC
TICK = Fraction(1, 64)  # exact as a float and in microseconds

WINDOWS = {
    "second, sliding": (Window(1), True),
    "seven seconds": (Window(7), False),
    "seven seconds, sliding": (Window(7), True),
    "minute": (Window(60), False),
    "61 seconds, sliding": (Window(61), True),
    "hour, sliding": (Window(3_600), True),
    "day": (Window(DAY), False),
    "week": (Window(7 * DAY, offset=4 * DAY), False),
    "week, sliding": (Window(7 * DAY, offset=4 * DAY), True),
    "month": (Window(0), False),
    "month, sliding": (Window(0), True),
    "31 days, sliding": (Window(31 * DAY), True),
}

whole = st.integers(0, 12).map(lambda units: units * MILLION)
fractions = st.integers(0, 12 * MILLION)
huge = st.one_of(st.integers(0, TOP), st.integers(TOP - 3, TOP))
amounts = st.one_of(whole, whole, fractions, huge, st.sampled_from([0, 1, TOP + 1, 2**63, 2**70]))
limits = st.one_of(whole, whole, fractions, huge, st.just(TOP))
charges = st.lists(
    st.builds(
        lambda name, amount, limit: Charge(name, WINDOWS[name][0], amount, limit, WINDOWS[name][1]),
        st.sampled_from(sorted(WINDOWS)), amounts, limits,
    ),
    max_size=4,
).map(tuple)  # fmt: skip
forward = st.one_of(
    st.just(0),
    st.integers(0, 640),  # within ten seconds
    st.integers(0, 64 * 200),
    st.integers(0, 64 * 3 * 3_600),
    st.integers(0, 64 * 70 * DAY),
).map(lambda ticks: ticks * TICK)
back = st.one_of(st.integers(-64 * 100, -1), st.integers(-64 * 40 * DAY, -1)).map(lambda ticks: ticks * TICK)
steps = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "reserve", "reserve", "peek", "adjust", "release"]),
        st.one_of(forward, forward, forward, forward, back),
        charges,
        st.integers(0, 100),
    ),
    max_size=20,
)


def comparable(answer: Any) -> Any:
    """An answer of a store or of the model, in one form."""
    if isinstance(answer, Reservation | NaiveHeld):
        return "taken", answer.windows, answer.used
    return "refused", *((answer.index, answer.retry_after) if isinstance(answer, Refusal) else answer)


def operate(store: Store, kind: str, wanted: tuple[Charge, ...], held: Reservation | None, now: float) -> Any:
    """One operation of a store."""
    if kind == "peek":
        return store.peek(wanted, now)
    if kind == "adjust" and held is not None:
        return store.adjust(held, wanted, now)
    return store.reserve(wanted, now)


def opened_again(model: NaiveCounters, store: Store, moment: Fraction) -> bool:
    """Begin every counter's window of a moment, by a charge of nothing; False where one is too full for that.

    Where the clock then goes back, every store knows each counter's newest window. Of a counter that it does not
    know, a store may say that it begins no earlier than what it last forgot, or than the latest time it was told.
    """
    nothing = tuple(Charge(name, window, 0, TOP, sliding) for name, (window, sliding) in WINDOWS.items())
    theirs, ours = store.reserve(nothing, float(moment)), model.reserve(nothing, moment, look=False)
    assert comparable(theirs) == comparable(ours)
    return isinstance(ours, NaiveHeld)


@pytest.fixture(scope="module")
def fresh(
    request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str, ExitStack], Store]]:
    """Makes an empty store of a kind."""
    folder: Path = tmp_path_factory.mktemp("differential")
    number = iter(range(10**9))
    url = redis_server.url.removesuffix("/0") + "/1"  # a database of its own, quickly emptied
    on_redis = RedisStore(url, clock="caller", timeout=5)
    client = redis.Redis.from_url(url)

    def make(kind: str, stack: ExitStack) -> Store:
        if kind == "memory":
            return MemoryStore()
        if kind == "redis":
            client.flushdb()
            on_redis.init()
            return on_redis
        store = SQLiteStore(folder / f"{next(number)}.db", timeout=5)
        stack.callback(store.close)
        return store

    yield make
    on_redis.close()
    client.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
@given(steps)
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_store_answers_as_the_naive_counters(
    fresh: Callable[[str, ExitStack], Store], kind: str, sequence: list[Any]
) -> None:
    """Answers, totals, waits and windows are the same, whatever is charged and whenever."""
    with ExitStack() as stack:
        store, model, moment = fresh(kind, stack), NaiveCounters(), BEGIN
        held: list[tuple[Reservation, NaiveHeld]] = []
        for name, step, wanted, which in sequence:
            if step >= 0 or opened_again(model, store, moment):
                moment += step
            theirs, mine = held[which % len(held)] if held else (None, None)
            if name == "release":
                if theirs is not None and mine is not None:
                    store.release(theirs)
                    model.release(mine)
                continue
            answer = operate(store, name, wanted, theirs, float(moment))
            if name == "adjust" and mine is not None:
                expected = model.adjust(mine, wanted, moment)
            else:
                expected = model.reserve(wanted, moment, look=name == "peek")
            assert comparable(answer) == comparable(expected), (name, moment)
            for one in wanted[:1]:  # and what it counts now, to the millionth
                nothing = (Charge(one.key, one.window, 0, TOP, one.sliding),)
                now = float(moment)
                assert comparable(store.peek(nothing, now)) == comparable(model.reserve(nothing, moment, look=True))
            if isinstance(answer, Reservation) and isinstance(expected, NaiveHeld) and name != "peek":
                held.append((answer, expected))
        for theirs, mine in held:
            assert theirs.released == mine.released
