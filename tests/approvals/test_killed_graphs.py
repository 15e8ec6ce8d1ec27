"""A graph that waits for a person outlives its process: `kill -9`, another process answers, a third goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langgraph.checkpoint.sqlite")
pytest.importorskip("langchain")
pytest.importorskip("typer")

from mcp_policy_middleware.adapters.langgraph import approve, deny

PROGRAM = Path(__file__).with_name("paying_agent.py")
COMMAND = "from mcp_policy_middleware.cli import main; main()"
KILLED = -9


class Place:
    """A directory with a graph's files, and the processes that run it."""

    def __init__(self, folder: Path, host: str, way: str) -> None:
        self.folder, self.host, self.way = folder, host, way

    def run(self, what: str, *more: str) -> Any:
        """Run the program until it says something; one that waits is killed. None where it died by itself."""
        command = [sys.executable, str(PROGRAM), str(self.folder), self.host, self.way, what, *more]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            told = json.loads(line) if line else None
            if told is not None and told["questions"]:
                process.kill()
            assert process.wait(60) == (0 if told is not None and not told["questions"] else KILLED)
        return told

    def approve(self, id: str) -> None:
        """Say yes from the command line."""
        words = ["approvals", "approve", str(self.folder / "approvals.db"), id, "--by", "ann"]
        subprocess.run([sys.executable, "-c", COMMAND, *words], check=True, timeout=60)

    def paid(self) -> list[str]:
        return sorted((self.folder / "paid.txt").read_text().split())


@pytest.mark.parametrize(
    ("host", "way", "by"),
    [
        ("agent", "sync", "outside"),
        ("agent", "async", "resume"),
        ("node", "sync", "resume"),
        ("node", "async", "outside"),
    ],
)
def test_a_graph_killed_while_waiting_makes_the_call_once(tmp_path: Path, host: str, way: str, by: str) -> None:
    place = Place(tmp_path, host, way)
    [question] = place.run("start")["questions"]
    if by == "outside":
        place.approve(question["id"])
        told = place.run("go")
    else:
        told = place.run(json.dumps(approve(question)))
    assert told == {"used": 2, "questions": [], "answers": {"1": None, "50": None}}
    assert place.paid() == ["1", "50"]


@pytest.mark.parametrize(("host", "way"), [("agent", "sync"), ("node", "async")])
@pytest.mark.parametrize("by", ["outside", "resume"])
def test_a_graph_killed_after_the_call_does_not_make_it_again(tmp_path: Path, host: str, way: str, by: str) -> None:
    """The call was made and no checkpoint tells of it: what was agreed to is used up, and a person is asked anew."""
    place = Place(tmp_path, host, way)
    [question] = place.run("start")["questions"]
    if by == "outside":
        place.approve(question["id"])
    assert place.run("go" if by == "outside" else json.dumps(approve(question)), "die") is None
    [again] = place.run("go")["questions"]
    assert again["id"] != question["id"]
    [same] = place.run(json.dumps(approve(question)))["questions"]
    assert (same["id"], place.paid().count("50")) == (again["id"], 1)
    told = place.run(json.dumps(deny(again)))
    assert told["answers"] == {"1": None, "50": "approval_denied"}
    assert place.paid().count("50") == 1
