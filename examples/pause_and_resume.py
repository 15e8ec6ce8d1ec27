"""A LangGraph agent that pauses for a person where the policy wants one, and goes on with the answer.

The model is scripted, so that the example runs without a key; a real one goes in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from mcp_policy_middleware import Guard, load_policy
from mcp_policy_middleware.adapters.langchain import PolicyMiddleware, guard_tools
from mcp_policy_middleware.adapters.langgraph import InterruptApprover, approve, deny
from mcp_policy_middleware.testing import FakeToolCallingModel

REFUNDED: list[str] = []


@tool
def refund_order(order: str, amount: float) -> str:
    """Refund an order."""
    REFUNDED.append(order)
    return f"refunded {amount} for {order}"


MODEL = FakeToolCallingModel(
    tool_calls=[
        [
            {"name": "refund_order", "args": {"order": "o-1", "amount": 30}, "id": "1"},
            {"name": "refund_order", "args": {"order": "o-2", "amount": 900}, "id": "2"},
            {"name": "refund_order", "args": {"order": "o-3", "amount": 700}, "id": "3"},
        ]
    ],
    answer="That is all I could refund.",
)


def at_the_terminal(question: dict[str, Any]) -> bool:
    """Ask whoever started the program."""
    print(f"{question['tool']} {question['arguments']}: {question['text']}")
    return input("approve? [y/N] ") == "y"


def main(person: Callable[[dict[str, Any]], bool] = at_the_terminal) -> None:
    """Run the agent, let the person answer whenever it pauses, and print what its tools answered."""
    guard = Guard(load_policy(Path(__file__).with_suffix(".json")), approver=InterruptApprover(), grant="support-agent")
    agent = create_agent(
        MODEL,
        guard_tools([refund_order], guard),
        middleware=[PolicyMiddleware(guard)],
        checkpointer=InMemorySaver(),  # one on disk lets the graph wait for days, and its process end
    )
    thread: Any = {"configurable": {"thread_id": "1"}}

    state = agent.invoke({"messages": [("user", "Refund my orders.")]}, thread)
    while pending := state.get("__interrupt__"):
        answers = {each.id: (approve if person(each.value) else deny)(each, by="you") for each in pending}
        state = agent.invoke(Command(resume=answers), thread)

    for message in state["messages"]:
        if message.type in ("tool", "ai") and message.content:
            print(f"{message.type:4} {message.content}")


if __name__ == "__main__":
    main()
