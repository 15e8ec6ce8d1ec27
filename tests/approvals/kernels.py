"""A real kernel, whose cells a test runs, and whose widgets it clicks as a front end does: on the shell channel."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jupyter_client.manager import KernelManager

LONGEST = 30.0

PRELUDE = """
import json
from mcp_policy_middleware import Guard, ToolCall, ToolDenied, parse_policy
from mcp_policy_middleware.approvals import FunctionApprover, NotebookApprover
policy = parse_policy(json.dumps({"version": "1", "default": "deny", "tools": {"pay": {"action": "require_approval"}}}))
approver = NotebookApprover()
def guard_of(seconds):
    return Guard(policy, approver=approver, approval_timeout=seconds)
guard = guard_of(30)
async def paid():
    return "paid"
def pay():
    try:
        return guard.run(call, lambda: "paid")
    except ToolDenied as denied:
        return denied.decision.reason.value
async def apay(call=None):
    try:
        return await guard.arun(call or globals()["call"], paid)
    except ToolDenied as denied:
        return denied.decision.reason.value
"""


class Kernel:
    """A kernel and what it has shown.

    Attributes:
        widgets: The state of each widget, by its comm's id.
        shown: What cells display: bundles of MIME types.
        printed: What they print.
    """

    def __init__(self, manager: KernelManager, client: Any) -> None:
        self.manager = manager
        self.client = client
        self.widgets: dict[str, dict[str, Any]] = {}
        self.shown: list[dict[str, Any]] = []
        self.printed = ""
        self._idle: set[str] = set()

    def begin(self, code: str) -> str:
        """Send a cell, and do not wait for it."""
        return self.client.execute(code, store_history=False)

    def run(self, code: str) -> None:
        """Run a cell to its end."""
        self.finish(self.begin(code))

    def finish(self, cell: str) -> None:
        """Hear what the kernel says until a cell has ended."""
        self._hear(lambda: cell in self._idle)

    def forget(self) -> None:
        """Forget what was shown and printed."""
        self.widgets.clear()
        self.shown.clear()
        self.printed = ""

    def button(self, description: str) -> str:
        """The comm of a button, once a question is shown."""
        return self.buttons(description, 1)[0]

    def buttons(self, description: str, questions: int) -> list[str]:
        """The comms of such buttons, in their order, once so many questions are shown."""
        self._hear(lambda: len(self.shown) >= questions)
        return self._buttons(description)

    def click(self, comm_id: str, *, key: bytes | None = None, subshell: str | None = None) -> None:
        """What a front end sends when a button is clicked; with another key, what somebody else sends."""
        data = {"method": "custom", "content": {"event": "click"}}
        session = self.client.session
        ours = session.key
        session.key = ours if key is None else key
        message = session.msg("comm_msg", {"comm_id": comm_id, "data": data})
        if subshell is not None:
            message["header"]["subshell_id"] = subshell
        self.client.shell_channel.send(message)
        session.key = ours

    def _buttons(self, description: str) -> list[str]:
        return [one for one, state in self.widgets.items() if state.get("description") == description]

    def _hear(self, enough: Any) -> None:
        until = time.monotonic() + LONGEST
        while not enough():
            message = self.client.get_iopub_msg(timeout=max(0.1, until - time.monotonic()))
            content, kind = message["content"], message["msg_type"]
            if kind == "comm_open":
                self.widgets[content["comm_id"]] = content["data"]["state"]
            elif kind == "comm_msg" and content["data"]["method"] == "update":
                self.widgets[content["comm_id"]].update(content["data"]["state"])
            elif kind == "display_data":
                self.shown.append(content["data"])
            elif kind == "stream":
                self.printed += content["text"]
            elif kind == "error" and content["ename"] != "KeyboardInterrupt":
                raise AssertionError("\n".join(content["traceback"]))
            elif kind == "status" and content["execution_state"] == "idle":
                self._idle.add(message["parent_header"].get("msg_id", ""))


@contextmanager
def kernel() -> Iterator[Kernel]:
    """A kernel with a guard whose `NotebookApprover` asks."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        running = Kernel(manager, client)
        running.run(PRELUDE)
        yield running
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
