"""Intercept's YAML (PL-8): its own cases, each met or listed as a divergence, and what reads and what is refused."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_policy_middleware import Decision, DocumentError, Guard, Outcome, Policy, Problem, StoreError, ToolCall
from mcp_policy_middleware import parse_policy as parse
from mcp_policy_middleware.charges import MILLION, Charge, Refusal, Reservation, Window
from mcp_policy_middleware.engine.limits import Where, reading
from mcp_policy_middleware.policy.intercept import as_policy_json, translate
from mcp_policy_middleware.policy.intercept_grammar import InterceptDocument, InterceptRule
from mcp_policy_middleware.policy.model import Origin
from mcp_policy_middleware.stores import MemoryStore, Store

DATA = Path(__file__).parent / "data"
CASES: list[dict[str, Any]] = json.loads((DATA / "intercept_cases.json").read_text("utf-8"))
MORE: dict[str, Any] = json.loads((DATA / "intercept_aux_cases.json").read_text("utf-8"))
WILD: list[dict[str, Any]] = json.loads((DATA / "wild_policies.json").read_text("utf-8"))
DIVERGENCES: dict[str, Any] = json.loads((DATA / "divergences.json").read_text("utf-8"))
CALLS = {(entry["case"], entry["call"]): entry for entry in DIVERGENCES["calls"]}
VERDICTS = {entry["document"]: entry for entry in DIVERGENCES["documents"]}
STORES: dict[str, Callable[[Path], Store]] = {"memory": lambda _: MemoryStore()}
UPSTREAM = {  # the cases' error is -32603; their engine gives the charge back for any, as ours does for a rejection
    "ok": Outcome.RETURNED,
    "jsonrpc_error": Outcome.REJECTED,
    "tool_error": Outcome.RETURNED_ERROR,
    "lost": Outcome.UNKNOWN,
}
MORNING = "2026-01-15T10:30:00Z"


class Down(MemoryStore):
    """A store that cannot answer."""

    def peek(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """Fail."""
        raise StoreError("down")

    reserve = peek


def intercept(document: Any, name: str = "case.json") -> Policy:
    """A document's policy, read as Intercept's."""
    return parse(json.dumps(document), name, "intercept")


def unchecked(document: Any) -> Policy:
    """What a document means where nobody asks whether its keys go together, as Intercept's engine is tested."""
    return translate(InterceptDocument.model_validate(document), document, Origin("case"))


def refused(text: str, name: str = "p.yaml", dialect: Any = "intercept") -> tuple[Problem, ...]:
    """The problems of a document that must not read."""
    with pytest.raises(DocumentError) as caught:
        parse(text, name, dialect)
    return caught.value.problems


# ---- decisions


class Run:
    """The calls of one case, made in turn under a policy, with counters and a clock as the case gives them."""

    def __init__(self, store: Store, read: Callable[[Any], Policy]) -> None:
        self.store = store
        self.read = read
        self.now = datetime.fromisoformat(MORNING)

    def counter(self, name: str, amount: int = 0) -> Charge:
        """The very counter that the policy reads or limits, and what to add to it."""
        looked_at = reading(name, self.windows.get(name, "day"))
        looked_at.amount = amount
        return looked_at.charge(Where(None, "default", None, "any"))

    def used(self, name: str) -> int:
        """A counter's total, in millionths."""
        answer = self.store.peek((self.counter(name),), self.now.timestamp())
        assert isinstance(answer, Reservation)
        return answer.used[0]

    def decisions(self, case: dict[str, Any], ask: Callable[..., Decision]) -> list[Decision]:
        """Decide every call."""
        made = []
        document = case["policy"]
        for call in case["calls"]:
            document = call.get("policy", document)
            self.policy = self.read(document)
            self.windows = unchecked(document).origin.windows
            self.now = datetime.fromisoformat(call.get("at", MORNING))
            for name, state in call.get("state", {}).items():
                missing = state["value"] * MILLION - self.used(name)
                self.store.reserve((self.counter(name, missing),), self.now.timestamp())
            store = Down() if "backend" in call else self.store
            guard = Guard(self.policy, store=store, clock=lambda: self.now, telemetry=False)
            made.append(ask(guard, ToolCall(call["tool"], call["args"]), UPSTREAM[call.get("upstream", "ok")]))
        return made


def by_sync(guard: Guard, call: ToolCall, outcome: Outcome) -> Decision:
    """Explain, decide and settle by the sync driver."""
    explained = guard.explain(call)
    decision = guard.begin(call)
    guard.finish(decision, outcome)
    assert (explained.effect, explained.rule) == (decision.effect, decision.rule)
    return decision


def by_async(guard: Guard, call: ToolCall, outcome: Outcome) -> Decision:
    """Explain, decide and settle by the async driver."""

    async def main() -> Decision:
        explained = await guard.aexplain(call)
        decision = await guard.abegin(call)
        await guard.afinish(decision, outcome)
        assert (explained.effect, explained.rule) == (decision.effect, decision.rule)
        return decision

    return asyncio.run(main())


def seen(decision: Decision) -> dict[str, str]:
    """What a divergence lists of a decision."""
    whole = decision.as_dict()
    return {key: whole[key] for key in ("effect", "reason", "rule", "message")}


@pytest.mark.parametrize("store", STORES.values(), ids=STORES)
@pytest.mark.parametrize("driver", [by_sync, by_async], ids=["sync", "async"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_case_is_decided_as_intercept_does_or_as_a_listed_divergence(
    case: dict[str, Any], driver: Any, store: Any, tmp_path: Path
) -> None:
    """Every call of a case is decided, and counted, as Intercept does, or differently in the way that is listed."""
    run = Run(store(tmp_path), unchecked)
    for index, (decision, expected) in enumerate(zip(run.decisions(case, driver), case["expected"], strict=True)):
        entry = CALLS.get((case["id"], index))
        if entry is not None:
            assert seen(decision) == entry["ours"], (case["id"], index)
            continue
        assert (decision.allowed, decision.message) == (expected["allowed"], expected["message"]), (case["id"], index)
        if decision.reason == "limit_exceeded" and not expected["rule"]:
            names = {rule["name"] for tool in run.policy.origin.written["tools"].values() for rule in tool["rules"]}
            assert decision.rule in names  # the blanket divergence
        else:
            assert decision.rule == expected["rule"], (case["id"], index)
    if not any(name == case["id"] for name, _ in CALLS):
        for counter, total in case.get("counters_after", {}).items():
            assert run.used(counter) == total * MILLION, counter


@pytest.mark.parametrize("entry", DIVERGENCES["calls"], ids=lambda entry: f"{entry['case']}-{entry['call']}")
def test_listed_divergence_still_diverges(entry: dict[str, Any]) -> None:
    """A listed divergence says what both do, cites its section, and is no longer listed once both do the same."""
    (case,) = [case for case in CASES if case["id"] == entry["case"]]
    expected = case["expected"][entry["call"]]
    assert entry["intercept"] == expected
    ours = entry["ours"]
    assert (ours["effect"] == "allow", ours["message"]) != (expected["allowed"], expected["message"])
    assert re.fullmatch(r"PL-\d\.\d", entry["section"])
    assert entry["why"]


def test_few_cases_diverge() -> None:
    """No more than 25 of the 189 cases differ in effect or message."""
    assert len(CASES) == 189
    assert len({case for case, _ in CALLS}) <= 25


def test_arguments_that_are_no_object_are_denied() -> None:
    """What Intercept forwards unevaluated, arguments it cannot parse, is an invalid call (PL-8.3)."""
    guard = Guard(intercept({"version": "1", "tools": {"t": {"rules": []}}}), telemetry=False)
    assert guard.explain(ToolCall("t", [1])).reason == "invalid_call"


# ---- verdicts on documents


def pointer_of(error: str) -> str:
    """Where an error of Intercept's validator is, as a JSON Pointer."""
    place = re.match(r"[\w.\[\]*]+", error)[0]  # type: ignore[index]
    return "/" + re.sub(r"\[(\d+)\]", r"/\1", place).replace(".", "/")


VERDICT_ROWS = [(row["source_test"], row["policy"], row["errors"]) for row in MORE["validation"]] + [
    (case["id"], case["policy"], case.get("validation_errors", [])) for case in CASES
]


@pytest.mark.parametrize(("name", "document", "errors"), VERDICT_ROWS, ids=[row[0] for row in VERDICT_ROWS])
def test_verdict_on_a_document_is_intercepts_or_a_listed_divergence(
    name: str, document: dict[str, Any], errors: list[str]
) -> None:
    """What Intercept's validator accepts reads, and each of its errors is a problem in the same place."""
    reads = not errors
    if name in VERDICTS:
        assert VERDICTS[name]["intercept"] == ("reads" if reads else "refused")
        assert VERDICTS[name]["ours"] != VERDICTS[name]["intercept"]
        assert VERDICTS[name]["why"]
        reads = not reads
    if reads:
        assert intercept(document).digest == parse(json.dumps(document), "case.yaml", "intercept").digest
        return
    problems = refused(json.dumps(document), "case.json")
    assert all(problem.line == 1 and problem.message and problem.help for problem in problems)
    for error in errors:
        at = pointer_of(error)
        assert any((problem.pointer + "/").startswith(at + "/") for problem in problems), error


@pytest.mark.parametrize("row", MORE["rate_limit_parse"]["rows"], ids=lambda row: row["input"] or "empty")
def test_rate_limit_is_a_count_and_a_window(row: dict[str, Any]) -> None:
    """A rate limit that Intercept parses is a limit with that maximum and window; any other is refused."""
    document = {"version": "1", "tools": {"t": {"rules": [{"name": "r", "rate_limit": row["input"]}]}}}
    if row["error"]:
        (problem,) = refused(json.dumps(document), "case.json")
        assert problem.pointer == "/tools/t/rules/0/rate_limit"
    else:
        (limit,) = intercept(document).tools["t"].limits
        assert (limit.max, limit.window) == (row["count"], row["window"])


@pytest.mark.parametrize("row", MORE["desugar"], ids=lambda row: row["source_test"].rpartition(":")[2])
def test_defaults_and_shorthands_are_intercepts(row: dict[str, Any]) -> None:
    """What an author leaves out or writes short means what Intercept takes it for."""
    expected = row["expect"]
    if "default" in expected:
        assert intercept(row["policy"]).default == expected["default"]
        return
    rule = InterceptRule.model_validate(row["rule"])
    assert rule.action == expected.get("action", "evaluate")
    if "rate_limit" not in row["rule"]:
        assert rule.state is None or rule.state.increment == expected["state"]["increment"]
        return
    policy = intercept({"version": "1", "tools": {row["tool"]: {"rules": [row["rule"]]}}})
    (limit,) = policy.all_tools.limits if row["tool"] == "*" else policy.tools[row["tool"]].limits
    assert limit.on_deny == expected.get("on_deny", limit.on_deny)
    for condition in expected.get("conditions", ()):
        assert (f"state.{limit.counter}", "lte", limit.max) == tuple(condition.values())
    assert limit.increment is None


# ---- counters and lists


def charge(key: str, window: str, amount: int, limit: int) -> Charge:
    """One charge of a sequence."""
    length = MORE["window_duration"]["rows"][window]
    return Charge(key, Window(length), amount * MILLION, limit * MILLION)


SEQUENCES = [
    row for row in MORE["store_sequences"] if not {"reset", "reopen"} & {op["op"] for op in row.get("ops", ())}
]
"""Nobody resets a counter here, and what outlives a process is for the stores' own tests."""


@pytest.mark.parametrize("store", STORES.values(), ids=STORES)
@pytest.mark.parametrize("row", [row for row in SEQUENCES if "ops" in row], ids=lambda row: row["source_test"])
def test_counters_count_as_intercepts_do(row: dict[str, Any], store: Any, tmp_path: Path) -> None:
    """A sequence of reservations, releases and looks gives the totals that Intercept's stores give."""
    counters = store(tmp_path)
    windows: dict[str, str] = {}
    for op in row["ops"]:
        now = datetime.fromisoformat(op["at"]).timestamp()
        key = op.get("key") or op["path"].removeprefix("state.")
        windows.setdefault(key, op.get("window", "minute"))
        look = (charge(key, windows[key], 0, 9_007_199_254),)
        if op["op"] == "reserve":
            answer = counters.reserve((charge(key, op["window"], op["amount"], op["limit"]),), now)
            assert isinstance(answer, Reservation) is op["expect"]["allowed"]
        elif op["op"] == "rollback":
            back = charge(key, windows[key], op["amount"], 0)
            counters.release(Reservation((back,), (back.window.ends(now),), (0,)))
        total = counters.peek(look, now)
        if "expect" in op:
            assert total.used[0] == op["expect"]["value"] * MILLION
        if op.get("expect", {}).get("window_start"):
            starts = look[0].window.starts(total.windows[0])
            assert starts == datetime.fromisoformat(op["expect"]["window_start"]).timestamp()


@pytest.mark.parametrize("store", STORES.values(), ids=STORES)
@pytest.mark.parametrize("row", [row for row in SEQUENCES if "concurrent" in row], ids=lambda row: row["source_test"])
def test_racing_callers_never_pass_the_limit(row: dict[str, Any], store: Any, tmp_path: Path) -> None:
    """However many callers race, a counter ends at its limit."""
    counters, race = store(tmp_path), row["concurrent"]
    one = charge("k", race["window"], race["amount"], race["limit"])
    workers = [threading.Thread(target=counters.reserve, args=((one,), 0.0)) for _ in range(race["workers"])]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert counters.peek((charge("k", race["window"], 0, 10**9),), 0.0).used == (race["expect_final"] * MILLION,)


@pytest.mark.parametrize(
    "row", [row for row in MORE["tools_list_filter"] if "tools" in row], ids=lambda row: row["source_test"]
)
def test_hidden_tools_leave_the_list(row: dict[str, Any]) -> None:
    """The tools that `hide` names are taken from the list, and the others stay in their order."""
    guard = Guard(intercept({"version": "1", "hide": row["hidden"]}), telemetry=False)
    names = [tool["name"] for tool in row["tools"]]
    assert guard.visible(names) == (names if row.get("expect_unchanged") else row["expect_names"])


# ---- policies that vendors published

WHEN = [("when", "deny_if")]
ALLOWED = [("action", "default: deny"), ("name", "name: burst limit")]
WILD_PROBLEMS: dict[str, dict[str, list[tuple[str, str]]]] = {
    "supabase-recommended": {f"/tools/execute_sql/rules/{index}": WHEN for index in range(4)},
    "supabase-strict": {
        "/tools/list_projects/rules/0": ALLOWED,
        "/tools/get_cost/rules/0": ALLOWED,
        "/tools/execute_sql/rules/0": [*WHEN, ALLOWED[0]],
        "/tools/execute_sql/rules/1": [*WHEN, ALLOWED[0], ("rate_limit", "rate_limit")],
    },
    "stripe-recommended": {},
    "github-recommended": {
        "/tools/delete_file": [("hide", "hide: [delete_file]")],
        "/tools/delete_file/rules/0": [ALLOWED[1]],
    },
    "cloudflare-recommended": {"/tools/d1_database_delete/rules/0": [ALLOWED[1]]},
}


@pytest.mark.parametrize("wild", WILD, ids=lambda wild: wild["id"])
def test_published_policy_reads_or_is_refused_with_what_would_have_helped(wild: dict[str, Any], tmp_path: Path) -> None:
    """A vendor's policy decides as meant, or each ignored key, missing name and double counter is shown in its line."""
    text = yaml.safe_dump(wild["policy"], sort_keys=False)
    expected = {f"{base}/{key}": advice for base, keys in WILD_PROBLEMS[wild["id"]].items() for key, advice in keys}
    if not expected:
        run = Run(STORES["memory"](tmp_path), lambda _: parse(text, "p.yaml"))
        wanted = [row["allowed"] for row in wild["expected_if_validation_skipped"]]
        assert [decision.allowed for decision in run.decisions(wild, by_sync)] == wanted
        return
    problems = refused(text, "p.yaml", "auto")
    assert {problem.pointer for problem in problems} == set(expected)
    lines = text.splitlines()
    for problem in problems:
        word = problem.pointer.rpartition("/")[2]
        assert f"`{word}" in problem.message or "_rate_minute`" in problem.message
        assert expected[problem.pointer] in problem.help
        # a missing name is shown where its rule begins
        assert word in lines[problem.line - 1] or (word == "name" and lines[problem.line - 1].lstrip().startswith("- "))


# ---- what is refused, and in what words

EVALUATED = "conditions: [{path: args.x, op: eq, value: 1}]"
COUNTED = "conditions: [{path: state.t.c, op: lte, value: 5}], state: {counter: c, window: hour"
REFUSED = [  # a rule, the end of the problem's pointer, a word of the message
    (f"{{name: r, {EVALUATED}, when: {{}}}}", "when", "when"),
    (f"{{name: r, {EVALUATED}, reason: no}}", "reason", "reason"),
    (f"{{name: r, {EVALUATED}, require: []}}", "require", "require"),
    ("{rate_limit: 5/hour}", "name", "name"),
    ("{name: ' ', rate_limit: 5/hour}", "name", "name"),
    ("{name: 5, rate_limit: 5/hour}", "name", "name"),
    ("{name: r, action: allow}", "action", "allow"),
    ("{name: r}", "", None),
    ("{name: r, conditions: []}", "", None),
    (f"{{name: r, action: deny, {EVALUATED}}}", "conditions", "conditions"),
    ("{name: r, action: deny, rate_limit: 5/hour}", "rate_limit", "action: deny"),
    ("{name: r, action: require_approval, rate_limit: 5/hour}", "rate_limit", "action: require_approval"),
    ("{name: r, action: require_approval, state: {counter: c, window: day}}", "state", "state"),
    (f"{{name: r, rate_limit: 5/hour, {EVALUATED}}}", "rate_limit", "conditions"),
    ("{name: r, rate_limit: 5/hour, state: {counter: c, window: day}}", "rate_limit", "state"),
    ("{name: r, rate_limit: {max: 5, window: hour}}", "rate_limit", "rate_limit"),
    ("{name: r, rate_limit: 5}", "rate_limit", "rate_limit"),
    ("{name: r, rate_limit: 9007199255/hour}", "rate_limit", "rate_limit"),
    (f"{{name: r, {COUNTED}, increment: -1}}}}", "state/increment", "increment"),
    (f"{{name: r, {COUNTED}, increment: 1.5}}}}", "state/increment", "increment"),
    (f"{{name: r, {COUNTED}, increment: 1, increment_from: args.x}}}}", "state/increment_from", "increment"),
    (f"{{name: r, {COUNTED}, increment_from: amount}}}}", "state/increment_from", "amount"),
    (f"{{name: r, {COUNTED}, scope: session}}}}", "state/scope", "scope"),
    ("{name: r, conditions: [{path: state.t.c, op: lt, value: 1}]}", "conditions/0/path", "t.c"),
    ("{name: r, conditions: [{path: state.t, op: lt, value: 1}]}", "conditions/0/path", "t"),
    ("{name: r, conditions: [{path: call.tool, op: eq, value: t}]}", "conditions/0/path", "call.tool"),
    ("{name: r, conditions: [{path: args.p, op: path_within, value: [/tmp]}]}", "conditions/0/op", "path_within"),
    (
        "{name: r, conditions: [{path: state.t.c, op: lt, value: 1e10}], state: {counter: c, window: day}}",
        "conditions/0/value",
        "value",
    ),
    (f"{{name: r, {EVALUATED}, state: {{counter: c, window: week}}}}", "state/window", "week"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "end", "word"), REFUSED, ids=[row[0] for row in REFUSED])
def test_bad_rule_is_refused_in_its_place(rule: str, end: str, word: str | None) -> None:
    """A rule that Intercept would ignore, misread or never apply is one problem, in its line, with its own word."""
    text = f'version: "1"\ntools:\n  t:\n    rules:\n      - {rule}\n'
    (problem,) = refused(text, dialect="auto")
    assert problem.pointer == f"/tools/t/rules/0/{end}".rstrip("/")
    assert problem.line == 5
    assert word is None or f"`{word}`" in problem.message
    assert problem.message[0] == "`" or problem.message[0].islower()
    assert problem.help


def test_all_problems_come_together_in_the_order_of_the_document() -> None:
    """Problems of keys, of values and of what does not go together are reported in one reading."""
    text = """\
version: "2"
approvals: {}
hide: [a, a]
tools:
  x:
    hide: true
    rules:
      - {rate_limit: 1/hour}
      - {name: second, rate_limit: 2/hour}
  x.y:
    rules:
      - {name: r, conditions: [{path: state.x.y.z, op: lt, value: 1}], state: {counter: z, window: day}}
  "*":
    rules:
      - {name: r, conditions: [{path: state.x.y.a, op: lt, value: 1}], state: {counter: z, window: dya}}
"""
    problems = refused(text, dialect="auto")
    assert [(problem.line, problem.pointer) for problem in problems] == [
        (1, "/version"),
        (2, "/approvals"),
        (3, "/hide/1"),
        (6, "/tools/x/hide"),
        (8, "/tools/x/rules/0/name"),
        (9, "/tools/x/rules/1/rate_limit"),
        (15, "/tools/*/rules/0/conditions/0/path"),
        (15, "/tools/*/rules/0/state/window"),
    ]


def test_one_counter_of_two_tools_names_is_refused() -> None:
    """Tools whose names end where a counter's begins must not share a counter by accident."""
    rule = {"name": "r", "conditions": [{"path": "args.x", "op": "exists", "value": True}]}
    first, second = ({**rule, "state": {"counter": name, "window": "day"}} for name in ("b.c", "c"))
    document = {"version": "1", "tools": {"a": {"rules": [first]}, "a.b": {"rules": [second]}}}
    (problem,) = refused(json.dumps(document), "p.json")
    assert problem.pointer == "/tools/a.b/rules/0/state/counter"
    assert "`a.b.c`" in problem.message


MIXES = [  # a document, and the keys that are foreign to the language that most of it is in
    ({"version": "1", "tools": {"a": {"rules": []}, "b": {"rules": []}, "c": {"limits": []}}}, {"/tools/c/limits"}),
    ({"version": "1", "tools": {"a": {"rules": []}, "b": {"rules": []}}, "all_tools": {}}, {"/all_tools"}),
    ({"version": "1", "default": "deny", "tools": {"a": {"rules": [], "require": []}}}, {"/tools/a/rules"}),
    (
        {"version": "1", "default": "deny", "tools": {"a": {"rules": []}, "b": {"limits": []}}, "mode": "shadow"},
        {"/tools/a/rules"},
    ),
]


@pytest.mark.parametrize(("document", "foreign"), MIXES, ids=range(len(MIXES)))
def test_mix_of_two_languages_is_refused(document: Any, foreign: set[str]) -> None:
    """Keys of both languages in one document are refused, and the help says that it is one or the other (PL-1.3)."""
    problems = refused(json.dumps(document), "p.json", "auto")
    assert {problem.pointer for problem in problems} == foreign
    assert all("one language" in problem.help for problem in problems)


def test_the_dialect_is_told_by_rules_or_named() -> None:
    """A document whose tools hold `rules` is Intercept's, any other is so only where the caller says so (PL-1.3)."""
    assert parse('{"version": 1, "tools": {"t": {"rules": []}}}').default == "allow"
    bare = '{"version": "1", "tools": {}}'
    assert parse(bare, dialect="intercept").default == "allow"
    assert {problem.pointer for problem in refused(bare, "p.json", "auto")} == {"/default"}
    assert {problem.pointer for problem in refused('{"version": "1", "tools": {"t": {"deny_if": []}}}', "p.json")} == {
        "/tools/t/deny_if"
    }


# ---- what the cases do not say


def decided(rules: list[Any], arguments: Any, store: Store | None = None, tool: str = "t", **more: Any) -> Decision:
    """One call of `t` under these rules."""
    tools = {"t": {"rules": rules}, **more}
    return Guard(intercept({"version": "1", "tools": tools}), store=store or MemoryStore(), telemetry=False).begin(
        ToolCall(tool, arguments)
    )


def test_rule_that_asks_for_approval_asks_where_its_conditions_hold() -> None:
    """`require_approval` asks where all conditions hold or cannot be decided, and always without any (PL-8.1)."""
    large = {"name": "large", "action": "require_approval", "conditions": [{"path": "args.n", "op": "gt", "value": 9}]}
    for arguments, reason in [
        ({"n": 1}, "allowed"),
        ({"n": 10}, "approval_required"),
        ({"n": "x"}, "approval_required"),
    ]:
        assert decided([large], arguments).reason == reason
    always = decided([{"name": "always", "action": "require_approval", "on_deny": "ask ops"}], {})
    assert (always.reason, always.rule) == ("approval_required", "always")
    assert "ask ops" in always.message


def test_condition_may_read_the_counter_of_another_tool() -> None:
    """A condition on a counter that another rule counts sees its total in that rule's window (PL-8.2)."""
    store = MemoryStore()
    cap = {
        "name": "cap",
        "conditions": [{"path": "state.u.n", "op": "lt", "value": 3}],
        "state": {"counter": "n", "window": "hour"},
    }
    rule = {"name": "used", "conditions": [{"path": "state.u.n", "op": "gte", "value": 1}]}
    more = {"u": {"rules": [cap]}}
    before = decided([rule], {}, store, **more)
    assert (before.reason, before.rule) == ("requirement_unmet", "used")
    assert decided([rule], {}, store, "u", **more).allowed
    assert decided([rule], {}, store, **more).allowed
    assert decided([rule], {}, Down(), **more).reason == "store_unavailable"


def test_ceiling_below_zero_denies_every_call() -> None:
    """A counter that must stay below zero is a requirement that no call meets, with the rule's own text."""
    rule = {
        "name": "shut",
        "conditions": [{"path": "state.t.c", "op": "lt", "value": 0}],
        "state": {"counter": "c", "window": "day"},
    }
    decision = decided([rule], {})
    assert (decision.reason, decision.rule) == ("requirement_unmet", "shut")
    assert decision.message == 'Denied by rule "shut"'


@pytest.mark.parametrize(
    ("op", "value", "state", "most"),
    [
        ("lte", 12, {}, 12),
        ("lt", 12, {"increment": 5}, 11),
        ("lt", 2.5, {}, 2),
        ("lt", 10, {"increment_from": "args.n"}, 9.999999),
        ("lt", 2.0000001, {"increment_from": "args.n"}, 2),
        ("lte", 2.5, {"increment_from": "args.n"}, 2.5),
    ],
)
def test_ceiling_is_the_largest_total_that_the_condition_admits(op: str, value: Any, state: Any, most: Any) -> None:
    """`lte N` is a limit of N, `lt N` one of the largest total below N, in millionths where amounts are given."""
    rule = {
        "name": "cap",
        "conditions": [{"path": "state.t.c", "op": op, "value": value}],
        "state": {"counter": "c", "window": "day", **state},
    }
    (limit,) = intercept({"version": "1", "tools": {"t": {"rules": [rule]}}}).tools["t"].limits
    assert limit.max == most


def test_digest_goes_by_what_the_author_wrote() -> None:
    """A rule's name changes the digest, although the rule decides the same (PL-9.3)."""
    first, second = (
        intercept({"version": "1", "tools": {"t": {"rules": [{"name": name, "action": "deny"}]}}}) for name in "ab"
    )
    assert first.as_written() != second.as_written()
    assert first.digest != second.digest
    assert first.digest != parse(json.dumps(as_policy_json(first))).digest


# ---- the same in policy.json


def converted(document: Any) -> Policy:
    """The document as policy.json, read again."""
    return parse(json.dumps(as_policy_json(unchecked(document))), "case.json", "policy.json")


UNSAYABLE = {"ic-049", "ic-050", "ic-051", "ic-052", "ic-053", "ic-172", "ic-173", "ic-180", "ic-182"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_converted_policy_decides_the_same(case: dict[str, Any]) -> None:
    """A policy written as policy.json decides every call of a case alike, or is refused for what it cannot say."""
    if case["id"] in UNSAYABLE:
        with pytest.raises(DocumentError) as caught:
            converted(case["policy"])
        assert all(problem.pointer.startswith(("/tools/", "/hide/")) for problem in caught.value.problems)
        return
    wanted = Run(MemoryStore(), unchecked).decisions(case, by_sync)
    got = Run(MemoryStore(), converted).decisions(case, by_sync)
    assert [decision.effect for decision in got] == [decision.effect for decision in wanted]


def test_conversion_is_as_portable_as_the_policy_allows() -> None:
    """Rules become what every reader of policy.json knows, where there is a word for them (PL-1.7)."""
    document = {
        "version": 1,
        "description": "d",
        "hide": ["h"],
        "tools": {
            "deny": {"rules": [{"name": "no", "action": "deny", "on_deny": "never"}]},
            "free": {"rules": []},
            "some": {
                "rules": [
                    {"name": "a", "conditions": [{"path": "args.x.y", "op": "lte", "value": 5}], "on_deny": "too much"},
                    {"name": "b", "rate_limit": "5/hour"},
                ]
            },
            "*": {"rules": [{"name": "c", "rate_limit": "9/minute", "on_deny": "slow"}]},
        },
    }
    hourly = "Rate limit of 5 per hour reached. Try again later."
    assert as_policy_json(intercept(document)) == {
        "version": "1",
        "default": "allow",
        "description": "d",
        "hide": ["h"],
        "tools": {
            "deny": {"deny_if": [{"conditions": [], "on_deny": "never"}]},
            "free": {},
            "some": {
                "require": [{"conditions": [{"path": "args.x.y", "op": "lte", "value": 5}], "on_deny": "too much"}],
                "limits": [{"counter": "some._rate_hour", "window": "hour", "max": 5, "on_deny": hourly}],
            },
        },
        "all_tools": {"limits": [{"counter": "_global._rate_minute", "window": "minute", "max": 9, "on_deny": "slow"}]},
    }


def test_policy_json_is_its_own_conversion() -> None:
    """A document that is policy.json already is given back as it was written."""
    document = {
        "version": "1",
        "default": "deny",
        "tools": {"t": {"limits": [{"counter": "c", "window": 5, "max": 1}]}},
    }
    assert as_policy_json(parse(json.dumps(document))) == document


# ---- anything reads or raises the one error

WORDS = st.sampled_from(
    ["args.", "args.a", "args.a..b", 'args.a["b"]', "state.t.c", "state._global.c", "state.t._rate_hour", "lt", "lte",
     "gt", "in", "regex", "exists", "deny", "allow", "evaluate", "require_approval", "hour", "day", "1", "*", "t", "c",
     "3/hour", "0/day", "99999999999999999999/day"]
)  # fmt: skip
VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS


def objects(*keys: str, **values: Any) -> Any:
    """Objects that hold some of the keys, mostly with values that fit them."""
    spoilt = st.fixed_dictionaries({}, optional={key: values.get(key, VALUES) | VALUES for key in (*keys, *values)})
    return st.fixed_dictionaries(values) | spoilt


COUNTERS = ["t.c", "t._rate_hour", "_global.c"]
PATHS = st.sampled_from(["args.", "args.a", "args.a..b", 'args.a["b"]', *(f"state.{name}" for name in COUNTERS)])
CONDITIONS = objects(
    path=PATHS, op=st.sampled_from(["lt", "lte", "gt", "eq"]), value=st.integers(-1, 9) | st.floats(0, 9)
)
RULES = (
    st.fixed_dictionaries({"name": st.just("n"), "action": st.just("deny")})
    | st.fixed_dictionaries({"name": st.just("n"), "rate_limit": WORDS})
    | st.fixed_dictionaries({
        "name": st.just("n"),
        "conditions": st.lists(CONDITIONS, min_size=1, max_size=2),
        "state": objects(counter=st.just("c"), window=st.just("day")),
    })
    | objects(
        name=WORDS, action=WORDS, rate_limit=WORDS, when=VALUES, conditions=st.lists(CONDITIONS, max_size=2),
        state=objects(counter=WORDS, window=WORDS, increment=VALUES, increment_from=WORDS),
    )
)  # fmt: skip
DOCUMENTS = objects(
    version=st.just("1"), default=st.just("allow"), hide=st.lists(WORDS, max_size=2, unique=True),
    tools=st.dictionaries(st.sampled_from(["t", "*", "c"]), objects(rules=st.lists(RULES, max_size=2)), max_size=2),
)  # fmt: skip


def result(step: Callable[[], Any]) -> Any:
    """What a step gives, or None where it refuses with problems."""
    try:
        return step()
    except DocumentError as error:
        found = error
    assert found.problems
    return None


@settings(max_examples=400, deadline=None)
@given(document=DOCUMENTS)
def test_any_document_reads_or_is_refused_and_converts_or_is_refused(document: Any) -> None:
    """Nothing but a `DocumentError` comes out of reading and of converting, and what is converted reads."""
    policy = result(lambda: intercept(document))
    if policy is not None:
        assert Guard(policy, store=MemoryStore(), telemetry=False).explain(ToolCall("t", {"a": 1})).reason
        written = result(lambda: as_policy_json(policy))
        assert written is None or parse(json.dumps(written), "p.json", "policy.json").digest
