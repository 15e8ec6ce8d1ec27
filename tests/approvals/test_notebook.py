"""The notebook approver in a real kernel: a click is heard while the cell that asks is still running."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import pytest

ipykernel = pytest.importorskip("ipykernel")
pytest.importorskip("ipywidgets")

from kernels import LONGEST, Kernel, kernel  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of the notebook machinery, not of what it runs

CELLS = {
    "sync": "print(pay())",
    "async": "print(await apay())",
    "sync in a thread": "from concurrent.futures import ThreadPoolExecutor as P\nprint(P(1).submit(pay).result())",
    "async beside a thread": "import asyncio\nprint(await asyncio.to_thread(pay))",
    "a loop in a thread": "import asyncio\nprint(await asyncio.to_thread(lambda: asyncio.run(apay())))",
}


BLOCKED = "sync in a thread"
"""A cell whose main thread waits for another one, as LangGraph's sync agents do: ipykernel 6 reads nothing then."""

pay = functools.partial("call = ToolCall('pay', {{'amount': 5, 'to': '<b>\\u202eann</b>', 'n': {}}})".format)
count = itertools.count()


@pytest.fixture(scope="module")
def running() -> Iterator[Kernel]:
    with kernel() as made:
        yield made


@pytest.fixture
def asking(running: Kernel) -> Iterator[Kernel]:
    """A kernel with a call that nobody has been asked about; afterwards it hears of its messages itself again."""
    running.forget()
    running.run(pay(next(count)))
    yield running
    running.forget()
    running.run("print('_arrived' in repr(get_ipython().kernel.shell_stream._recv_callback))")
    assert running.printed == "False\n"


def closed(asking: Kernel) -> bool:
    """Whether nothing is left to click, or to read."""
    buttons = [one["disabled"] for one in asking.widgets.values() if one["_model_name"] == "ButtonModel"]
    return buttons == [True, True] and "amount" not in str(asking.widgets) and "<pre" not in str(asking.shown)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("button", "answer"), [("Approve", "paid"), ("Deny", "approval_denied")])
def test_a_click_answers_the_cell_that_runs(asking: Kernel, cell: str, button: str, answer: str) -> None:
    """The question and its arguments are shown, the click arrives, and afterwards nothing is left to click or read."""
    cell_id = asking.begin(CELLS[cell])
    if cell == BLOCKED and ipykernel.version_info < (7,):
        asking.finish(cell_id)
        assert "approval_failed" in asking.printed
        return
    comm_id = asking.button(button)
    (text,) = [state["value"] for state in asking.widgets.values() if "&quot;amount&quot;" in state.get("value", "")]
    assert "&lt;b&gt;\\u202eann&lt;/b&gt;" in text
    assert "\n" not in text  # each line is a block, which wraps below itself
    asking.click(comm_id)
    asking.finish(cell_id)
    assert asking.printed == answer + "\n"
    assert closed(asking)


@pytest.mark.parametrize("cell", ["sync", "async"])
def test_nobody_clicks_in_time(asking: Kernel, cell: str) -> None:
    """The cell goes on, and a click that comes later does nothing."""
    code = f"guard = guard_of(0.5)\n{CELLS[cell]}\nguard = guard_of({LONGEST})"
    cell_id = asking.begin(code)
    comm_id = asking.button("Approve")
    asking.finish(cell_id)
    assert asking.printed == "approval_expired\n"
    assert closed(asking)
    asking.click(comm_id)


@pytest.mark.parametrize("cell", ["sync", "async"])
def test_a_click_that_is_not_signed_is_none(asking: Kernel, cell: str) -> None:
    """Whoever reaches the kernel's port without its key approves nothing."""
    cell_id = asking.begin(CELLS[cell])
    comm_id = asking.button("Approve")
    asking.click(comm_id, key=b"another key")
    asking.click(asking.button("Deny"))
    asking.finish(cell_id)
    assert asking.printed == "approval_denied\n"


@pytest.mark.parametrize("cell", ["sync", "async"])
def test_what_else_arrives_is_the_kernels(asking: Kernel, cell: str) -> None:
    """Cells that were sent meanwhile run afterwards, in their order, and other widgets hear of their clicks."""
    asking.run(
        "import ipywidgets\nother = ipywidgets.Button(description='other')\nother.on_click(lambda _: print('other'))"
    )
    first = asking.begin(CELLS[cell])
    comm_id = asking.button("Approve")
    asking.begin("print('second')")
    asking.click(asking.button("other"))
    third = asking.begin("print('third')")
    asking.click(comm_id)
    asking.finish(first)
    asking.finish(third)
    assert sorted(asking.printed.split()) == ["other", "paid", "second", "third"]
    assert [one for one in asking.printed.split() if one != "other"] == ["paid", "second", "third"]


@pytest.mark.skipif(ipykernel.version_info < (7,), reason="ipykernel 6 has no subshells")
def test_a_click_that_is_sent_to_a_subshell(asking: Kernel) -> None:
    """JupyterLab sends widgets' messages to a thread beside the cells where it can."""
    asking.client.control_channel.send(asking.client.session.msg("create_subshell_request"))
    subshell = asking.client.get_control_msg(timeout=LONGEST)["content"]["subshell_id"]
    cell_id = asking.begin(CELLS["sync"])
    asking.click(asking.button("Approve"), subshell=subshell)
    asking.finish(cell_id)
    assert asking.printed == "paid\n"
    assert closed(asking)


def test_an_interrupted_cell_takes_the_question_along(asking: Kernel) -> None:
    """The stop button of the page ends the cell, and the question with it."""
    cell_id = asking.begin(CELLS["sync"])
    asking.button("Approve")
    asking.manager.interrupt_kernel()
    asking.finish(cell_id)
    assert asking.printed == ""
    assert closed(asking)


def test_two_questions_at_once(asking: Kernel) -> None:
    """Each has its own buttons."""
    code = "import asyncio\nprint(*await asyncio.gather(apay(), apay(ToolCall('pay', {'amount': 6, 'n': 'other'}))))"
    cell_id = asking.begin(code)
    first, second = asking.buttons("Approve", 2)
    asking.click(asking.buttons("Deny", 2)[1])
    asking.click(first)
    asking.finish(cell_id)
    assert asking.printed == "paid approval_denied\n"
    assert second != first
