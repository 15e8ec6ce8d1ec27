"""Tries the guard in other people's agent frameworks, each in its own environment under `.frameworks/`.

    python frameworks/run.py                    # all; exits with 1 where one is not green
    python frameworks/run.py agno strands       # some
    python frameworks/run.py --write            # all, and docs/frameworks.md is written from the results

Needs PyPI to install; the trials themselves speak to this machine alone, and to no model.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import venv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parent
ENVIRONMENTS = ROOT / ".frameworks"
PAGE = ROOT / "docs" / "frameworks.md"
INSTALL_SECONDS = 1200
TRIAL_SECONDS = 180
QUIET = {
    "AGNO_TELEMETRY": "false",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_DISABLE_VERSION_CHECK": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "MCP_USE_ANONYMIZED_TELEMETRY": "false",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "OTEL_SDK_DISABLED": "true",
    "PYTHONWARNINGS": "ignore",
}


class Framework(NamedTuple):
    """A program beside this file, and what its environment needs."""

    program: str
    requirements: tuple[str, ...]


FRAMEWORKS = {
    "openai-agents": Framework("openai_agents", ("openai-agents>=0.24", "mcp>=2")),
    "openai-agents-mcp1": Framework("openai_agents", ("openai-agents>=0.24", "mcp<2")),
    "pydantic-ai": Framework("pydantic_ai", ("pydantic-ai-slim[mcp]>=2.68",)),
    "google-adk": Framework("google_adk", ("google-adk[mcp]>=2.13", "mcp>=2")),
    "google-adk-mcp1": Framework("google_adk", ("google-adk[mcp]>=2.13", "mcp<2")),
    "llama-index": Framework("llama_index", ("llama-index-tools-mcp>=0.6", "llama-index-core>=0.14.25")),
    "agno": Framework("agno", ("agno>=3.1.10", "fastmcp>=4")),
    "autogen": Framework("autogen", ("autogen-agentchat>=0.7.5", "autogen-ext[mcp]>=0.7.5", "mcp<2")),
    "semantic-kernel": Framework("semantic_kernel", ("semantic-kernel[mcp]>=1.45",)),
    "agent-framework": Framework("agent_framework", ("agent-framework-core>=1.23", "mcp>=2.2", "tenacity")),
    "smolagents": Framework("smolagents", ("smolagents[mcp]>=1.26", "mcp<2")),
    "strands": Framework("strands", ("strands-agents>=1.62",)),
    "fastmcp": Framework("fastmcp", ("fastmcp>=4.1",)),
    "crewai": Framework("crewai", ("crewai>=1.15.30",)),
    "langchain-mcp-adapters": Framework("langchain_mcp_adapters", ("langchain-mcp-adapters>=0.3.2", "langchain>=1.4")),
    "langchain-mcp": Framework("langchain_mcp", ("langchain[mcp]>=1.4",)),
    "mcp-use": Framework("mcp_use", ("mcp-use>=1.7.1",)),
}


def environment(name: str) -> Path:
    """The Python of a framework's environment, which is built where it is not there or needs something else."""
    place, wanted = ENVIRONMENTS / name, "\n".join(FRAMEWORKS[name].requirements)
    python, built_for = place / "bin" / "python", place / "built-for"
    if built_for.exists() and built_for.read_text(encoding="utf-8") == wanted:
        return python
    venv.create(place, clear=True, with_pip=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", str(ROOT)]
    subprocess.run([*install, *FRAMEWORKS[name].requirements], check=True, timeout=INSTALL_SECONDS)
    built_for.write_text(wanted, encoding="utf-8")
    return python


def tried(name: str) -> dict[str, Any]:
    """The results of a framework's program, or `failed` and why."""
    home = ENVIRONMENTS / "home"
    home.mkdir(parents=True, exist_ok=True)
    try:
        ran = subprocess.run(
            [str(environment(name)), "-m", f"frameworks.{FRAMEWORKS[name].program}"],
            capture_output=True,
            check=False,
            cwd=ROOT,
            encoding="utf-8",
            env={"HOME": str(home), "PATH": os.environ["PATH"], **QUIET},  # no key of any provider
            timeout=TRIAL_SECONDS,
        )
    except subprocess.SubprocessError as error:
        return {"failed": str(error).splitlines()[0]}
    lines = ran.stdout.splitlines()
    if ran.returncode == 0 and lines and lines[-1].startswith("{"):
        results: dict[str, Any] = json.loads(lines[-1])
        return results
    return {"failed": (ran.stderr.strip().splitlines() or ["it printed no result"])[-1]}


def is_green(results: dict[str, Any]) -> bool:
    """Whether every check holds."""
    return "failed" not in results and all(results["checks"].values())


def summary(results: dict[str, Any]) -> str:
    """One line of what became of a framework."""
    if "failed" in results:
        return f"FAILED  {results['failed']}"
    versions = ", ".join(f"{package} {version}" for package, version in results["versions"].items())
    wrong = [check for check, holds in results["checks"].items() if not holds]
    return f"NOT GREEN  {versions}: {'; '.join(wrong)}" if wrong else f"green  {versions}"


def drawn(everything: dict[str, dict[str, Any]]) -> str:
    """The table of the documentation."""
    head = ("framework", "mcp", "what asks for the call", "`server(...)` around", "what a denial becomes", "checks")
    rows = [head, ("---",) * len(head)]
    for name, results in everything.items():
        versions = dict(results["versions"])
        line = versions.pop("mcp")
        packages = ", ".join(f"{package} {version}" for package, version in versions.items())
        around = {"connecting": "connecting", "always": "connecting and calls"}[results["named"]]
        shape = results["shape"] + ("" if results["marked"] else " (as a success, but for its text)")
        green = f"{sum(results['checks'].values())} of {len(results['checks'])}"
        rows.append((packages or name, line, results["driven_by"], around, shape, green))
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def page(everything: dict[str, dict[str, Any]]) -> str:
    """docs/frameworks.md, with the table as it was found now."""
    found = f"Python {platform.python_version()}, {datetime.now(UTC):%d %B %Y}"
    template = (HERE / "page.md").read_text(encoding="utf-8")
    return template.replace("{table}", drawn(everything)).replace("{found}", found)


def main() -> int:
    """Try what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FRAMEWORKS))
    parser.add_argument("--write", action="store_true", help="write docs/frameworks.md; all must be green")
    asked = parser.parse_args()
    unknown = [name for name in asked.names if name not in FRAMEWORKS]
    if unknown or (asked.write and asked.names):
        parser.error(f"no such framework: {', '.join(unknown)}" if unknown else "--write takes no names")
    everything = {}
    for name in asked.names or FRAMEWORKS:
        everything[name] = tried(name)
        print(f"{name:24}{summary(everything[name])}", flush=True)
    green = sum(map(is_green, everything.values()))
    print(f"{green} of {len(everything)} green")
    if asked.write and green == len(everything):
        PAGE.write_text(page(everything), encoding="utf-8")
    return 0 if green == len(everything) else 1


if __name__ == "__main__":
    sys.exit(main())
