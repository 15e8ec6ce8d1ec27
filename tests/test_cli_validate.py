"""`mcp-policy validate`, `schema` and `convert`: what they print, their exit status, and no traceback ever."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mcp_policy_middleware import load_policy
from mcp_policy_middleware.policy.schema import schema_text

pytest.importorskip("typer")

PROGRAM = [sys.executable, "-c", "from mcp_policy_middleware.cli import main; main()"]
GOOD = '{"version": "1", "default": "deny", "tools": {"a": {}}}'
UNWISE = '{"version": "1", "default": "deny",\n "hide": ["a"]}'
BROKEN = '{"version": "1",\n "defualt": "deny"}'
INTERCEPT = "version: '1'\ntools:\n  a:\n    rules:\n      - {name: r, rate_limit: 5/hour}\n"
MUTE = {"NO_COLOR": "1", "COLUMNS": "60"}


def run(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command; whatever it is given, no traceback is printed."""
    result = subprocess.run(
        [*PROGRAM, *map(os.fspath, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
        env={**os.environ, **MUTE, **environment},
    )
    assert "Traceback" not in result.stderr
    return result


def files_of(*arguments: str | Path, cwd: Path | None = None) -> tuple[int, list[dict[str, Any]]]:
    """The exit status, and what was found by file."""
    result = run("validate", "--format", "json", *arguments, cwd=cwd)
    assert result.stderr == ""
    document = json.loads(result.stdout)
    assert list(document) == ["files"]
    return result.returncode, document["files"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with a good policy, an unwise and a broken one."""
    (tmp_path / "good.json").write_text(GOOD)
    (tmp_path / "unwise.yaml").write_text(UNWISE)
    (tmp_path / "broken.json").write_text(BROKEN)
    (tmp_path / "notes.txt").write_text("no policy")
    return tmp_path


@pytest.mark.parametrize(
    ("form", "names", "status"),
    [
        ("text", ["good.json"], 0),
        ("text", ["unwise.yaml"], 1),
        ("text", ["broken.json"], 2),
        ("text", ["missing.json"], 2),
        ("json", ["good.json", "unwise.yaml"], 1),
        ("json", ["."], 2),
        ("github", ["good.json"], 0),
        ("github", ["unwise.yaml", "broken.json", "good.json"], 2),
    ],
)
def test_the_exit_status_says_the_worst_of_all_files(form: str, names: list[str], status: int, folder: Path) -> None:
    """0 is good, 1 is advice, 2 is what does not read; in every format."""
    result = run("validate", *names, "--format", form, cwd=folder)
    assert (result.returncode, result.stderr) == (status, "")


def test_text_is_a_line_for_each_finding_that_editors_understand(folder: Path) -> None:
    """`file:line:col: error|warning[code]: message`, help below, and a count at the end; never wrapped."""
    lines = run("validate", "unwise.yaml", "broken.json", "missing.json", cwd=folder).stdout.splitlines()
    findings = [line for line in lines[:-1] if not line.startswith("  help: ")]
    assert [re.sub(r": [^:\[]*`.*", ":", line) for line in findings] == [
        "unwise.yaml:2:2: warning[idle-hide]:",
        "broken.json:1:1: error:",
        "broken.json:2:2: error:",
        "missing.json: error: the file cannot be read: no such file or directory",
    ]
    assert len(lines) == 2 * len(findings) + 1
    assert lines[-1].startswith("3 files: ")


def test_json_is_one_document_with_every_file(folder: Path) -> None:
    """Every file is listed, with its problems and advice in full."""
    status, files = files_of(folder)
    assert status == 2
    assert [Path(file["path"]).name for file in files] == ["broken.json", "good.json", "unwise.yaml"]
    broken, good, unwise = files
    assert [(one["line"], one["column"], one["pointer"]) for one in broken["problems"]] == [
        (1, 1, "/default"),
        (2, 2, "/defualt"),
    ]
    assert broken["advice"] == good["problems"] == good["advice"] == unwise["problems"] == []
    (advice,) = unwise["advice"]
    assert set(advice) == {"line", "column", "pointer", "code", "message", "help"}
    assert (advice["code"], advice["line"], advice["column"], advice["pointer"]) == ("idle-hide", 2, 2, "/hide")


def test_github_commands_are_escaped(tmp_path: Path) -> None:
    """Percent signs, line ends, colons and commas of the author's cannot end or forge a command."""
    path = tmp_path / "a,b:100%.json"
    path.write_text(json.dumps({"version": "1", "default": "deny", "x\n::error::%0A,y": 1}))
    result = run("validate", path, "--format", "github", cwd=tmp_path)
    (line,) = result.stdout.splitlines()
    place, _, message = line.removeprefix("::error ").partition("::")
    properties = dict(one.split("=", 1) for one in place.split(","))
    assert properties["file"].endswith("/a%2Cb%3A100%25.json")
    assert (properties["line"], properties["col"]) == ("1", "37")
    assert set(properties) == {"file", "line", "col", "title"}
    assert "x%0A::error::%250A,y" in message
    assert "%0Ahelp: " in message


def test_github_advice_is_a_warning_with_its_code(folder: Path) -> None:
    """The title of a warning is its code; what is the whole file's has no line."""
    lines = run("validate", "unwise.yaml", "missing.json", "--format", "github", cwd=folder).stdout.splitlines()
    assert lines[0].startswith("::warning file=unwise.yaml,line=2,col=2,title=idle-hide::")
    assert lines[1].startswith("::error file=missing.json,title=policy does not read::")


def test_authors_words_do_not_reach_the_terminal_raw(tmp_path: Path) -> None:
    """Control characters of a document are spelled out."""
    (tmp_path / "p.json").write_text(json.dumps({"version": "1", "default": "deny", "\x1b[31m\r\u202ex": 1}))
    result = run("validate", "p.json", cwd=tmp_path)
    assert "\x1b" not in result.stdout
    assert "\u202e" not in result.stdout
    assert r"\x1b[31m\r\u202ex" in result.stdout


def test_portable_lists_extensions_among_the_advice(tmp_path: Path) -> None:
    """`--portable` finds what the document may well use, and what it does not find without."""
    (tmp_path / "p.json").write_text('{"version": "1", "default": "deny", "mode": "shadow", "tools": {"a*": {}}}')
    assert files_of("p.json", cwd=tmp_path)[0] == 0
    status, (file,) = files_of("p.json", "--portable", cwd=tmp_path)
    assert status == 1
    assert [(one["code"], one["pointer"]) for one in file["advice"]] == [
        ("extension", "/mode"),
        ("extension", "/tools/a*"),
    ]


def test_lists_of_tools_go_to_their_servers(tmp_path: Path) -> None:
    """A list with a server is for the files of that name; others are for every file."""
    folder = tmp_path / "policies"
    folder.mkdir()
    for name in ("git.json", "git@ci.json", "shop.json"):
        (folder / name).write_text('{"version": "1", "default": "deny", "tools": {"status": {}}}')
    (tmp_path / "git.list").write_text('{"server": "git", "tools": [{"name": "log"}]}')
    (tmp_path / "any.list").write_text('{"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": "status"}]}}')
    status, files = files_of(folder, "--tools", tmp_path / "git.list")
    assert status == 1
    assert [[one["code"] for one in file["advice"]] for file in files] == [["unknown-tool"], ["unknown-tool"], []]
    assert files_of(folder, "--tools", tmp_path / "git.list", "--tools", tmp_path / "any.list")[0] == 0
    assert files_of(folder / "shop.json", "--tools", tmp_path / "git.list")[0] == 1


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff", b'{"tools": [1]}', b'{"tools": [], "tools": []}'])
def test_what_is_no_list_of_tools_is_told(content: bytes | None, folder: Path) -> None:
    """A list that cannot be read is a finding of status 2; the policies are looked at all the same."""
    if content is not None:
        (folder / "list.json").write_bytes(content)
    status, files = files_of("good.json", "--tools", "list.json", cwd=folder)
    assert status == 2
    assert [(file["path"], bool(file["problems"])) for file in files] == [("list.json", True), ("good.json", False)]


def test_a_directory_is_looked_at_as_a_guard_would(tmp_path: Path) -> None:
    """An empty directory, a name that names no server and a second policy for one are findings."""
    assert files_of(tmp_path)[0] == 2
    for name in ("git.json", "git.yaml", "@ci.json", ".hidden.json"):
        (tmp_path / name).write_text(GOOD)
    status, files = files_of(tmp_path)
    assert status == 2
    assert {Path(file["path"]).name: len(file["problems"]) for file in files} == {
        "@ci.json": 1,
        "git.json": 0,
        "git.yaml": 1,
    }


def test_a_file_is_looked_at_once(folder: Path) -> None:
    """A file that is named twice is reported once."""
    assert len(files_of("good.json", "good.json", cwd=folder)[1]) == 1


WORST = [
    b"\xff\xfe",
    b"\x00",
    b" " * (17 << 20),
    b"[" * 100_000,
    bytes(range(256)),
    b"- &a [*a]",
    b'"\\ud800"',
    b"\x1b",
]


@pytest.mark.parametrize("form", ["text", "json", "github"])
def test_files_of_any_content_are_findings(form: str, tmp_path: Path) -> None:
    """Whatever the files hold and are called, each is reported."""
    for number, content in enumerate(WORST):
        (tmp_path / f"{number}.json").write_bytes(content)
        (tmp_path / f"{number}n.yaml").write_bytes(content)
    (tmp_path / os.fsdecode(b"\xe9\n.json")).write_bytes(b"{")
    result = run("validate", tmp_path, "--format", form, PYTHONIOENCODING="ascii")
    assert result.returncode == 2
    assert result.stdout.isascii() or form == "github"


BROKEN_OUTPUTS = [["validate", "unwise.yaml"], ["schema"], ["convert", "good.json"]]


@pytest.mark.parametrize("arguments", BROKEN_OUTPUTS, ids=lambda arguments: arguments[0])
def test_a_broken_pipe_is_told(arguments: list[str], folder: Path) -> None:
    """Where nobody reads any more, stderr says so in one line and the status is 2."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = subprocess.run(
            [*PROGRAM, *arguments],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert result.returncode == 2
    assert result.stderr == "the output cannot be written: broken pipe\n"


@pytest.mark.parametrize("arguments", [["schema"], ["convert", "good.json"]], ids=lambda arguments: arguments[0])
@pytest.mark.parametrize("output", ["missing/p.json", ".", "x" * 300])
def test_an_output_that_cannot_be_written_is_told(arguments: list[str], output: str, folder: Path) -> None:
    """A directory that is not there, or is no file, is one line and status 2."""
    result = run(*arguments, "--output", output, cwd=folder)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"`{output}` cannot be written: ")
    assert len(result.stderr.splitlines()) == 1


def test_schema_prints_the_shipped_file(tmp_path: Path) -> None:
    """On stdout or into a file, it is the same text."""
    assert run("schema").stdout == schema_text()
    assert run("schema", "-o", tmp_path / "s.json").stdout == ""
    assert (tmp_path / "s.json").read_text("utf-8") == schema_text()


def test_convert_writes_yaml_as_policy_json(tmp_path: Path) -> None:
    """The JSON means the same: it has the digest of the YAML."""
    source, target = tmp_path / "p.yaml", tmp_path / "p.json"
    source.write_text(
        "version: '1'\ndefault: deny\ndescription: Größe 🙂\ntools: {a: {reason: no, action: deny}}\n", "utf-8"
    )
    assert run("convert", source, "--output", target).returncode == 0
    assert load_policy(target).digest == load_policy(source).digest
    assert json.loads(run("convert", source).stdout) == json.loads(target.read_text("utf-8"))
    assert "Größe 🙂" in target.read_text("utf-8")


def test_convert_writes_intercept_as_policy_json(tmp_path: Path) -> None:
    """What was Intercept's is a document that reads, and is no longer told from any other."""
    source, target = tmp_path / "i.yaml", tmp_path / "p.json"
    source.write_text(INTERCEPT)
    assert run("convert", source, "--output", target).returncode == 0
    policy = load_policy(target, "policy.json")
    assert policy.tools["a"].limits[0].max == 5
    assert policy.origin.written is None


def test_convert_reports_what_does_not_read(folder: Path) -> None:
    """A broken or missing document is told with its place, and nothing is written."""
    for name in ("broken.json", "missing.json"):
        result = run("convert", name, "--output", "out.json", cwd=folder)
        assert (result.returncode, result.stdout) == (2, "")
        assert name in result.stderr
    assert not (folder / "out.json").exists()


def test_convert_says_what_policy_json_cannot(tmp_path: Path) -> None:
    """A condition on another rule's counter has no words in policy.json."""
    rule = "{name: r, conditions: [{path: state.a.calls, op: gt, value: 5}]}"
    (tmp_path / "i.yaml").write_text(f"version: '1'\ntools: {{a: {{rules: [{rule}]}}}}\n")
    result = run("convert", "i.yaml", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert "help: " in result.stderr
