"""`mcp-policy approvals`: what waits for an answer is listed and shown, and answered by its id."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner, Result

from mcp_policy_middleware import Guard, ToolCall, parse_policy
from mcp_policy_middleware.approvals import (
    ApprovalRequest,
    ApprovalStore,
    Event,
    FloodLimits,
    Found,
    QueueApprover,
    SQLiteApprovals,
    State,
)
from mcp_policy_middleware.approvals.question import operating_user
from mcp_policy_middleware.approvals.states import TRANSITIONS
from mcp_policy_middleware.cli.app import app
from mcp_policy_middleware.printable import visible
from mcp_policy_middleware.stores import SQLiteStore

POLICY = parse_policy(
    """
version: "1"
default: deny
tools:
  refund: {action: require_approval, reason: "Is it in the ledger?"}
""",
    name="shop",
)

# escapes of a terminal, right-to-left and zero-width characters, tags, fillers, line ends
HOSTILE = "\x1b[2J\x9b31m\x7f\u202e\u2066\u200b\u200f\ufeff\u00ad\u3164\ufe0f\u2028\r\n\tstate      approved\U000e0041"

ANSWERS = (Event.APPROVE, Event.DENY, Event.EXPIRE)


def run(*words: str | Path) -> Result:
    """Run `mcp-policy approvals` in this process."""
    return CliRunner().invoke(app, ["approvals", *map(str, words)])


@dataclass
class Place:
    """A store, how the command line names it, and an agent that asks."""

    store: ApprovalStore
    where: list[str]

    def ask(self, amount: Any = 5, *, server: str | None = "stripe", seconds: float = 600, **call: Any) -> str:
        """The id of a new request."""
        guard = Guard(POLICY, approver=QueueApprover(self.store), approval_timeout=seconds, grant="support")
        decision = guard.begin(ToolCall("refund", {"amount": amount}, server=server, **call))
        assert decision.reason == "approval_pending"
        assert decision.approval is not None
        return decision.approval.id

    def get(self, id: str) -> ApprovalRequest:
        """A request as it stands."""
        request = self.store.get(id, time.time())
        assert request is not None
        return request

    def run(self, command: str, *words: str) -> Result:
        """Run a command on this store."""
        return run(command, *self.where, *words)

    def listed(self, *options: str) -> list[dict[str, Any]]:
        """What `list` prints as JSON."""
        result = self.run("list", *options, "--format", "json")
        assert result.exit_code == 0, result.output
        return list(json.loads(result.stdout))

    def reach(self, state: State) -> str:
        """A request in a state."""
        id = self.ask(secrets.token_hex(4))
        ways = {
            State.APPROVED: [Event.APPROVE],
            State.CONSUMED: [Event.APPROVE, Event.CONSUME],
            State.DENIED: [Event.DENY],
            State.EXPIRED: [Event.EXPIRE],
            State.CANCELLED: [Event.CANCEL],
        }
        for event in ways.get(state, []):
            assert self.store.move(id, event, time.time(), "eve").changed
        return id


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A file, and a server that several share."""
    if request.param == "sqlite":
        made = Place(SQLiteApprovals(tmp_path / "approvals.db"), [str(tmp_path / "approvals.db")])
    else:
        pytest.importorskip("redis")
        from mcp_policy_middleware.approvals import RedisApprovals

        url, tenant = request.getfixturevalue("redis_server").url, secrets.token_hex(4)
        made = Place(RedisApprovals(url, tenant=tenant, timeout=5), [url, "--tenant", tenant])
    yield made
    made.store.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Place]:
    """A file alone, for what is the same for every store."""
    made = Place(SQLiteApprovals(tmp_path / "approvals.db"), [str(tmp_path / "approvals.db")])
    yield made
    made.store.close()


def test_list_tells_what_waits_and_no_argument(place: Place) -> None:
    """Pending requests, the oldest first; `--all`, `--grant` and `--server` choose among them."""
    first = place.ask("secret-1")
    second = place.ask("secret-2", server=None, grant="sales", session="s1", call_id="c1")
    closed = place.reach(State.DENIED)
    assert [row["id"] for row in place.listed()] == [first, second]
    assert [row["id"] for row in place.listed("--all")] == [first, second, closed]
    assert [row["id"] for row in place.listed("--grant", "sales")] == [second]
    assert [row["id"] for row in place.listed("--server", "stripe", "--all")] == [first, closed]
    assert place.listed("--server", "none") == []
    row = place.listed()[1]
    assert "arguments" not in row
    assert (row["server"], row["tool"], row["grant"], row["session"]) == (None, "refund", "sales", "s1")
    assert (row["call_id"], row["state"], row["rule"]) == ("c1", "pending", "/tools/refund/action")
    left = datetime.fromisoformat(row["expires_at"]) - datetime.fromisoformat(row["asked_at"])
    assert left.total_seconds() == pytest.approx(600, abs=1)
    for output in (place.run("list").stdout, place.run("list", "--all", "--format", "json").stdout):
        assert first in output
        assert "secret" not in output


def test_list_begins_a_line_for_each_request(file: Place) -> None:
    """Whatever agents and applications call things, none of it comes under the ids; an empty list is said to be one."""
    assert file.run("list").exit_code == 0
    ids = [file.ask(), file.ask(session="s2", grant=HOSTILE)]
    lines = file.run("list").stdout.splitlines()
    assert [line[:18].strip() for line in lines if line[:18].strip()] == ["id", *ids]
    assert all(line.isprintable() for line in lines)


def test_show_tells_everything(place: Place) -> None:
    """Each fact under its name, the arguments whole and last; answered, the arguments are gone."""
    id = place.ask({"cents": [1, 2.5, None]}, session="s1", call_id="c1")
    request = place.get(id)
    text = place.run("show", id).stdout
    facts, _, arguments = text.partition("\narguments")
    assert json.loads(arguments) == request.arguments
    told = {line[:11].strip(): line[11:] for line in facts.splitlines()}
    assert (told["id"], told["state"], told["server"], told["tool"]) == (id, "pending", "stripe", "refund")
    assert (told["rule"], told["text"]) == ("/tools/refund/action", "Is it in the ledger?")
    assert (told["grant"], told["session"], told["call id"]) == ("support", "s1", "c1")
    assert (told["policy"], told["by"], told["why"]) == ("shop", "-", "-")
    assert request.policy_digest.startswith(told["digest"])
    for name in ("asked", "expires"):
        assert datetime.fromisoformat(told[name].partition(",")[0]).utcoffset() is not None
    (as_json,) = json.loads(place.run("show", id, "--format", "json").stdout)
    assert as_json["arguments"] == request.arguments
    assert as_json["policy_digest"] == request.policy_digest
    assert place.run("deny", id, "--by", "ann", "--why", "no receipt").exit_code == 0
    (as_json,) = json.loads(place.run("show", id, "--format", "json").stdout)
    assert (as_json["state"], as_json["by"], as_json["why"]) == ("denied", "ann", "no receipt")
    assert as_json["arguments"] is None
    assert datetime.fromisoformat(as_json["answered_at"]) >= datetime.fromisoformat(as_json["asked_at"])
    assert "cents" not in place.run("show", id).stdout


def test_nothing_that_is_shown_writes_to_the_terminal(file: Place) -> None:
    """A hostile call is shown in full, spelled out, and cannot write a line that begins like one of ours."""
    arguments = {HOSTILE: HOSTILE, "long": "x" * 300 + " " * 200 + "state      approved", "wide": "\u6f22" * 200}
    id = file.ask(arguments, server=HOSTILE, session=HOSTILE, grant=HOSTILE)
    file.store.move(id, Event.APPROVE, time.time(), HOSTILE, HOSTILE)
    text = file.run("show", id).stdout
    lines = text.split("\n")
    assert all(line == visible(line) for line in lines)
    assert max(map(len, lines)) <= 80
    names = [line.split()[0] for line in lines if line[:1].strip()]
    assert len(names) == len(set(names)) == 17
    start = next(number for number, line in enumerate(lines) if line.startswith("arguments"))
    whole = "".join(line[11:] for line in lines[start:])
    assert json.loads(whole)["amount"] == arguments
    begun = [line for line in lines[start:] if line and line[9] != "|"]
    assert len(begun) == len(json.dumps({"amount": arguments}, indent=2).splitlines())
    printed = file.run("show", id, "--format", "json").stdout
    assert printed.isascii()
    assert json.loads(printed)[0]["arguments"] == {"amount": arguments}


@pytest.mark.parametrize("char", [char for char in HOSTILE if not (char.isascii() and char.isprintable())], ids=ascii)
def test_what_is_not_seen_is_spelled_out(char: str) -> None:
    """Controls, bidirectional and zero-width characters, tags, fillers and variation selectors."""
    assert visible(f"a{char}b").isascii()


def test_what_people_write_stays_as_it_is() -> None:
    """Letters of every script, and signs that are seen."""
    for text in ("500 \u20ac f\u00fcr \u6f22\u5b57 \U0001f4b6", "\u05e9\u05dc\u05d5\u05dd e\u0301", "a [red] b"):
        assert visible(text) == text


@pytest.mark.parametrize(("state", "event"), list(product(State, ANSWERS)))
def test_answers_follow_the_table(place: Place, state: State, event: Event) -> None:
    """Each answer to a request in each state: done with status 0, or refused with 1 and nothing changed."""
    id = place.reach(state)
    before = place.get(id)
    result = place.run(event, id)
    after = TRANSITIONS.get((state, event))
    if after is None:
        assert (result.exit_code, result.stdout) == (1, "")
        assert id in result.stderr
        assert state in result.stderr
        assert place.get(id) == before
    else:
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.split()[:2] == [after, f"{id}:"]
        assert place.get(id).state is after


def test_an_answer_says_who_and_why_and_tells_no_argument(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left out, it is whom the system has, whatever the environment says; who approved stays on record."""
    monkeypatch.setenv("LOGNAME", "sam")
    yes, no, back = (place.ask(f"secret-{number}") for number in range(3))
    results = [
        place.run("approve", yes, "--by", "ann", "--why", "checked"),
        place.run("deny", no),
        place.run("expire", back, "--by", "bob\udcff"),
    ]
    assert [(place.get(id).by, place.get(id).why) for id in (yes, no, back)] == [
        ("ann", "checked"), (operating_user(), ""), ("bob?", ""),
    ]  # fmt: skip
    assert all("secret" not in result.output and len(result.stdout.splitlines()) == 1 for result in results)
    assert place.run("expire", yes, "--by", "bob").exit_code == 0
    assert (place.get(yes).state, place.get(yes).by) == (State.EXPIRED, "ann")


def test_several_are_answered_at_once_or_none_where_one_is_not_known(place: Place) -> None:
    """An unknown id stops everything before the first answer; one that is answered already stops only itself."""
    first, second, third = (place.ask(number) for number in range(3))
    assert place.run("approve", first, "0000000000000000", second).exit_code == 2
    assert [place.get(id).state for id in (first, second)] == [State.PENDING] * 2
    assert place.run("deny", second).exit_code == 0
    result = place.run("approve", first, first[:8], second, third)
    assert result.exit_code == 1
    assert [line.split()[1] for line in result.stdout.splitlines()] == [f"{first}:", f"{third}:"]
    assert [place.get(id).state for id in (first, second, third)] == [State.APPROVED, State.DENIED, State.APPROVED]
    assert place.run("show", first, third).stdout.count("\narguments") == 2


def test_a_beginning_names_the_one_request_that_has_it(place: Place) -> None:
    """Of all that are kept, closed ones too; one that several share names none."""
    for id in ("abcd000000000000", "abcd111111111111", "beef000000000000"):
        request = replace(place.get(place.ask(id)), id=id, binding=id)
        found = place.store.open(request, 600, FloodLimits(), time.time())
        assert isinstance(found, Found)
        assert found.request is not None
        assert found.request.id == id
    assert place.store.move("abcd111111111111", Event.DENY, time.time()).changed
    for word in ("abcd", "bee", "abcd00000000000000", "0000", "beefbeef", "BEEF0000", "no such id", "*", "\x1b[31m"):
        result = place.run("approve", word)
        assert (result.exit_code, result.stdout) == (2, ""), word
        assert "\x1b" not in result.stderr
    assert place.run("approve", "beef").exit_code == 0
    assert place.run("approve", "abcd0").exit_code == 0
    assert place.get("abcd000000000000").state is place.get("beef000000000000").state is State.APPROVED


def test_the_environment_names_the_store(file: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`MCP_POLICY_APPROVALS` stands for it, and a store on the command line goes before it."""
    id = file.ask()
    assert run("show", id).exit_code == 2
    monkeypatch.setenv("MCP_POLICY_APPROVALS", *file.where)
    assert id in run("list").stdout
    assert run("show", id).exit_code == 0
    assert run("approve", id).exit_code == 0
    other = Place(SQLiteApprovals(tmp_path / "other.db"), [str(tmp_path / "other.db")])
    assert other.run("show", id).exit_code == 2
    assert other.listed() == []
    other.store.close()


@pytest.mark.parametrize("command", ["list", "show", "approve", "deny", "expire"])
@pytest.mark.parametrize(
    "store",
    ["no.db", "missing/no.db", "x" * 5000, "text.txt", "counters.db", "redis://user:secret@127.0.0.1:1/0", "foo://x"],
    ids=lambda store: store[:12],
)
def test_a_store_that_cannot_be_used_is_one_message(command: str, store: str, tmp_path: Path) -> None:
    """Exit status 2, one message without a traceback or a password, and no file is made."""
    if store.startswith("redis"):
        pytest.importorskip("redis")
    (tmp_path / "text.txt").write_text("not a database, and long enough to be none: " * 50)
    SQLiteStore(tmp_path / "counters.db").close()
    where = store if "://" in store else str(tmp_path / store)
    result = run(command, where, *([] if command == "list" else ["0123456789abcdef"]))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.strip()
    assert "Traceback" not in result.stderr
    assert "secret" not in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"text.txt", "counters.db"}


def test_no_id_is_one_message(place: Place) -> None:
    """Without a password, which a URL may have."""
    for command in ("show", "approve", "deny", "expire"):
        result = place.run(command)
        assert (result.exit_code, result.stdout) == (2, "")
        assert place.where[0] not in result.stderr
