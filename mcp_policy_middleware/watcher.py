"""Reads a guard's policies again whenever their files change (PL-9.4).

Events only say when to look; what counts is how the files look through their paths. So a link that is
swapped far away, as Kubernetes does, is seen too, if only at the next look, a second later at most.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from .errors import DocumentError, MissingDependency, PolicyError, Problem
from .guard import Guard
from .sources import Fingerprint

__all__ = ["PolicyWatcher", "watch"]

_LOG: Final = logging.getLogger(__name__)
_AT_REST: Final = 0.05
"""Files that look the same for so long, in seconds, are not being written."""
_AT_LEAST_EVERY: Final = 1.0
"""Files are looked at so often, in seconds, whether or not there is an event."""
_MOST_LOOKS: Final = 100
_UNREST: Final = "the file keeps changing, and no file is taken before it rests"
_RENAME: Final = "write another file, and put it in place by renaming it"


def watch(guard: Guard, *, on_problems: Callable[[PolicyError], object] | None = None) -> PolicyWatcher:
    """Reload a guard, from now on, whenever files of its policies change; needs the extra `watch`.

    Args:
        guard: The guard; its policies came from files or a directory.
        on_problems: Is given what `Guard.reload` raises, in the watcher's thread; it is logged in any case.

    Returns:
        The watcher, at work until it is closed.

    Raises:
        PolicyError: No policy of the guard came from a file.
        MissingDependency: The extra is not installed.
    """
    return PolicyWatcher(guard, on_problems)


class PolicyWatcher:
    """A thread that reloads a guard; made by `watch`, closed by `close` or at the end of a `with` block."""

    def __init__(self, guard: Guard, on_problems: Callable[[PolicyError], object] | None = None) -> None:
        guard.sources.check()
        self._watchfiles: Any = _watchfiles()
        self._guard = guard
        self._on_problems = on_problems
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mcp-policy-watcher", daemon=True)
        self._thread.start()

    def __enter__(self) -> PolicyWatcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching, and wait for a reload that is under way; any number of times."""
        self._closed.set()
        if threading.current_thread() is not self._thread:  # `on_problems` may close, too
            self._thread.join()

    def _run(self) -> None:
        taken: Fingerprint = {}  # so that what changed between building the guard and now is taken first
        while not self._closed.is_set():
            directories = self._guard.sources.directories()
            with closing(self._occasions(directories)) as occasions:
                for _ in occasions:
                    taken = self._take_changes(taken)
                    if self._guard.sources.directories() != directories:
                        break  # one was put in the place of another, or given to the guard

    def _occasions(self, directories: Iterable[str]) -> Generator[object, None, None]:
        """Each time to look at the files: now, at every event, and every second."""
        yield None
        try:
            yield from self._watchfiles.watch(
                *directories,
                watch_filter=None,
                debounce=int(_AT_REST * 1000),
                step=10,
                stop_event=self._closed,
                rust_timeout=int(_AT_LEAST_EVERY * 1000),
                yield_on_timeout=True,
                raise_interrupt=False,
                recursive=False,
            )
        except (OSError, RuntimeError) as error:  # a directory is gone, or the system watches no more of them
            _LOG.debug("policies are looked at without events: %s", error)
            self._closed.wait(_AT_LEAST_EVERY)

    def _take_changes(self, taken: Fingerprint) -> Fingerprint:
        """Reload the guard if files look other than those that were taken; tell how they look now."""
        now = self._guard.sources.fingerprint()
        looks = 0
        while now and now != taken and not self._closed.wait(_AT_REST):
            before, now = now, self._guard.sources.fingerprint()
            if now == before:
                self._reload(now)
                return now
            looks += 1
            if looks == _MOST_LOOKS:
                unrest = sorted({file for file, _ in now.items() ^ before.items()})
                self._report(DocumentError([Problem(file, 0, 0, "", _UNREST, _RENAME) for file in unrest]))
        return now

    def _reload(self, seen: Fingerprint) -> None:
        try:
            self._guard.reload(seen=seen)
        except PolicyError as error:
            self._report(error)
        except Exception:  # of no kind that is known: the policies stay, and so does the thread
            _LOG.exception("policies have changed and could not be read")

    def _report(self, error: PolicyError) -> None:
        _LOG.warning("policies have changed, and not all were taken: %s", error)
        if self._on_problems is not None:
            try:
                self._on_problems(error)
            except Exception:  # the application's; the thread must go on
                _LOG.exception("`on_problems` failed")


def _watchfiles() -> ModuleType:
    try:
        return import_module("watchfiles")
    except ModuleNotFoundError as error:
        if error.name != "watchfiles":
            raise
        raise MissingDependency("watching policies", "watch") from error
