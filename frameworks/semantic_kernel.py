"""semantic-kernel: an MCP plugin in a kernel, driven by a chat client of the framework's protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from semantic_kernel import Kernel
from semantic_kernel.connectors.ai import FunctionChoiceBehavior, PromptExecutionSettings
from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.connectors.mcp import MCPStdioPlugin
from semantic_kernel.contents import ChatHistory, ChatMessageContent, FunctionCallContent

from .trial import TakeTurn, Turn, attempt


class Scripted(ChatCompletionClientBase):
    """Asks for one charge, then is done."""

    SUPPORTS_FUNCTION_CALLING: ClassVar[bool] = True
    amount: int
    offered: list[str] = []

    async def _inner_get_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings
    ) -> list[ChatMessageContent]:
        if len(chat_history.messages) > 1:
            return [ChatMessageContent(role="assistant", content="done")]
        call = FunctionCallContent(id="1", name="ledger-charge", arguments={"amount": self.amount})
        return [ChatMessageContent(role="assistant", items=[call])]

    def _update_function_choice_settings_callback(self) -> Any:
        def offer(configuration: Any, settings: PromptExecutionSettings, choice: Any) -> None:
            self.offered[:] = [function.name for function in configuration.available_functions]

        return offer


@asynccontextmanager
async def connect(command: str, arguments: list[str]) -> AsyncIterator[TakeTurn]:
    """The kernel on one server."""
    async with MCPStdioPlugin("ledger", command, args=arguments, load_prompts=False) as ledger:
        kernel = Kernel()
        kernel.add_plugin(ledger)

        async def turn(amount: int) -> Turn:
            model = Scripted(ai_model_id="scripted", amount=amount)
            history = ChatHistory()
            history.add_user_message("Charge the customer.")
            settings = PromptExecutionSettings(function_choice_behavior=FunctionChoiceBehavior.Auto())
            await model.get_chat_message_contents(history, settings, kernel=kernel)
            (result,) = history.messages[-1].items
            return Turn(
                model.offered, str(result.result), f"`FunctionResultContent` of `{type(result.result[0]).__name__}`"
            )

        yield turn


if __name__ == "__main__":
    attempt(connect, "semantic-kernel", driven_by="a `ChatCompletionClientBase`")
