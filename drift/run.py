"""Runs the adapter suite on the oldest and the newest supported versions, each in its own environment under `.drift/`.

    python drift/run.py                    # all of environments.toml; exits with 1 where one fails
    python drift/run.py oldest-mcp1        # some

Needs PyPI and `redis-server`. An environment is built anew each time, so that the newest is today's. The results are
in `.drift/results.json` too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

HERE = Path(__file__).parent
ROOT = HERE.parent
PLACE = ROOT / ".drift"
ENVIRONMENTS: dict[str, dict[str, Any]] = tomllib.loads((HERE / "environments.toml").read_text(encoding="utf-8"))
SUITE = ("tests/adapters", "tests/test_architecture.py", "tests/stores/test_contract.py")
PACKAGES = (
    "mcp", "langchain-core", "langgraph-prebuilt", "langchain", "langchain-mcp-adapters", "fastmcp", "redis",
    "opentelemetry-api", "opentelemetry-sdk", "pydantic",
)  # fmt: skip
INSTALL_SECONDS = 1200
SUITE_SECONDS = 1200

# What an old version deprecates, or a new one, is its own affair; what our package does is an error still.
WARNINGS = "error\ndefault::DeprecationWarning\ndefault::PendingDeprecationWarning\nerror:::mcp_policy_middleware"

VERSIONS = f"""
import json, platform
from importlib.metadata import distributions
found = {{each.metadata["Name"].lower(): each.version for each in distributions()}}
print(json.dumps({{"python": platform.python_version(), **{{n: found[n] for n in {PACKAGES} if n in found}}}}))
"""


def interpreter(program: str | None) -> str | None:
    """The Python that an environment is made with; None where it is not on PATH, or only a stub that does not run."""
    found = shutil.which(program) if program else sys.executable
    if found is None or subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode:
        return None
    return found


def built(name: str, made_with: str) -> str:
    """The Python of an environment, made anew with the package and what is to be beside it.

    Raises:
        subprocess.SubprocessError: Something cannot be installed.
    """
    wanted, folder = ENVIRONMENTS[name], PLACE / name
    python = str(folder / "bin" / "python")
    editable = f"{ROOT}[{','.join(wanted['extras'])}]"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in (
        [made_with, "-m", "venv", "--clear", str(folder)],
        [*pip, "--upgrade", "pip"],
        [*pip, "--group", "test", "--editable", editable, *wanted["requirements"]],
    ):
        subprocess.run(command, capture_output=True, check=True, cwd=ROOT, text=True, timeout=INSTALL_SECONDS)
    return python


def counted(report: Path) -> dict[str, Any]:
    """How many tests passed, failed and were skipped, which failed, and why the others were skipped."""
    failed, skipped, passed = [], [], 0
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it
        outcomes = {child.tag: child.get("message", "") for child in case}
        if outcomes.keys() & {"failure", "error"}:
            failed.append(f"{case.get('classname')}::{case.get('name')}")
        elif "skipped" in outcomes:
            skipped.append(outcomes["skipped"])
        else:
            passed += 1
    reasons = {reason: skipped.count(reason) for reason in sorted(set(skipped))}
    return {"passed": passed, "failed": len(failed), "skipped": len(skipped), "failures": failed, "skips": reasons}


def told(error: subprocess.SubprocessError) -> str:
    """Why a command failed, in the one line of pip's that says it."""
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) and error.stderr else str(error)
    lines = said.strip().splitlines()
    return next((line for line in lines if line.startswith("ERROR")), lines[-1])


def tried(name: str) -> dict[str, Any]:
    """What the suite says in an environment; `problem` where it could not be asked, `not_run` where no Python was."""
    wanted = ENVIRONMENTS[name]
    made_with = interpreter(wanted.get("python"))
    if made_with is None:
        return {"not_run": f"no {wanted['python']} on PATH"}
    results: dict[str, Any] = {}
    report = PLACE / f"{name}.xml"
    report.unlink(missing_ok=True)
    try:
        python = built(name, made_with)
        versions = subprocess.run([python, "-c", VERSIONS], capture_output=True, check=True, text=True, timeout=60)
        results["versions"] = json.loads(versions.stdout)
        options = ["-q", "-p", "no:cacheprovider", "-o", f"filterwarnings={WARNINGS}", f"--junitxml={report}"]
        ran = subprocess.run(
            [python, "-m", "pytest", *options, "--servers", "--world", wanted["world"], *SUITE],
            capture_output=True,
            check=False,
            cwd=ROOT,
            text=True,
            timeout=SUITE_SECONDS,
        )
    except subprocess.SubprocessError as error:
        return {**results, "problem": told(error)}
    (PLACE / f"{name}.log").write_text(ran.stdout + ran.stderr, encoding="utf-8")
    if not report.exists():
        return {**results, "problem": (ran.stderr or ran.stdout).strip().splitlines()[-1]}
    results |= counted(report)
    if ran.returncode and not results["failed"]:
        results["problem"] = f"pytest exited with {ran.returncode}"
    return results


def is_bad(results: dict[str, Any]) -> bool:
    """Whether something failed, or could not be tried for another reason than a missing interpreter."""
    return "problem" in results or bool(results.get("failed"))


def drawn(everything: dict[str, dict[str, Any]]) -> str:
    """The results as a table, and below it what went wrong."""
    head = ("environment", "python", *PACKAGES, "passed", "failed", "skipped")
    rows = [head]
    for name, results in everything.items():
        versions = results.get("versions", {})
        counts = [str(results.get(outcome, "-")) for outcome in ("passed", "failed", "skipped")]
        rows.append((name, *(versions.get(each, "-") for each in head[1 : -len(counts)]), *counts))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for name, results in everything.items():
        lines += [f"{name}: not run: {results['not_run']}"] if "not_run" in results else []
        lines += [f"{name}: {results['problem']}"] if "problem" in results else []
        lines += [f"{name}: failed: {test}" for test in results.get("failures", ())]
    return "\n".join(lines)


def main() -> int:
    """Try what was asked for, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ENVIRONMENTS))
    asked = parser.parse_args().names
    if unknown := [name for name in asked if name not in ENVIRONMENTS]:
        parser.error(f"no such environment: {', '.join(unknown)}")
    PLACE.mkdir(exist_ok=True)
    everything = {}
    for name in asked or ENVIRONMENTS:
        print(f"{name} ...", flush=True)
        everything[name] = tried(name)
    (PLACE / "results.json").write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")
    print(drawn(everything))
    return 1 if any(map(is_bad, everything.values())) else 0


if __name__ == "__main__":
    sys.exit(main())
