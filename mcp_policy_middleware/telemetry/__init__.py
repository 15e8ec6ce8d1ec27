"""Decisions and approvals -> OpenTelemetry, with the API package alone; nothing here sets a provider."""

from __future__ import annotations

from .openinference import langchain_parent
from .telemetry import Telemetry

__all__ = ["Telemetry", "langchain_parent"]
