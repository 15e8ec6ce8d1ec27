"""What people look at: escaped whatever it holds, without values of arguments, the same in HTML and in text."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import pytest

from mcp_policy_middleware import UNNAMED, Guard, Outcome, Policy, Reason, ToolCall, parse_policy
from mcp_policy_middleware.approvals import Answer
from mcp_policy_middleware.calls import Approval, Decision
from mcp_policy_middleware.engine.trace import Trace
from mcp_policy_middleware.errors import StoreError
from mcp_policy_middleware.notebook import DecisionLog, decision_table
from mcp_policy_middleware.stores import MemoryStore
from mcp_policy_middleware.views.table import Viewed

CANARY = "canary-7f3a"
NUMBER = 918273.645
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "&lt;b&gt;</td></tr></table><style>*{display:none}</style>",
    "evil\u202etxt.exe",
    "nul\x00and\x1b[31mred\x1b[0m\r\nnew line",
    "half\ud800a pair",
    "$$\\href{javascript:alert(1)}{x}$$",
    "un\u115fseen\u3164",
]
TAGS = {"div", "p", "bdi", "code", "span", "table", "thead", "tbody", "tr", "th", "td", "br"}
VOID = {"br"}


class Page(HTMLParser):
    """What a browser makes of a piece of HTML: its tags, its attributes, its rows, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= set(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "br":
            self.rows[-1][-1] += "|"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    handle_decl = handle_pi = unknown_decl = handle_comment

    def facts(self) -> dict[str, str]:
        """Rows of a name and what it is."""
        return dict(row for row in self.rows if len(row) == 2)


def page(view: Viewed) -> Page:
    return Page(view._repr_html_())


def policy_of(tools: dict[str, Any], name: str = "policy", **document: Any) -> Policy:
    return parse_policy(json.dumps({"version": "1", "default": "deny", "tools": tools, **document}), name)


def condition(path: str, op: str, value: Any) -> dict[str, Any]:
    return {"conditions": [{"path": f"args.{path}", "op": op, "value": value}]}


def views_of(text: str, argument: Any = None) -> list[Viewed]:
    """A policy, a trace, decisions, a table of them and a log, with a text wherever a stranger may put one."""
    harmless = text.encode("utf-8", "replace").decode()  # a document cannot hold half a pair
    rules = {
        "require": [{**condition("a", "exists", True), "on_deny": harmless}, condition("a", "neq", harmless)],
        "limits": [{"counter": harmless, "window": "hour", "max": 10**6, "increment_from": "args.n"}],
    }
    tools = {harmless: rules, "other": {"action": "deny", "reason": harmless}}
    policy = policy_of(tools, harmless, description=harmless, hide=[harmless + "hidden"])
    log = DecisionLog()
    guard = Guard(policy, audit=log, grant=harmless, session=harmless)
    calls = [
        ToolCall(tool, arguments, server=server)
        for tool in (text, harmless, "other", harmless + "hidden")
        for arguments in ({"a": argument, "n": NUMBER}, {"n": NUMBER}, {text: argument}, argument)
        for server in (harmless, UNNAMED, None)
    ]
    decisions = [guard.begin(call) for call in calls]
    answered = Approval(text, "denied", text, text, 1_768_471_200.0, text)
    decisions.append(Decision(calls[0], text, text, Reason.APPROVAL_DENIED, text, text, approval=answered, error=text))
    log.decided(decisions[-1])
    return [policy, log, decision_table(decisions), *decisions, *[guard.trace(call) for call in calls]]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_hostile_gets_out_of_its_cell(text: str) -> None:
    """Whatever a name or a message holds, the page has the tags and attributes that a harmless one has."""
    attributes = set().union(*[page(view).attributes for view in views_of("harmless")])
    assert {name for name, _ in attributes} == {"class", "style", "scope"}
    for view in views_of(text):
        shown = page(view)
        assert shown.tags <= TAGS
        assert shown.attributes <= attributes
        assert shown.text.isprintable()
        assert str(view).replace("\n", "").isprintable()


def test_no_formula_is_read_into_a_page_and_nothing_is_loaded() -> None:
    """A notebook typesets what it takes for a formula, unless a class forbids it; there is no address at all."""
    for view in views_of("harmless"):
        html = view._repr_html_()
        assert re.match(r'<div class="[^"]*\btex2jax_ignore mathjax_ignore"', html)
        assert not re.search(r"url\(|https?:|@import|expression", html)


def test_a_hostile_name_is_still_to_be_read() -> None:
    """What is escaped is shown, not dropped."""
    decision = Guard(policy_of({})).explain(ToolCall("<b>\x00\u202e</b>", {}))
    assert "<b>\\x00\\u202e</b>" in page(decision).text
    assert "<b>\\x00\\u202e</b>" in str(decision)


def test_a_long_text_is_cut() -> None:
    """A megabyte of message, of name or of description does not fill a screen."""
    text = "x" * 1_000_000
    decision = Decision(ToolCall(text, {}), text, text, Reason.RULE_DENIED, text, text)
    assert len(str(decision)) < 5_000
    assert len(decision._repr_html_()) < 10_000


@pytest.mark.parametrize("value", [CANARY, [CANARY], {CANARY: CANARY}, NUMBER])
def test_no_value_of_an_argument_is_shown(value: Any) -> None:
    """Not as itself, and not as an amount that it charged."""
    for view in views_of("harmless", value):
        for shown in (view._repr_html_(), str(view), "" if isinstance(view, Policy | Trace) else repr(view)):
            assert CANARY not in shown
            assert "918273" not in shown.replace(",", "")


def test_a_notebook_gets_html_and_a_terminal_text() -> None:
    """As IPython asks for them; in a list, a decision stays one line."""
    formatters = pytest.importorskip("IPython.core.formatters")
    decision = Guard(policy_of({})).explain(ToolCall("t", {}))
    data, _ = formatters.DisplayFormatter().format(decision)
    assert data == {"text/plain": str(decision), "text/html": decision._repr_html_()}
    listed, _ = formatters.DisplayFormatter().format([decision])
    assert "\n" not in listed["text/plain"]


def looked_at(rules: dict[str, Any], arguments: Any = None, **guard: Any) -> Decision:
    return Guard(policy_of({"t": rules}), **guard).explain(ToolCall("t", arguments or {}, server="s"))


class Down(MemoryStore):
    """A store that cannot answer."""

    def peek(self, charges: Any, now: float) -> Any:
        raise StoreError("down")

    reserve = peek


@pytest.mark.parametrize(
    ("rules", "settings", "said"),
    [
        ({}, {}, "allow"),
        ({"action": "deny"}, {}, "deny"),
        ({"action": "deny"}, {"mode": "shadow"}, "deny, not enforced"),
        (
            {"rate_limit": {"max": 1, "window": "hour"}},
            {"store": Down(), "on_store_failure": "allow"},
            "allow, uncounted",
        ),
    ],
)
def test_the_answer_and_whether_it_holds(rules: dict[str, Any], settings: dict[str, Any], said: str) -> None:
    """An answer in words, not in colour alone, of which tool on which server."""
    decision = looked_at(rules, **settings)
    for text in (page(decision).text, str(decision).splitlines()[0]):
        assert text.replace(" ", "").startswith(f"{said} t on s".replace(" ", ""))


def test_a_denial_says_why_and_when() -> None:
    """The reason, the rule, the author's message, and when it is worth trying again."""
    policy = policy_of({"t": {"limits": [{"counter": "c", "window": "hour", "max": 1, "on_deny": "One an hour."}]}})
    guard = Guard(policy, session="run-1")
    guard.begin(ToolCall("t", {}))
    decision = guard.begin(ToolCall("t", {}))
    facts = page(decision).facts()
    assert facts == {
        "reason": "limit_exceeded",
        "rule": "/tools/t/limits/c",
        "message": "One an hour.",
        "try again in": f"{decision.retry_after} s",
        "grant": "default",
        "session": "run-1",
        "policy": f"policy, {policy.digest[:19]}",
        "decision id": decision.decision_id,
    }
    told = dict(re.split(" {2,}", line.strip(), maxsplit=1) for line in str(decision).splitlines()[1:])
    assert told == facts


def test_an_approval_is_shown_with_its_state_who_when_and_why() -> None:
    """Of a person who was really asked."""

    def ask(request: Any) -> Answer:
        return Answer(approved=False, by="ann", why="not this month")

    decision = Guard(policy_of({"t": {"action": "require_approval"}}), approver=ask).begin(ToolCall("t", {}))
    for shown in (page(decision).facts()["approval"], page(decision_table([decision])).rows[1][-1]):
        state, at, why = shown.split("|")
        assert state == "denied by ann"
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", at)
        assert why == "“not this month”"
    assert all(word in str(decision) for word in ("denied by ann", "not this month"))


def test_a_table_of_decisions() -> None:
    """One row each, in the order given; columns that say nothing are left out."""
    guard = Guard(policy_of({"a": {}, "b": {"action": "deny", "reason": "No."}}))
    decisions = [guard.explain(ToolCall(tool, {})) for tool in "ab"]
    shown = page(decision_table(decisions))
    assert shown.rows == [
        ["tool", "effect", "reason"],
        ["a", "allow", "allowed"],
        ["b", "deny", "rule_denied|No.|/tools/b/action"],
    ]
    lines = [line.split() for line in str(decision_table(decisions)).splitlines()]
    assert lines.pop(1) == ["----", "------", "---------------"]
    assert lines == [*shown.rows[:2], ["b", "deny", "rule_denied"], ["No."], ["/tools/b/action"]]
    assert page(decision_table([])).rows == []


def test_a_policy_is_a_row_a_tool() -> None:
    """What the author wrote of each, and what holds for every tool."""
    limits = [
        {"counter": "spent", "window": 90, "max": 5000, "scope": "global", "increment_from": "args.n"},
        {"counter": "calls", "window": "day", "max": 10, "increment": 2},
    ]
    policy = policy_of(
        {
            "pay": {
                "only_arguments": ["n", "to"],
                "require": [condition("n", "lte", 100)],
                "deny_if": [{"conditions": []}],
                "require_approval_if": [
                    {
                        "conditions": [
                            *condition("n", "gt", 50)["conditions"],
                            *condition("to", "in", ["a"])["conditions"],
                        ]
                    }
                ],
                "limits": limits,
                "rate_limit": {"max": 3, "window": "minute"},
                "mode": "shadow",
            },
            "drop": {"action": "deny", "mode": "enforce"},
            "ask": {"action": "require_approval", "only_arguments": []},
        },
        "shop.json",
        description="For the shop.",
        hide=["wipe", "admin_*"],
        all_tools={"deny_if": [condition("x", "exists", True)]},
        mode="shadow",
    )
    shown = page(policy)
    assert shown.text.startswith("shop.json default deny not enforced")
    assert shown.facts() == {"description": "For the shop.", "hidden": "wipe, admin_*", "digest": policy.digest}
    asked = 'ask a person if args.n gt 50 and args.to in ["a"]'
    rules = f"only the arguments n, to|require args.n lte 100|deny if any call|{asked}"
    charged = "spent: 5,000 per 90 s, by global, a call adds args.n|calls: 10 per day, by grant, a call adds 2"
    assert shown.rows[3:] == [
        ["tool", "answer", "rules", "limits"],
        ["every tool", "", "deny if args.x exists true", ""],
        ["pay", "allow|not enforced", rules, f"{charged}|3 calls per minute, by session"],
        ["drop", "deny|enforced", "", ""],
        ["ask", "ask a person", "no arguments", ""],
    ]
    text = str(policy)
    assert all(part in text for row in shown.rows for cell in row for part in cell.split("|"))


def test_a_large_policy_is_cut() -> None:
    """The first hundred tools and the first fifty rules of each, and how many more there are."""
    policy = policy_of({f"tool_{number}": {} for number in range(1_234)})
    shown = page(policy)
    assert len(shown.rows) == 1 + 1 + 100
    assert "1,134" in shown.text
    (row,) = page(policy_of({"t": {"deny_if": [condition("x", "eq", number) for number in range(60)]}})).rows[2:]
    assert row[2].split("|")[49:] == ["deny if args.x eq 49", "and 10 more"]


def test_a_trace_is_a_row_a_stage() -> None:
    """The stages in order, the one that decided, what conditions saw by kind, and the counters."""
    rules = {
        "require": [condition("n", "lte", 100)],
        "limits": [{"counter": "c", "window": "hour", "max": 1}],
    }
    guard = Guard(policy_of({"t": rules}))
    denied = guard.trace(ToolCall("t", {"n": 500}))
    shown = page(denied)
    assert shown.facts()["reason"] == "requirement_unmet"
    stages = {row[0]: row[1:] for row in shown.rows if len(row) == 4}
    assert [step.split()[0] for step in list(stages)[1:]] == [str(stage) for stage in range(1, 11)]
    rule = "/tools/t/require/args.n-lte"
    assert stages["6 require"] == [rule, "false, decides", "args.n lte: saw number, false"]
    assert stages["7 deny_if"] == ["", "skipped", ""]
    assert [row for row in shown.rows if len(row) == 6] == [
        ["counter", "before", "after", "of", "window", "scope"],
        ["c", "0", "0", "1", "hour", "grant"],
    ]
    assert "6 require" in str(denied)
    assert "decides" not in str(guard.trace(ToolCall("t", {"n": 5})))


def test_a_total_of_amounts_is_a_share() -> None:
    """The total of one call is what an argument said: how full the counter is shows, and not the amount."""
    limits = [
        {"counter": "spent", "window": 90, "max": 1000, "increment_from": "args.n"},
        {"counter": "none", "window": "hour", "max": 0, "increment_from": "args.zero"},
    ]
    guard = Guard(policy_of({"t": {"limits": limits}}))
    call = ToolCall("t", {"n": 357, "zero": 0})
    assert guard.begin(call).allowed
    told = guard.trace(call)
    assert [row for row in page(told).rows if len(row) == 6][1:] == [
        ["spent", "36%", "+ args.n", "1,000", "90 s", "grant"],
        ["none", "", "+ args.zero", "0", "hour", "grant"],
    ]
    assert "357" not in told._repr_html_() + str(told)


@pytest.mark.parametrize("suspended", [False, True])
@pytest.mark.parametrize("approver", [None, lambda _: True])
@pytest.mark.parametrize("tool", ["a", "b", "c", "unlisted"])
def test_a_guards_trace_is_of_its_own_state(tool: str, approver: Callable[[Any], bool] | None, suspended: bool) -> None:
    """Its counters, its suspension and its approver; the decision is the one that `explain` gives, and none is kept."""
    log = DecisionLog()
    tools = {
        "a": {"rate_limit": {"max": 1, "window": "hour"}},
        "b": {"action": "require_approval"},
        "c": {"require": [{"conditions": [{"path": "context.tier", "op": "eq", "value": "gold"}]}]},
    }
    guard = Guard(policy_of(tools), audit=log, session="run-1", context={"tier": "gold"}, approver=approver)
    guard.begin(ToolCall("a", {}))
    if suspended:
        guard.suspend("stop")
    call = ToolCall(tool, {})
    told = guard.trace(call)
    explained = guard.explain(call)
    asked = told.decision.reason is Reason.APPROVAL_REQUIRED
    assert told.decision.reason is explained.reason or asked
    assert asked == (tool == "b" and not suspended)
    assert (told.decision.rule, told.decision.session) == (explained.rule, explained.session)
    assert asyncio.run(guard.atrace(call)).as_dict() == told.as_dict()
    assert len(log) == 1
    assert [step.name for step in told.steps if step.decides] == (
        ["suspended"] if suspended else {"a": ["limits reserved"], "b": ["approval"], "c": []}.get(tool, ["not listed"])
    )


def test_a_lenient_guards_trace() -> None:
    """Where the store cannot answer and the guard allows, so does its trace."""
    policy = policy_of({"t": {"rate_limit": {"max": 1, "window": "hour"}}})
    told = Guard(policy, store=Down(), on_store_failure="allow").trace(ToolCall("t", {}))
    assert told.decision.uncounted
    assert Guard(policy, store=Down()).trace(ToolCall("t", {})).decision.reason is Reason.STORE_UNAVAILABLE


def test_what_is_looked_at_is_not_changed() -> None:
    """A decision that was shown is settled as ever."""
    store = MemoryStore()
    guard = Guard(policy_of({"t": {"rate_limit": {"max": 1, "window": "hour"}}}), store=store)
    decision = guard.begin(ToolCall("t", {}))
    assert decision._repr_html_()
    assert str(decision)
    guard.finish(decision, Outcome.NOT_SENT)
    assert guard.begin(ToolCall("t", {})).allowed


def test_a_view_in_a_group_is_one_line() -> None:
    """IPython's printer says by its indentation that something is around the object."""
    said: list[str] = []
    decision = looked_at({})
    decision._repr_pretty_(SimpleNamespace(indentation=1, text=said.append), False)
    assert said == [repr(decision)]
