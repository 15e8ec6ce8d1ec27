"""Which policy applies to which server (PL-9.1, PL-9.2), and which tools are known by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar, get_args

from .calls import Decision, ServerName
from .engine import CompiledPolicy, compile_policy
from .errors import DocumentError, PolicyError, Problem
from .policy import Policy
from .policy.model import Mode
from .sources import Fingerprint, Name, Policies, Sources, read_policies
from .stores.memory import MemoryStore

__all__ = ["Selection", "select", "split_name"]

T = TypeVar("T")
_MOST_LISTED: Final = 4096
_HOUR: Final = 3600
_FORGETFUL: Final = "has a limit over more than an hour, which a restart would forget"
_NAME_A_STORE: Final = "name a store: `SQLiteStore` remembers, and `MemoryStore` says that forgetting is acceptable"


def select(policies: Policies, mode: Mode | None = None) -> Selection:
    """Compile policies.

    Args:
        policies: One policy for every call, a map of server name to policy, or a directory of policies.
        mode: Overrides the `mode` of documents and tools (PL-4.4).

    Raises:
        PolicyError: They are something else; `DocumentError` where a directory does not read.
    """
    if mode is not None and mode not in get_args(Mode):
        raise PolicyError(f"mode `{mode}` is not known: give `enforce` or `shadow`, or leave it out")
    documents, sources = read_policies(policies)
    return Selection({name: compile_policy(one, mode) for name, one in documents.items()}, mode, sources, {})


class Selection:
    """Compiled policies by server; it is replaced and never changed, but for the names of tools that it learns.

    A policy of a server goes for every grant, except for those that have one of their own (PL-9.1).

    Attributes:
        sources: Where the documents came from.
    """

    def __init__(
        self,
        policies: Mapping[Name, CompiledPolicy],
        mode: Mode | None,
        sources: Sources,
        listed: dict[ServerName, set[str]],
    ) -> None:
        self.sources = sources
        self._policies = policies
        self._mode = mode
        self._listed = listed
        self._everywhere = policies.get(None)
        self._by_server: dict[ServerName, CompiledPolicy] = {}
        self._by_grant: dict[tuple[ServerName, str], CompiledPolicy] = {}
        for name, policy in policies.items():
            if name is not None:
                server, grant = split_name(name)
                if grant is None:
                    self._by_server[server] = policy
                else:
                    self._by_grant[server, grant] = policy

    def renewed(
        self, policies: Policies | None, seen: Fingerprint | None, *, lasting: bool
    ) -> tuple[Selection, list[Problem]]:
        """Documents as they are now: those that read, and the old policy in place of each that does not (PL-9.4).

        Args:
            policies: What to take instead, whole or not at all; None for the sources, read again.
            seen: How the sources look at rest, where that is known.
            lasting: Whether counters outlive the process, or somebody said that they need not.

        Raises:
            DocumentError: The policies to take instead do not read.
            PolicyError: No document came from a file, and none is given.
        """
        if policies is not None:
            documents, sources = read_policies(policies)
            compiled, problems = self._compiled(documents, lasting)
            if problems:
                raise DocumentError(problems)
            return Selection(compiled, self._mode, sources, self._listed), []
        documents, problems = self.sources.read_again(self._policies, seen)
        compiled, refused = self._compiled(documents, lasting)
        return Selection({**self._policies, **compiled}, self._mode, self.sources, self._listed), [*problems, *refused]

    def _compiled(
        self, documents: Mapping[Name, Policy], lasting: bool
    ) -> tuple[dict[Name, CompiledPolicy], list[Problem]]:
        """Each document's policy, which stays as it is, with what it remembers, where the document did not change."""
        compiled: dict[Name, CompiledPolicy] = {}
        problems: list[Problem] = []
        for name, document in documents.items():
            policy = self._policies.get(name)
            if policy is None or (policy.name, policy.digest) != (document.name, document.digest):
                policy = compile_policy(document, self._mode)
            if lasting or policy.longest_window <= _HOUR:
                compiled[name] = policy
            else:
                source = document.name if document.origin.file is None else document.origin.file[0]
                problems.append(Problem(source, 0, 0, "", f"policy `{policy.name}` {_FORGETFUL}", _NAME_A_STORE))
        return compiled, problems

    def policy_for(self, server: ServerName, grant: str) -> CompiledPolicy | None:
        """The policy for calls to the server; an unnamed session never falls to another's (PL-9.2)."""
        if self._by_grant:
            own = self._by_grant.get((server, grant))
            if own is not None:
                return own
        return self._everywhere or self._by_server.get(server)

    def all(self) -> list[CompiledPolicy]:
        """Every policy there is."""
        return list(self._policies.values())

    def memory_store(self) -> MemoryStore:
        """A store for those who named none.

        Raises:
            PolicyError: A limit's window is longer than an hour, which a restart would forget.
        """
        for policy in self.all():
            if policy.longest_window > _HOUR:
                raise PolicyError(f"policy `{policy.name}` {_FORGETFUL}: {_NAME_A_STORE}")
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
        call, policy = decision.call, decision.policy
        if not isinstance(policy, CompiledPolicy):
            policy = self.policy_for(call.server, decision.grant)
        if policy is not None and policy.names(call.tool):
            return True
        return type(call.tool) is str and call.tool in self._listed.get(call.server, ())


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
