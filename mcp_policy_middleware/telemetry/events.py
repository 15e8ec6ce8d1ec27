"""Decisions as log events, for backends that keep events apart from spans; opt-in, for the API is not stable yet."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context

from ..calls import Decision
from ..errors import PolicyError
from .attributes import Value

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider

__all__ = ["Events"]

_NAME: Final = "mcp_policy.decision"


class Events:
    """Emits log events.

    Args:
        scope, release: The name and version of what is instrumented.
        provider: Where they go; None for the application's global provider, whenever it is set.

    Raises:
        PolicyError: This version of OpenTelemetry has no events.
    """

    def __init__(self, scope: str, release: str, provider: LoggerProvider | None) -> None:
        try:
            from opentelemetry import _logs  # noqa: PLC0415  unstable, and loaded for those who ask for it
        except ImportError:
            raise PolicyError(_TOO_OLD) from None
        if "event_name" not in inspect.signature(_logs.Logger.emit).parameters:
            raise PolicyError(_TOO_OLD)
        self._logger = _logs.get_logger(scope, release, logger_provider=provider)
        self._nobody = _logs.NoOpLogger
        levels = _logs.SeverityNumber
        self._levels = {"INFO": levels.INFO, "WARN": levels.WARN, "ERROR": levels.ERROR}

    def heard(self) -> bool:
        """Whether anybody would get one."""
        try:
            return type(getattr(self._logger, "_logger", self._logger)) is not self._nobody
        except Exception:  # of the provider; recording will meet it again and count it
            return True

    def emit(self, decision: Decision, attributes: dict[str, Value], ended: int, context: Context | None) -> None:
        """Emit the event of one decision: a denial is a warning, and only a failed evaluation is an error."""
        level = "ERROR" if decision.error else "INFO" if decision.effect == "allow" else "WARN"
        event: dict[str, Any] = {
            "timestamp": ended,
            "severity_number": self._levels[level],
            "severity_text": level,
            "attributes": attributes,
            "event_name": _NAME,
            "context": context,
        }
        self._logger.emit(**event)


_TOO_OLD: Final = "log events need `opentelemetry-api` 1.38 or newer: install it, or leave `events` out"
