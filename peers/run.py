"""Other people's tests, once as they are and once with a guard under them: both must come to the same.

For each suite of `suites.toml`: its source distribution is fetched and checked, its tests are run unguarded, then
under an allow-all policy by each guard, and a few of them under a policy that denies everything, which they must
notice. README.md says how to read the table.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".peers"
SECONDS = 480
"""How long one run of a suite may take."""

DENIED_SECONDS = 90
"""Likewise, where every call is denied: some tests wait for what never comes."""

MOST_REPEATED = 20
"""So many failures are tried again; more are no accident."""

UNWANTED = ("LANGCHAIN_", "LANGGRAPH_", "LANGSMITH_", "OTEL_", "PYTEST_")
"""Settings of whoever runs this that would reach the tests, and might send traces somewhere."""

PHASES = {"setup", "call", "teardown"}


@dataclass(frozen=True)
class Expected:
    """What one guard is held to.

    Attributes:
        calls: How many calls the guard must have admitted, at least.
        denied: Tests that must fail where every call is denied; one without brackets stands for all its parameters.
        explained: Tests that fail under the guard, and why they may.
    """

    calls: int
    denied: list[str]
    explained: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """Somebody's tests.

    Attributes:
        sdist: The source distribution, pinned.
        sha256: Of that file.
        world: Whose environment they run in.
        tests: Files and folders in the distribution.
        passing: How many tests must pass unguarded, at least.
        guards: By the plugin's mode.
        options: More for pytest.
    """

    name: str
    sdist: str
    sha256: str
    world: str
    tests: list[str]
    passing: int
    guards: dict[str, Expected]
    options: list[str] = field(default_factory=list)


@dataclass
class Run:
    """What a run came to.

    Attributes:
        phases: For each test, what became of its phases.
        admitted: Calls that the guard let through, with a charge taken; None where the run did not get to its end.
        refused: Other decisions, likewise.
        seconds: How long it took.
    """

    seconds: float = 0.0
    phases: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    admitted: int | None = None
    refused: int | None = None

    @property
    def passed(self) -> set[str]:
        """Tests of which every phase passed."""
        return {test for test, phases in self.phases.items() if phases == dict.fromkeys(PHASES, "passed")}

    @property
    def failed(self) -> set[str]:
        """Tests of which a phase failed; one that was cut short is in neither set."""
        return {test for test, phases in self.phases.items() if "failed" in phases.values()}


@dataclass
class Row:
    """A line of the table: one guard under one suite, beside the same suite unguarded."""

    suite: str
    guard: str
    tests: int
    passed: int
    passed_guarded: int
    calls: int
    least_calls: int
    explained: int
    unsteady: list[str]
    denials_noticed: str
    seconds: float
    faults: list[str]


def suites(text: str) -> list[Suite]:
    """The suites of a `suites.toml`; unknown and missing keys are errors."""
    return [
        Suite(name=name, **{**entry, "guards": {mode: Expected(**held) for mode, held in entry["guards"].items()}})
        for name, entry in tomllib.loads(text).items()
    ]


def unpacked(suite: Suite, python: Path) -> Path:
    """The suite's source distribution, fetched unless it is there, checked, and unpacked afresh."""
    downloads = CACHE / "sdists"
    downloads.mkdir(parents=True, exist_ok=True)
    name, _, version = suite.sdist.partition("==")
    file = downloads / f"{name.replace('-', '_')}-{version}.tar.gz"
    if not file.exists():
        wanted = CACHE / f"{suite.name}.txt"
        wanted.write_text(f"{suite.sdist} --hash=sha256:{suite.sha256}\n")
        pip = [str(python), "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        wants = ["--no-binary", name, "--require-hashes", "--requirement", str(wanted), "--dest", str(downloads)]
        subprocess.run([*pip, *wants], check=True)
    if hashlib.sha256(file.read_bytes()).hexdigest() != suite.sha256:
        sys.exit(f"`{file}` is not the file that `suites.toml` names: remove it, and find out why")
    place = CACHE / "sources" / suite.name
    shutil.rmtree(place, ignore_errors=True)
    with tarfile.open(file) as archive:
        archive.extractall(place, filter="data")
    (inside,) = place.iterdir()
    return inside


def run(suite: Suite, source: Path, python: Path, name: str, tests: Sequence[str], *options: str) -> Run:
    """Run tests in their distribution's folder, with its own settings, and kill what is left when time is up."""
    results, log = CACHE / "results" / f"{name}.jsonl", CACHE / "logs" / f"{name}.log"
    for file in (results, log):
        file.parent.mkdir(exist_ok=True)
        file.unlink(missing_ok=True)
    command: list[str | Path] = [python, "-m", "pytest", "-p", "peers.plugin", "-p", "no:cacheprovider", "--tb=short"]
    command += [*suite.options, f"--peers-results={results}", *options, *tests]  # with `=`, lest it pass for a test
    surroundings = {
        **{key: value for key, value in os.environ.items() if not key.startswith(UNWANTED)},
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",  # servers are started as `python`
        "PYTHONPATH": str(ROOT),
    }
    seconds = DENIED_SECONDS if "--peers-deny" in options else SECONDS
    began = time.monotonic()
    with log.open("w") as output, subprocess.Popen(
        command, cwd=source, env=surroundings, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:  # interrupted, too
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return read(results, time.monotonic() - began)


def read(results: Path, seconds: float) -> Run:
    """What the plugin wrote of a run."""
    run = Run(seconds)
    for line in results.read_text().splitlines() if results.exists() else []:
        match json.loads(line):
            case [test, phase, outcome]:
                known = run.phases[test].get(phase, "passed")
                run.phases[test][phase] = outcome if known == "passed" else known
            case [admitted, refused]:
                run.admitted, run.refused = admitted, refused
    return run


def compared(suite: Suite, mode: str, source: Path, python: Path, bare: Run) -> Row:
    """Run a suite under one guard, and hold it to what is expected."""
    expected, name = suite.guards[mode], f"{suite.name}-{mode}"

    def under(guard: str, tests: Sequence[str], *options: str) -> Run:
        return run(suite, source, python, f"{name}-{guard}", tests, f"--peers-mode={mode}", *options)

    guarded = under("allow", suite.tests)
    denied = under("deny", expected.denied, "--peers-deny")
    lost = bare.passed - guarded.passed
    unexplained = sorted(lost - expected.explained.keys())
    again = under("again", unexplained).passed if 0 < len(unexplained) <= MOST_REPEATED else set()
    chosen = {test for test in bare.passed if test in expected.denied or test.partition("[")[0] in expected.denied}
    return Row(
        suite=suite.sdist,
        guard=mode,
        tests=len(bare.phases),
        passed=len(bare.passed),
        passed_guarded=len(guarded.passed),
        calls=guarded.admitted or 0,
        least_calls=expected.calls,
        explained=len(expected.explained.keys() & lost),
        unsteady=sorted(again),
        denials_noticed=f"{len(chosen & denied.failed)}/{len(chosen)}",
        seconds=bare.seconds + guarded.seconds + denied.seconds,
        faults=[
            *faults_of_numbers(suite, expected, bare, guarded),
            *(f"fails only under the guard: {test}" for test in unexplained if test not in again),
            *(f"is explained, and does not fail: {test}" for test in sorted(expected.explained.keys() - lost)),
            *(f"does not notice that calls are denied: {test}" for test in sorted(chosen - denied.failed)),
            *(
                f"is to be denied, and is no passing test: {test}"
                for test in expected.denied
                if not named(test, chosen)
            ),
            *(["fewer denials than tests that are to notice them"] if (denied.refused or 0) < len(chosen) else []),
        ],
    )


def named(test: str, among: set[str]) -> bool:
    """Whether one of the tests goes by this name."""
    return any(test in (one, one.partition("[")[0]) for one in among)


def faults_of_numbers(suite: Suite, expected: Expected, bare: Run, guarded: Run) -> Iterator[str]:
    """What is too little, or too much."""
    if bare.admitted is None:
        yield "the unguarded run did not get to its end"
    if bare.admitted:
        yield "the unguarded run was guarded"
    if len(bare.passed) < suite.passing:
        yield f"{len(bare.passed)} tests pass unguarded, and {suite.passing} should"
    if guarded.admitted is None:
        yield "the guarded run did not get to its end"
    elif guarded.admitted < expected.calls:
        yield f"{guarded.admitted} calls were guarded, and {expected.calls} should have been"
    if guarded.refused:
        yield f"{guarded.refused} calls were denied by a policy that allows all"


def table(rows: Sequence[Row]) -> str:
    """The rows, for people."""
    lines: list[tuple[str, ...]] = [
        ("suite", "guard", "tests", "pass", "guarded", "calls (least)", "explained", "deny fails", "s", "")
    ]
    for row in rows:
        verdict = f"{len(row.faults)} FAULTS" if row.faults else "ok"
        if row.unsteady:
            verdict += f", {len(row.unsteady)} unsteady"
        numbers = (row.tests, row.passed, row.passed_guarded, f"{row.calls} ({row.least_calls})", row.explained)
        cells = (row.suite, row.guard, *numbers, row.denials_noticed, f"{row.seconds:.0f}", verdict)
        lines.append(tuple(map(str, cells)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def main() -> int:
    """Run the suites one after the other, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mcp1", type=Path, required=True, help="the Python of the environment with mcp 1.x")
    parser.add_argument("--mcp2", type=Path, required=True, help="the Python of the environment with mcp 2.x")
    parser.add_argument("--only", action="append", help="a suite's name in suites.toml; may be given again")
    options: Mapping[str, Any] = vars(parser.parse_args())
    rows = []
    for suite in suites((ROOT / "peers" / "suites.toml").read_text()):
        if options["only"] and suite.name not in options["only"]:
            continue
        python = Path(options[suite.world]).absolute()  # not resolved: a link is what makes it the environment's
        source = unpacked(suite, python)
        print(f"{suite.sdist}: unguarded ...", flush=True)
        bare = run(suite, source, python, f"{suite.name}-unguarded", suite.tests)
        for mode in suite.guards:
            print(f"{suite.sdist}: guarded {mode} ...", flush=True)
            rows.append(compared(suite, mode, source, python, bare))
    if not rows:
        sys.exit("no such suite: see `peers/suites.toml`")
    (CACHE / "table.json").write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    print(f"\n{table(rows)}")
    for row in rows:
        for fault in row.faults:
            print(f"{row.suite}, {row.guard}: {fault}")
    return 1 if any(row.faults for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
