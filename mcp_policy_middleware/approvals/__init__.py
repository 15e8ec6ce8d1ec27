"""Asking people: approval requests, their states, where they are kept, and who puts them to a person (PL-7).

Stores that need a backend are imported when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from ..errors import MissingDependency
from .approver import Approver, NoAnswer
from .base import ApprovalStore
from .console import ConsoleApprover
from .floods import Flood, FloodLimits
from .function import FunctionApprover
from .memory import MemoryApprovals
from .notebook import NotebookApprover
from .queue import QueueApprover
from .requests import Answer, ApprovalRequest, Found
from .states import Event, State

if TYPE_CHECKING:
    from .redis import RedisApprovals
    from .sqlite import SQLiteApprovals

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
    "QueueApprover",
    "RedisApprovals",
    "SQLiteApprovals",
    "State",
]

_HOMES: Final = {"RedisApprovals": ".redis", "SQLiteApprovals": ".sqlite"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name], __name__), name)
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        raise MissingDependency(f"`{name}`", "redis") from error
