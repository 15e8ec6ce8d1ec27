"""The examples run as their README says, on both SDK lines."""

from __future__ import annotations

import asyncio
import re
import runpy
from pathlib import Path
from typing import Any

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


def run_notebook(name: str) -> tuple[Any, Any]:
    """A notebook as it is checked in, and as it comes out of a kernel."""
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    checked_in = nbformat.read(EXAMPLES / name, as_version=4)
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    client.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    return checked_in, notebook


@pytest.mark.filterwarnings("ignore")  # of the notebook machinery, not of what it runs
def test_the_notebook_runs_and_says_what_it_says() -> None:
    """Each cell runs and prints what the checked-in notebook shows."""
    pytest.importorskip("mcp")
    checked_in, notebook = run_notebook("wrap_an_mcp_toolset.ipynb")

    def printed(book: object) -> list[str]:
        return ["".join(output.get("text", "") for output in cell.get("outputs", ())) for cell in book.cells]

    assert printed(notebook) == printed(checked_in)
    assert "".join(printed(notebook)).count("denied") == 3


@pytest.mark.filterwarnings("ignore")  # likewise
def test_the_notebook_of_decisions_shows_them() -> None:
    """Tables, a plot and a trace come out of a kernel as they are checked in, but for the decision's random id."""
    pytest.importorskip("matplotlib")
    checked_in, notebook = run_notebook("see_decisions.ipynb")

    def shown(book: Any) -> list[dict[str, str]]:
        outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
        return [output.get("data") or {"text/plain": output["text"]} for output in outputs]

    def comparable(book: Any) -> list[dict[str, str]]:
        texts = [{kind: text for kind, text in data.items() if kind != "image/png"} for data in shown(book)]
        return [{kind: re.sub(r"\b[0-9a-f]{16}\b", "ID", text) for kind, text in data.items()} for data in texts]

    assert comparable(notebook) == comparable(checked_in)
    kinds = [sorted(data) for data in shown(notebook)]
    assert [("text/html" in kind, "image/png" in kind) for kind in kinds].count((True, False)) == 6
    assert kinds == [sorted(data) for data in shown(checked_in)]
    (picture,) = [data["image/png"] for data in shown(notebook) if "image/png" in data]
    assert len(picture) > 10_000
    pages = [data["text/html"] for data in shown(notebook) if "text/html" in data]
    assert [page.count("<tr>") for page in pages] == [3 + 1 + 4, 6, 1 + 3, 1 + 8, 1 + 3, 3 + 1 + 10 + 1 + 1]
    assert not any("<b>" in page or "all of it" in page for page in pages)
    assert shown(notebook)[1]["text/plain"] == "28 decisions\n"
