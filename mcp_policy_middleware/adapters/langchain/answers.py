"""What LangChain is told of a denial, and what the guard is told of a result."""

from __future__ import annotations

import sys
from importlib import import_module

from langchain_core.messages import ToolMessage
from langchain_core.tools import ToolException

from ...calls import Decision, Outcome

__all__ = ["denial_message", "outcome_of"]


def denial_message(decision: Decision, name: str, call_id: str) -> ToolMessage:
    """A denial as an ordinary tool error, with the decision for programs beside it (PL-6, adapters A-1.9)."""
    return ToolMessage(
        content=decision.text,
        status="error",
        name=name,
        tool_call_id=call_id,
        artifact={"policy": decision.as_dict()},
    )


def outcome_of(ended: object) -> Outcome:
    """The outcome of a call from its result or its exception (PL-5.6)."""
    if isinstance(ended, BaseException):
        return _outcome_of_exception(ended)
    if isinstance(ended, ToolMessage) and ended.status == "error":
        return Outcome.RETURNED_ERROR
    return Outcome.RETURNED


def _outcome_of_exception(error: BaseException) -> Outcome:
    if isinstance(error, ToolException):
        return Outcome.RETURNED_ERROR
    langgraph = sys.modules.get("langgraph.errors")  # nobody raises its exceptions without having loaded it
    if langgraph is not None and isinstance(error, langgraph.GraphInterrupt):
        return Outcome.NOT_SENT  # the graph runs the whole call again when it is resumed
    if langgraph is not None and isinstance(error, langgraph.GraphBubbleUp):
        return Outcome.RETURNED
    if sys.modules.get("mcp.client.session") is not None:  # likewise
        return Outcome(import_module("..mcp_sdk", __package__).outcome_of(error))
    return Outcome.UNKNOWN
