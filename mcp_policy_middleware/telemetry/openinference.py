"""Where decisions belong under LangChain, as OpenInference's instrumentation sees it."""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.context import Context
from opentelemetry.trace import set_span_in_context

from ..errors import MissingDependency

__all__ = ["langchain_parent"]


def langchain_parent() -> Callable[[], Context | None]:
    """A `parent` for `Telemetry`: decisions nest under the span of the LangChain run that makes the call.

    OpenInference makes its spans in callbacks, which cannot make them current, so a decision would stand beside the
    agent's spans instead of under the tool's.

    Returns:
        Tells the run's span as a context; None outside of any run, where the current span counts.

    Raises:
        MissingDependency: `openinference-instrumentation-langchain` is not installed.
    """
    try:
        from openinference.instrumentation.langchain import (  # noqa: PLC0415  imported only where it is used
            get_current_span,
        )
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("openinference"):
            raise
        raise MissingDependency("nesting under OpenInference's LangChain spans", "openinference") from error

    def parent() -> Context | None:
        span = get_current_span()
        return None if span is None else set_span_in_context(span)

    return parent
