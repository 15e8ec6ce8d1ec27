"""A terminal that is read and written without ever waiting for it.

`PosixTerminal` is tested on pseudo-terminals; `WindowsTerminal` goes by the documentation of `msvcrt`, untested.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from typing import Final, Protocol, TextIO

from ..errors import PolicyError
from .polling import PAUSE, Steps

__all__ = ["Terminal", "terminal_of"]

_LONGEST_LINE: Final = 4096
_NO_TERMINAL: Final = "stdin is no terminal: run this where a person can answer, or use another approver"


class Terminal(Protocol):
    """Where a person reads and types."""

    width: int

    def take(self) -> bool:
        """Whether it is this question's turn, from now on and until `close`."""

    def write(self, text: str) -> Steps[None]:
        """Show a text."""

    def forget(self) -> None:
        """Drop what was typed before now."""

    def line(self) -> Steps[str | None]:
        """The next line that is typed; None at the end of the input."""

    def close(self, last: str = "") -> None:
        """Let go of it, with a last word where that needs no waiting."""


def terminal_of(stdin: TextIO | None, turn: threading.Lock) -> Terminal:
    """The terminal that a stream reads from.

    Args:
        stdin: The stream; None where it was closed before Python began.
        turn: Held while a question is asked, where the system has no lock for a terminal.

    Raises:
        PolicyError: It reads from none.
    """
    try:
        if stdin is None or not stdin.isatty():
            raise PolicyError(_NO_TERMINAL)
        if sys.platform == "win32":
            return WindowsTerminal(turn)
        return PosixTerminal(stdin.fileno())
    except ValueError:  # it is closed
        raise PolicyError(_NO_TERMINAL) from None
    except OSError as error:  # another user's, or another container's
        raise PolicyError(f"the terminal of stdin cannot be opened: {error.strerror}") from None


if sys.platform == "win32":
    import msvcrt

    class WindowsTerminal:
        """The console of the process, whatever its streams are."""

        width = 78

        def __init__(self, turn: threading.Lock) -> None:
            self._turn = turn
            self._taken = False
            self._out = open("CONOUT$", "w", encoding="utf-8")  # noqa: PTH123, SIM115  a device, closed by `close`

        def take(self) -> bool:
            """Questions of one approver take turns."""
            self._taken = self._turn.acquire(blocking=False)
            return self._taken

        def write(self, text: str) -> Steps[None]:
            """Write; a console takes it at once."""
            self._out.write(text)
            self._out.flush()
            yield 0

        def forget(self) -> None:
            """Read away what was typed."""
            while msvcrt.kbhit():
                msvcrt.getwch()

        def line(self) -> Steps[str | None]:
            """Keys up to Enter."""
            typed = ""
            while len(typed) < _LONGEST_LINE:
                if not msvcrt.kbhit():
                    yield PAUSE
                    continue
                key = msvcrt.getwche()
                if key in "\r\n":
                    return typed
                if key in "\x03\x04\x1a":
                    return None
                typed = typed[:-1] if key == "\b" else typed + key
            return typed

        def close(self, last: str = "") -> None:
            """Give the turn away."""
            self._out.write(last)
            self._out.close()
            if self._taken:
                self._turn.release()

else:
    import fcntl
    import termios

    class PosixTerminal:
        """The device behind a descriptor, opened anew: no buffer and no mode is shared with anybody."""

        def __init__(self, descriptor: int) -> None:
            self._fd = os.open(os.ttyname(descriptor), os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
            self.width = max(20, (os.get_terminal_size(self._fd).columns or 80) - 1)

        def take(self) -> bool:
            """One question at a time is put on a terminal, whichever process asks."""
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        def write(self, text: str) -> Steps[None]:
            """Write as the terminal takes it: one that is stopped takes nothing."""
            left = text.encode("utf-8", "backslashreplace")
            while left:
                self._check_foreground()
                try:
                    left = left[os.write(self._fd, left) :]
                except BlockingIOError:
                    yield PAUSE

        def forget(self) -> None:
            """Drop what was typed ahead."""
            self._check_foreground()
            termios.tcflush(self._fd, termios.TCIFLUSH)

        def line(self) -> Steps[str | None]:
            """What is typed up to Enter."""
            typed = b""
            while b"\n" not in (typed := typed.replace(b"\r", b"\n")) and len(typed) < _LONGEST_LINE:
                self._check_foreground()
                try:
                    read = os.read(self._fd, _LONGEST_LINE)
                except BlockingIOError:
                    yield PAUSE
                    continue
                if not read:
                    return None
                typed += read
            return typed.partition(b"\n")[0].decode("utf-8", "replace")

        def close(self, last: str = "") -> None:
            """Close the device, which gives the turn away."""
            try:
                if last and self._is_foreground():
                    os.write(self._fd, last.encode())
            except OSError:  # it takes no more
                return
            finally:
                os.close(self._fd)

        def _is_foreground(self) -> bool:
            try:
                return os.tcgetpgrp(self._fd) == os.getpgrp()
            except OSError as error:
                if error.errno == errno.ENOTTY:  # another session's, or nobody's: it stops no process
                    return True
                raise

        def _check_foreground(self) -> None:
            """Keep from being stopped for good, as the system does with who uses a terminal from the background."""
            if not self._is_foreground():
                raise PolicyError("the process runs in the background: bring it to the foreground and try again")
