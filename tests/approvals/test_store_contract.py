"""What every store of approval requests promises, run over each of them (the contract in `approvals/base.py`)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from approval_stores import FACTORIES, MANY, NOON, PATHS, SECRET, AsyncCaller, Caller, draft, standing

from mcp_policy_middleware.approvals import ApprovalStore, Event, Flood, FloodLimits, Found, State
from mcp_policy_middleware.approvals.base import KEPT
from mcp_policy_middleware.approvals.states import TRANSITIONS

HOUR = 3_600
OPEN = (State.PENDING, State.APPROVED)


@pytest.fixture(params=FACTORIES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ApprovalStore]:
    """Each store in turn."""
    made = FACTORIES[request.param](tmp_path, request)
    yield made
    made.close()


@pytest.fixture(params=[Caller, AsyncCaller], ids=["sync", "async"])
def caller(request: pytest.FixtureRequest, store: ApprovalStore) -> Iterator[Caller]:
    """Each store by its sync and by its async methods."""
    made = request.param(store)
    yield made
    made.ended()


def brought(caller: Caller, state: State, **given: Any) -> str:
    """The id of a new request in a state."""
    request = caller.made(**given)
    for event in PATHS[state]:
        assert caller.move(request.id, event, by="ann", why="because").changed
    return request.id


# ---- the table


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_every_event_in_every_state_does_what_the_table_says(caller: Caller, state: State, event: Event) -> None:
    """What is in the table moves the request, once; what is not changes nothing."""
    id = brought(caller, state)
    before = caller.store.get(id, NOON)
    assert before is not None
    found = caller.move(id, event, now=NOON + 1, by="bob", why="no doubt")
    after = TRANSITIONS.get((state, event))
    assert found.changed == (after is not None)
    assert found.request is not None
    assert found.request == caller.store.get(id, NOON + 1)
    if after is None:
        assert found.request == before
        return
    answered = ("bob", "no doubt", NOON + 1) if state is State.PENDING else ("ann", "because", NOON)
    assert found.request.state is after
    assert (found.request.by, found.request.why, found.request.answered_at) == answered
    assert found.request.arguments == (draft().arguments if after in OPEN else None)
    again = caller.move(id, event, now=NOON + 2)
    assert again.changed == ((after, event) in TRANSITIONS)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_a_request_whose_time_is_up_is_expired_at_that_moment(caller: Caller, state: State, event: Event) -> None:
    """A pending or approved one is told as expired, whoever looks, and no event moves it; others stay what they are."""
    id = brought(caller, state)
    for now in (NOON + 60, NOON + 61):
        lapsed = caller.store.get(id, now)
        assert lapsed is not None
        assert lapsed.state is (State.EXPIRED if state in OPEN else state)
        assert lapsed.arguments is None
        assert caller.store.requests(now) == [lapsed]
        assert caller.find(now=now) is None
        assert caller.move(id, event, now=now) == Found(lapsed)


@pytest.mark.parametrize("event", [Event.APPROVE, Event.DENY])
def test_an_answer_in_time_counts_to_the_last_moment(caller: Caller, event: Event) -> None:
    """The moment before the time is up is in time, for the answer and for the call."""
    id = caller.made().id
    assert caller.move(id, event, now=NOON + 59.984375).changed
    assert caller.move(id, Event.CONSUME, now=NOON + 59.984375).changed == (event is Event.APPROVE)


# ---- opening


def test_what_is_made_is_told_as_it_was_asked(caller: Caller) -> None:
    """The store sets the times, and keeps all the rest."""
    made = caller.made(seconds=90, now=NOON + 0.1)
    asked = draft(asked_at=NOON + 0.1, expires_at=NOON + 0.1 + 90)
    assert made == caller.store.get("id", NOON + 1) == caller.find(now=NOON + 1) == asked
    assert caller.store.requests(NOON + 1) == [asked]


@pytest.mark.parametrize("state", State)
def test_the_same_call_meets_what_stands(caller: Caller, state: State) -> None:
    """An open request and a denied one stand; of any other a new one is asked, under another id."""
    id = brought(caller, state)
    found = caller.open(now=NOON + 1)
    if state in (*OPEN, State.DENIED):
        assert standing(found) == caller.find(now=NOON + 1)
        assert standing(found).id == id
        return
    assert found.changed
    assert found.request.state is State.PENDING
    assert found.request.id != id
    assert caller.find(now=NOON + 1) == found.request


@pytest.mark.parametrize("state", [*OPEN, State.DENIED])
def test_what_stands_stands_until_its_time_is_up(caller: Caller, state: State) -> None:
    """Then the same call is asked about anew, and the earlier request is still told."""
    id = brought(caller, state)
    assert standing(caller.open(now=NOON + 59.5)).id == id
    made = caller.made(now=NOON + 60)
    assert made.id != id
    assert [one.id for one in caller.store.requests(NOON + 60)] == [id, made.id]
    assert caller.find(now=NOON + 60) == made


def test_each_binding_has_a_request_of_its_own(caller: Caller) -> None:
    """Another call is another question, and its answer is its own."""
    ids = [caller.made(draft(f"b{number}", f"id{number}"), now=NOON + number).id for number in range(3)]
    assert ids == ["id0", "id1", "id2"]
    caller.move("id1", Event.APPROVE, now=NOON + 3)
    assert [one.state for one in caller.store.requests(NOON + 3)] == [State.PENDING, State.APPROVED, State.PENDING]


def test_an_id_that_is_taken_is_not_given_twice(caller: Caller) -> None:
    """A request of another call is kept as it is, whatever id a new one would like."""
    caller.made()
    other = caller.made(draft("other"))
    assert other.id not in ("", "id")
    assert caller.store.get("id", NOON) == caller.find()
    assert caller.store.get(other.id, NOON) == other == caller.find("other")


@pytest.mark.parametrize("id", ["", "nobody's", "é", "\udcff"])
def test_what_nobody_asked_is_not_there(caller: Caller, id: str) -> None:
    """An unknown id is no request, and no event makes it one."""
    caller.made()
    for event in Event:
        assert caller.move(id, event) == Found(None)
    assert caller.store.get(id, NOON) is None
    assert caller.find("another binding") is None
    assert len(caller.store.requests(NOON)) == 1


def test_looking_changes_nothing(caller: Caller) -> None:
    """`find`, `get` and `requests` leave what there is, even at a time when it has lapsed."""
    made = caller.made()
    for _ in range(2):
        caller.find(now=NOON + 61)
        caller.store.get(made.id, NOON + 61)
        caller.store.requests(NOON + 61)
    assert caller.find() == made


# ---- floods


def test_a_grant_has_so_many_pending_requests(caller: Caller) -> None:
    """One more is a flood, until one is answered or its time is up; what stands is found all the same."""
    limits = FloodLimits(pending=2, an_hour=100)
    for number, seconds in enumerate((60, 30)):
        caller.made(draft(f"b{number}", f"id{number}"), limits=limits, seconds=seconds)
    assert caller.open(draft(), limits=limits, now=NOON + 0.5) == Flood(30)
    assert caller.open(draft(), limits=limits, now=NOON + 29.75) == Flood(1)
    assert standing(caller.open(draft("b0"), limits=limits)).id == "id0"
    assert caller.made(draft("of another", grant="h"), limits=limits).grant == "h"
    third = caller.made(draft(), limits=limits, now=NOON + 30)
    assert caller.open(draft("b3"), limits=limits, now=NOON + 30) == Flood(30)
    for event in (Event.APPROVE, Event.CONSUME):
        assert caller.move(third.id, event, now=NOON + 31).changed
    assert caller.made(draft("b3"), limits=limits, now=NOON + 31)


def test_a_grant_asks_so_often_an_hour(caller: Caller) -> None:
    """However they were answered; the hour slides."""
    limits = FloodLimits(pending=100, an_hour=2)
    for number in range(2):
        made = caller.made(draft(f"b{number}", f"id{number}"), limits=limits, now=NOON + 10 * number)
        caller.move(made.id, Event.DENY, now=NOON + 10)
    assert caller.open(limits=limits, now=NOON + 10) == Flood(HOUR - 10)
    assert caller.open(limits=limits, now=NOON + HOUR - 0.5) == Flood(1)
    assert caller.made(draft("of another", grant="h"), limits=limits, now=NOON + 10)
    caller.made(limits=limits, now=NOON + HOUR)
    assert caller.open(draft("b9"), limits=limits, now=NOON + HOUR) == Flood(10)


def test_a_flood_leaves_nothing(caller: Caller) -> None:
    """What was not made is not there; where both limits are full, the longer wait is told."""
    caller.made(seconds=7_200)
    assert caller.open(draft("b2", "id2"), limits=FloodLimits(1, 1)) == Flood(7_200)
    assert caller.open(draft("b2", "id2"), limits=FloodLimits(2, 1)) == Flood(HOUR)
    assert caller.store.get("id2", NOON) is None
    assert len(caller.store.requests(NOON)) == 1


def test_pending_requests_older_than_an_hour_count_as_pending(caller: Caller) -> None:
    """Only that."""
    caller.made(seconds=3 * HOUR)
    later = NOON + 2 * HOUR
    assert caller.open(draft("b2"), limits=FloodLimits(1, 9), now=later) == Flood(HOUR)
    assert caller.made(draft("b2"), limits=FloodLimits(2, 1), now=later)


# ---- forgetting


@pytest.mark.parametrize("state", State)
def test_a_request_is_forgotten_a_day_after_its_time(caller: Caller, state: State) -> None:
    """Not before; whoever asks next forgets it, and the same call is asked about anew."""
    id = brought(caller, state)
    caller.made(draft("b2", "id2"), now=NOON + KEPT + 59)
    assert {one.id for one in caller.store.requests(NOON + KEPT + 59)} == {id, "id2"}
    assert caller.made(now=NOON + KEPT + 60).id == id
    assert {one.id for one in caller.store.requests(NOON + KEPT + 60)} == {id, "id2"}
    caller.made(draft("b3", "id3"), now=NOON + 3 * KEPT)
    assert [one.id for one in caller.store.requests(NOON + 3 * KEPT)] == ["id3"]


@pytest.mark.parametrize("state", OPEN)
@pytest.mark.parametrize("step", ["open", "move"])
def test_what_has_lapsed_loses_its_arguments_with_the_next_step(caller: Caller, state: State, step: str) -> None:
    """And stays expired, though the clock go back."""
    id = brought(caller, state)
    if step == "open":
        caller.made(draft("b2", "id2"), now=NOON + 60)
    else:
        caller.move("nobody's", Event.DENY, now=NOON + 60)
    request = caller.store.get(id, NOON)
    assert request is not None
    assert (request.state, request.arguments) == (State.EXPIRED, None)


def test_sweeping_keeps_up_with_what_is_asked(store: ApprovalStore) -> None:
    """Many requests that lapse at once are swept over the next steps, and none of them ever stands."""
    for number in range(600):
        store.open(draft(f"b{number}", f"id{number}", arguments={}), 60, MANY, NOON)
    for step in range(6):
        store.open(draft("again", arguments={}), 60, MANY, NOON + KEPT + 61 + step)
        assert store.find("b599", NOON + KEPT + 61 + step) is None
    assert [one.binding for one in store.requests(NOON + KEPT + 66)] == ["again"]


# ---- races


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What as many threads, let go at the same moment, come back with."""
    start = threading.Barrier(count)

    def run(number: int) -> Any:
        start.wait(20)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_one_of_many_threads_makes_the_request(store: ApprovalStore) -> None:
    """All meet one request, whatever ids they had in mind."""
    for round in range(10):
        binding = f"b{round}"
        found = at_once(8, lambda number, b=binding: store.open(draft(b, f"{b}.{number}"), 60, MANY, NOON))
        assert sorted(one.changed for one in found) == [False] * 7 + [True]
        assert len({one.request.id for one in found}) == 1
    assert len(store.requests(NOON)) == 10


def test_one_of_many_threads_uses_the_approval(store: ApprovalStore) -> None:
    """The others are told that it is used."""
    for round in range(10):
        id = f"id{round}"
        store.open(draft(f"b{round}", id), 60, MANY, NOON)
        store.move(id, Event.APPROVE, NOON)
        found = at_once(8, lambda number, mine=id: store.move(mine, Event.CONSUME, NOON))
        assert sorted(one.changed for one in found) == [False] * 7 + [True]
        assert {one.request.state for one in found} == {State.CONSUMED}


def test_of_two_answers_one_counts(store: ApprovalStore) -> None:
    """A yes and a no at the same moment: all are told the same in the end."""
    answers = (Event.APPROVE, Event.DENY)
    for round in range(10):
        id = f"id{round}"
        store.open(draft(f"b{round}", id), 60, MANY, NOON)
        found = at_once(2, lambda number, mine=id: store.move(mine, answers[number], NOON))
        assert sorted(one.changed for one in found) == [False, True]
        assert found[0].request.state is found[1].request.state


def test_no_request_shows_its_arguments_by_accident(caller: Caller) -> None:
    """Not where it is printed, whoever brings it."""
    made = caller.made()
    found = caller.open()
    assert SECRET not in repr((made, found, caller.find(), caller.store.requests(NOON)))
