"""The only way in which values of arguments leave the process: the application names the arguments."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from ..calls import ToolCall, shown
from ..errors import PolicyError

__all__ = ["Arguments", "Disclosure", "Redact"]

Arguments: TypeAlias = Iterable[str] | Mapping[str, Iterable[str]]
"""Names of arguments, of whatever tool; or for each tool its own."""

Redact: TypeAlias = Callable[[str, str, Any], Any]
"""Takes a tool, an argument's name and its value; returns what is recorded in its place."""

_MOST_CHARACTERS: Final = 256


class Disclosure:
    """Which values are recorded.

    Args:
        arguments: Whose.
        redact: What is recorded in their place.

    Raises:
        PolicyError: The names are no names.
    """

    def __init__(self, arguments: Arguments, redact: Redact | None) -> None:
        by_tool = arguments if isinstance(arguments, Mapping) else {}
        everywhere = () if isinstance(arguments, Mapping) else arguments
        if any(isinstance(names, str) for names in (everywhere, *by_tool.values())):
            raise PolicyError('arguments are named in a list: give `["amount"]`, or `{"create_refund": ["amount"]}`')
        self._by_tool = {tool: frozenset(names) for tool, names in by_tool.items()}
        self._everywhere = frozenset(everywhere)
        self._redact = redact

    def values(self, call: ToolCall) -> dict[str, str]:
        """An attribute that holds the named arguments of a call, as a JSON object of texts; none where none is given.

        Each text is escaped and cut.
        """
        names = self._by_tool.get(call.tool, self._everywhere)
        given = call.arguments
        if not names or type(given) is not dict:
            return {}
        said = {name: self._text(call.tool, name, given[name]) for name in sorted(names & given.keys())}
        return {"mcp_policy.arguments.values": json.dumps(said, ensure_ascii=False)} if said else {}

    def _text(self, tool: str, name: str, value: Any) -> str:
        value = value if self._redact is None else self._redact(tool, name, value)
        text = value if isinstance(value, str) else json.dumps(value)
        return shown(text, _MOST_CHARACTERS)
