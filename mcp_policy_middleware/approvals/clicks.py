"""Clicks in a notebook, heard when they arrive at the kernel instead of when it has time for them.

While a cell runs, a kernel queues what the front end sends, clicks too, up to the end of the cell that waits for them.
So messages are looked at where they come in, on the stream of the shell channel, and go on to the kernel untouched.
ipykernel 7 reads that stream in a thread of its own, which no cell blocks. ipykernel 6 reads it in the main thread: in
an async cell by its event loop, in a sync one here, in between.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from ..errors import PolicyError
from .polling import Steps

__all__ = ["Clicks"]

_LONGEST_START: Final = 2.0
_DEAF: Final = (
    "this kernel cannot hear a click while a cell runs sync code in another thread: "
    "install ipykernel 7, or await the async call"
)


class Clicks:
    """Hears the clicks on some widgets of one kernel.

    Args:
        kernel: An ipykernel.
    """

    def __init__(self, kernel: Any) -> None:
        self._session = kernel.session
        self._stream = kernel.shell_stream
        reader = getattr(kernel, "shell_channel_thread", None)
        self._loop = kernel.io_loop if reader is None else reader.io_loop
        self._reader = threading.main_thread() if reader is None else reader
        self._heard: dict[str, Callable[[], None]] = {}
        self._kernels: Callable[[Any], Any] | None = None

    def listen(self, clicked: dict[str, Callable[[], None]]) -> Steps[None]:
        """Begin to hear clicks.

        Args:
            clicked: What to call, by the id of the widget's comm.

        Raises:
            PolicyError: The thread that reads messages is blocked, and is not this one.
        """
        self._heard.update(clicked)
        if threading.current_thread() is self._reader:
            self._start()
            return
        started = threading.Event()
        self._loop.add_callback(self._start)
        self._loop.add_callback(started.set)
        until = time.monotonic() + _LONGEST_START
        while not started.is_set():
            if time.monotonic() > until:
                self.forget(clicked)
                raise PolicyError(_DEAF)
            yield 0.005

    def look(self) -> None:
        """Read what has arrived, where the thread that should is this one, which is busy with a cell."""
        if threading.current_thread() is self._reader:
            self._stream.flush()

    def forget(self, clicked: dict[str, Callable[[], None]]) -> None:
        """Hear these clicks no more."""
        for comm_id in clicked:
            self._heard.pop(comm_id, None)
        if threading.current_thread() is self._reader:
            self._stop()
        else:
            self._loop.add_callback(self._stop)

    def _start(self) -> None:
        """Stand before the kernel; runs in the thread that reads, like `_stop` and `_arrived`."""
        if self._kernels is None and self._heard:
            self._kernels = self._stream._recv_callback  # noqa: SLF001  nothing else tells who reads, on any version
            self._stream.on_recv(self._arrived, copy=False)

    def _stop(self) -> None:
        if not self._heard and self._stream._recv_callback == self._arrived:  # noqa: SLF001  else another is before us
            self._stream.on_recv(self._kernels, copy=False)
            self._kernels = None

    def _arrived(self, frames: Any) -> Any:
        clicked = self._heard.get(self._clicked(frames)) if self._heard else None
        if clicked is not None:
            clicked()
        return self._kernels(frames) if self._kernels is not None else None

    def _clicked(self, frames: Any) -> str:
        """The id of the comm that a message tells a click of; empty for any other message."""
        session = self._session
        try:
            _, parts = session.feed_identities(frames, copy=False)
            if session.unpack(parts[1].bytes)["msg_type"] != "comm_msg":
                return ""
            content = session.unpack(parts[4].bytes)
            comm_id, data = str(content["comm_id"]), content["data"]
            if comm_id not in self._heard or data["method"] != "custom" or data["content"]["event"] != "click":
                return ""
            session.deserialize(parts, content=False, copy=False)  # checks the signature, and lets it be used again
            return comm_id
        except (ValueError, TypeError, LookupError):  # no click, or not the front end's: what to do is the kernel's
            return ""
