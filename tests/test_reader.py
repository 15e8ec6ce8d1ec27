"""Documents: what reads, what is refused, and where and in what words (PL-1, PL-2, PL-3, PL-5)."""

from __future__ import annotations

import builtins
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_policy_middleware import DocumentError, Guard, Policy, Problem, ToolCall, load_policy, parse_policy
from mcp_policy_middleware.policy import load_directory

DATA = Path(__file__).parent / "data"
INVALID: list[dict[str, Any]] = yaml.safe_load((DATA / "invalid_documents.yaml").read_text("utf-8"))
VALUES: dict[str, Any] = json.loads((DATA / "invalid_values.json").read_text("utf-8"))
MINIMAL = '{"version": "1", "default": "deny"}'


def refused(text: str | bytes, name: str = "p.json") -> tuple[Problem, ...]:
    """The problems of a document that must not read."""
    with pytest.raises(DocumentError) as caught:
        parse_policy(text, name)
    assert caught.value.problems
    assert all(problem.source == name for problem in caught.value.problems)
    return caught.value.problems


def places(marked: str) -> tuple[str, list[tuple[int, int]]]:
    """A text without its marks, and the line and column of each."""
    text, found = "", []
    for char in marked:
        if char == "«":
            found.append((text.count("\n") + 1, len(text) - text.rfind("\n")))
        else:
            text += char
    return text, found


def check(document: dict[str, Any], name: str) -> None:
    """Read a refused document and compare its problems with those it lists."""
    text, found = places(document["text"])
    wanted = document["problems"]
    if document.get("whole"):
        found = [(0, 0)]
    elif document.get("same_place"):
        found *= len(wanted)
    problems = refused(text, name)
    if document.get("placed", True):
        assert [(p.line, p.column) for p in problems] == found
    assert [p.pointer for p in problems] == [pointer for pointer, _, _ in wanted]
    for problem, (_, word, advice) in zip(problems, wanted, strict=True):
        assert word is None or f"`{word}`" in problem.message
        assert advice is None or f"`{advice}`" in problem.help


@pytest.mark.parametrize("document", INVALID, ids=lambda document: f"{document['as']}: {document['name']}")
def test_bad_document_is_refused_with_every_problem_in_its_place(document: dict[str, Any]) -> None:
    """Every problem of a document is reported, in document order, with line, column, pointer and the author's words."""
    check(document, f"p.{document['as']}")


@pytest.mark.parametrize(
    "document",
    [d for d in INVALID if d["as"] == "json" and d["problems"][0][0] and "only" not in d],
    ids=lambda document: document["name"],
)
def test_json_and_yaml_readers_find_the_same_problems(document: dict[str, Any]) -> None:
    """What is wrong in JSON is wrong in the same place where the text is read as YAML, of which JSON is a part."""
    check(document, "p.yaml")


def enclosing(kind: str, part: dict[str, Any]) -> tuple[str, Any]:
    """The pointer of a part of a document, and the document around it."""
    document: dict[str, Any] = {"version": "1", "default": "deny"}
    if kind.endswith("at the top"):
        return "", part
    if kind.endswith("a tool's name"):
        return "/tools", document | {"tools": part}
    if kind.endswith("a tool's rules"):
        return "/tools/t", document | {"tools": {"t": part}}
    if kind == "rate_limit":
        return "/tools/t/rate_limit", document | {"tools": {"t": {"rate_limit": part}}}
    if kind.endswith("limit"):
        return "/tools/t/limits/0", document | {"tools": {"t": {"limits": [part]}}}
    return "/tools/t/require/0/conditions/0", document | {"tools": {"t": {"require": [{"conditions": [part]}]}}}


VALUE_ROWS = [(kind, good, *row) for kind, (good, rows) in VALUES.items() for row in rows if "reads" not in row]


@pytest.mark.parametrize("name", ["p.json", "p.yaml"])
@pytest.mark.parametrize(("kind", "good", "key", "value", "word"), VALUE_ROWS, ids=lambda value: json.dumps(value)[:40])
def test_bad_value_is_refused_at_its_place(
    kind: str, good: dict[str, Any], key: str, value: Any, word: str | None, name: str
) -> None:
    """A value of the wrong kind, range or word is one problem with the value's pointer and the author's word."""
    base, document = enclosing(kind, good | {key: value})
    (problem,) = refused(json.dumps(document), name)
    assert problem.pointer == f"{base}/{key}"
    assert word is None or f"`{word}`" in problem.message
    assert problem.line == 1
    assert problem.help


@pytest.mark.parametrize("name", ["p.json", "p.yaml"])
@pytest.mark.parametrize(("kind", "good"), [(kind, good) for kind, (good, _) in VALUES.items() if " " not in kind])
def test_the_same_part_without_the_bad_value_reads(kind: str, good: dict[str, Any], name: str) -> None:
    """The part that each row of the table spoils is good in itself."""
    _, document = enclosing(kind, good)
    assert parse_policy(json.dumps(document), name).version == "1"


PATHS = [
    "args.a", "args.a.b", "args.*", "args.a?", "args. ", "args.-", "args.1", "args.$a", "args.Größe", "args[0]",
    "args[*]", "args.items[0]", "args.items[123456789]", "args.items[*].price", "args[*][0][*]", 'args["a.b"]',
    'args["a"]["b"].c[1]', r'args["\"[*]\u00e9"]', 'args[""]', "call.tool", "call.server", "call.grant", "call.session",
    'call["tool"]', "context.tier", 'context["a.b"].c[*]', "context.user.roles[0]",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_every_form_of_a_path_reads(path: str) -> None:
    """Dots, quoted keys, indexes, `[*]` and the roots `call` and `context` are read and kept as written (PL-3.2)."""
    condition = {"path": path, "op": "exists", "value": True}
    document = {"version": "1", "default": "deny", "all_tools": {"require_approval_if": [{"conditions": [condition]}]}}
    (predicate,) = parse_policy(json.dumps(document)).all_tools.require_approval_if
    assert predicate.conditions[0].path == path


def test_text_of_more_than_16_mib_is_refused() -> None:
    """17 MiB of text are refused as a whole, and so is a file of that size."""
    text = MINIMAL[:-1] + ', "description": "' + "x" * (17 << 20) + '"}'
    (problem,) = refused(text)
    assert (problem.line, problem.column, problem.pointer) == (0, 0, "")
    (of_bytes,) = refused(text.encode())
    assert of_bytes.line == 0


def test_a_large_file_is_refused_without_being_read_whole(tmp_path: Path) -> None:
    """A file of more than 16 MiB is refused by `load_policy` too."""
    path = tmp_path / "p.json"
    path.write_text(MINIMAL + " " * (17 << 20))
    with pytest.raises(DocumentError) as caught:
        load_policy(path)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("depth", [58, 1_000, 200_000])
@pytest.mark.parametrize("name", ["p.json", "p.yaml"])
def test_deep_nesting_is_refused(depth: int, name: str) -> None:
    """More than 64 levels are refused where the 65th begins, however many follow (PL-4.1)."""
    head = '{"version": "1", "default": "deny", "tools": {"t": {"deny_if": [{"conditions": [{"value": '
    (problem,) = refused(head + "[" * depth, name)
    assert (problem.line, problem.column) == (1, len(head) + 64 - 7 + 1)


@pytest.mark.parametrize("name", ["p.json", "p.yaml"])
def test_64_levels_read(name: str) -> None:
    """A document of exactly 64 levels is no deeper than allowed."""
    value = "[" * 57 + "]" * 57
    condition = f'{{"path": "args.a", "op": "eq", "value": {value}}}'
    text = f'{{"version": "1", "default": "deny", "tools": {{"t": {{"deny_if": [{{"conditions": [{condition}]}}]}}}}}}'
    assert parse_policy(text, name).digest.startswith("sha256:")


@pytest.mark.parametrize("name", ["p.json", "p.yaml"])
def test_nul_character_is_refused_in_its_place(name: str) -> None:
    """A NUL character is refused with its line and column, in text and in bytes."""
    text = '{"version": "1",\n "def\0ault": "deny"}'
    for data in (text, text.encode()):
        (problem,) = refused(data, name)
        assert (problem.line, problem.column) == (2, 6)


@pytest.mark.parametrize("name", ["p.json", "p.yaml"])
def test_byte_order_mark_is_tolerated(name: str) -> None:
    """A BOM before the document is passed over, in text and in bytes, and moves no column."""
    for data in ("\ufeff" + MINIMAL, b"\xef\xbb\xbf" + MINIMAL.encode()):
        assert parse_policy(data, name).default == "deny"
    (problem,) = refused(b'\xef\xbb\xbf{"version": "2", "default": "deny"}', name)
    assert (problem.line, problem.column) == (1, 13)


NOT_UTF8 = [
    (b'{"version": "\xff"}', (1, 14)),
    (b'{"version": "1",\n "default": "\xc3\xa9\xff"}', (2, 15)),
    (b'\xef\xbb\xbf{\n"a": "\xff"}', (2, 7)),
    (MINIMAL.encode("utf-16"), (1, 1)),
    (b"\x89PNG\r\n\x1a\n", (1, 1)),
    (MINIMAL.encode("latin-1")[:-1] + b', "description": "caf\xe9"}', (1, 56)),
]


@pytest.mark.parametrize(("data", "place"), NOT_UTF8, ids=range(len(NOT_UTF8)))
def test_bytes_that_are_no_utf8_are_refused_in_their_place(data: bytes, place: tuple[int, int]) -> None:
    """Bytes that are no UTF-8 are refused at the line and column, in characters, of the first bad one."""
    (problem,) = refused(data)
    assert (problem.line, problem.column) == place


@pytest.mark.parametrize("name", ["p.json", "p.yaml", "p"])
@pytest.mark.parametrize(
    "text",
    [
        '{"version": "1", "default": "deny", "description": "\ud800"}',
        '{"version": "1", "default": "deny", "tools": {"\udfff": {}}}',
        '{"version": "1", "default": "deny", "description": "\\ud83d"}',
        'version: "1"\ndefault: deny\ndescription: \ud800\n',
        '{"\ud800',
    ],
    ids=range(5),
)
def test_lone_surrogate_is_refused_however_it_is_written(text: str, name: str) -> None:
    """A lone surrogate in text or escape is a problem of the document and nothing else."""
    assert refused(text, name)


def test_a_surrogate_pair_is_a_character() -> None:
    """An escaped pair is the character it stands for."""
    text = '{"version": "1", "default": "deny", "tools": {"\\ud83d\\ude00": {}}}'
    assert set(parse_policy(text).tools) == {"\U0001f600"}


FULL_JSON = """
{"version": "1", "default": "deny", "description": "d", "$schema": "https://example.org/s", "mode": "shadow",
 "hide": ["h", "h_*"],
 "all_tools": {"require": [{"conditions": [{"path": "args.a.b", "op": "exists", "value": false}]}],
               "deny_if": [{"conditions": [], "on_deny": "no"}],
               "limits": [{"counter": "c", "window": "hour", "max": 0.5, "scope": "session", "on_deny": "no"}]},
 "tools": {"x": {}, "a.b/c d": {"action": "require_approval", "reason": "r", "mode": "enforce",
   "rate_limit": {"max": 10, "window": 60}, "limits": [{"counter": "x", "window": 2678400, "max": 9007199254}]},
   "y": {"deny_if": [{"conditions": [{"path": "args.n", "op": "in", "value": [1, "a", null, true, {"k": [1.5]}]}]}]},
   "z_*?": {"only_arguments": ["a", "b.c"],
     "require_approval_if": [{"on_deny": "ask", "conditions": [
       {"path": "args[\\"b.c\\"][*].d[0]", "op": "gt", "value": 5},
       {"path": "context.tier", "op": "neq", "value": "gold"},
       {"path": "call.grant", "op": "regex", "value": "^ops$"}]}],
     "limits": [{"counter": "w", "window": "week", "max": 1, "scope": "server", "increment": 0.25},
                {"counter": "m", "window": "month", "max": 1, "scope": "global", "increment_from": "args.a",
                 "algorithm": "sliding", "charge_on": "success"}]}}}
"""
FULL_YAML = """
# the same document
tools:
  y: {deny_if: [{conditions: [{value: [1.0, a, null, true, {k: [15e-1]}], op: in, path: args.n}]}]}
  a.b/c d:
    limits:
      - {counter: x, window: 2678400, max: 9007199254.0}
    action: require_approval
    reason: r
    mode: enforce
    rate_limit:
      window: 0x3c
      max: +10
  x: {}
  z_*?:
    limits:
      - {counter: w, window: week, max: 1, scope: server, increment: 25e-2}
      - {counter: m, window: month, max: 1, scope: global, increment_from: args.a, algorithm: sliding,
         charge_on: success}
    require_approval_if:
      - on_deny: ask
        conditions:
          - {path: 'args["b.c"][*].d[0]', op: gt, value: 5}
          - {path: context.tier, op: neq, value: gold}
          - {path: call.grant, op: regex, value: ^ops$}
    only_arguments: [a, b.c]
mode: 'shadow'
hide: [h, h_*]
all_tools:
  limits: [{counter: c, window: hour, max: .5, scope: session, on_deny: "no"}]
  deny_if: [{on_deny: 'no', conditions: []}]
  require:
    - conditions:
        - {path: args.a.b, op: exists, value: false}
$schema: https://example.org/s
description: d
default: deny
version: '1'
"""


def test_full_document_reads_and_its_digest_is_that_of_its_meaning() -> None:
    """JSON and YAML, the order of keys, and 1 or 1.0 make no difference to the digest (PL-9.3)."""
    policy = parse_policy(FULL_JSON, "full.json")
    assert policy.name == "full.json"
    assert policy.digest == parse_policy(FULL_YAML, "full.yaml").digest
    assert policy.digest == parse_policy(FULL_JSON.encode(), "other").digest


@pytest.mark.parametrize(
    "other",
    [
        '{"version": "1", "default": "allow", "tools": {"t": {"deny_if": []}}}',
        '{"version": "1", "default": "deny", "tools": {"T": {"deny_if": []}}}',
        '{"version": "1", "default": "deny", "tools": {"t": {"require": []}}}',
        '{"version": "1", "default": "deny", "tools": {"t": {"deny_if": [{"conditions": []}]}}}',
        '{"version": "1", "default": "deny", "mode": "shadow", "tools": {"t": {"deny_if": []}}}',
    ],
)
def test_digest_differs_with_the_document(other: str) -> None:
    """Documents that say other things have other digests."""
    text = '{"version": "1", "default": "deny", "tools": {"t": {"deny_if": []}}}'
    assert parse_policy(text).digest != parse_policy(other).digest


@pytest.mark.parametrize(
    "values", [("1", "true"), ("1", '"1"'), ("9007199254740993", "9007199254740992"), ("0.1", "0.2")]
)
def test_digest_keeps_values_apart(values: tuple[str, str]) -> None:
    """Values of other kinds, and integers that a float would merge, have other digests (PL-7.1)."""
    text = '{"version": "1", "default": "deny", "tools": {"t": {"deny_if": [{"conditions": [%s]}]}}}'
    condition = '{"path": "args.a", "op": "eq", "value": %s}'
    first, second = (parse_policy(text % (condition % value)).digest for value in values)
    assert first != second


def test_digest_of_large_numbers_is_stable() -> None:
    """A number beyond any float keeps its digest and its value in the document."""
    number = str(10**400 + 1)
    condition = f'{{"path": "args.a", "op": "eq", "value": {number}}}'
    text = f'{{"version": "1", "default": "deny", "tools": {{"t": {{"deny_if": [{{"conditions": [{condition}]}}]}}}}}}'
    policy = parse_policy(text)
    assert policy.digest == parse_policy(text, "p.yaml").digest
    assert Guard(policy).explain(ToolCall("t", {"a": 10**400})).allowed
    assert not Guard(policy).explain(ToolCall("t", {"a": 10**400 + 1})).allowed


def test_the_language_is_told_by_suffix_or_else_by_the_brace() -> None:
    """`.json` is JSON, `.yaml` and `.yml` are YAML; any other name is JSON where the text starts with a brace."""
    flow = "{version: '1', default: deny}"
    block = "version: '1'\ndefault: deny\n"
    for name in ("p.yaml", "p.yml"):
        assert parse_policy(flow, name).default == "deny"
        assert parse_policy(MINIMAL, name).default == "deny"
    assert parse_policy(block, "p").default == "deny"
    assert parse_policy("\n " + MINIMAL, "p").default == "deny"
    assert refused(flow, "p")
    assert refused(block, "p.json")


def test_yaml_is_1_2() -> None:
    """`no`, `on`, `1:30` and dates are texts, and `0o17` is a number."""
    text = """
    version: "1"
    default: deny
    tools:
      t:
        deny_if:
          - conditions: [{path: args.a, op: in, value: [no, on, 1:30, 2026-03-04, 0o17, 017, ~, "true", 1_000]}]
    """
    (predicate,) = parse_policy(text, "p.yaml").tools["t"].deny_if
    assert predicate.conditions[0].value == ["no", "on", "1:30", "2026-03-04", 15, 17, None, "true", "1_000"]


def test_intercept_is_read_as_policy_json_where_the_caller_says_so() -> None:
    """Where the caller names the dialect, `rules` is an unknown key like any other (PL-1.3)."""
    text = '{"version": "1", "default": "deny", "tools": {"t": {"rules": []}}}'
    with pytest.raises(DocumentError) as caught:
        parse_policy(text, dialect="policy.json")
    (problem,) = caught.value.problems
    assert problem.pointer == "/tools/t/rules"


def test_document_error_shows_every_problem_with_its_place() -> None:
    """The text of a `DocumentError` has a line per problem, `source:line:column`, and its help below."""
    with pytest.raises(DocumentError) as caught:
        parse_policy('{"version": "2",\n "defautl": "deny"}', "stripe.json")
    text = str(caught.value)
    assert "3 problems" in text.splitlines()[0]
    assert "\nstripe.json:1:13: " in text
    assert "\nstripe.json:2:2: " in text
    assert "(at /defautl)" in text
    assert "\n  help: did you mean `default`?" in text
    assert [problem.pointer for problem in caught.value.problems] == ["/default", "/version", "/defautl"]


def test_a_problem_of_the_whole_file_shows_no_line() -> None:
    """A problem without a place shows the source alone."""
    (problem,) = refused("", "empty.json")
    assert str(problem).startswith("empty.json: ")


def test_messages_are_one_lower_case_sentence_and_name_no_class() -> None:
    """Every message of every bad document is in the author's words, not in those of a library (PL-1.2)."""
    for document in INVALID:
        text, _ = places(document["text"])
        for problem in refused(text, f"p.{document['as']}"):
            first = problem.message[0]
            assert first == first.lower(), problem.message
            assert "\n" not in problem.message
            for alien in (
                "pydantic",
                "Input should",
                "input should",
                "ToolRules",
                "AllTools",
                "Predicate",
                "dict",
                "tuple",
            ):
                assert alien not in problem.message, problem.message


# ---- files and directories


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    """`load_policy` reads JSON and YAML files, by `str` and by `Path`, and names the policy after the file."""
    (tmp_path / "a.json").write_text(MINIMAL)
    (tmp_path / "b.yaml").write_text("version: '1'\ndefault: allow\n")
    assert load_policy(tmp_path / "a.json").name == "a.json"
    assert load_policy(str(tmp_path / "b.yaml")).default == "allow"


@pytest.mark.parametrize("path", ["missing.json", "", "a\0b", MINIMAL, "x" * 5_000])
def test_a_path_that_is_no_file_is_a_document_error(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing file, an impossible path and a document's text are all one problem without a place."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DocumentError) as caught:
        load_policy(path)
    (problem,) = caught.value.problems
    assert (problem.source, problem.line, problem.pointer) == (path, 0, "")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    """`load_policy` of a directory is a document error."""
    with pytest.raises(DocumentError):
        load_policy(tmp_path)


def test_a_text_is_never_taken_for_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`parse_policy` of the name of an existing file reads the name and not the file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.json").write_text(MINIMAL)
    assert refused("policy.json", "p")
    assert refused("./policy.json", "p")


def test_an_unreadable_file_is_a_document_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be read is a document error, alone and in a directory."""
    path = tmp_path / "p.json"
    path.write_text(MINIMAL)

    def forbidden(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(io, "open", forbidden)  # as for a user who is not root
    monkeypatch.setattr(builtins, "open", forbidden)
    for read in (lambda: load_policy(path), lambda: load_directory(tmp_path)):
        with pytest.raises(DocumentError) as caught:
            read()
        (problem,) = caught.value.problems
        assert (problem.source, problem.line) == (str(path), 0)


def test_a_directory_maps_servers_to_policies(tmp_path: Path) -> None:
    """Files are policies by the names of servers and grants, and other files are passed over (PL-9.1)."""
    for name in ("stripe.json", "_local.yaml", "git.hub.yml", "stripe@ops.json", "a@b@c.json"):
        (tmp_path / name).write_text(MINIMAL)
    for name in (".hidden.json", "notes.txt"):
        (tmp_path / name).write_text("no policy")
    (tmp_path / "sub").mkdir()
    policies = load_directory(tmp_path)
    assert set(policies) == {"stripe", "_local", "git.hub", "stripe@ops", "a@b@c"}
    assert all(isinstance(policy, Policy) for policy in policies.values())
    assert set(load_directory(str(tmp_path))) == set(policies)


@pytest.mark.parametrize("path", ["missing", "a\0b", "file.json"])
def test_what_is_no_directory_is_a_document_error(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing directory, an impossible path and a file are document errors."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.json").write_text(MINIMAL)
    with pytest.raises(DocumentError) as caught:
        load_directory(path)
    assert len(caught.value.problems) == 1


def test_an_empty_directory_is_a_document_error(tmp_path: Path) -> None:
    """A directory without policies would deny every call, so it is refused."""
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(DocumentError):
        load_directory(tmp_path)


def test_problems_of_all_files_are_reported_together(tmp_path: Path) -> None:
    """Two policies of one server, a bad document, and files of no server or no grant are problems of one error."""
    (tmp_path / "a.json").write_text(MINIMAL)
    (tmp_path / "a.yaml").write_text("version: '1'\ndefault: deny\n")
    (tmp_path / "b.json").write_text('{"version": "1"}')
    (tmp_path / "c@.json").write_text(MINIMAL)
    (tmp_path / "@admin.json").write_text(MINIMAL)
    (tmp_path / "d@admin.json").write_text(MINIMAL)
    with pytest.raises(DocumentError) as caught:
        load_directory(tmp_path)
    problems = caught.value.problems
    assert [Path(problem.source).name for problem in problems] == ["@admin.json", "a.yaml", "b.json", "c@.json"]
    assert "`@admin.json`" in problems[0].message
    assert "`a.json`" in problems[1].message
    assert problems[2].pointer == "/default"
    assert "`c@.json`" in problems[3].message


# ---- anything reads or raises the one error

JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["args.a", "gt", "in", "regex", "deny", "allow", "hour", "1", "*", "grant", "shadow"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from([
            "version", "default", "tools", "hide", "all_tools", "mode", "require", "deny_if", "limits", "rate_limit",
            "action",
            "conditions", "path", "op", "value", "counter", "window", "max", "scope", "on_deny", "rules", "t",
            "$schema", "",
        ]) | st.text(max_size=4),
        inner, max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


def reads_or_is_refused(data: str | bytes, name: str) -> None:
    """Read the data and see that nothing but a `DocumentError` comes out."""
    try:
        assert parse_policy(data, name).digest
    except DocumentError as error:
        found = error
    else:
        return
    assert found.problems
    assert str(found)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200), name=st.sampled_from(["p.json", "p.yaml", "p"]))
def test_any_bytes_parse_or_raise_a_document_error(data: bytes, name: str) -> None:
    """No bytes whatever raise anything but a `DocumentError`."""
    reads_or_is_refused(data, name)


@settings(max_examples=300, deadline=None)
@given(data=st.text(st.characters(), max_size=100), name=st.sampled_from(["p.json", "p.yaml", "p"]))
def test_any_text_parses_or_raises_a_document_error(data: str, name: str) -> None:
    """No text whatever, lone surrogates included, raises anything but a `DocumentError`."""
    reads_or_is_refused(data, name)


@settings(max_examples=400, deadline=None)
@given(document=JSONISH, name=st.sampled_from(["p.json", "p.yaml"]))
def test_any_json_parses_or_raises_a_document_error(document: Any, name: str) -> None:
    """No JSON value whatever raises anything but a `DocumentError`."""
    reads_or_is_refused(json.dumps(document), name)


@settings(max_examples=300, deadline=None)
@given(cut=st.integers(0, len(FULL_JSON)), insert=st.text(st.characters(), max_size=3), yaml_too=st.booleans())
def test_any_damage_parses_or_raises_a_document_error(cut: int, insert: str, yaml_too: bool) -> None:
    """A good document with something cut off or put in reads, or raises a `DocumentError`."""
    for text in (FULL_JSON, FULL_YAML) if yaml_too else (FULL_JSON,):
        name = "p.json" if text is FULL_JSON else "p.yaml"
        reads_or_is_refused(text[:cut] + insert, name)
        reads_or_is_refused(text[:cut] + insert + text[cut + len(insert) :], name)
