"""A support agent as somebody had it, made safe with three added lines, marked `# added`.

The model is scripted, so that the example runs without a key; a real one goes in its place.
"""

from __future__ import annotations

from pathlib import Path

from langchain.agents import create_agent
from langchain_core.tools import tool

from mcp_policy_middleware import Guard, load_policy
from mcp_policy_middleware.adapters.langchain import PolicyMiddleware, guard_tools
from mcp_policy_middleware.testing import FakeToolCallingModel

ORDERS = {"o-1": {"item": "tea", "amount": 30}, "o-2": {"item": "samovar", "amount": 900}}
REFUNDED: list[str] = []


@tool
def find_order(order: str) -> dict[str, object]:
    """Look an order up."""
    return ORDERS[order]


@tool
def refund_order(order: str, amount: float) -> str:
    """Refund an order."""
    REFUNDED.append(order)
    return f"refunded {amount} for {order}"


@tool
def delete_order(order: str) -> str:
    """Delete an order for good."""
    return str(ORDERS.pop(order))


MODEL = FakeToolCallingModel(
    tool_calls=[
        [{"name": "find_order", "args": {"order": "o-2"}, "id": "1"}],
        [
            {"name": "refund_order", "args": {"order": "o-1", "amount": 30}, "id": "2"},
            {"name": "refund_order", "args": {"order": "o-2", "amount": 900}, "id": "3"},
            {"name": "delete_order", "args": {"order": "o-2"}, "id": "4"},
        ],
    ],
    answer="One refund is made; the other needs a person.",
)


def main() -> None:
    """Run the agent and print what its tools answered."""
    tools = [find_order, refund_order, delete_order]
    middleware = []

    guard = Guard(load_policy(Path(__file__).with_suffix(".json")), grant="support-agent")  # added
    tools = guard_tools(tools, guard)  # added
    middleware = [*middleware, PolicyMiddleware(guard)]  # added

    agent = create_agent(MODEL, tools, middleware=middleware)
    result = agent.invoke({"messages": [("user", "Refund my orders, and delete the big one.")]})
    for message in result["messages"]:
        if message.type in ("tool", "ai") and message.content:
            print(f"{message.type:4} {message.content}")


if __name__ == "__main__":
    main()
