"""When what was written is made to outlive a power failure; a process that is killed loses nothing either way."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from ..errors import PolicyError

__all__ = ["Fsync", "Syncing"]

Fsync: TypeAlias = Literal["always", "interval", "never"]


class Syncing:
    """Writes a file through to the disk: after each line, every so often, or when the system likes.

    Args:
        when: Which of them.
        seconds: How often, at an interval.
        path: The file; its folder is written through too, where the file's name is new.
    """

    def __init__(self, when: Fsync, seconds: float, path: str) -> None:
        if when not in get_args(Fsync):
            raise PolicyError(f"fsync `{when}` is not known: give `always`, `interval` or `never`")
        if not seconds > 0:
            raise PolicyError("`fsync_seconds` is a number of seconds above 0")
        self.when = when
        self._seconds = seconds
        self._folder = Path(path).parent
        self._lock = threading.Lock()
        self._open: set[int] = set()  # descriptors of our own, which last until they are synced
        self._owed: list[int] = []
        self._owes_this = False
        self._new_name = False
        self._timer: threading.Timer | None = None
        self._fault: OSError | None = None

    def at_fork(self, where: Literal["before", "parent", "child"]) -> None:
        """Hold still while this process forks; the child has no timer and owes nothing."""
        if where == "before":
            self._lock.acquire()
            return
        if where == "child":
            for descriptor in self._open:
                os.close(descriptor)
            self._open, self._owed, self._owes_this, self._timer = set(), [], False, None
        self._lock.release()

    def raise_fault(self) -> None:
        """Tell, once, what went wrong in the background.

        Raises:
            OSError: Lines that were written may not outlive a power failure.
        """
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    def begun(self) -> None:
        """What is written from now on goes to a file whose name is new.

        Raises:
            OSError: The folder cannot be written through.
        """
        if self.when == "always":
            self._sync_folder()
        with self._lock:
            self._owes_this, self._new_name = False, True

    def written(self, descriptor: int) -> int | None:
        """A line was written.

        Returns:
            A descriptor for `through`, which blocks; None where nobody has to wait.
        """
        if self.when == "always":
            with self._lock:
                return self._kept(descriptor)
        if self.when == "interval":
            with self._lock:
                if not self._owes_this:
                    self._owed.append(self._kept(descriptor))
                    self._owes_this = True
                if self._timer is None:
                    self._timer = threading.Timer(self._seconds, self._in_background)
                    self._timer.daemon = True
                    try:
                        self._timer.start()
                    except RuntimeError:  # Python is ending, and `settle` is the last that comes
                        self._timer = None
        return None

    def through(self, descriptor: int) -> None:
        """Write a file through to the disk, and let go of it.

        Raises:
            OSError: It cannot be.
        """
        try:
            os.fsync(descriptor)
        finally:
            with self._lock:
                self._open.discard(descriptor)
                os.close(descriptor)

    def _kept(self, descriptor: int) -> int:
        """A descriptor of our own, for the file may be closed before it is synced."""
        mine = os.dup(descriptor)
        self._open.add(mine)
        return mine

    def settle(self) -> None:
        """Write through, now, what the timer would.

        Raises:
            OSError: It cannot be.
        """
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
        self._in_background()
        self.raise_fault()

    def _in_background(self) -> None:
        with self._lock:
            owed, new_name = self._owed, self._new_name
            self._owed, self._owes_this, self._new_name, self._timer = [], False, False, None
        for descriptor in owed:
            try:
                self.through(descriptor)
            except OSError as error:
                self._fault = error
        if new_name and self.when == "interval":
            try:
                self._sync_folder()
            except OSError as error:
                self._fault = error

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
