"""Asks the person at the notebook, with two buttons beside the call."""

from __future__ import annotations

import html
import importlib
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ..printable import visible
from .base import ApprovalStore
from .clicks import Clicks
from .console import ConsoleApprover
from .floods import FloodLimits
from .polling import PAUSE, PolledApprover, Steps
from .question import arguments_of, facts_of, operating_user
from .requests import Answer, ApprovalRequest

__all__ = ["NotebookApprover"]

_STYLE = "white-space: pre-wrap; overflow-wrap: anywhere; direction: ltr; unicode-bidi: bidi-override"
_HANGING = "padding-left: 10ch; text-indent: -10ch"
_VIEW = "application/vnd.jupyter.widget-view+json"


class NotebookApprover(PolledApprover):
    """Asks with an approve and a deny button below the cell that runs; needs the extra `notebook`.

    Where there is no notebook (no ipykernel, or no ipywidgets), a `ConsoleApprover` asks. The arguments are taken off
    the page when the question is closed, so that they are not saved with the notebook.

    Args:
        store: As for `Approver`.
        floods: As for `Approver`.
        kernel: The kernel; left out, the one that this code runs in.
    """

    def __init__(
        self, *, store: ApprovalStore | None = None, floods: FloodLimits | None = None, kernel: Any = None
    ) -> None:
        super().__init__(store=store, floods=floods)
        self._console = ConsoleApprover(store=self.store, floods=self.floods)
        kernel = kernel or _kernel()
        self._clicks = Clicks(kernel) if getattr(kernel, "shell_stream", None) and _has_widgets() else None

    def _asked(self, request: ApprovalRequest, seconds: float) -> Steps[Answer]:
        if self._clicks is None:
            return (yield from self._console._asked(request, seconds))  # noqa: SLF001  one question, put elsewhere
        until = time.monotonic() + seconds
        answers: list[bool] = []
        panel = _Panel(request, partial(answers.append, True), partial(answers.append, False))
        outcome = "no longer asked"
        try:
            yield from self._clicks.listen(panel.clicked)
            panel.show(request, until - time.monotonic())
            while not answers:
                yield PAUSE
                self._clicks.look()
            outcome = "approved" if answers[0] else "denied"
            return Answer(answers[0], operating_user())
        finally:
            self._clicks.forget(panel.clicked)
            panel.close(outcome)


class _Panel:
    """A question on the page."""

    def __init__(self, request: ApprovalRequest, approve: Callable[[], None], deny: Callable[[], None]) -> None:
        widgets = importlib.import_module("ipywidgets")
        self._tool = visible(request.tool)
        self._text = widgets.HTML()
        self._buttons = (
            widgets.Button(description="Approve", button_style="success"),
            widgets.Button(description="Deny", button_style="danger"),
        )
        self._box = widgets.VBox([self._text, widgets.HBox(self._buttons)])
        comms = [button.comm.comm_id for button in self._buttons]
        self.clicked = dict(zip(comms, (approve, deny), strict=True))

    def show(self, request: ApprovalRequest, seconds: float) -> None:
        facts = [f"{name:9} {value}" for name, value in facts_of(request, seconds)]
        self._text.value = _pre("An agent wants to call a tool:", *facts, *arguments_of(request))
        view = {"version_major": 2, "version_minor": 0, "model_id": self._box.model_id}
        plain = f"approval of `{self._tool}`: this page shows no widgets"  # a widget's own text quotes its contents
        display = importlib.import_module("IPython.display").display
        display({_VIEW: view, "text/plain": plain}, raw=True)

    def close(self, outcome: str) -> None:
        for button in self._buttons:
            button.disabled = True
        self._text.value = _pre(f"{self._tool}: {outcome}")


def _pre(*lines: str) -> str:
    """Lines, what goes on in the next of which is indented there, so that no value looks like a fact of ours."""
    blocks = "".join(f'<div style="{_HANGING}">{html.escape(line)}</div>' for line in lines)
    return f'<pre style="{_STYLE}">{blocks}</pre>'


def _kernel() -> Any:
    """The kernel that this code runs in; None outside of one. A kernel has loaded IPython."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None)


def _has_widgets() -> bool:
    try:
        importlib.import_module("ipywidgets")
    except ImportError:
        return False
    return True
