"""What a guard tells of each decision and approval: which signals there are, and that none disturbs a call."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics, trace
from opentelemetry.context import Context

from ..calls import OTHER, Approval, Decision
from .attributes import Value, named, of_approval, of_decision
from .disclosure import Arguments, Disclosure, Redact
from .events import Events
from .faults import Faults
from .metrics import Metrics
from .spans import Spans, annotate

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider

__all__ = ["Telemetry"]

_SCOPE: Final = "mcp_policy_middleware"
_UNLISTED: Final = f"policy_decision {OTHER}"
_W3C: Final = ("traceparent", "tracestate")


class Telemetry:
    """Records each decision as a span `policy_decision {tool}` and in metrics, and each approval likewise.

    Faults of telemetry never disturb a call: they are counted in `errors` and logged once. Values of arguments are
    recorded only where `arguments` names them. Guards that ask people share one `Telemetry`, so that one gauge tells
    who waits.

    Args:
        tracer_provider: An OpenTelemetry `TracerProvider`; left out, the application's global one,
            whether it is set before or after this. The API's `NoOpTracerProvider()` turns spans off.
        openinference: Mark spans as `GUARDRAIL`, which Phoenix, MLflow and Langfuse show as such.
        meter_provider: An OpenTelemetry `MeterProvider`, likewise.
        logger_provider: An OpenTelemetry `LoggerProvider`, likewise, for `events`.
        annotate: Note effect, decision id and rule on the span that is current where the call is made.
        events: Emit a log event for each decision, too.
        parent: Tells the context in which decisions belong, where it is not the current one; None for that.
        arguments: Names of arguments whose values are recorded on spans and events: for all tools, or by tool.
        redact: Takes tool, name and value of such an argument; returns what is recorded in its place.

    Attributes:
        recording: Tells whether anybody would see anything; without an SDK nothing is put together.

    Raises:
        PolicyError: Events are asked for, and this version of OpenTelemetry has none; or `arguments` is no list.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        openinference: bool = True,
        *,
        meter_provider: metrics.MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        annotate: bool = True,
        events: bool = False,
        parent: Callable[[], Context | None] | None = None,
        arguments: Arguments = (),
        redact: Redact | None = None,
    ) -> None:
        release = version("mcp-policy-middleware")
        self._spans = Spans(_SCOPE, release, tracer_provider, openinference)
        self._metrics = Metrics(_SCOPE, release, meter_provider)
        self._events = Events(_SCOPE, release, logger_provider) if events else None
        self._faults = Faults(self._metrics.fault)
        self._annotate = annotate
        self._parent = parent
        self._disclosed = Disclosure(arguments, redact) if arguments else None
        tracing, metering = self._spans.heard, self._metrics.heard
        telling = bool if self._events is None else self._events.heard  # which is False
        self.recording: Callable[[], bool] = lambda: tracing() or metering() or telling()

    @property
    def errors(self) -> int:
        """How many faults of telemetry there were."""
        return self._faults.count

    def record(
        self, decision: Decision, started: int, ended: int, knows: Callable[[Decision], bool], waited: int = 0
    ) -> None:
        """Tell one decision; to be called where the call is made, whose span is current.

        Args:
            decision: What was decided.
            started: When the evaluation began, in nanoseconds since the Unix epoch.
            ended: When it ended, likewise.
            knows: Whether the policy or the server names the tool; other names are an agent's inventions
                and show as `_OTHER` in the span's name and in metrics.
            waited: For how many nanoseconds of these a person was asked.
        """
        known = False
        try:
            known = knows(decision)
            if self._spans.heard() or self._events is not None:
                context = None if self._parent is None else self._context()
                if self._annotate and self._spans.heard():
                    with self._faults:
                        annotate(decision, context)
                attributes = of_decision(decision)
                if self._disclosed is not None:
                    with self._faults:  # values that cannot be told are left out
                        attributes.update(self._disclosed.values(decision.call))
                name = f"policy_decision {attributes['gen_ai.tool.name']}" if known else _UNLISTED
                times = started, ended
                if self._events is None:
                    self._spans.make(name, attributes, times, decision.error is not None, context)
                else:
                    self._with_event(self._events, decision, name, attributes, times, context)
        except Exception as error:  # of a provider or a hook; no fault of theirs may undo a decision
            self._faults.met(error)
        if self._metrics.heard():
            with self._faults:
                self._metrics.decided(decision, max(0, ended - started - waited) / 1e9, known)

    def _with_event(
        self,
        events: Events,
        decision: Decision,
        name: str,
        attributes: dict[str, Value],
        times: tuple[int, int],
        context: Context | None,
    ) -> None:
        """The span, and the event inside it."""
        within = context
        with self._faults:
            span = self._spans.make(name, dict(attributes), times, decision.error is not None, context)
            within = trace.set_span_in_context(span, context)
        events.emit(decision, attributes, times[1], within)

    def record_approval(
        self, approval: Approval, tool: str, started: int, ended: int, seconds: float | None, known: bool = True
    ) -> None:
        """Tell one question to a person.

        Args:
            approval: What came of it.
            tool: The tool that is to be called.
            started: When it was asked, in nanoseconds since the Unix epoch.
            ended: When asking ended, likewise.
            seconds: How long the person took; None where they have not answered.
            known: Whether the policy names the tool.
        """
        context = self._context()
        if self._spans.heard():
            with self._faults:
                name = f"policy_approval {named(tool) if known else OTHER}"
                failed = approval.state in ("cancelled", "failed")
                self._spans.make(name, of_approval(approval, tool), (started, ended), failed, context)
        if seconds is not None:
            with self._faults:
                self._metrics.answered(approval.state, seconds)

    def watch(self, store: object, waiting: Callable[[Any], int]) -> None:
        """Tell in a metric how many requests wait in a store of approvals.

        Args:
            store: The store; it is forgotten when nobody else keeps it.
            waiting: Counts them; called with the store when metrics are read.
        """
        with self._faults:
            self._metrics.watch(store, waiting, self._faults)

    def carried(self) -> dict[str, str]:
        """What a request may carry of the caller's trace: W3C `traceparent` and `tracestate`, or nothing.

        Baggage is left out: it holds the application's own values.
        """
        context = self._context()
        with self._faults:
            if trace.get_current_span(context).get_span_context().is_valid:
                from opentelemetry import propagate  # noqa: PLC0415  loads propagators, for those who trace

                carrier: dict[str, str] = {}
                propagate.inject(carrier, context)
                return {key: carrier[key] for key in _W3C if key in carrier}
        return {}

    def _context(self) -> Context | None:
        """Where spans belong; None for the current context."""
        if self._parent is not None:
            with self._faults:
                return self._parent()
        return None
