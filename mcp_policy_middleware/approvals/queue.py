"""A durable queue: questions wait in a store until somebody answers them there, from whichever process."""

from __future__ import annotations

from ..errors import PolicyError
from .approver import Approver, NoAnswer
from .base import ApprovalStore
from .floods import FloodLimits
from .requests import Answer, ApprovalRequest

__all__ = ["QueueApprover"]


class QueueApprover(Approver):
    """Asks nobody: whoever looks into the store answers there, with `mcp-policy approvals` or `store.move`.

    The agent is told that its approval is pending; the same call, tried again after a yes, passes once.

    Args:
        store: Where requests wait. `SQLiteApprovals` and `RedisApprovals` serve other processes and survive a
            restart; `MemoryApprovals` is for an application that answers in this process.
        floods: As for `Approver`.

    Raises:
        PolicyError: That is no store.
    """

    def __init__(self, store: ApprovalStore, *, floods: FloodLimits | None = None) -> None:
        if not isinstance(store, ApprovalStore):
            raise PolicyError("a queue needs the store where people answer: give `SQLiteApprovals(path)`")
        super().__init__(store=store, floods=floods)

    def ask(self, request: ApprovalRequest, seconds: float) -> Answer | NoAnswer:
        """The answer will come by way of the store."""
        return NoAnswer.LATER

    async def aask(self, request: ApprovalRequest, seconds: float) -> Answer | NoAnswer:
        """`ask` for async callers."""
        return NoAnswer.LATER
