"""A deterministic policy between an agent and its tools, inside the agent's own process."""

from __future__ import annotations

from .calls import UNNAMED, Decision, Outcome, Reason, ToolCall
from .errors import DocumentError, MissingDependency, PolicyError, Problem, StoreError, ToolDenied
from .guard import Guard
from .policy import Policy, load_policy, parse_policy
from .telemetry import Telemetry

__all__ = [
    "UNNAMED",
    "Decision",
    "DocumentError",
    "Guard",
    "MissingDependency",
    "Outcome",
    "Policy",
    "PolicyError",
    "Problem",
    "Reason",
    "StoreError",
    "Telemetry",
    "ToolCall",
    "ToolDenied",
    "load_policy",
    "parse_policy",
]
