"""What every adapter guarantees (adapters A-1, PL-5.6), one test each, over every adapter of `contract_adapters`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")
pytest.importorskip("langchain")

import anyio
from contract_adapters import NO, PAIRS, SESSIONS, SETUPS, Answer, Bench, Line, Setup, policy

from mcp_policy_middleware import Reason, StoreError, ToolDenied
from mcp_policy_middleware.stores import MemoryStore

WAYS = [pytest.param(each, way, id=f"{each.name}, {way}") for each in SETUPS for way in each.ways]
EVERY = pytest.mark.parametrize("setup", SETUPS, ids=lambda each: each.name)
EVERY_WAY = pytest.mark.parametrize(("setup", "way"), WAYS)
LOCAL_WAYS = [one for one in WAYS if one.values[0].local]  # type: ignore[union-attr]
CANCELLED = [each for each in SETUPS if each.tools != "sync"]  # a thread cannot be cancelled
STACKS = [pytest.param(each, way, id=f"{each.name}, {each.tools}, {way}") for each in PAIRS for way in each.ways]
OVER_SESSIONS = [
    replace(each, tools="mcp")
    for each in PAIRS
    if each.front and each.session != "fastmcp" and each.guards & SESSIONS and "interceptor" not in each.guards
]
CANARY = "canary-7f3a"


def use(setup: Setup, bench: Bench, work: Callable[[Line], Awaitable[None]], **options: Any) -> None:
    """Open a fresh stack, use it, and close it."""

    async def main() -> None:
        async with setup.opened(bench, **options) as line:
            await work(line)

    anyio.run(main)


def why(setup: Setup, answer: Answer) -> str | None:
    """The reason code of a denial; None for the answer of a tool. A denial has the shape that the adapter declares."""
    if answer.decision is None:
        assert not isinstance(answer.error, ToolDenied)
        assert not answer.text.startswith("[POLICY DENIED]")
        return None
    assert isinstance(answer.error, ToolDenied) is setup.aborts
    assert answer.is_error
    assert answer.text.startswith("[POLICY DENIED] ")
    assert answer.decision["effect"] == "deny"
    return str(answer.decision["reason"])


# --- denied, allowed ------------------------------------------------------------------------------------------------


@EVERY_WAY
def test_a_denied_call_is_a_tool_error_and_its_siblings_run(setup: Setup, way: str, tmp_path: Path) -> None:
    """A-1.1: the tool is never reached, and the agent reads the author's words and nothing else."""
    bench = Bench(tmp_path)
    asked: list[Any] = [("pay", {"amount": 1}), ("pay", {"amount": 50}), ("look", {}), ("pay", {"amount": 2})]

    async def work(line: Line) -> None:
        answers = await line.batch(asked, way)
        assert [why(setup, each) for each in answers] == [None, "requirement_unmet", None, None]
        assert answers[1].text == f"[POLICY DENIED] {NO}"
        assert [each.is_error for each in answers] == [False, True, False, False]

    use(setup, bench, work)
    assert sorted(bench.arrived()) == ["look", "pay", "pay"]
    assert (bench.used(), sorted(each.get("amount", 0) for each in bench.arguments())) == (3, [0, 1, 2])


@EVERY_WAY
def test_an_allowed_call_is_as_without_a_guard(setup: Setup, way: str, tmp_path: Path) -> None:
    """A-1.2: arguments, results, artifacts, `_meta`, tool errors and exceptions."""
    asked: list[Any] = [
        ("pay", {"amount": 1, "note": "für Zoë"}),
        ("look", {}),
        ("fail", {}),
        ("reject", {"code": -32603}),
        ("reject", {"code": -32602}),
    ]
    seen = {}
    for each in (setup, setup.bare()):
        bench = Bench(tmp_path)
        bench.ledger.write_text("")
        wholes: list[Any] = []

        async def work(line: Line, wholes: list[Any] = wholes) -> None:
            for one in asked:
                wholes.append((await line.batch([one], way))[0].whole)

        use(each, bench, work)
        seen[each] = (wholes, bench.arrived(), bench.arguments(), len(bench.decisions()))
    guarded, bare = seen[setup], seen[setup.bare()]
    assert guarded[:3] == bare[:3]
    assert (guarded[3], bare[3]) == (len(asked), 0)


# --- outcomes -------------------------------------------------------------------------------------------------------


@EVERY_WAY
def test_the_outcome_settles_the_charge(setup: Setup, way: str, tmp_path: Path) -> None:
    """A-1.3, PL-5.6: what returned is kept, what was refused unread is given back, what failed otherwise is kept."""
    bench = Bench(tmp_path)
    asked: list[Any] = [
        ("look", {}, 1),
        ("fail", {}, 1),
        ("fail_free", {}, 0),
        ("reject", {"code": -32602}, 0),
        ("reject", {"code": -32601}, 0),
        ("reject", {"code": -32603}, 1),
        ("reject", {"code": 7}, 1),
    ]

    async def work(line: Line) -> None:
        for tool, arguments, kept in asked:
            before = bench.used(tool)
            assert why(setup, await line.call(tool, arguments, way)) is None
            assert (tool, arguments, bench.used(tool) - before) == (tool, arguments, kept)

    use(setup, bench, work)
    assert bench.arrived() == [tool for tool, _, _ in asked]


@pytest.mark.parametrize("setup", CANCELLED, ids=lambda each: each.name)
def test_a_cancelled_call_keeps_its_charge_and_stays_cancelled(setup: Setup, tmp_path: Path) -> None:
    """A-1.5: a cancellation after sending is no answer of the tool's."""
    bench = Bench(tmp_path)
    ended: list[Any] = []

    async def work(line: Line) -> None:
        async with anyio.create_task_group() as tasks:

            async def hang() -> None:
                ended.append(await line.call("hang"))

            tasks.start_soon(hang)
            with anyio.fail_after(10):
                while not bench.arrived():  # noqa: ASYNC110  the server may be another process
                    await anyio.sleep(0.002)
            tasks.cancel_scope.cancel()
        assert bench.used() == 1

    use(setup, bench, work)
    assert (ended, bench.arrived(), bench.used()) == ([], ["hang"], 1)


@pytest.mark.parametrize(("setup", "way"), LOCAL_WAYS)
def test_an_interrupt_passes_and_gives_its_charge_back(setup: Setup, way: str, tmp_path: Path) -> None:
    """A-1.5: the graph runs the call again when it is resumed, and charges it then."""
    bench, bare = Bench(tmp_path), Bench(tmp_path)
    wholes: list[Any] = []

    async def work(line: Line) -> None:
        wholes.append((await line.call("pause", {}, way)).whole)

    use(setup, bench, work)
    use(setup.bare(), bare, work)
    assert wholes[0] == wholes[1]
    assert (bench.arrived(), bench.used(), bench.decisions()) == (["pause"], 0, [("pause", "allowed")])


# --- whose guard, whose call ----------------------------------------------------------------------------------------


@EVERY
def test_counters_belong_to_the_guard(setup: Setup, tmp_path: Path) -> None:
    """A-1.6: a fresh session, tool or agent for each call is still one agent."""
    bench = Bench(tmp_path, {"stripe": policy(1)})
    reasons: list[Any] = []

    async def work(line: Line) -> None:
        reasons.append(why(setup, await line.call("look")))

    for _ in range(2):
        use(setup, bench, work)
    assert (reasons, bench.arrived()) == ([None, "limit_exceeded"], ["look"])


@EVERY_WAY
def test_hidden_tools_vanish_and_are_denied(setup: Setup, way: str, tmp_path: Path) -> None:
    """A-1.8: from lists where the adapter has any, and from calls everywhere."""
    bench = Bench(tmp_path)

    async def work(line: Line) -> None:
        if setup.lists:
            visible = await line.visible()
            assert "look" in visible
            assert "secret" not in visible
        assert why(setup, await line.call("secret", {}, way)) == "hidden"

    use(setup, bench, work)
    assert bench.arrived() == []


@EVERY_WAY
def test_a_denial_tells_programs_why_and_shows_no_argument(
    setup: Setup, way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A-1.9, PL-6: no value of an argument is in its text, its decision, its span or the log."""
    bench = Bench(tmp_path, {"stripe": policy(1)})
    asked: list[Any] = [
        ("secret", {"note": CANARY}, "hidden"),
        ("echo", {"note": CANARY, "grant": CANARY}, "undecidable"),
        ("pay", {"amount": 50, "note": CANARY}, "requirement_unmet"),
        ("pay", {"amount": 1, "note": "x"}, None),
        ("pay", {"amount": 1, "note": CANARY}, "limit_exceeded"),
    ]
    caplog.set_level(logging.DEBUG, "mcp_policy_middleware")

    async def work(line: Line) -> None:
        for tool, arguments, reason in asked:
            answer = await line.call(tool, arguments, way)
            assert why(setup, answer) == reason
            if answer.decision is not None:
                assert {*answer.decision} - {"message"} == {
                    "decision_id", "effect", "reason", "rule", "retry_after", "approval"
                }  # fmt: skip
                assert CANARY not in repr((answer.text, answer.decision, answer.whole, answer.error))

    use(setup, bench, work)
    spans = [(each.name, dict(each.attributes or {})) for each in bench.spans.get_finished_spans()]
    assert len(spans) == len(asked)
    assert CANARY not in repr(spans)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("mcp_policy_middleware")]
    assert CANARY not in repr(ours)


@EVERY_WAY
def test_identity_comes_from_the_application(setup: Setup, way: str, tmp_path: Path) -> None:
    """A-1.10: `identity_of` says whose call it is, and arguments of those names say nothing."""
    forged = {"grant": "mallory", "session": "s-9", "context": "c", "server": "shop"}
    bench = Bench(tmp_path, identity_of=lambda seen: {"grant": "alice"})
    other = Bench(tmp_path)

    async def work(line: Line) -> None:
        assert why(setup, await line.call("echo", forged, way)) is None

    use(setup, bench, work)
    assert [bench.used(grant=name) for name in ("alice", "mallory", "default")] == [1, 0, 0]
    use(setup, other, work)
    assert [other.used(grant=name) for name in ("default", "alice", "mallory")] == [1, 0, 0]


@EVERY_WAY
def test_a_call_whose_identity_cannot_be_told_is_denied(setup: Setup, way: str, tmp_path: Path) -> None:
    """A-1.10: it does not fall back to the guard's own grant."""

    def fails(seen: Any) -> dict[str, Any]:
        raise LookupError("nobody is logged in")

    bench = Bench(tmp_path, identity_of=fails)

    async def work(line: Line) -> None:
        assert why(setup, await line.call("look", {}, way)) == "invalid_call"

    use(setup, bench, work)
    assert (bench.arrived(), bench.used()) == ([], 0)


@EVERY
def test_a_tool_name_of_two_servers_is_two_tools(setup: Setup, tmp_path: Path) -> None:
    """A-4: each meets the policy of its own server, and counters are apart."""
    bench = Bench(tmp_path, {"stripe": policy(1), "shop": policy(1, hide=["secret", "pay"])})
    reasons: list[Any] = []

    async def work(line: Line) -> None:
        for tool, arguments in (("look", {}), ("look", {}), ("pay", {"amount": 1})):
            reasons.append(why(setup, await line.call(tool, arguments)))

    for server in ("stripe", "shop", "elsewhere"):
        use(setup, bench, work, server=server)
    assert reasons == [
        *(None, "limit_exceeded", "limit_exceeded"),
        *(None, "limit_exceeded", "hidden"),
        *("no_policy", "no_policy", "no_policy"),
    ]
    assert bench.arrived() == ["look", "look"]


# --- at once --------------------------------------------------------------------------------------------------------


@EVERY_WAY
def test_calls_at_once_are_charged_each(setup: Setup, way: str, tmp_path: Path) -> None:
    """Two calls that are inside together."""
    bench = Bench(tmp_path)

    async def work(line: Line) -> None:
        answers = await line.batch([("meet", {}), ("meet", {})], way)
        assert [(why(setup, each), each.error) for each in answers] == [(None, None)] * 2

    use(setup, bench, work)
    assert (bench.used(), bench.decisions()) == (2, [("meet", "allowed")] * 2)


@EVERY_WAY
def test_a_limit_admits_exactly_as_many_as_it_says(setup: Setup, way: str, tmp_path: Path) -> None:
    """Of eight calls at once, three."""
    bench = Bench(tmp_path, {"stripe": policy(3)})

    async def work(line: Line) -> None:
        answers = await line.batch([("look", {})] * 8, way)
        reasons = [why(setup, each) for each in answers]
        assert (reasons.count(None), reasons.count("limit_exceeded")) == (3, 5)

    use(setup, bench, work)
    assert (bench.arrived(), bench.used()) == (["look"] * 3, 3)


# --- the guard's own state ------------------------------------------------------------------------------------------


@EVERY_WAY
def test_a_suspended_guard_denies(setup: Setup, way: str, tmp_path: Path) -> None:
    """From the next call on, and until it is resumed."""
    bench = Bench(tmp_path)

    async def work(line: Line) -> None:
        bench.guard.suspend("an incident")
        assert why(setup, await line.call("look", {}, way)) == "suspended"
        bench.guard.resume()
        assert why(setup, await line.call("look", {}, way)) is None

    use(setup, bench, work)
    assert bench.arrived() == ["look"]


@EVERY_WAY
def test_shadow_mode_lets_go_and_records(setup: Setup, way: str, tmp_path: Path) -> None:
    """PL-4.4: nothing is withheld, and the span says what would have been denied."""
    bench = Bench(tmp_path, mode="shadow")

    async def work(line: Line) -> None:
        if setup.lists:
            assert "secret" in await line.visible()
        for tool, arguments in (("secret", {}), ("pay", {"amount": 50})):
            answer = await line.call(tool, arguments, way)
            assert (why(setup, answer), answer.is_error) == (None, False)

    use(setup, bench, work)
    assert bench.arrived() == ["secret", "pay"]
    assert bench.decisions() == [("secret", "hidden"), ("pay", "requirement_unmet")]
    assert {(each.attributes or {})["mcp_policy.enforced"] for each in bench.spans.get_finished_spans()} == {False}


class Failing(MemoryStore):
    """A store that cannot count."""

    error: Exception

    def reserve(self, charges: Any, now: float) -> Any:
        raise self.error


@EVERY_WAY
def test_what_fails_while_deciding_denies(setup: Setup, way: str, tmp_path: Path) -> None:
    """A-4: LangChain takes a `NotImplementedError` of a callback for one that is not there, and would go on."""
    store = Failing()
    bench = Bench(tmp_path, store=store)

    async def work(line: Line) -> None:
        for store.error, reason in (
            (StoreError("away"), Reason.STORE_UNAVAILABLE),
            (NotImplementedError("not yet"), Reason.EVALUATION_ERROR),
            (KeyError("odd"), Reason.EVALUATION_ERROR),
        ):
            assert why(setup, await line.call("look", {}, way)) == reason

    use(setup, bench, work)
    assert bench.arrived() == []


@EVERY_WAY
def test_a_reload_takes_effect_between_two_calls(setup: Setup, way: str, tmp_path: Path) -> None:
    """The same session, tool or agent meets the new policy; counters go on."""
    bench = Bench(tmp_path)

    async def work(line: Line) -> None:
        assert why(setup, await line.call("look", {}, way)) is None
        bench.guard.reload({"stripe": policy(hide=["look", "secret"])})
        assert why(setup, await line.call("look", {}, way)) == "hidden"
        bench.guard.reload({"stripe": policy(2)})
        assert why(setup, await line.call("look", {}, way)) is None
        assert why(setup, await line.call("look", {}, way)) == "limit_exceeded"

    use(setup, bench, work)
    assert (bench.arrived(), bench.used()) == (["look", "look"], 2)


# --- two layers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("setup", "way"), STACKS)
def test_two_layers_of_one_guard_decide_a_call_once(setup: Setup, way: str, tmp_path: Path) -> None:
    """Architecture 2: one charge and one span a call, one settlement, and what is denied goes nowhere."""
    bench = Bench(tmp_path)

    async def work(line: Line) -> None:
        assert (await line.call("pay", {"amount": 1}, way)).decision is None
        assert (bench.used(), bench.decisions()) == (1, [("pay", "allowed")])
        denied = await line.call("pay", {"amount": 50}, way)
        assert (denied.text, bench.used()) == (f"[POLICY DENIED] {NO}", 1)
        assert bench.decisions()[1:] == [("pay", "requirement_unmet")]
        answers = await line.batch([("meet", {}), ("meet", {})], way)
        assert [each.error for each in answers] == [None, None]
        assert (bench.used(), bench.decisions()[2:]) == (3, [("meet", "allowed")] * 2)
        await line.call("reject", {"code": -32602}, way)
        assert (bench.used(), bench.decisions()[4:]) == (3, [("reject", "allowed")])

    use(setup, bench, work)
    assert bench.arrived() == ["pay", "meet", "meet", "reject"]


@pytest.mark.parametrize("setup", OVER_SESSIONS, ids=lambda each: each.name)
def test_an_inner_layer_decides_what_it_sees(setup: Setup, tmp_path: Path) -> None:
    """A-2: a tool that sends other arguments is checked again under one charge; another tool is another call."""
    bench = Bench(tmp_path)

    async def work(line: Line) -> None:
        line.sends = lambda name, arguments: ("pay", {"amount": 50})
        answer = await line.call("pay", {"amount": 1})
        assert (answer.is_error, answer.text) == (True, f"[POLICY DENIED] {NO}")
        assert (bench.arrived(), bench.used()) == ([], 0)
        assert bench.decisions() == [("pay", "allowed"), ("pay", "requirement_unmet")]
        line.sends = lambda name, arguments: ("pay", {"amount": 2})
        assert not (await line.call("pay", {"amount": 1})).is_error
        assert (bench.used(), bench.decisions()[2:]) == (1, [("pay", "allowed")])
        line.sends = lambda name, arguments: ("look", {})
        assert not (await line.call("pay", {"amount": 1})).is_error
        assert (bench.used(), bench.decisions()[3:]) == (3, [("pay", "allowed"), ("look", "allowed")])

    use(setup, bench, work)
    assert bench.arrived() == ["pay", "look"]


@pytest.mark.parametrize("setup", OVER_SESSIONS, ids=lambda each: each.name)
def test_another_server_beneath_is_another_call(setup: Setup, tmp_path: Path) -> None:
    """Architecture 2: a decision for one server is none for a tool of the same name at another."""
    bench = Bench(tmp_path, {"stripe": policy(), "shop": policy(1)})

    async def work(line: Line) -> None:
        assert not (await line.call("look")).is_error
        assert (bench.used(), bench.used(server="shop")) == (1, 1)
        assert (await line.call("look")).is_error

    use(setup, bench, work, beneath="shop")
    assert (bench.arrived(), bench.used(server="shop")) == (["look"], 1)
