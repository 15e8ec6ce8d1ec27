"""The notebook approver in a real kernel: a click is heard while the cell that asks is still running."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("ipykernel")
pytest.importorskip("ipywidgets")

from kernels import Kernel, kernel

pytestmark = pytest.mark.filterwarnings("ignore")  # of the notebook machinery, not of what it runs

CELLS = {
    "sync": "print(pay())",
    "async": "print(await apay())",
    "sync in a thread": "from concurrent.futures import ThreadPoolExecutor as P\nprint(P(1).submit(pay).result())",
    "async beside a thread": "import asyncio\nprint(await asyncio.to_thread(pay))",
    "a loop in a thread": "import asyncio\nprint(await asyncio.to_thread(lambda: asyncio.run(apay())))",
}


@pytest.fixture(scope="module")
def asking() -> Iterator[Kernel]:
    with kernel() as running:
        yield running


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("button", "answer"), [("Approve", "paid"), ("Deny", "approval_denied")])
def test_a_click_answers_the_cell_that_runs(asking: Kernel, cell: str, button: str, answer: str) -> None:
    """The question and its arguments are shown, the click arrives, and afterwards nothing is left to click or read."""
    asking.widgets.clear()
    asking.shown.clear()
    asking.printed = ""
    asking.run("call = ToolCall('pay', {'amount': 5, 'to': '<b>\\u202eann</b>', 'way': %r})" % (cell + button))
    running = asking.begin(CELLS[cell])
    comm_id = asking.button(button)
    (text,) = [state["value"] for state in asking.widgets.values() if "&quot;amount&quot;" in state.get("value", "")]
    assert "&lt;b&gt;\\u202eann&lt;/b&gt;" in text
    asking.click(comm_id)
    asking.finish(running)
    assert asking.printed == answer + "\n"
    assert [one["disabled"] for one in asking.widgets.values() if one["_model_name"] == "ButtonModel"] == [True, True]
    assert "amount" not in str(asking.widgets)
    assert "amount" not in str(asking.shown)
