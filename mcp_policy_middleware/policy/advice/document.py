"""A document as the linter looks at it: its entries, which of them calls reach, and what they are about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from ..globs import is_glob, rank
from ..model import Condition, Policy, Predicate, ToolRules
from ..syntax import Path, pointer
from .coverage import covers, path_of
from .tool_lists import ToolList

__all__ = ["Document", "Entry", "Finding"]

Finding: TypeAlias = tuple[Path, str, str]
"""Where, what, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The rules for one tool, for the tools of a glob, or for all tools.

    Attributes:
        path: Where in the document they stand.
        rules: What they are.
        name: The tool or glob; empty for all tools.
    """

    path: Path
    rules: ToolRules
    name: str = ""

    def predicates(self, *lists: str) -> Iterator[tuple[Path, Predicate]]:
        """Each predicate of the lists of that name, and where it stands."""
        for name in lists or ("require", "deny_if", "require_approval_if"):
            for index, predicate in enumerate(getattr(self.rules, name)):
                yield (*self.path, name, index), predicate

    def conditions(self, *lists: str) -> Iterator[tuple[Path, Condition]]:
        """Each condition of the lists of that name, and where it stands."""
        for path, predicate in self.predicates(*lists):
            for index, condition in enumerate(predicate.conditions):
                yield (*path, "conditions", index), condition


class Document:
    """A policy, and the tools it is for where they are known."""

    def __init__(self, policy: Policy, tools: ToolList | None) -> None:
        self.policy = policy
        self.tools = tools
        every = policy.all_tools
        self.all_tools = Entry(
            ("all_tools",),
            ToolRules(
                require=every.require,
                deny_if=every.deny_if,
                require_approval_if=every.require_approval_if,
                limits=every.limits,
            ),
        )
        self.listed = [Entry(("tools", name), rules, name) for name, rules in policy.tools.items()]

    @cached_property
    def reached(self) -> list[Entry]:
        """The entries whose rules some call meets, those for all tools last."""
        live = [entry for entry in self.listed if entry.rules.action != "deny" and not self.hides(entry.name)]
        return [*live, self.all_tools] if live or self.admits_unlisted else live

    @property
    def admits_unlisted(self) -> bool:
        """Whether tools that `tools` does not list get as far as the rules for all tools."""
        return self.policy.default == "allow" and not self.hides("*") and not self._catches_all

    @property
    def _catches_all(self) -> bool:
        return any(covers(entry.name, "*") for entry in self.listed)

    def hides(self, name: str) -> bool:
        """Whether every tool of that name or glob is hidden."""
        return name in self.policy.hide or any(covers(one, name) for one in self.policy.hide if is_glob(one))

    def entry_for(self, tool: str) -> Entry | None:
        """The one entry that applies to a tool (PL-1.5)."""
        if tool in self.policy.tools:
            return Entry(("tools", tool), self.policy.tools[tool], tool)
        matching = [entry for entry in self._globs if covers(entry.name, tool)]
        return min(matching, key=lambda entry: rank(entry.name), default=None)

    @cached_property
    def _globs(self) -> list[Entry]:
        return [entry for entry in self.listed if is_glob(entry.name)]

    @cached_property
    def _tools_by_entry(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {"": []}
        for tool in self.tools.schemas if self.tools else ():
            entry = self.entry_for(tool)
            if self.hides(tool) or (entry is None and self.policy.default == "deny"):
                continue
            if entry is not None:
                found.setdefault(entry.name, []).append(tool)
            if entry is None or entry.rules.action != "deny":
                found[""].append(tool)
        return found

    def tools_of(self, entry: Entry) -> list[str]:
        """The known tools to which an entry applies; empty where no list of tools is given."""
        return self._tools_by_entry.get(entry.name, [])

    def named(self, path: Path) -> str:
        """What a rule is called: its own name where the document's language gives it one, else its JSON Pointer."""
        return self.policy.origin.rule_names.get(path) or pointer(path)

    def demands(self, entry: Entry, condition: Condition) -> bool:
        """Whether a call without the value of the condition's path is denied for that (PL-3.4)."""
        wanted = path_of(condition.path)
        entries = (entry,) if entry is self.all_tools else (entry, self.all_tools)
        for one in entries:
            for _, required in one.conditions("require"):
                path = path_of(required.path)
                leads_there = path.root == wanted.root and path.steps[: len(wanted.steps)] == wanted.steps
                if leads_there and (required.op != "exists" or required.value is True):
                    return True
            for _, predicate in one.predicates("deny_if"):
                if [(each.op, each.value) for each in predicate.conditions] == [("exists", False)]:
                    path = path_of(predicate.conditions[0].path)
                    if (path.root, path.steps) == (wanted.root, wanted.steps):
                        return True
        return False
