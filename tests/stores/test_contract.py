"""What every counter store promises, run over each of them (the contract in `stores/base.py`)."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from mcp_policy_middleware.charges import Charge, Refusal, Reservation, Window
from mcp_policy_middleware.stores import MemoryStore, SQLiteStore, Store

MILLION = 1_000_000
TOP = 9_007_199_254 * MILLION  # what a total may reach (PL-5.3)
HOUR = 3_600
NOON = 1_772_625_600.0  # 2026-03-04 12:00 UTC, the start of a window of each length used here


class Caller:
    """Calls a store's sync methods."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def peek(self, *charges: Charge, now: float = NOON) -> Reservation | Refusal:
        """What `reserve` would answer."""
        return self.store.peek(charges, now)

    def reserve(self, *charges: Charge, now: float = NOON) -> Reservation | Refusal:
        """Take all the charges or none."""
        return self.store.reserve(charges, now)

    def adjust(self, held: Reservation, *charges: Charge, now: float = NOON) -> Reservation | Refusal:
        """Replace a reservation."""
        return self.store.adjust(held, charges, now)

    def release(self, held: Reservation) -> None:
        """Give a reservation back."""
        self.store.release(held)

    def taken(self, *charges: Charge, now: float = NOON) -> Reservation:
        """Take charges that must fit."""
        answer = self.reserve(*charges, now=now)
        assert isinstance(answer, Reservation)
        return answer

    def used(self, *keys: str, now: float = NOON, window: int = HOUR) -> list[int]:
        """The totals of counters, in millionths."""
        answer = self.peek(*(Charge(key, Window(window), 0, TOP) for key in keys), now=now)
        assert isinstance(answer, Reservation)
        return list(answer.used)


class AsyncCaller(Caller):
    """Calls a store's async methods, all on one loop."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.runner = asyncio.Runner()

    def peek(self, *charges: Charge, now: float = NOON) -> Reservation | Refusal:
        return self.runner.run(self.store.apeek(charges, now))

    def reserve(self, *charges: Charge, now: float = NOON) -> Reservation | Refusal:
        return self.runner.run(self.store.areserve(charges, now))

    def adjust(self, held: Reservation, *charges: Charge, now: float = NOON) -> Reservation | Refusal:
        return self.runner.run(self.store.aadjust(held, charges, now))

    def release(self, held: Reservation) -> None:
        self.runner.run(self.store.arelease(held))


@pytest.fixture(params=[Caller, AsyncCaller], ids=["sync", "async"])
def caller(request: pytest.FixtureRequest, store: Store) -> Iterator[Any]:
    """Each store by its sync and by its async methods."""
    made = request.param(store)
    yield made
    if isinstance(made, AsyncCaller):
        made.runner.run(store.aclose())
        made.runner.close()


def charge(key: str, limit: float, amount: float = 1, window: int = HOUR) -> Charge:
    """A charge in whole units."""
    return Charge(key, Window(window), round(amount * MILLION), round(limit * MILLION))


def test_a_charge_is_taken_while_it_fits(caller: Caller) -> None:
    """`used + amount <= limit` admits; the reservation tells the total before it and the end of the window."""
    for before in range(3):
        answer = caller.taken(charge("k", 3))
        assert (answer.used, answer.windows, answer.released) == ((before * MILLION,), (NOON + HOUR,), False)
    assert caller.reserve(charge("k", 3)) == Refusal(0, HOUR)
    assert caller.used("k") == [3 * MILLION]


def test_peek_takes_nothing_and_answers_as_reserve_will(caller: Caller) -> None:
    """Looking says what taking would, and changes nothing."""
    for _ in range(3):
        assert isinstance(caller.peek(charge("k", 1)), Reservation)
    caller.taken(charge("k", 1))
    for _ in range(3):
        assert caller.peek(charge("k", 1)) == Refusal(0, HOUR)
    assert caller.used("k") == [MILLION]


def test_no_charges_are_a_reservation_of_nothing(caller: Caller) -> None:
    """Nothing asked for is nothing refused."""
    held = caller.taken()
    caller.release(held)
    assert held.charges == ()


def test_all_charges_are_taken_or_none(caller: Caller) -> None:
    """Where any charge does not fit, none is taken, wherever it stands."""
    caller.taken(charge("full", 1))
    orders = [("full", "a", "b"), ("a", "full", "b"), ("a", "b", "full")]
    for keys in orders:
        answer = caller.reserve(*(charge(key, 1) for key in keys))
        assert answer == Refusal(keys.index("full"), HOUR)
    assert caller.used("a", "b", "full") == [0, 0, MILLION]
    assert caller.taken(charge("a", 1), charge("b", 1)).used == (0, 0)


def test_a_refusal_names_the_first_charge_that_does_not_fit(caller: Caller) -> None:
    """Of several that do not fit, the first in the order given is named, with its own wait."""
    caller.taken(charge("m", 1, window=60), charge("h", 1))
    assert caller.reserve(charge("a", 1), charge("h", 1), charge("m", 1, window=60)) == Refusal(1, HOUR)
    assert caller.reserve(charge("m", 1, window=60), charge("h", 1)) == Refusal(0, 60)


def test_retry_after_is_whole_seconds_until_the_window_ends(caller: Caller) -> None:
    """The wait is rounded up and at least a second; None where the charge fits no window."""
    caller.taken(charge("k", 1))
    for offset, wait in ((0.0, 3600), (0.5, 3600), (1.0, 3599), (3598.5, 2), (3599.0, 1), (3599.999, 1)):
        assert caller.reserve(charge("k", 1), now=NOON + offset) == Refusal(0, wait)
    assert caller.reserve(charge("never", 1, amount=1.5)) == Refusal(0, None)
    assert caller.reserve(charge("zero", 0)) == Refusal(0, None)


def test_a_window_begins_at_its_boundary(caller: Caller) -> None:
    """The last moment of a window is in it, and its end is in the next."""
    caller.taken(charge("k", 1), now=NOON)
    assert isinstance(caller.reserve(charge("k", 1), now=NOON + HOUR - 0.001), Refusal)
    held = caller.taken(charge("k", 1), now=NOON + HOUR)
    assert held.windows == (NOON + 2 * HOUR,)


@pytest.mark.parametrize("window", [1, 60, 61, 3_600, 86_400, 2_678_400])
def test_windows_are_aligned_to_the_epoch(caller: Caller, window: int) -> None:
    """Every window ends at a multiple of its length."""
    held = caller.taken(charge("k", 1, window=window), now=NOON + 0.25)
    assert held.windows == ((int(NOON) // window + 1) * window,)
    assert isinstance(caller.reserve(charge("k", 1, window=window), now=held.windows[0] - 0.25), Refusal)
    caller.taken(charge("k", 1, window=window), now=held.windows[0])


def test_a_clock_that_goes_back_does_not_reopen_a_window(caller: Caller) -> None:
    """Charges in a later window stand, and nothing is admitted in an earlier one beside them."""
    caller.taken(charge("k", 2), now=NOON)
    caller.taken(charge("k", 2), charge("other", 2), now=NOON + HOUR)
    assert caller.used("k", now=NOON) == [MILLION]
    assert caller.taken(charge("k", 2), now=NOON).windows == (NOON + 2 * HOUR,)
    assert isinstance(caller.reserve(charge("k", 2), now=NOON), Refusal)
    assert isinstance(caller.reserve(charge("k", 2), now=NOON + HOUR), Refusal)


def test_nor_does_it_after_closed_windows_were_forgotten(caller: Caller) -> None:
    """What was swept away as closed stays closed, though the clock goes back before its end."""
    caller.taken(charge("old", 1), now=NOON)
    later = NOON + 10 * HOUR
    for index in range(5_000):
        caller.taken(charge(f"k{index}", 1), now=later)
    for _ in range(2):  # it was not forgotten, or it begins again in a window that has not been closed
        answer = caller.reserve(charge("old", 1), now=NOON)
        assert isinstance(answer, Refusal) or answer.windows[0] > NOON + HOUR
    assert isinstance(caller.reserve(charge("old", 1), now=NOON), Refusal)


def test_release_gives_back_once(caller: Caller) -> None:
    """A reservation is given back one time, however often it is asked."""
    caller.taken(charge("k", 5))
    held = caller.taken(charge("k", 5), charge("j", 5))
    for _ in range(3):
        caller.release(held)
    assert (caller.used("k", "j"), held.released) == ([MILLION, 0], True)


def test_release_goes_to_the_window_that_was_charged(caller: Caller) -> None:
    """What is given back late leaves the next window alone."""
    held = caller.taken(charge("k", 2), now=NOON)
    caller.taken(charge("k", 2), now=NOON + HOUR)
    caller.release(held)
    assert caller.used("k", now=NOON + HOUR) == [MILLION]


def test_release_of_some_windows_that_are_over(caller: Caller) -> None:
    """Of a reservation over several windows, only what is in an open one is given back."""
    held = caller.taken(charge("m", 5, window=60), charge("h", 5))
    caller.taken(charge("m", 5, window=60), charge("h", 5), now=NOON + 60)
    caller.release(held)
    assert caller.used("h", now=NOON + 60) == [MILLION]
    assert caller.used("m", now=NOON + 60, window=60) == [MILLION]


def test_release_never_goes_below_zero(caller: Caller) -> None:
    """A reservation that the store does not hold takes no total below zero."""
    foreign = Reservation((charge("k", 5, amount=3),), (int(NOON) + HOUR,), (0,))
    caller.taken(charge("k", 5))
    caller.release(foreign)
    assert caller.used("k") == [0]
    caller.release(Reservation((charge("unknown", 5),), (int(NOON) + HOUR,), (0,)))
    assert caller.used("unknown") == [0]


def test_a_released_charge_can_be_taken_again(caller: Caller) -> None:
    """Taking and giving back any number of times leaves the counter as it was."""
    for _ in range(50):
        caller.release(caller.taken(charge("k", 1), charge("j", 1)))
    assert caller.used("k", "j") == [0, 0]


def test_charges_on_one_key_take_the_largest_once(caller: Caller) -> None:
    """Two charges on one counter each must fit; the larger is taken, once, and given back so (PL-5.5)."""
    held = caller.taken(charge("k", 10, amount=2), charge("k", 10, amount=3), charge("j", 10), charge("k", 10))
    assert caller.used("k", "j") == [3 * MILLION, MILLION]
    assert caller.reserve(charge("k", 10), charge("k", 3)) == Refusal(1, HOUR)
    caller.release(held)
    assert caller.used("k", "j") == [0, 0]


def test_a_charge_of_zero_is_checked_and_takes_nothing(caller: Caller) -> None:
    """Zero fits a full counter and changes nothing (PL-5.3)."""
    caller.taken(charge("k", 1))
    caller.release(caller.taken(charge("k", 1, amount=0)))
    assert caller.used("k") == [MILLION]


def test_adjust_replaces_a_reservation(caller: Caller) -> None:
    """More, less, and other counters replace what was held; the old reservation is no longer anybody's."""
    held = caller.taken(charge("k", 10, amount=2))
    up = caller.adjust(held, charge("k", 10, amount=7), charge("j", 10))
    assert isinstance(up, Reservation)
    assert caller.used("k", "j") == [7 * MILLION, MILLION]
    caller.release(held)
    assert caller.used("k", "j") == [7 * MILLION, MILLION]
    down = caller.adjust(up, charge("k", 10))
    assert isinstance(down, Reservation)
    assert caller.used("k", "j") == [MILLION, 0]
    caller.release(down)
    assert caller.used("k", "j") == [0, 0]


def test_adjust_counts_its_own_charge_as_given_back(caller: Caller) -> None:
    """A call that fills a counter can be adjusted within it."""
    held = caller.taken(charge("k", 3, amount=3))
    held = caller.adjust(held, charge("k", 3, amount=3))
    assert isinstance(held, Reservation)
    assert held.used == (0,)
    assert isinstance(caller.adjust(held, charge("k", 3, amount=2)), Reservation)
    assert caller.used("k") == [2 * MILLION]


def test_a_refused_adjustment_leaves_everything_as_it_was(caller: Caller) -> None:
    """Where the new charges do not fit, the old ones stand and can be given back."""
    caller.taken(charge("full", 1))
    held = caller.taken(charge("k", 3, amount=2), charge("j", 3))
    assert caller.adjust(held, charge("k", 3), charge("full", 1)) == Refusal(1, HOUR)
    assert caller.adjust(held, charge("k", 3, amount=4)) == Refusal(0, None)
    assert (caller.used("k", "j", "full"), held.released) == ([2 * MILLION, MILLION, MILLION], False)
    caller.release(held)
    assert caller.used("k", "j") == [0, 0]


def test_a_refused_adjustment_in_a_later_window_leaves_that_window_alone(caller: Caller) -> None:
    """What was held in a window that is over is not put into the next one."""
    held = caller.taken(charge("k", 3, amount=2))
    assert isinstance(caller.adjust(held, charge("k", 3, amount=4), now=NOON + HOUR), Refusal)
    assert caller.used("k", now=NOON + HOUR) == [0]
    held = caller.taken(charge("j", 3, amount=2))
    caller.taken(charge("full", 1), now=NOON + HOUR)
    assert caller.adjust(held, charge("j", 3), charge("full", 1), now=NOON + HOUR) == Refusal(1, HOUR)
    assert caller.used("j", now=NOON + HOUR) == [0]


def test_an_adjustment_in_a_later_window_charges_that_window(caller: Caller) -> None:
    """A reservation that is replaced after its window's end charges the new window alone."""
    held = caller.taken(charge("k", 3))
    later = caller.adjust(held, charge("k", 3, amount=2), now=NOON + HOUR)
    assert isinstance(later, Reservation)
    assert caller.used("k", now=NOON + HOUR) == [2 * MILLION]
    caller.release(held)
    assert caller.used("k", now=NOON + HOUR) == [2 * MILLION]
    caller.release(later)
    assert caller.used("k", now=NOON + HOUR) == [0]


# ---- weeks, months and sliding windows

DAY = 24 * HOUR
HOURLY = Window(HOUR)
WEEK = Window(7 * DAY, offset=4 * DAY)
MONTH = Window(0)


def at(text: str) -> float:
    """Seconds since the epoch of a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def of(key: str, limit: float, window: Window, amount: float = 1, sliding: bool = False) -> Charge:
    """A charge in whole units, over any window."""
    return Charge(key, window, round(amount * MILLION), round(limit * MILLION), sliding)


def slide(key: str, limit: float, amount: float = 1, window: Window = HOURLY) -> Charge:
    """A charge over a sliding window."""
    return of(key, limit, window, amount, sliding=True)


def total(caller: Caller, key: str, now: float, window: Window = HOURLY, sliding: bool = True) -> int:
    """A counter's total as a window of the kind sees it, in millionths."""
    answer = caller.peek(Charge(key, window, 0, TOP, sliding), now=now)
    assert isinstance(answer, Reservation)
    return answer.used[0]


CALENDAR = [
    (WEEK, "2026-03-04T10:00", "2026-03-09T00:00"), (WEEK, "2026-03-09T00:00", "2026-03-16T00:00"),
    (WEEK, "2026-03-08T23:59:59.5", "2026-03-09T00:00"), (WEEK, "2026-12-31T23:59", "2027-01-04T00:00"),
    (WEEK, "2027-01-03T23:59", "2027-01-04T00:00"), (WEEK, "1970-01-01T00:00", "1970-01-05T00:00"),
    (MONTH, "2026-01-31T23:59:59.5", "2026-02-01T00:00"), (MONTH, "2026-02-01T00:00", "2026-03-01T00:00"),
    (MONTH, "2028-02-28T12:00", "2028-03-01T00:00"), (MONTH, "2100-02-28T12:00", "2100-03-01T00:00"),
    (MONTH, "2026-04-30T23:59:59", "2026-05-01T00:00"), (MONTH, "2026-12-01T00:00", "2027-01-01T00:00"),
    (MONTH, "2026-12-31T23:59:59.5", "2027-01-01T00:00"), (MONTH, "1970-01-01T00:00", "1970-02-01T00:00"),
]  # fmt: skip


@pytest.mark.parametrize(("window", "now", "end"), CALENDAR)
def test_weeks_and_months_are_those_of_the_calendar(caller: Caller, window: Window, now: str, end: str) -> None:
    """Weeks begin on Monday and months on their first, at midnight UTC; the end of one is in the next."""
    moment, ends = at(now), at(end)
    assert caller.taken(of("k", 1, window), now=moment).windows == (ends,)
    assert caller.reserve(of("k", 1, window), now=moment) == Refusal(0, math.ceil(ends - moment))
    assert caller.reserve(of("k", 1, window), now=ends - 0.5) == Refusal(0, 1)
    assert caller.taken(of("k", 1, window), now=ends).windows == (window.ends(ends),)
    assert window.starts(int(ends)) <= moment < ends


def test_a_year_of_months_has_its_days() -> None:
    """Each month of a leap year and of another begins where the one before ends."""
    for year, days in ((2026, 365), (2028, 366)):
        begins = moment = int(at(f"{year}-01-01T00:00"))
        for _ in range(12):
            ends = MONTH.ends(moment)
            assert MONTH.starts(ends) == moment
            assert (ends - moment) // DAY in (28, 29, 30, 31)
            moment = ends
        assert moment - begins == days * DAY


def test_a_sliding_window_counts_what_is_left_of_the_one_before(caller: Caller) -> None:
    """Its total is the window's own and, rounded up, the part of the last one's that is left (PL-5.2)."""
    caller.taken(slide("gap", 10, 10), now=NOON)
    caller.taken(slide("k", 10, 10), now=NOON + 1800)
    caller.taken(slide("k", 100, 3), now=NOON + HOUR)
    for offset, left in ((0, 10), (360, 9), (361, 8.997223), (1800, 5), (3599, 0.002778), (3599.5, 0.001389)):
        assert total(caller, "k", NOON + HOUR + offset) == round((3 + left) * MILLION), offset
    assert total(caller, "k", NOON + 2 * HOUR) == 3 * MILLION
    assert total(caller, "k", NOON + 2 * HOUR + 1800) == round(1.5 * MILLION)
    assert total(caller, "k", NOON + 3 * HOUR) == 0
    assert total(caller, "gap", NOON + 2 * HOUR) == 0


def test_a_fixed_window_counts_nothing_of_the_one_before(caller: Caller) -> None:
    """Only a sliding window looks back."""
    caller.taken(charge("k", 10, amount=10), now=NOON + HOUR - 1)
    assert total(caller, "k", NOON + HOUR, sliding=False) == 0


@pytest.mark.parametrize(
    ("window", "first", "then", "amounts"),
    [
        (Window(HOUR), NOON + 1800, NOON + 1800, (10, 0)),
        (Window(HOUR), NOON + 1800, NOON + HOUR, (10, 0)),
        (Window(HOUR), NOON + 1800, NOON + HOUR + 0.25, (10, 3)),
        (Window(HOUR), NOON + 1800, NOON + HOUR + 777.75, (7, 3.5)),
        (Window(HOUR), NOON + 3599.5, NOON + HOUR + 1, (10, 0.000001)),
        (Window(7), NOON, NOON, (9, 0)),
        (Window(7), NOON, NOON + 3, (3, 7)),
        (WEEK, at("2026-12-30T00:00"), at("2027-01-04T12:00"), (10, 2)),
        (MONTH, at("2026-02-28T00:00"), at("2026-02-28T00:00"), (10, 0)),
        (MONTH, at("2026-01-31T00:00"), at("2026-01-31T06:00"), (10, 0)),
        (MONTH, at("2026-02-28T00:00"), at("2026-03-01T00:00"), (10, 5)),
        (MONTH, at("2028-02-29T00:00"), at("2028-03-15T00:00"), (9, 4)),
    ],
)
@pytest.mark.parametrize("amount", [1, 2.5, 6.000001, 10])
def test_the_wait_of_a_sliding_window_is_exact(
    caller: Caller, window: Window, first: float, then: float, amounts: tuple[float, float], amount: float
) -> None:
    """After so many whole seconds the charge fits, and a second earlier it does not."""
    before, now_taken = amounts
    caller.taken(slide("k", 10, before, window), now=first)
    caller.taken(slide("k", 100, now_taken, window), now=then)
    answer = caller.peek(slide("k", 10, amount, window), now=then)
    if isinstance(answer, Refusal):
        assert answer.retry_after is not None
        earlier = caller.peek(slide("k", 10, amount, window), now=then + answer.retry_after - 1)
        assert isinstance(earlier, Refusal)
        assert isinstance(caller.peek(slide("k", 10, amount, window), now=then + answer.retry_after), Reservation)


def test_a_sliding_charge_that_fits_no_window_has_no_wait(caller: Caller) -> None:
    """More than the limit never fits, and a limit of nothing neither; where it waits for everything, it says so."""
    assert caller.reserve(slide("k", 1, 1.5)) == Refusal(0, None)
    assert caller.reserve(slide("k", 0)) == Refusal(0, None)
    caller.taken(slide("k", 1), now=NOON)
    assert caller.reserve(slide("k", 1)) == Refusal(0, 2 * HOUR)
    caller.taken(charge("full", 1), now=NOON)
    assert caller.reserve(slide("k", 5), slide("k", 1), charge("full", 1)) == Refusal(1, 2 * HOUR)


def test_a_clock_that_goes_back_counts_the_window_before_in_full(caller: Caller) -> None:
    """In an earlier window nothing is admitted beside what both windows hold, and none of them is reopened."""
    caller.taken(slide("k", 9, 5), now=NOON)
    caller.taken(slide("k", 9, 2), now=NOON + HOUR + 1800)
    assert total(caller, "k", NOON + HOUR + 1800) == round(4.5 * MILLION)
    for earlier in (NOON + HOUR, NOON + 1800, NOON, NOON - 5 * HOUR):
        assert total(caller, "k", earlier) == 7 * MILLION
    held = caller.taken(slide("k", 9, 2), now=NOON)
    assert held.windows == (NOON + 2 * HOUR,)
    assert isinstance(caller.reserve(slide("k", 9), now=NOON), Refusal)
    assert total(caller, "k", NOON + 2 * HOUR) == 4 * MILLION


def test_a_release_into_the_sliding_window_before(caller: Caller) -> None:
    """A charge of the last window is given back there, once, and one of a window before that nowhere."""
    held = caller.taken(slide("k", 20, 6), now=NOON)
    caller.taken(slide("k", 20, 4), now=NOON)
    mine = caller.taken(slide("k", 20, 3), now=NOON + HOUR)
    assert total(caller, "k", NOON + HOUR) == 13 * MILLION
    for _ in range(2):
        caller.release(held)
        assert total(caller, "k", NOON + HOUR) == 7 * MILLION
        assert total(caller, "k", NOON + HOUR + 1800) == 5 * MILLION
    caller.release(mine)
    assert total(caller, "k", NOON + HOUR) == 4 * MILLION
    old = caller.taken(slide("j", 20, 6), now=NOON)
    caller.taken(slide("j", 20, 5), now=NOON + 2 * HOUR)
    caller.release(old)
    assert total(caller, "j", NOON + 2 * HOUR) == 5 * MILLION


def test_a_release_before_the_next_window_is_looked_at(caller: Caller) -> None:
    """What is given back late, though nobody asked in the meantime, no longer counts in the next window."""
    held = caller.taken(slide("k", 20, 6), now=NOON)
    caller.taken(slide("k", 20, 4), now=NOON)
    caller.release(held)
    assert total(caller, "k", NOON + HOUR) == 4 * MILLION


def test_an_adjustment_over_sliding_windows(caller: Caller) -> None:
    """A reservation of the last window is replaced by one of this, and a refusal leaves both windows as they were."""
    held = caller.taken(slide("k", 10, 8), now=NOON)
    later = NOON + HOUR
    assert caller.adjust(held, slide("k", 10, 11), now=later) == Refusal(0, None)
    caller.taken(charge("full", 1), now=later)
    assert caller.adjust(held, slide("k", 10, 1), charge("full", 1), now=later) == Refusal(1, HOUR)
    assert total(caller, "k", later) == 8 * MILLION
    moved = caller.adjust(held, slide("k", 10, 9), now=later)
    assert isinstance(moved, Reservation)
    assert (moved.used, moved.windows) == ((0,), (NOON + 2 * HOUR,))
    assert total(caller, "k", later) == 9 * MILLION
    more = caller.adjust(moved, slide("k", 10, 10), now=later + 1)
    assert isinstance(more, Reservation)
    caller.release(more)
    assert total(caller, "k", later) == 0


def test_charges_on_one_sliding_key_take_the_largest_once(caller: Caller) -> None:
    """A call's charges on one sliding counter are one, in the window before too."""
    held = caller.taken(slide("k", 10, 2), slide("k", 10, 3), now=NOON)
    assert total(caller, "k", NOON + HOUR) == 3 * MILLION
    caller.release(held)
    assert total(caller, "k", NOON + HOUR) == 0


@pytest.mark.parametrize(
    ("window", "taken", "asked"),
    [
        (Window(60), NOON + 59, NOON + 119),
        (Window(HOUR), NOON, NOON + 2 * HOUR - 1),
        (WEEK, at("2026-03-02T00:00"), at("2026-03-15T23:00")),
        (MONTH, at("2026-02-03T00:00"), at("2026-03-31T23:00")),
        (MONTH, at("2026-04-03T00:00"), at("2026-05-31T23:00")),
    ],
)
def test_what_a_sliding_window_still_needs_is_not_forgotten(
    caller: Caller, window: Window, taken: float, asked: float
) -> None:
    """However many other counters come and go, the window before counts until this one ends."""
    caller.taken(slide("k", 1_000, 1_000, window), now=taken)
    for index in range(3_000):
        caller.taken(charge(f"k{index}", 1), now=asked)
    assert total(caller, "k", asked, window) > 0


@pytest.mark.parametrize("store", ["memory", "sqlite"], indirect=True)
def test_a_store_does_not_grow_with_sliding_windows(store: Store) -> None:
    """Keys of sliding windows are forgotten once the next window has ended."""
    largest = 0
    for index in range(10_000):
        store.reserve((slide(f"session-{index}", 1, window=Window(60)),), NOON + index)
        largest = max(largest, size(store))
    assert largest < 3_000


def test_fractions_are_exact(caller: Caller) -> None:
    """A tenth charged ten times is one, a millionth is counted, and large totals lose nothing (PL-5.3)."""
    for _ in range(10):
        caller.taken(charge("tenth", 1, amount=0.1))
    assert caller.reserve(Charge("tenth", Window(HOUR), 1, MILLION)) == Refusal(0, HOUR)
    caller.taken(Charge("large", Window(HOUR), TOP - 1, TOP))
    caller.taken(Charge("large", Window(HOUR), 1, TOP))
    assert caller.reserve(Charge("large", Window(HOUR), 1, TOP)) == Refusal(0, HOUR)
    assert caller.used("large") == [TOP]


def test_keys_are_exact(caller: Caller) -> None:
    """Keys that look alike are counters of their own."""
    keys = ["k", "K", "k ", "", "\u1e31", "k\u0301", '["k"]', "k:1", "{k}", "k\n", "%s", "'; drop table"]
    for key in keys:
        caller.taken(charge(key, 1))
    assert caller.used(*keys) == [MILLION] * len(keys)


def test_eight_threads_admit_exactly_the_limit(store: Store) -> None:
    """Threads that race for three counters are admitted as often as the smallest says, and all or none each."""
    charges = (charge("a", 1_000), charge("b", 300), charge("c", 2_000))
    admitted: list[int] = []
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        admitted.append(sum(isinstance(store.reserve(charges, NOON), Reservation) for _ in range(100)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(admitted) == 300
    assert Caller(store).used("a", "b", "c") == [300 * MILLION] * 3


def test_eight_threads_that_give_back_leave_nothing(store: Store) -> None:
    """Taking, adjusting and giving back at once never exceeds the limit and ends where it began."""
    over: list[int] = []

    def work() -> None:
        for _ in range(100):
            held = store.reserve((charge("k", 5),), NOON)
            if isinstance(held, Refusal):
                continue
            more = store.adjust(held, (charge("k", 5, amount=2), charge("j", 5)), NOON)
            (used,) = Caller(store).used("k")
            over.append(used > 5 * MILLION)
            for reservation in (held, more):
                if isinstance(reservation, Reservation):
                    store.release(reservation)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(over)
    assert Caller(store).used("k", "j") == [0, 0]


def test_one_reservation_released_by_eight_threads_is_given_back_once(store: Store) -> None:
    """A race to give back the same reservation takes its amount off once."""
    store.reserve((charge("k", 100, amount=50),), NOON)
    for _ in range(20):
        held = store.reserve((charge("k", 100),), NOON)
        assert isinstance(held, Reservation)
        threads = [threading.Thread(target=store.release, args=(held,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert Caller(store).used("k") == [50 * MILLION]


def test_300_tasks_admit_exactly_the_limit(store: Store) -> None:
    """Tasks of one loop are admitted as often as the limit says."""

    async def main() -> int:
        charges = (charge("a", 100), charge("b", 120))
        answers = await asyncio.gather(*(store.areserve(charges, NOON) for _ in range(300)))
        await store.aclose()
        return sum(isinstance(answer, Reservation) for answer in answers)

    assert asyncio.run(main()) == 100


def size(store: Store) -> int:
    """How many counters a store holds that forgets them itself; a server's expire (`test_redis.py`)."""
    if isinstance(store, MemoryStore):
        return len(store._cells)
    assert isinstance(store, SQLiteStore)
    return int(store._file.opened().execute("SELECT count(*) FROM counters").fetchone()[0])


def test_counters_are_listed_and_forgotten(store: Store) -> None:
    """Whoever looks after a store sees the counters whose window is open, by key, and may have some begin afresh."""
    store.reserve((charge("minute", 9, window=60), charge("b", 5, 2), charge("a", 4)), NOON)
    listed = [(one.key, one.starts, one.ends, one.used, one.before, one.limit) for one in store.counters(NOON + 60)]
    until = int(NOON) + HOUR
    assert listed == [
        ("a", NOON, until, MILLION, 0, 4 * MILLION),
        ("b", NOON, until, 2 * MILLION, 0, 5 * MILLION),
    ]
    store.reset(["b", "unknown"])
    assert [one.key for one in store.counters(NOON + 60)] == ["a"]
    assert Caller(store).used("a", "b") == [MILLION, 0]
    store.close()
    store.close()


@pytest.mark.parametrize("store", ["memory", "sqlite"], indirect=True)
def test_a_store_does_not_grow_with_time(store: Store) -> None:
    """10,000 session keys over many windows leave about as many counters as one window has."""
    largest = 0
    for index in range(10_000):
        store.reserve((charge(f"session-{index}", 1, window=60),), NOON + index)  # 60 keys a window
        largest = max(largest, size(store))
    assert largest < 3_000


@pytest.mark.parametrize("store", ["memory", "sqlite"], indirect=True)
def test_a_store_that_only_looks_does_not_grow(store: Store) -> None:
    """Looking at keys that come and go leaves nothing behind either."""
    for index in range(10_000):
        store.peek((charge(f"session-{index}", 1, window=60),), NOON + index)
    assert size(store) < 3_000
