"""Decisions and approvals -> OpenTelemetry, with the API package alone; nothing here sets a provider.

The span is made after deciding, with its start time and all attributes at creation: without an SDK it costs
next to nothing, and a sampler sees the effect. A denial is a successful evaluation, so its status stays unset.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.metadata import version
from typing import Final, TypeAlias

from opentelemetry import metrics, trace
from opentelemetry.trace import NoOpTracer, Status, StatusCode

from .calls import UNNAMED, Approval, Decision, shown

__all__ = ["Telemetry"]

_LOG: Final = logging.getLogger(__name__)
_SCOPE: Final = "mcp_policy_middleware"
_MOST_KEYS: Final = 64
OTHER: Final = "_OTHER"
_WAITS: Final = (1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0, 14_400.0, 86_400.0)
"""Seconds: the bounds of the buckets for how long people take."""

Value: TypeAlias = str | bool | list[str]


class Telemetry:
    """Records each decision as a span `policy_decision {tool}`, and each approval as `policy_approval {tool}`.

    Faults of telemetry never disturb a call: they are counted in `errors` and logged once.

    Args:
        tracer_provider: An OpenTelemetry `TracerProvider`; left out, the application's global one,
            whether it is set before or after this.
        meter_provider: An OpenTelemetry `MeterProvider`, likewise.
        openinference: Mark spans as `GUARDRAIL`, which Phoenix, MLflow and Langfuse show as such.

    Attributes:
        recording: Tells whether anybody would see a span; without an SDK none is put together.
        errors: How many decisions and approvals could not be recorded.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        openinference: bool = True,
        *,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        release = version("mcp-policy-middleware")
        if tracer_provider is None:
            trace.get_tracer_provider()  # lets OTEL_PYTHON_TRACER_PROVIDER take effect
            tracer = _GlobalTracer(_SCOPE, release)
            self._tracer: trace.Tracer = tracer
            self.recording: Callable[[], bool] = tracer.is_set
        else:
            self._tracer = tracer_provider.get_tracer(_SCOPE, release)
            heard = not isinstance(self._tracer, NoOpTracer)
            self.recording = lambda: heard
        self._waited = metrics.get_meter(_SCOPE, release, meter_provider).create_histogram(
            "mcp_policy.approval.duration",
            "s",
            "how long people take to answer",
            explicit_bucket_boundaries_advisory=_WAITS,
        )
        self._openinference = openinference
        self.errors = 0

    def record(self, decision: Decision, started: int, ended: int, knows: Callable[[Decision], bool]) -> None:
        """Make the span of one decision.

        Args:
            decision: What was decided.
            started: When the evaluation began, in nanoseconds since the Unix epoch.
            ended: When it ended, likewise.
            knows: Whether the policy or the server names the tool; other names are an agent's inventions
                and show as `_OTHER` in the span's name.
        """
        try:
            name = f"policy_decision {shown(decision.call.tool) if knows(decision) else OTHER}"
            attributes = _describe(decision)
            if self._openinference:
                attributes["openinference.span.kind"] = "GUARDRAIL"
            self._span(name, attributes, started, ended, failed=decision.error is not None)
        except Exception:  # of an exporter or a provider; no fault of theirs may undo a decision
            self._count_fault()

    def record_approval(self, approval: Approval, tool: str, started: int, ended: int, seconds: float | None) -> None:
        """Make the span of one question to a person.

        Args:
            approval: What came of it.
            tool: The tool that is to be called, which a policy names.
            started: When it was asked, in nanoseconds since the Unix epoch.
            ended: When asking ended, likewise.
            seconds: How long the person took; None where they have not answered.
        """
        try:
            told = {
                "mcp_policy.approval.outcome": approval.state,
                "mcp_policy.approval.id": approval.id,
                "mcp_policy.approval.approver": approval.by,
                "mcp_policy.approval.why": approval.why,
                "gen_ai.tool.name": shown(tool),
            }
            attributes: dict[str, Value] = {key: value for key, value in told.items() if value}
            failed = approval.state in ("cancelled", "failed")
            self._span(f"policy_approval {shown(tool)}", attributes, started, ended, failed=failed)
            if seconds is not None:
                self._waited.record(seconds, {"mcp_policy.approval.outcome": approval.state})
        except Exception:  # likewise
            self._count_fault()

    def _span(self, name: str, attributes: dict[str, Value], started: int, ended: int, *, failed: bool) -> None:
        span = self._tracer.start_span(name, attributes=attributes, start_time=started)
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended)

    def _count_fault(self) -> None:
        self.errors += 1
        if self.errors == 1:
            _LOG.warning("a decision could not be recorded; further faults are only counted", exc_info=True)


class _GlobalTracer(trace.ProxyTracer):
    """The application's tracer, whenever its provider is set."""

    def is_set(self) -> bool:
        """Whether the application has set a provider that is not the API's own."""
        try:
            return type(self._tracer) is not NoOpTracer
        except Exception:  # of the provider; recording will meet it again and count it
            return True


def _describe(decision: Decision) -> dict[str, Value]:
    """The attributes of `policy_decision`; argument values are never among them."""
    call = decision.call
    server = call.server.value if call.server is UNNAMED else call.server
    approval = decision.approval
    optional = {
        "mcp_policy.policy.name": decision.policy_name,
        "mcp_policy.policy.version": decision.policy_digest,
        "mcp_policy.rule.name": decision.rule,
        "mcp_policy.server": server,
        "mcp_policy.grant": decision.grant,
        "gen_ai.tool.call.id": call.call_id and shown(call.call_id),
        "mcp.session.id": call.mcp_session_id,
        "mcp_policy.uncounted": decision.uncounted,
        "error.type": decision.error,
        "mcp_policy.approval.id": approval and approval.id,
        "mcp_policy.approval.outcome": approval and approval.state,
        "mcp_policy.approval.approver": approval and approval.by,
        "mcp_policy.approval.why": approval and approval.why,
    }
    attributes: dict[str, Value] = {
        "mcp_policy.effect": decision.effect,
        "mcp_policy.reason.code": decision.reason.value,
        "mcp_policy.enforced": decision.enforced,
        "mcp_policy.decision.id": decision.decision_id,
        "mcp_policy.arguments.keys": _keys(call.arguments),
        "gen_ai.tool.name": shown(call.tool),
    }
    attributes.update({key: value for key, value in optional.items() if value})
    return attributes


def _keys(arguments: object) -> list[str]:
    if type(arguments) is not dict:
        return []
    names = [shown(name) for name in arguments if type(name) is str]
    return sorted(names)[:_MOST_KEYS]
