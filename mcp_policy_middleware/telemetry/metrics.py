"""Metrics: how long decisions and answers take, how full counters are, who waits, and faults of telemetry itself.

No attribute is unbounded: what an agent may invent shows as `_OTHER`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakKeyDictionary

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, NoOpHistogram, Observation

from ..calls import OTHER, Decision, Reason, shown
from .attributes import Signal
from .faults import Faults

__all__ = ["INSTRUMENTS", "Instrument", "Metrics", "stage_of"]


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric, for the code and for the documentation."""

    signal: Signal
    kind: str
    unit: str
    meaning: str
    bounds: tuple[float, ...] | None = None


_EVALUATION: Final = (
    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 0.1, 1.0, 10.0,
)  # fmt: skip
_PEOPLE: Final = (1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0, 14_400.0, 86_400.0)

INSTRUMENTS: Final = {
    one.signal: one
    for one in (
        Instrument(
            Signal.DURATION,
            "histogram",
            "s",
            "how long deciding took, being put on record included and stage 9 left out; its count is that of decisions",
            _EVALUATION,
        ),
        Instrument(Signal.ANSWERS, "histogram", "s", "how long people took to answer", _PEOPLE),
        Instrument(Signal.WAITING, "gauge", "{request}", "approval requests that wait for an answer, in their store"),
        Instrument(Signal.USED, "gauge", "1", "the part of a limit that is used, after the last call that charged it"),
        Instrument(Signal.ERRORS, "counter", "{fault}", "faults of telemetry itself, none of which disturbs a call"),
    )
}


class Metrics:
    """Records metrics.

    Args:
        scope, release: The name and version of what is instrumented.
        provider: Where they go; None for the application's global provider, whenever it is set.
    """

    def __init__(self, scope: str, release: str, provider: metrics.MeterProvider | None) -> None:
        self._meter = meter = metrics.get_meter(scope, release, provider)
        self._duration = self._histogram(INSTRUMENTS[Signal.DURATION])
        self._answers = self._histogram(INSTRUMENTS[Signal.ANSWERS])
        used, errors = INSTRUMENTS[Signal.USED], INSTRUMENTS[Signal.ERRORS]
        self._used = meter.create_gauge(used.signal, used.unit, used.meaning)
        self._errors = meter.create_counter(errors.signal, errors.unit, errors.meaning)
        self._stores: WeakKeyDictionary[Any, Callable[[Any], int]] = WeakKeyDictionary()
        self._watching = False

    def _histogram(self, one: Instrument) -> metrics.Histogram:
        return self._meter.create_histogram(
            one.signal, one.unit, one.meaning, explicit_bucket_boundaries_advisory=one.bounds
        )

    def heard(self) -> bool:
        """Whether anybody reads them: a proxy without a real instrument behind it is read by nobody."""
        real = getattr(self._duration, "_real_instrument", self._duration)
        return real is not None and type(real) is not NoOpHistogram

    def decided(self, decision: Decision, seconds: float, known: bool) -> None:
        """Count a decision and how long it took, and tell how full its counters are now."""
        attributes: dict[str, str | bool] = {
            "mcp_policy.effect": decision.effect,
            "mcp_policy.reason.code": decision.reason.value,
            "mcp_policy.enforced": decision.enforced,
            "mcp_policy.stage": stage_of(decision),
            "gen_ai.tool.name": shown(decision.call.tool) if known else OTHER,
        }
        if decision.error:
            attributes["error.type"] = decision.error
        self._duration.record(seconds, attributes)
        held = decision.reservation
        if held is None or held.released:  # released: somebody only looked
            return
        fullest: dict[tuple[str, str], float] = {}
        for charge, used in zip(held.charges, held.used, strict=True):
            if charge.counter and charge.limit:
                one = charge.counter, charge.scope
                fullest[one] = max(fullest.get(one, 0.0), (used + charge.amount) / charge.limit)
        for (counter, scope), ratio in fullest.items():
            self._used.set(ratio, {"mcp_policy.counter.name": counter, "mcp_policy.counter.scope": scope})

    def answered(self, outcome: str, seconds: float) -> None:
        """A person took so long to answer."""
        self._answers.record(seconds, {"mcp_policy.approval.outcome": outcome})

    def fault(self, kind: str) -> None:
        """Telemetry itself failed."""
        self._errors.add(1, {"error.type": kind})

    def watch(self, store: object, waiting: Callable[[Any], int], faults: Faults) -> None:
        """Tell, whenever metrics are read, how many requests wait in a store, as long as somebody else keeps it."""
        self._stores[store] = waiting
        if self._watching:
            return
        self._watching = True

        def observed(options: CallbackOptions) -> Iterable[Observation]:
            with faults:
                return [Observation(sum(count(store) for store, count in list(self._stores.items())))]
            return []

        one = INSTRUMENTS[Signal.WAITING]
        self._meter.create_observable_gauge(one.signal, [observed], one.unit, one.meaning)


_STAGES: Final = {
    Reason.ALLOWED: "allowed",
    Reason.INVALID_CALL: "invalid call",
    Reason.NO_POLICY: "no policy",
    Reason.HIDDEN: "hidden",
    Reason.DEFAULT_DENY: "not listed",
    Reason.UNEXPECTED_ARGUMENT: "require",
    Reason.REQUIREMENT_UNMET: "require",
    Reason.UNDECIDABLE: "require",
    Reason.RULE_DENIED: "deny_if",
    Reason.LIMIT_EXCEEDED: "limits",
    Reason.STORE_UNAVAILABLE: "limits",
    Reason.EVALUATION_ERROR: "evaluation error",
    Reason.SUSPENDED: "suspended",
    Reason.DEFINITION_CHANGED: "definition changed",
}


def stage_of(decision: Decision) -> str:
    """The stage of PL-4 that decided, by the name that `explain` gives it; read off the reason and the rule.

    Stages 8 and 10 are both `limits`. A rule of Intercept's own name does not tell its stage: what is undecidable
    there counts as `require`. What denies outside the stages goes by its rule's name.
    """
    reason, rule = decision.reason, decision.rule
    if reason is Reason.RULE_DENIED and rule.endswith("/action"):
        return "action deny"
    if reason is Reason.UNDECIDABLE and rule.startswith("/"):
        section = rule.split("/")[2 if rule.startswith("/all_tools/") else 3]
        return section if section in ("require", "deny_if") else "limits"
    if reason is Reason.EVALUATION_ERROR and rule == "(audit)":
        return "audit"
    if reason is Reason.INVALID_CALL and rule.startswith("/"):
        return "approval"
    return _STAGES.get(reason, "approval")
