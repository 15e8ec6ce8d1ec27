"""Which policy applies to which server (PL-9.1, PL-9.2), and which tools are known by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

from .calls import ServerName
from .engine import CompiledPolicy, compile_policy
from .errors import PolicyError
from .policy import Policy, load_directory
from .policy.model import Mode

__all__ = ["Policies", "Selection"]

T = TypeVar("T")
Policies: TypeAlias = Policy | Mapping[str, Policy] | str | os.PathLike[str]
"""One policy for every call, a map of server name to policy, or a directory of policies."""

_MOST_LISTED: Final = 4096


class Selection:
    """Compiled policies by server.

    Attributes:
        everywhere: The one policy for every call; None where policies go by server.
        by_server: Policies by server; None is the key for tools of no MCP server.
    """

    def __init__(self, policies: Policies, mode: Mode | None) -> None:
        self.everywhere: CompiledPolicy | None = None
        self.by_server: dict[ServerName, CompiledPolicy] = {}
        self._listed: dict[ServerName, set[str]] = {}
        if isinstance(policies, Policy):
            self.everywhere = compile_policy(policies, mode)
        else:
            self.by_server = {server: compile_policy(policy, mode) for server, policy in _read(policies).items()}

    def policy_for(self, server: ServerName) -> CompiledPolicy | None:
        """The policy for calls to the server; an unnamed session never falls to another's (PL-9.2)."""
        return self.everywhere or self.by_server.get(server)

    def all(self) -> list[CompiledPolicy]:
        """Every policy there is."""
        return [self.everywhere] if self.everywhere else list(self.by_server.values())

    def visible(self, tools: Iterable[T], server: ServerName) -> list[T]:
        """The tools that are not hidden, in the same order; their names become known."""
        policy = self.policy_for(server)
        listed = self._listed.setdefault(server, set())
        kept = []
        for tool in tools:
            name = _name(tool)
            if len(listed) < _MOST_LISTED:
                listed.add(name)
            if policy is None or not policy.hides(name):
                kept.append(tool)
        return kept

    def knows(self, tool: str, server: ServerName) -> bool:
        """Whether the policy or the server names the tool; other names are an agent's inventions."""
        policy = self.policy_for(server)
        return (policy is not None and tool in policy.plans) or tool in self._listed.get(server, ())


def _name(tool: Any) -> str:
    name = tool if isinstance(tool, str) else tool.name
    if not isinstance(name, str):
        raise TypeError(f"a tool's name is a text, not {type(name).__name__}")
    return name


def _read(policies: Any) -> dict[ServerName, Policy]:
    if isinstance(policies, (str, os.PathLike)):
        found: dict[ServerName, Policy] = {}
        found.update(load_directory(policies).items())
        return found
    if not isinstance(policies, Mapping):
        kind = type(policies).__name__
        raise PolicyError(f"a guard takes a policy, policies by server, or a directory, not {kind}")
    for server, policy in policies.items():
        if not isinstance(server, str) or not isinstance(policy, Policy):
            raise PolicyError("policies by server map a server's name to a `Policy`: read each with `load_policy`")
    return {None if server == "_local" else server: policy for server, policy in policies.items()}
