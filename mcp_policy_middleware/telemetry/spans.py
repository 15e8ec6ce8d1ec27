"""Spans: one of our own for each decision and each question to a person, and a note on the caller's.

A span is made after deciding, with its start time and all attributes at creation: without an SDK it costs next to
nothing, and a sampler sees the effect. A denial is a successful evaluation, so its status stays unset.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NoOpTracer, Status, StatusCode

from ..calls import Decision
from .attributes import Value

__all__ = ["Spans", "annotate"]

_FAILED: Final = Status(StatusCode.ERROR)


class Spans:
    """Makes spans.

    Args:
        scope, release: The name and version of what is instrumented.
        provider: Where they go; None for the application's global provider, whenever it is set.
        openinference: Mark them as `GUARDRAIL`.

    Attributes:
        heard: Tells whether anybody would see one.
    """

    def __init__(self, scope: str, release: str, provider: trace.TracerProvider | None, openinference: bool) -> None:
        if provider is None:
            trace.get_tracer_provider()  # lets OTEL_PYTHON_TRACER_PROVIDER take effect
            tracer = _GlobalTracer(scope, release)
            self._tracer: trace.Tracer = tracer
            self.heard: Callable[[], bool] = tracer.is_set
        else:
            self._tracer = provider.get_tracer(scope, release)
            self.heard = _deaf if isinstance(self._tracer, NoOpTracer) else _hearing
        self._openinference = openinference

    def make(
        self, name: str, attributes: dict[str, Value], times: tuple[int, int], failed: bool, context: Context | None
    ) -> trace.Span:
        """Make a span that is over already, of attributes that are its own from now on.

        `times` are its start and its end; `failed` says that the evaluation itself did not succeed.
        """
        if self._openinference:
            attributes["openinference.span.kind"] = "GUARDRAIL"
        span = self._tracer.start_span(name, context, attributes=attributes, start_time=times[0])
        if failed:
            span.set_status(_FAILED)
        span.end(times[1])
        return span


def annotate(decision: Decision, context: Context | None) -> None:
    """Note the decision on the caller's span, where it is recorded; its name and status stay the caller's.

    A rule is noted in any case, so that none of an earlier decision under the same span is left beside this one.
    """
    span = trace.get_current_span(context)
    if span.is_recording():
        span.set_attributes({
            "mcp_policy.effect": decision.effect,
            "mcp_policy.decision.id": decision.decision_id,
            "mcp_policy.rule.name": decision.rule,
        })  # fmt: skip


def _hearing() -> bool:
    return True


def _deaf() -> bool:
    return False


class _GlobalTracer(trace.ProxyTracer):
    """The application's tracer, whenever its provider is set."""

    def is_set(self) -> bool:
        """Whether the application has set a provider that is not the API's own."""
        try:
            return type(self._tracer) is not NoOpTracer
        except Exception:  # of the provider; recording will meet it again and count it
            return True
