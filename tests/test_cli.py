"""`mcp-policy`: the demo on its real servers, and one clear report for every kind of bad policy file."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytest.importorskip("typer")

SCRIPT = Path(sysconfig.get_path("scripts")) / "mcp-policy"

BAD_FILES = {
    "missing": None,
    "empty": b"",
    "blank": b" \n\t\n",
    "binary": bytes(range(256)),
    "truncated": b'{"version": "1", "default": "deny", "tools": {"x": {"requ',
    "too large": b" " * (17 * 1024 * 1024),
    "duplicate key": b'{"version": "1", "default": "deny", "default": "allow"}',
    "misspelt": b'{"version": "1", "defualt": "deny"}',
    "a list": b"[]",
}


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        [str(SCRIPT), *arguments], capture_output=True, text=True, timeout=120, cwd=cwd, env=environment, check=False
    )


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_policy_file_is_one_clear_report(kind: str, tmp_path: Path) -> None:
    """Exit status 2, the file's name, a count of problems, and no traceback."""
    path = tmp_path / "policy.json"
    if BAD_FILES[kind] is not None:
        path.write_bytes(BAD_FILES[kind])
    result = run("demo", "--policy", str(path))
    assert result.returncode == 2
    assert result.stdout == ""
    first, second, *_ = result.stderr.splitlines()
    assert first.startswith("the policy does not read: ")
    assert second.startswith(str(path))
    assert "Traceback" not in result.stderr


def test_an_alias_is_reported_with_its_place(tmp_path: Path) -> None:
    """YAML aliases are refused where they stand."""
    path = tmp_path / "policy.yaml"
    path.write_text('version: "1"\ndefault: deny\ntools:\n  a: &rules {}\n  b: *rules\n')
    result = run("demo", "--policy", str(path))
    assert result.returncode == 2
    assert f"{path}:4:6: anchor" in result.stderr
    assert f"{path}:5:6: alias" in result.stderr


def test_every_file_of_a_directory_is_reported(tmp_path: Path) -> None:
    """Problems of all files come together."""
    (tmp_path / "git.json").write_text("{")
    (tmp_path / "shop.yaml").write_text("version: 2\ndefault: deny\n")
    result = run("demo", "--policy", str(tmp_path))
    assert result.returncode == 2
    assert "git.json" in result.stderr
    assert "shop.yaml" in result.stderr


def test_the_version_is_told() -> None:
    """`--version` prints the package's version alone."""
    result = run("--version")
    assert result.returncode == 0
    assert result.stdout.strip().count(".") == 2


def test_without_the_extra_it_says_what_to_install() -> None:
    """Where typer is missing, the command names the extra and leaves no traceback."""
    code = "import sys; sys.modules['typer'] = None; from mcp_policy_middleware.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 1
    assert "mcp-policy-middleware[cli]" in result.stderr
    assert "Traceback" not in result.stderr


def test_without_the_demos_servers_it_says_what_to_install() -> None:
    """Where the demo's frameworks are missing, the command names the extra."""
    code = "import sys; sys.modules['fastmcp'] = None; sys.argv = ['x', 'demo']\n"
    code += "from mcp_policy_middleware.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 1
    assert "mcp-policy-middleware[demo]" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_demo_shows_its_denials_and_proves_them(tmp_path: Path) -> None:
    """Two real servers: what was denied changed nothing on disk, and every decision is in the span tree."""
    pytest.importorskip("fastmcp")
    if not (SCRIPT.parent / "mcp-server-git").exists() or not (SCRIPT.parent / "mcp-alchemy").exists():
        pytest.skip("the demo's servers are not installed: make test-mcp2 installs them")
    result = run("demo", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = [line.strip() for line in result.stdout.splitlines()]
    effects = [line.split()[0] for line in lines if line.startswith(("allow ", "deny "))]
    assert effects == ["allow"] * 3 + ["deny"] * 2 + ["allow"] + ["deny"] * 2 + ["allow"] * 2 + ["deny"] * 2
    rules = [line.split()[0] for line in lines if line.startswith(("/tools", "("))]
    assert rules == [
        "/tools/git_log/limits/git_log_rate",
        "(hidden)",
        "/tools/git_create_branch/require/args.branch_name-regex",
        "(default",
        "/tools/execute_query/require/args.query-regex",
        "/tools/execute_query/require/args.query-regex",
    ]
    facts = {
        line.split()[0]: line.split()[1:] for line in lines if line[:6] in ("branch", "commit", "staged", "orders")
    }
    assert facts["branches"][:2] == ["agent/new-prices,", "main"]
    assert facts["commits"][0] == "1"
    assert facts["staged"][0] == "prices.csv"
    assert facts["orders"][0] == "3"
    assert "server git lists 12 tools, the agent sees 11:" in lines
    spans = [line for line in lines if "policy_decision " in line]
    assert len(spans) == 12
    assert list(tmp_path.iterdir()) == []
