"""For loops that run a model's tool calls by hand, where no framework takes out what a model must not say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.tools import BaseTool

from .arguments import injected_names

__all__ = ["strip_injected"]


def strip_injected(tool: BaseTool, tool_call: Mapping[str, Any]) -> dict[str, Any]:
    """A model's tool call without values for arguments that only the application may fill in.

    `tool.invoke(tool_call)` takes them from whoever gives them, guarded or not, and no rule sees them: a tool cannot
    tell the application's value from one that a model made up. LangGraph's `ToolNode` takes them out by itself.

    Args:
        tool: The tool that is called.
        tool_call: The call as the model made it; it stays as it is. Put your own values into the copy.
    """
    injected = injected_names(tool)
    return {**tool_call, "args": {name: value for name, value in tool_call["args"].items() if name not in injected}}
