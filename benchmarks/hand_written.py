"""The yardstick: what somebody would write by hand instead of a policy, with the same checks and `re`."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

__all__ = ["HandWritten"]


class HandWritten:
    """50 tools; `create_charge` has two comparisons, one pattern and one locked window counter."""

    def __init__(self, tools: int = 50) -> None:
        self._checks: dict[str, Any] = {f"tool_{index}": None for index in range(tools - 1)}
        self._checks["create_charge"] = self._check_charge
        self._customer = re.compile(r"^cus_[A-Za-z0-9]{8,}\Z")
        self._currencies = frozenset({"usd", "eur"})
        self._lock = threading.Lock()
        self._window = -1
        self._used = 0

    def allows(self, tool: str, arguments: dict[str, Any]) -> bool:
        """Whether the call may go on; takes one from the counter where it may."""
        if tool not in self._checks:
            return False
        check = self._checks[tool]
        return True if check is None else check(arguments)

    def _check_charge(self, arguments: dict[str, Any]) -> bool:
        amount = arguments.get("amount")
        if type(amount) not in (int, float) or not amount <= 500:
            return False
        if arguments.get("currency") not in self._currencies:
            return False
        customer = arguments.get("customer")
        if type(customer) is not str or self._customer.search(customer) is None:
            return False
        window = time.time() // 60
        with self._lock:
            if self._window != window:
                self._window, self._used = window, 0
            if self._used >= 1_000_000_000:
                return False
            self._used += 1
        return True
