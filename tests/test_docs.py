"""Every code block of the README and the guides runs, in order, as a reader would type it."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mcp_policy_middleware import Guard, Policy, ToolCall, load_policy
from mcp_policy_middleware.stores import MemoryStore

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(?P<language>\w+)(?: (?P<file>\S+))?\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
NEEDS = re.compile(r"<!-- needs: (\S+) -->")


def run_python(code: str, page: str, namespace: dict[str, Any]) -> None:
    """Run a block, which may await at its top level."""
    compiled = compile(code, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(compiled, namespace)
    if inspect.iscoroutine(result):
        asyncio.run(result)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_every_block_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Named blocks are files, policies must read, and Python blocks share one namespace and a Redis server."""
    text = page.read_text()
    if "REDIS_URL" in text:
        monkeypatch.setenv("REDIS_URL", request.getfixturevalue("redis_server").url)
    for needed in NEEDS.findall(text):
        pytest.importorskip(needed)
    if page.name == "README.md":
        pytest.importorskip("langchain_core")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__docs__"}
    blocks = list(BLOCK.finditer(text))
    policy: Policy | None = None
    for block in blocks:
        language, file, code = block["language"], block["file"], block["code"]
        if file == "calls":
            assert policy is not None
            guard = Guard(policy, store=MemoryStore())
            for call in yaml.safe_load(code):
                made = ToolCall(call["tool"], call["arguments"])
                assert guard.explain(made).reason == call["expect"], call
        elif file is not None:
            (tmp_path / file).write_text(code)
            if language in ("json", "yaml") and "default:" in code.replace('"', ""):
                policy = load_policy(tmp_path / file)
        elif language == "python":
            line = text[: block.start("code")].count("\n")
            run_python("\n" * line + code, str(page), namespace)
        elif language == "json":
            json.loads(code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """A relative link names a file of the repository."""
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_printed_comments_are_true(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the README says a line prints, it prints."""
    pytest.importorskip("langchain_core")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text()
    namespace: dict[str, Any] = {"__name__": "__docs__"}
    for block in BLOCK.finditer(text):
        if block["file"]:
            (tmp_path / block["file"]).write_text(block["code"])
        elif block["language"] == "python":
            run_python(block["code"], "README.md", namespace)
            said = re.findall(r"^print\(.*\)\s+# (.*)$", block["code"], re.MULTILINE)
            assert said
            assert capsys.readouterr().out.splitlines() == said


def test_tables_are_as_the_code_has_them() -> None:
    """Tables that the code knows are drawn from it, and checked in as drawn."""
    code = [sys.executable, str(ROOT / "docs" / "tables.py"), "--check"]
    result = subprocess.run(code, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


def test_make_targets_of_the_readme_exist() -> None:
    """The README's commands are targets of the Makefile."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in ("README.md", "CONTRIBUTING.md"):
        assert set(re.findall(r"make ([a-z0-9-]+)", (ROOT / document).read_text())) <= targets
