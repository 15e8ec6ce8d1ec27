"""`mcp-policy test`: policy tests, and the rules that none of them tests."""

# ruff: noqa: PT028  the command is called `test`, and is none of pytest's

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated
from xml.etree import ElementTree as Xml

import typer

from ..errors import DocumentError, PolicyError, Problem
from ..policy import Policy, load_directory, load_policy
from ..printable import visible
from ..testing import CallResult, Report, RuleCoverage, run_cases
from .output import fail, fail_with, write

__all__ = ["SUFFIXES", "find_tests", "run_files", "test"]

SUFFIXES = (".policytest.yaml", ".policytest.yml", ".policytest.json")
"""How the names of files of policy tests end."""


def test(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Files of policy tests, or directories with `*.policytest.yaml`; left out, this one."),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Test this file or directory instead of the policy the tests name.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the results as JUnit XML, too.")] = None,
    require_coverage: Annotated[bool, typer.Option(help="Fail where a rule is untested.")] = False,
) -> None:
    """Run policy tests and list the rules that decided no call.

    Exit status 0: all is as expected; 1: a call was not, or a rule is untested and `--require-coverage` is given;
    2: tests or policies do not read.
    """
    reports = run_files(find_tests(paths or [Path()]), policy)
    report = Report.of(reports)
    failed = len(report.failures)
    untested = f", {len(report.untested)} of {len(report.coverage)} rules untested" if report.untested else ""
    lines = [
        *map(str, report.failures),
        *(f"untested: {rule.rule} ({rule.policy})" for rule in report.untested),
        f"{len(report.results) - failed} passed, {failed} failed{untested}",
    ]
    write("".join(f"{visible(line)}\n" for line in lines))
    if junit is not None:
        _write(junit, report, report.coverage if require_coverage else ())
    if failed or (require_coverage and report.untested):
        raise typer.Exit(1)


def find_tests(paths: Iterable[Path]) -> list[Path]:
    """The files of policy tests: what is named, and what lies in directories, each once and in order.

    Raises:
        typer.Exit: There are none, or one of the paths is not there.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            found[path] = None
        for folder, inside, files in os.walk(path) if path.is_dir() else ():
            inside[:] = sorted(name for name in inside if not name.startswith("."))
            found |= {Path(folder, name): None for name in sorted(files) if name.endswith(SUFFIXES)}
    if not found:
        raise fail("no policy tests are here", f"name them `<name>{SUFFIXES[0]}`, or give their paths")
    return list(found)


def run_files(files: Iterable[Path], *policies: Path | None) -> list[Report]:
    """Run files of policy tests, once under each policy; None stands for the one a file names.

    Returns:
        The reports, file by file, and for each file policy by policy.

    Raises:
        typer.Exit: Something does not read; all of it is printed.
    """
    problems: dict[Problem, None] = {}
    reports: list[Report] = []
    try:
        given = [None if path is None else _policies(path) for path in policies]
    except DocumentError as error:
        raise fail_with(error.problems) from None
    for file in files:
        for one in given:
            try:
                reports.append(run_cases(file, policy=one))
            except DocumentError as error:
                problems |= dict.fromkeys(error.problems)
            except PolicyError as error:
                problems[Problem(str(file), 0, 0, "", str(error))] = None
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "\n".join([f"the policy tests do not read: {count}", *map(str, problems)]).splitlines()
        typer.echo("\n".join(map(visible, lines)), err=True)
        raise typer.Exit(2)
    return reports


def _policies(path: Path) -> Policy | dict[str, Policy]:
    return load_directory(path) if path.is_dir() else load_policy(path)


def _write(path: Path, report: Report, rules: Sequence[RuleCoverage]) -> None:
    """JUnit's XML: a suite for each file, and one for the rules where they count."""
    root = Xml.Element("testsuites", name="mcp-policy")
    by_file: dict[str, list[CallResult]] = {}
    for result in report.results:
        by_file.setdefault(result.source, []).append(result)
    for source, results in by_file.items():
        _suite(root, source, (_call(result) for result in results))
    if rules:
        _suite(root, "rules", map(_rule, rules))
    totals = {key: sum(int(suite.attrib[key]) for suite in root) for key in ("tests", "failures")}
    root.attrib.update({key: str(count) for key, count in totals.items()}, errors="0")
    write(Xml.tostring(root, encoding="unicode", xml_declaration=True) + "\n", path)


def _call(result: CallResult) -> tuple[str, str, int, str | None]:
    name = f"call {result.call}: {result.tool}"
    failure = None if result.passed else f"expected {result.expected}, got {result.answer}"
    return f"{result.source}: {result.case}", name, result.line, failure


def _rule(rule: RuleCoverage) -> tuple[str, str, int, str | None]:
    return rule.policy, rule.rule, 0, None if rule.calls else "no call of the tests is decided by it"


def _suite(root: Xml.Element, name: str, cases: Iterable[tuple[str, str, int, str | None]]) -> None:
    suite = Xml.SubElement(root, "testsuite", name=_text(name))
    for group, title, line, failure in cases:
        case = Xml.SubElement(suite, "testcase", classname=_text(group), name=_text(title))
        if line:
            case.attrib.update(file=_text(name), line=str(line))
        if failure is not None:
            Xml.SubElement(case, "failure", message=_text(failure)).text = _text(failure)
    suite.attrib.update(tests=str(len(suite)), failures=str(len(suite.findall("*/failure"))), errors="0")


def _text(text: str) -> str:
    """What XML can hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\N{REPLACEMENT CHARACTER}", text)
