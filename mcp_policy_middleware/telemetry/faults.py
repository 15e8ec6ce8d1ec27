"""Faults of telemetry: counted, logged once, and never the caller's."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final

__all__ = ["Faults"]

_LOG: Final = logging.getLogger(__package__)


class Faults:
    """`with faults:` ends what an exporter, a provider or a hook raises, so that it disturbs no call.

    Args:
        tell: Counts one in a metric, by the kind of exception.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.count = 0
        self._tell = tell
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        if not isinstance(error, Exception):
            return False
        self.met(error)
        return True

    def met(self, error: Exception) -> None:
        """Count a fault; the first is logged, without its text, which may quote arguments."""
        with self._lock:
            self.count += 1
            first = self.count == 1
        kind = type(error).__name__
        if first:
            frames = "".join(traceback.format_tb(error.__traceback__)[-3:])
            _LOG.warning("telemetry failed, and the call goes on; further faults are counted: %s in\n%s", kind, frames)
        with suppress(Exception):  # the metric that tells of faults is at fault itself, and `count` has it
            self._tell(kind)
