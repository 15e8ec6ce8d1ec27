"""A chat model for tests: it calls the tools that a script says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable

__all__ = ["FakeToolCallingModel"]


class FakeToolCallingModel(BaseChatModel):
    """Replays tool calls, one batch a model call, and then answers with text.

    Attributes:
        tool_calls: The batches; each call is a dict of `name`, `args` and `id`.
        answer: What the model says when the script is over.
        offered: For each model call, the names of the tools the model was offered.
    """

    tool_calls: list[list[dict[str, Any]]] = []  # noqa: RUF012  each model gets a copy of its own
    answer: str = "done"
    offered: list[list[str]] = []  # noqa: RUF012  likewise

    @property
    def _llm_type(self) -> str:
        return "fake-tool-calling"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        """This model, which notes the tools' names when it is called; they are dicts or have a name."""
        return self.bind(offered=[_name(tool) for tool in tools])

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        turn = len(self.offered)
        self.offered.append(kwargs.get("offered", []))
        batch = self.tool_calls[turn] if turn < len(self.tool_calls) else []
        message = AIMessage("" if batch else self.answer, tool_calls=[{**call, "type": "tool_call"} for call in batch])
        return ChatResult(generations=[ChatGeneration(message=message)])


def _name(tool: Any) -> str:
    if not isinstance(tool, dict):
        return str(getattr(tool, "name", None) or tool.__name__)
    described = tool.get("function", tool)
    return str(described.get("name") or tool.get("type"))
