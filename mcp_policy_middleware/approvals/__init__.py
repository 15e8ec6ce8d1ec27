"""Asking people: approval requests, their states, where they are kept, and who puts them to a person (PL-7)."""

from __future__ import annotations

from .approver import Approver, NoAnswer
from .base import ApprovalStore
from .floods import Flood, FloodLimits
from .function import FunctionApprover
from .memory import MemoryApprovals
from .queue import QueueApprover
from .requests import Answer, ApprovalRequest, Found
from .states import Event, State

__all__ = [
    "Answer",
    "ApprovalRequest",
    "ApprovalStore",
    "Approver",
    "Event",
    "Flood",
    "FloodLimits",
    "Found",
    "FunctionApprover",
    "MemoryApprovals",
    "NoAnswer",
    "QueueApprover",
    "State",
]
