"""Which policy applies to which server (PL-9.1, PL-9.2), and which tools are known by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

from .calls import Decision, ServerName
from .engine import CompiledPolicy, compile_policy
from .errors import PolicyError
from .policy import Policy, load_directory
from .policy.model import Mode
from .stores.memory import MemoryStore

__all__ = ["Policies", "Selection", "split_name"]

T = TypeVar("T")
Policies: TypeAlias = Policy | Mapping[str, Policy] | str | os.PathLike[str]
"""One policy for every call, a map of server name to policy, or a directory of policies."""

_MOST_LISTED: Final = 4096
_HOUR: Final = 3600


class Selection:
    """Compiled policies by server.

    A policy of a server goes for every grant, except for those that have one of their own (PL-9.1).
    """

    def __init__(self, policies: Policies, mode: Mode | None) -> None:
        self._everywhere: CompiledPolicy | None = None
        self._by_server: dict[ServerName, CompiledPolicy] = {}
        self._by_grant: dict[tuple[ServerName, str], CompiledPolicy] = {}
        self._listed: dict[ServerName, set[str]] = {}
        if isinstance(policies, Policy):
            self._everywhere = compile_policy(policies, mode)
            return
        for name, policy in _read(policies).items():
            server, grant = split_name(name)
            if grant is None:
                self._by_server[server] = compile_policy(policy, mode)
            else:
                self._by_grant[server, grant] = compile_policy(policy, mode)

    def policy_for(self, server: ServerName, grant: str) -> CompiledPolicy | None:
        """The policy for calls to the server; an unnamed session never falls to another's (PL-9.2)."""
        if self._by_grant:
            own = self._by_grant.get((server, grant))
            if own is not None:
                return own
        return self._everywhere or self._by_server.get(server)

    def all(self) -> list[CompiledPolicy]:
        """Every policy there is."""
        everywhere = [self._everywhere] if self._everywhere else []
        return [*everywhere, *self._by_server.values(), *self._by_grant.values()]

    def memory_store(self) -> MemoryStore:
        """A store for those who named none.

        Raises:
            PolicyError: A limit's window is longer than an hour, which a restart would forget.
        """
        for policy in self.all():
            if policy.longest_window > _HOUR:
                raise PolicyError(
                    f"policy `{policy.name}` has a limit over more than an hour, which a restart would forget: "
                    "name a store, such as `store=MemoryStore()` where that is acceptable"
                )
        return MemoryStore()

    def visible(self, tools: Iterable[T], server: ServerName, grant: str) -> list[T]:
        """The tools that are not hidden, in the same order; their names become known."""
        policy = self.policy_for(server, grant)
        listed = self._listed.setdefault(server, set())
        kept = []
        for tool in tools:
            name = _name(tool)
            if len(listed) < _MOST_LISTED:
                listed.add(name)
            if policy is None or not policy.hides(name):
                kept.append(tool)
        return kept

    def knows(self, decision: Decision) -> bool:
        """Whether the policy or the server names the tool; other names are an agent's inventions."""
        call = decision.call
        if call.tool in self._listed.get(call.server, ()):
            return True
        policy = self.policy_for(call.server, decision.grant)
        return policy is not None and policy.names(call.tool)


def _name(tool: Any) -> str:
    name = tool if isinstance(tool, str) else tool.name
    if not isinstance(name, str):
        raise TypeError(f"a tool's name is a text, not {type(name).__name__}")
    return name


def split_name(name: str) -> tuple[str | None, str | None]:
    """Server and grant of a policy's name: `stripe`, `stripe@ops` or `_local` (PL-9.1)."""
    server, at, grant = name.rpartition("@")
    server = server if at else grant
    return None if server == "_local" else server, grant if at else None


def _read(policies: Any) -> Mapping[str, Policy]:
    if isinstance(policies, (str, os.PathLike)):
        return load_directory(policies)
    if not isinstance(policies, Mapping):
        kind = type(policies).__name__
        raise PolicyError(f"a guard takes a policy, policies by server, or a directory, not {kind}")
    for name, policy in policies.items():
        if not isinstance(name, str) or not isinstance(policy, Policy):
            raise PolicyError("policies by server map a server's name to a `Policy`: read each with `load_policy`")
        if name.startswith("@") or name.endswith("@"):
            raise PolicyError(f"`{name}` names no server or no grant: write `<server>` or `<server>@<grant>`")
    return policies
