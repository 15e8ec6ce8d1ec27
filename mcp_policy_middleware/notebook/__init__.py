"""For notebooks: a log of decisions that draws itself, and a table for any list of them."""

from __future__ import annotations

from .log import DecisionLog, LoggedDecision, decision_table

__all__ = ["DecisionLog", "LoggedDecision", "decision_table"]
