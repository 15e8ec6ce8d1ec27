"""A log of decisions for notebooks: bounded, without values, whole under threads and tasks, beside another record."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import gc
import json
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import test_views
from test_views import page, policy_of

from mcp_policy_middleware import Guard, MissingDependency, Outcome, PolicyError, Reason, ToolCall, ToolDenied
from mcp_policy_middleware.calls import Decision
from mcp_policy_middleware.notebook import DecisionLog
from mcp_policy_middleware.testing import FrozenClock

CANARY = test_views.CANARY
START = datetime(2026, 1, 15, 10, tzinfo=UTC)
TOOLS = {
    "a": {},
    "b": {"action": "deny"},
    "ask": {"action": "require_approval"},
    "watched": {"action": "deny", "mode": "shadow"},
}


def logged(**settings: Any) -> tuple[DecisionLog, Guard]:
    log = DecisionLog(**settings)
    return log, Guard(policy_of(TOOLS), audit=log, approver=lambda _: True)


def call(guard: Guard, tool: str, ending: Exception | None = None) -> None:
    """One call, which may fail or be denied."""

    def sent() -> str:
        if ending is not None:
            raise ending
        return "done"

    with contextlib.suppress(ToolDenied, OSError):
        guard.run(ToolCall(tool, {"x": CANARY}, server="shop", context={"who": CANARY}), sent)


class Beside:
    """Another record, which may be broken; it notes who was told first."""

    def __init__(self, log: DecisionLog | None = None, error: Exception | None = None) -> None:
        self.told: list[tuple[str, str, int]] = []
        self.log = log
        self.error = error

    def decided(self, decision: Decision) -> None:
        if self.error is not None:
            raise self.error
        self.told.append(("decided", decision.call.tool, -1 if self.log is None else len(self.log)))

    def ended(self, decision: Decision, outcome: Outcome) -> None:
        self.told.append((outcome.value, decision.call.tool, -1 if self.log is None else len(self.log)))

    async def adecided(self, decision: Decision) -> None:
        await asyncio.sleep(0)
        self.decided(decision)

    async def aended(self, decision: Decision, outcome: Outcome) -> None:
        await asyncio.sleep(0)
        self.ended(decision, outcome)


def test_each_decision_is_kept_with_its_end() -> None:
    """In order, with the time and the outcome; a call that was not let go on has none."""
    clock = FrozenClock(START)
    log, guard = logged(clock=clock)
    call(guard, "a")
    clock.tick(5)
    call(guard, "a", OSError("gone"))
    call(guard, "b")
    call(guard, "watched")
    guard.explain(ToolCall("a", {}))
    assert [(one.decision.call.tool, one.decision.effect, one.outcome) for one in log] == [
        ("a", "allow", Outcome.RETURNED),
        ("a", "allow", Outcome.UNKNOWN),
        ("b", "deny", None),
        ("watched", "deny", Outcome.RETURNED),
    ]
    assert [one.at - START for one in log] == [timedelta(0)] + [timedelta(seconds=5)] * 3
    assert len(log) == 4
    log.clear()
    assert (len(log), list(log), log.to_dicts()) == (0, [], [])


def test_an_end_is_that_of_its_own_decision() -> None:
    """Calls that overlap end in any order; an end of what was forgotten is nothing."""
    log, guard = logged(keep=2)
    first, second, third = (guard.begin(ToolCall("a", {}, call_id=name)) for name in "123")
    for decision, outcome in ((third, Outcome.REJECTED), (first, Outcome.UNKNOWN), (second, Outcome.RETURNED)):
        guard.finish(decision, outcome)
    assert [(one.decision.call.call_id, one.outcome) for one in log] == [
        ("2", Outcome.RETURNED),
        ("3", Outcome.REJECTED),
    ]


@pytest.mark.parametrize("keep", [1, 7, None])
def test_a_log_is_bounded(keep: int | None) -> None:
    """The last ones are kept, 1,000 unless told otherwise."""
    log, guard = logged() if keep is None else logged(keep=keep)
    for number in range(1_010):
        guard.begin(ToolCall("a", {}, call_id=str(number)))
    kept = keep or 1_000
    assert [one.decision.call.call_id for one in log] == [str(number) for number in range(1_010 - kept, 1_010)]


def test_a_log_keeps_something() -> None:
    with pytest.raises(PolicyError):
        DecisionLog(keep=0)


def test_no_value_of_an_argument_is_held() -> None:
    """Not in anything that is reached from the log: no arguments, no context, no amount, no digest of them."""
    log = DecisionLog()
    limits = [{"counter": "c", "window": "hour", "max": 10**6, "increment_from": "args.n"}]
    policy = policy_of({"t": {"action": "require_approval", "limits": limits}})
    guard = Guard(policy, audit=log, approver=lambda _: True)
    arguments = {"n": 918273.5, "x": [CANARY]}
    call = ToolCall("t", arguments, context={"who": [CANARY]}, as_sent=lambda: arguments)
    decision = guard.begin(call)
    assert decision.allowed
    assert decision.approval is not None
    binding = decision.approval.binding
    assert binding
    guard.finish(decision, Outcome.RETURNED)
    seen: set[int] = set()
    held: list[Any] = list(log)
    while held:
        one = held.pop()
        if id(one) in seen or isinstance(one, type):
            continue
        seen.add(id(one))
        assert one not in (918273.5, 918273500000, CANARY, binding) or type(one) is bool
        assert type(one).__name__ not in ("CompiledPolicy", "Reservation", "Charge", "function")
        held += gc.get_referents(one)
    assert len(seen) > 10


def test_a_decision_that_changes_later_is_kept_as_it_was() -> None:
    """The log has a copy: settling a call and what a caller does to its decision leave it alone."""
    log, guard = logged()
    decision = guard.begin(ToolCall("a", {}))
    decision.reason, decision.message = Reason.SUSPENDED, "mine"
    (kept,) = log
    assert (kept.decision.reason, kept.decision.message) == (Reason.ALLOWED, "")
    assert kept.decision.decision_id == decision.decision_id


def test_rows_for_a_data_frame() -> None:
    """Flat, every row with the same keys, plain values; an approval's state, who, when and why."""
    log, guard = logged(clock=FrozenClock(START))
    for tool in ("a", "b", "ask"):
        call(guard, tool)
    rows = log.to_dicts()
    assert len({tuple(row) for row in rows}) == 1
    assert {type(value).__name__ for row in rows for value in row.values()} <= {"str", "bool", "NoneType", "datetime"}
    allowed, denied, asked = rows
    assert allowed["at"] == START
    keys = ("tool", "server", "effect", "allowed", "reason", "outcome", "approval")
    assert [allowed[key] for key in keys] == ["a", "shop", "allow", True, "allowed", "returned", None]
    assert [denied[key] for key in keys] == ["b", "shop", "deny", False, "rule_denied", None, None]
    assert asked["approval"] == "consumed"
    assert asked["approval_at"].tzinfo is UTC
    assert asked["approval_by"] is not None
    assert CANARY not in json.dumps(rows, default=str)


@pytest.mark.parametrize(
    ("wanted", "tools"),
    [
        ({}, ["watched", "b", "a", "b", "a"]),
        ({"tool": "a"}, ["a", "a"]),
        ({"effect": "deny"}, ["watched", "b", "b"]),
        ({"effect": "allow"}, ["a", "a"]),
        ({"reason": Reason.RULE_DENIED}, ["watched", "b", "b"]),
        ({"reason": "allowed"}, ["a", "a"]),
        ({"tool": "b", "effect": "allow"}, []),
        ({"last": 2}, ["watched", "b"]),
        ({"last": 1, "tool": "a"}, ["a"]),
    ],
)
def test_a_table_can_be_narrowed(wanted: dict[str, Any], tools: list[str]) -> None:
    """The newest first, by tool, by effect and by reason; what is left out is said."""
    log, guard = logged(clock=FrozenClock(START))
    for tool in ("a", "b", "a", "b", "watched"):
        call(guard, tool)
    table = log.table(**wanted)
    head, *rows = page(table).rows or [[]]
    assert [row[1] for row in rows] == tools
    if tools:
        assert head[:5] == ["time", "tool", "server", "effect", "reason"]
        assert rows[0][0] == "2026-01-15 10:00:00 UTC"
        assert str(table).splitlines()[0].split() == head
    assert ("last" in wanted) == bool(table.tables[0].note and tools)
    assert log._repr_html_() == log.table()._repr_html_()


@pytest.mark.parametrize("wanted", [{"effect": "denied"}, {"reason": "nope"}])
def test_a_misspelt_filter_is_no_empty_table(wanted: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        DecisionLog().table(**wanted)


def test_threads_share_a_log() -> None:
    """Nothing is lost, each end is its own decision's, and whoever looks meanwhile sees whole rows."""
    log, guard = logged(keep=4_000)
    stop = threading.Event()
    faults: list[BaseException] = []

    def look() -> None:
        while not stop.wait(0.001):
            try:
                assert all(row["tool"] in TOOLS for row in log.to_dicts())
                str(log.table())
            except BaseException as error:
                faults.append(error)

    def work(tool: str) -> None:
        for _ in range(500):
            call(guard, tool)

    looking = threading.Thread(target=look)
    working = [threading.Thread(target=work, args=(tool,)) for tool in ("a", "b") * 4]
    for thread in (looking, *working):
        thread.start()
    for thread in working:
        thread.join()
    stop.set()
    looking.join()
    assert faults == []
    assert Counter((one.decision.call.tool, one.outcome) for one in log) == {
        ("a", Outcome.RETURNED): 2_000,
        ("b", None): 2_000,
    }


def test_tasks_share_a_log() -> None:
    """Async callers are told of by the twins, each with its own end."""
    beside = Beside()
    log, guard = logged(beside=beside)

    async def one(number: int) -> None:
        async def sent() -> None:
            await asyncio.sleep(0)
            if number % 2:
                raise OSError

        with contextlib.suppress(OSError):
            await guard.arun(ToolCall("a", {}, call_id=str(number)), sent)

    async def every() -> None:
        await asyncio.gather(*map(one, range(200)))

    asyncio.run(every())
    ends = {int(kept.decision.call.call_id or ""): kept.outcome for kept in log}
    assert ends == {number: Outcome.UNKNOWN if number % 2 else Outcome.RETURNED for number in range(200)}
    assert Counter(what for what, _, _ in beside.told) == {"decided": 200, "returned": 100, "unknown": 100}


def test_another_record_is_told_first() -> None:
    """It hears of each decision before the log does, and of each end."""
    log = DecisionLog(beside=(beside := Beside()))
    beside.log = log
    guard = Guard(policy_of(TOOLS), audit=log)
    call(guard, "a")
    call(guard, "b")
    assert beside.told == [("decided", "a", 0), ("returned", "a", 1), ("decided", "b", 1)]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_the_other_record_cannot_keep_is_not_done(asynchronous: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The call is denied, as without the log, and the log has no word of it."""
    log, guard = logged(beside=Beside(error=OSError("disk full")))
    called: list[int] = []

    async def sent() -> None:
        called.append(1)

    def made() -> None:
        if asynchronous:
            asyncio.run(guard.arun(ToolCall("a", {}), sent))
        else:
            guard.run(ToolCall("a", {}), lambda: called.append(1))

    with pytest.raises(ToolDenied) as denied:
        made()
    assert (denied.value.decision.reason, denied.value.decision.rule) == (Reason.EVALUATION_ERROR, "(audit)")
    assert (called, len(log)) == ([], 0)


def plotted(log: DecisionLog, **settings: Any) -> tuple[dict[str, tuple[float, float]], Any]:
    """What is drawn: for each lane, how high its bars are above its line and below it."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    ax = log.plot(**settings)
    ax.figure.canvas.draw()
    lanes = {}
    for place, label in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True):
        spans = [(bar.get_y() - place, bar.get_height()) for bar in ax.patches if round(bar.get_y()) == place]
        lanes[label.get_text()] = (
            sum(height for _, height in spans if height > 0),
            -sum(height for _, height in spans if height < 0),
        )
    pyplot.close("all")
    return lanes, ax


def test_a_plot_has_a_lane_a_tool() -> None:
    """Allows above, denials below, as high as there are calls, over the time in which they were made."""
    clock = FrozenClock(START)
    log, guard = logged(clock=clock)
    for tool, calls in (("a", 6), ("b", 3), ("watched", 2), ("a", 2)):
        for _ in range(calls):
            call(guard, tool)
        clock.tick(60)
    lanes, ax = plotted(log, bins=3)
    assert list(lanes) == ["a\n8 allowed, 0 denied", "b\n0 allowed, 3 denied", "watched\n0 allowed, 2 denied"]
    unit = 0.42 / 6
    heights = [pytest.approx((8 * unit, 0)), pytest.approx((0, 3 * unit)), pytest.approx((0, 2 * unit))]
    assert list(lanes.values()) == heights
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"allowed", "denied", "denied, not enforced"}
    from matplotlib.dates import date2num

    assert ax.get_xlim() == pytest.approx((date2num(START), date2num(START + timedelta(minutes=3))))


def test_denials_of_both_kinds_stand_on_each_other() -> None:
    """What is denied in one span, enforced or not, adds up below the line."""
    log = DecisionLog(clock=FrozenClock(START))
    for reason, enforced in ((Reason.RULE_DENIED, True), (Reason.RULE_DENIED, False), (Reason.ALLOWED, True)):
        log.decided(Decision(ToolCall("t", {}), "g", None, reason, enforced=enforced))
    _, ax = plotted(log)
    spans = sorted(
        (bar.get_y() + min(0, bar.get_height()), bar.get_y() + max(0, bar.get_height())) for bar in ax.patches
    )
    assert [pytest.approx(span) for span in spans] == [(-0.42, -0.21), (-0.21, 0), (0, 0.21)]


def test_invented_tools_share_a_lane() -> None:
    """An agent that makes up a thousand names fills one lane, the last."""
    log, guard = logged(keep=5_000)
    for tool in (*[f"invented {number}" for number in range(1_000)], "a", "a", "b", "b"):
        call(guard, tool)
    lanes, _ = plotted(log)
    assert len(lanes) == 12
    assert (
        [name for name in lanes if "other tools" in name]
        == [list(lanes)[-1]]
        == ["991 other tools\n0 allowed, 991 denied"]
    )


@pytest.mark.parametrize("name", ["$\\frac{x", "$$", "\x00\u202e", "<script>", "x" * 5_000, "_^{"])
def test_a_hostile_name_is_a_label_and_no_formula(name: str) -> None:
    log, guard = logged()
    call(guard, name)
    lanes, _ = plotted(log)
    (label,) = lanes
    assert label.replace("\n", "").isprintable()
    assert len(label) < 80


def test_nothing_is_drawn_of_nothing() -> None:
    lanes, ax = plotted(DecisionLog())
    assert lanes == {}
    assert ax.get_legend() is None


def test_a_plot_goes_where_it_is_told() -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    log, guard = logged()
    call(guard, "a")
    _, (left, right) = pyplot.subplots(1, 2)
    assert log.plot(ax=right) is right
    assert not left.patches
    assert right.patches
    pyplot.close("all")
    with pytest.raises(PolicyError):
        log.plot(bins=0)


def test_a_plot_asks_for_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed, the error names the extra."""
    imported = builtins.__import__

    def missing(name: str, *rest: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return imported(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingDependency) as error:
        DecisionLog().plot()
    assert error.value.extra == "notebook"
