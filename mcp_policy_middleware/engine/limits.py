"""A limit of a document -> what one call charges to which counter (PL-5)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any, Final

from ..calls import OTHER, ServerName
from ..canonical import canonical
from ..charges import MILLION, Charge, Window
from ..policy.model import MAX_TOTAL, Limit, Scope
from ..policy.model import Window as WindowName
from ..policy.paths import Step, parse_path
from .equality import has_foreign_key, may_be_foreign
from .keys import CounterKey

__all__ = ["CompiledLimit", "Where", "compile_limit", "reading"]

_DAY: Final = 86_400
_WINDOWS: Final = {
    "minute": Window(60),
    "hour": Window(3_600),
    "day": Window(_DAY),
    "week": Window(7 * _DAY, offset=4 * _DAY),  # 5 January 1970 was a Monday
    "month": Window(0),
}


@dataclass(slots=True)
class Where:
    """What a scope may keep apart: whose call it is, and of which tool."""

    server: ServerName
    grant: str
    session: str | None
    tool: str


@dataclass(slots=True)
class CompiledLimit:
    """One limit, ready to charge.

    Attributes:
        rule: Its name in decisions.
        amount: What each call adds in millionths, or the reader of an argument that says how much.
        ceiling: What the total may reach, in millionths.
        text: What the agent reads when it is reached.
    """

    rule: str
    counter: str | None
    window: Window
    window_name: WindowName
    scope: Scope
    sliding: bool
    on_success: bool
    amount: int | Callable[[dict[str, Any]], int | None]
    source: str
    ceiling: int
    text: str
    on_deny: str | None

    def charge(self, where: Where) -> Charge:
        """What one call charges; limits on one counter have one key (PL-5.5)."""
        key = CounterKey(
            counter=f"{where.tool}_rate" if self.counter is None else self.counter,
            window=self.window_name,
            algorithm="sliding" if self.sliding else "fixed",
            scope=self.scope,
            server=where.server,
            grant=where.grant,
            session=where.session,
        ).text()
        amount = self.amount if isinstance(self.amount, int) else 0
        known = OTHER if self.counter is None else self.counter  # a glob does not bound the names it matches
        return Charge(key, self.window, amount, self.ceiling, self.sliding, self.on_success, known, self.scope)


def compile_limit(base: str, limit: Limit, *, counter: str | None) -> CompiledLimit:
    """Compile a limit.

    Args:
        base: The rule's name, without the counter.
        limit: A validated limit.
        counter: The counter's name; None for `<tool>_rate`, by the name of the tool that is called.
    """
    every = limit.window if isinstance(limit.window, str) else f"{limit.window} s"
    amount: int | Callable[[dict[str, Any]], int | None]
    if limit.increment_from is not None:
        amount = _reader(parse_path(limit.increment_from).steps)
    else:
        amount = _millionths(1 if limit.increment is None else limit.increment)
    return CompiledLimit(
        rule=base,
        counter=counter,
        window=_WINDOWS[limit.window] if isinstance(limit.window, str) else Window(limit.window),
        window_name=limit.window,
        scope=limit.scope,
        sliding=limit.algorithm == "sliding",
        on_success=limit.charge_on == "success",
        amount=amount,
        source=(limit.increment_from or "").removeprefix("args."),
        ceiling=_millionths(limit.max, ROUND_FLOOR),
        text=f"limit `{limit.counter}` reached: {canonical(limit.max)} per {every}",
        on_deny=limit.on_deny,
    )


def reading(counter: str, window: WindowName) -> CompiledLimit:
    """What only looks at a counter: it charges nothing and fits always."""
    limit = Limit(counter=counter, window=window, max=MAX_TOTAL)
    looked_at = compile_limit("", limit, counter=counter)
    looked_at.amount = 0
    return looked_at


_EXACT: Final = Context(prec=30)
"""Room for a float's 17 digits in millionths, whatever the application does with its own context."""


def _millionths(amount: float, rounding: str = ROUND_CEILING) -> int:
    """Finer fractions of a charge round up, so that no fraction is free (PL-5.3)."""
    if isinstance(amount, int):
        return amount * MILLION
    return int(_EXACT.multiply(Decimal(repr(amount)), MILLION).to_integral_value(rounding, _EXACT))


def _reader(steps: tuple[Step, ...]) -> Callable[[dict[str, Any]], int | None]:
    """Reads a charge from the arguments; None where it is missing or no number of 0 or more (PL-5.3)."""

    def read(arguments: dict[str, Any]) -> int | None:
        value: Any = arguments
        for step in steps:
            if isinstance(step, int) and type(value) is list and step < len(value):
                value = value[step]
            elif isinstance(step, str) and type(value) is dict and step in value:
                if may_be_foreign(step) and has_foreign_key(value):
                    return None
                value = value[step]
            else:
                return None
        if type(value) is int or (type(value) is float and math.isfinite(value)):
            return _millionths(value) if value >= 0 else None
        return None

    return read
