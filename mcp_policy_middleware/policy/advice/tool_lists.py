"""A server's `tools/list` answer: which tools there are, and which arguments their schemas require."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ...errors import DocumentError, Problem
from ..paths import EACH, Step
from ..syntax import Node, SyntaxProblem, read_text

__all__ = ["Argument", "ToolList", "read_tool_list"]

_ADVICE: Final = 'give the answer of `tools/list`, or {"server": "name", "tools": [...]}'
_OTHERWISE: Final = ("anyOf", "oneOf", "allOf", "not", "if", "dependentSchemas", "patternProperties", "$dynamicRef")


@dataclass(frozen=True, slots=True)
class Argument:
    """What a schema says of an argument.

    Attributes:
        known: Whether the schema names it; where it does not, servers ignore or refuse it.
        required: Whether every valid call has it.
        default: What the server takes where it is missing; None where the schema does not say.
        siblings: The names that the schema does know there.
    """

    known: bool
    required: bool = False
    default: Any = None
    siblings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolList:
    """The tools of a server, or of several.

    Attributes:
        server: The server's name, where the list gives one.
        schemas: By tool, the JSON Schema of its arguments.
    """

    server: str | None
    schemas: Mapping[str, Any]

    @classmethod
    def union(cls, lists: Iterable[ToolList]) -> ToolList:
        """Several lists as one, for a document that is for several servers."""
        merged: dict[str, Any] = {}
        for one in lists:
            for name, schema in one.schemas.items():
                merged[name] = schema if name not in merged or merged[name] == schema else None
        return cls(None, merged)

    def argument(self, tool: str, steps: tuple[Step, ...]) -> Argument | None:
        """What the tool's schema says of an argument; None where it does not tell."""
        root = self.schemas.get(tool)
        node, required = root, True
        for step in steps:
            node = _resolved(root, node)
            if type(node) is not dict or any(word in node for word in _OTHERWISE):
                return None
            if not isinstance(step, str):
                required = required and step is EACH
                node = node.get("items")
                continue
            names = node.get("properties")
            if type(names) is not dict:
                return None
            if step not in names:
                closed = node.get("additionalProperties") in (None, False)
                return Argument(known=False, siblings=tuple(names)) if closed else None
            needed = node.get("required")
            required = required and type(needed) is list and step in needed
            node = names[step]
        return Argument(True, required, node.get("default") if type(node) is dict else None)


def _resolved(root: Any, node: Any) -> Any:
    """The schema that a local reference names; None for any other reference."""
    for _ in range(8):
        if type(node) is not dict or "$ref" not in node:
            return node
        reference, node = node["$ref"], root
        if type(reference) is not str or not reference.startswith("#/"):
            return None
        for step in reference[2:].split("/"):
            node = node.get(step.replace("~1", "/").replace("~0", "~")) if type(node) is dict else None
    return None


def read_tool_list(data: bytes | str, source: str) -> ToolList:
    """Read a list of tools.

    Args:
        data: JSON: the answer of `tools/list`, its JSON-RPC envelope, or an object with `server` and `tools`.
        source: What problems call it.

    Raises:
        DocumentError: It is no such list.
    """
    try:
        tree, problems = read_text(data, source)
    except SyntaxProblem as error:
        raise DocumentError(error.problems) from None
    if problems:
        raise DocumentError(problems)
    top = tree.value.get("result", tree) if type(tree.value) is dict else tree
    tools = top.value.get("tools") if type(top.value) is dict else None
    if tools is None or type(tools.value) is not list:
        raise DocumentError([Problem(source, *tree.place, "", "this is no list of tools", _ADVICE)])
    schemas: dict[str, Any] = {}
    nodes: list[Node] = tools.value
    for index, tool in enumerate(nodes):
        name = _text(tool, "name")
        if name is None:
            message = f"entry {index + 1} of `tools` has no name"
            raise DocumentError([Problem(source, *tool.place, f"/tools/{index}", message, _ADVICE)])
        schemas[name] = tool.plain().get("inputSchema")
    return ToolList(_text(tree, "server"), schemas)


def _text(node: Node, key: str) -> str | None:
    value = node.value.get(key) if type(node.value) is dict else None
    return value.value if value is not None and type(value.value) is str else None
