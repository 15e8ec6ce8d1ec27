"""The examples run as their README says, on both SDK lines."""

from __future__ import annotations

import asyncio
import runpy
from pathlib import Path

import pytest

from mcp_policy_middleware.testing import FrozenClock

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_langchain_app_is_safe_with_three_added_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """One refund is made; the large one and the deletion are denied; three lines are marked as added."""
    pytest.importorskip("langchain")
    app = runpy.run_path(str(EXAMPLES / "langchain_app.py"))
    app["main"]()
    assert app["REFUNDED"] == ["o-1"]
    assert sorted(app["ORDERS"]) == ["o-1", "o-2"]
    assert capsys.readouterr().out.count("[POLICY DENIED]") == 2
    assert (EXAMPLES / "langchain_app.py").read_text().count("  # added\n") == 3


def test_an_agent_pauses_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    """The person is asked about the two large refunds, and the one they agree to is made, once, like the small one."""
    pytest.importorskip("langchain")
    example = runpy.run_path(str(EXAMPLES / "pause_and_resume.py"))
    asked: list[dict[str, object]] = []

    def person(question: dict[str, object]) -> bool:
        asked.append(question["arguments"])
        return question["arguments"]["order"] == "o-3"

    example["main"](person)
    assert sorted(each["order"] for each in asked) == ["o-2", "o-3"]
    assert sorted(example["REFUNDED"]) == ["o-1", "o-3"]
    assert capsys.readouterr().out.count("[POLICY DENIED]") == 1


def test_ten_policy_generations_a_minute_and_nothing_else() -> None:
    """The published policy admits ten of twelve calls within a minute, and no other tool."""
    pytest.importorskip("mcp")
    example = runpy.run_path(str(EXAMPLES / "policy_generation" / "run.py"))
    reasons = asyncio.run(example["main"](example["STAND_IN"], FrozenClock()))
    assert reasons == {"allowed": 10, "limit_exceeded": 2, "default_deny": 1}


@pytest.mark.filterwarnings("ignore")  # of the notebook machinery, not of what it runs
def test_the_notebook_runs_and_says_what_it_says() -> None:
    """Each cell runs and prints what the checked-in notebook shows."""
    pytest.importorskip("mcp")
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    checked_in = nbformat.read(EXAMPLES / "wrap_an_mcp_toolset.ipynb", as_version=4)
    notebook = nbformat.read(EXAMPLES / "wrap_an_mcp_toolset.ipynb", as_version=4)
    client.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(EXAMPLES)}}).execute()

    def printed(book: object) -> list[str]:
        return ["".join(output.get("text", "") for output in cell.get("outputs", ())) for cell in book.cells]

    assert printed(notebook) == printed(checked_in)
    assert "".join(printed(notebook)).count("denied") == 3
