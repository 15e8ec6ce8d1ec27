"""A LangChain tool's place in a policy: whose decision, which server, which name, which identity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from langchain_core.runnables import RunnableConfig, ensure_config

from ...calls import ToolCall
from ...guard import Guard
from ..identity import identified_call
from .arguments import as_json

__all__ = ["Binding", "Identity", "IdentityOf", "bindings_of"]

Identity: TypeAlias = Mapping[str, Any]
"""Any of `grant`, `session` and `context`; what is left out is the guard's."""

IdentityOf: TypeAlias = Callable[[RunnableConfig], Identity]
"""Tells on whose behalf a call is made, from the application's configuration of the run (adapters A-1.10)."""


@dataclass(frozen=True, slots=True)
class Binding:
    """What a guarded tool is to a policy.

    Attributes:
        guard: Who decides.
        server: The name the application gave the MCP server; None for a tool of no server.
        name: The tool's name as its server knows it.
        identity_of: Tells on whose behalf a call is made; None leaves it to the guard.

    Raises:
        TypeError: The name or the server is no text: rules would be looked up under nothing.
    """

    guard: Guard
    server: str | None
    name: str
    identity_of: IdentityOf | None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"a tool's name is a text, not {type(self.name).__name__}")
        if self.server is not None and not (isinstance(self.server, str) and self.server):
            raise TypeError("a server's name is a text that is not empty, or None for a tool of no server")

    def means(self, other: Binding) -> bool:
        """Whether both stand for the same tool of the same server at the same guard."""
        return self.guard is other.guard and self.server == other.server and self.name == other.name

    def call(self, arguments: Mapping[str, Any], call_id: str | None, config: RunnableConfig | None) -> ToolCall:
        """One call of the tool, in the run that `config` is of, or else the surrounding one."""
        seen = None if self.identity_of is None else ensure_config(config)
        sent = partial(as_json, arguments)  # again after a wait: what is inside them may be anybody's
        return self.call_for(self.identity_of, seen, sent(), call_id, sent)

    def call_for(
        self,
        identity_of: Callable[[Any], Identity] | None,
        seen: object,
        arguments: object,
        call_id: str | None,
        as_sent: Callable[[], Any] | None = None,
    ) -> ToolCall:
        """One call of the tool, on behalf of whom `identity_of` tells from what is `seen`."""
        return identified_call(
            self.name,
            arguments,
            server=self.server,
            identity_of=identity_of,
            seen=seen,
            call_id=call_id,
            as_sent=as_sent,
        )


def bindings_of(tool: object) -> list[Binding]:
    """What a tool is bound to, the outermost guard first; empty for a tool that is not guarded."""
    found = (vars(kind).get("__policy_binding__") for kind in type(tool).__mro__)
    return [binding for binding in found if binding is not None]
