"""Asking people: approval requests, their states, where they are kept, and who puts them to a person (PL-7)."""

from __future__ import annotations

from .approver import Approver, NoAnswer
from .base import ApprovalStore
from .console import ConsoleApprover
from .floods import Flood, FloodLimits
from .function import FunctionApprover
from .memory import MemoryApprovals
from .notebook import NotebookApprover
from .requests import Answer, ApprovalRequest, Found
from .states import Event, State

__all__ = [
    "Answer",
    "ApprovalRequest",
    "ApprovalStore",
    "Approver",
    "ConsoleApprover",
    "Event",
    "Flood",
    "FloodLimits",
    "Found",
    "FunctionApprover",
    "MemoryApprovals",
    "NoAnswer",
    "NotebookApprover",
    "State",
]
