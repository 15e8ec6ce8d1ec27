"""Advice on documents that are valid and unwise: rules that do nothing, and rules that do less than they seem to.

What is advised is a table, `RULES`; `docs` can be drawn from it. Advice never changes what a document means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from .advice import arguments, reach
from .advice.document import Document, Finding
from .advice.tool_lists import ToolList, read_tool_list
from .model import Policy
from .syntax import Node, Path, Place, pointer, read_text

__all__ = ["RULES", "Advice", "LintRule", "ToolList", "lint", "place_of", "read_tool_list"]


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing that is valid and unwise.

    Attributes:
        source: The document's file or name.
        line: Line, counted from 1.
        column: Column in characters, counted from 1.
        pointer: JSON Pointer (RFC 6901) of the key or value.
        code: What it is, in a word that never changes; see `RULES`.
        message: One lower-case sentence that quotes the author's words in backticks.
        help: What to do next.
    """

    source: str
    line: int
    column: int
    pointer: str
    code: str
    message: str
    help: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}: {self.message} [{self.code}]\n  help: {self.help}"


@dataclass(frozen=True, slots=True)
class LintRule:
    """One kind of advice.

    Attributes:
        code: Its name, which never changes.
        finds: What it finds.
        why: What goes wrong where it is not heeded.
        section: The section of the language that it rests on.
        find: Finds it in a document.
    """

    code: str
    finds: str
    why: str
    section: str
    find: Callable[[Document], Iterator[Finding]]


RULES: Final[tuple[LintRule, ...]] = (
    LintRule(
        "deny-if-optional",
        "`deny_if` alone bounds an argument, or guards one that names money or a place, and the tool's schema does "
        "not require it; needs the server's list of tools",
        "a missing argument does not fire `deny_if`: an agent leaves the amount out, and the server takes the whole",
        "PL-3.8",
        arguments.missing_bounds,
    ),
    LintRule(
        "negation-optional",
        "`neq` or `not_in` in `deny_if` on an argument that may be missing",
        "every operator but `exists` is false of a missing argument: a call without it passes",
        "PL-3.4",
        arguments.missing_values,
    ),
    LintRule(
        "unanchored-path",
        "a pattern in `require` on a path or an address that is tied to neither end of the text",
        "patterns are searched for: `/srv/data/` is in `/etc/passwd#/srv/data/` too",
        "PL-3.4",
        arguments.unanchored_patterns,
    ),
    LintRule(
        "costly-pattern",
        "a pattern that RE2 makes more than 1,000 instructions of, such as `.{500}`",
        "RE2's work is linear, but in the pattern too: on 64 KiB of text it may take half a second",
        "PL-3.4",
        arguments.costly_patterns,
    ),
    LintRule(
        "place-in-deny-if",
        "`path_within` or `host_in` in `deny_if`",
        "a place has many names, links and aliases among them: what is listed as bad is reached by another",
        "PL-3.6",
        arguments.misplaced_operators,
    ),
    LintRule(
        "unknown-argument",
        "a rule about an argument that no tool it is for has; needs the server's list of tools",
        "a misspelt `deny_if` never fires, a misspelt `require` denies every call",
        "PL-3.2",
        arguments.misnamed_arguments,
    ),
    LintRule(
        "unknown-tool",
        "a name in `tools` or `hide` that the server does not list; needs the server's list of tools",
        "a misspelt name is not the tool's: the tool itself falls to `default`",
        "PL-1.5",
        reach.unknown_tools,
    ),
    LintRule(
        "unreachable-rule",
        "a rule that no call can reach: hidden, behind an unconditional denial, or decided by an earlier rule",
        "its author believes that it decides, and its message is never shown",
        "PL-4",
        reach.unreachable_rules,
    ),
    LintRule(
        "contradiction",
        "requirements that no call can meet, a rule whose conditions cannot hold together, a limit that admits no call",
        "a tool that seems permitted is denied, or a rule that seems to deny never fires",
        "PL-3.1",
        reach.contradictions,
    ),
    LintRule(
        "shadowed-glob",
        "a glob of `tools` whose every name another glob takes first",
        "one entry applies, never two: the rules of the other are never asked",
        "PL-1.5",
        reach.shadowed_globs,
    ),
    LintRule(
        "outranked-deny",
        "a listed tool that a glob with `action: deny` matches, and that another glob lets through; needs the "
        "server's list of tools",
        "among globs the one with most letters applies, not the strictest",
        "PL-1.5",
        reach.outranked_denials,
    ),
    LintRule(
        "wider-limit",
        "a limit on a counter that another limit on the same calls keeps lower",
        "the wider one never denies: perhaps they were meant to count apart",
        "PL-5.5",
        reach.wider_limits,
    ),
    LintRule(
        "idle-hide",
        "an entry of `hide` that another one covers, or `hide` under `default: deny` where no tool is permitted",
        "`default: deny` denies whatever `tools` does not list, hidden or not: perhaps `default: allow` was meant",
        "PL-1.6",
        reach.idle_hiding,
    ),
)
"""Every kind of advice; the order decides between two at one place."""


def lint(
    text: str | bytes, policy: Policy, tools: ToolList | None = None, *, source: str | None = None
) -> list[Advice]:
    """Look for what is valid and unwise.

    Args:
        text: The document's text, from which `policy` was read: it tells where things stand.
        policy: The document.
        tools: The tools that the policy is for; with them, names and schemas are compared too.
        source: The file that advice shows, whose suffix tells JSON from YAML; the policy's name unless given.

    Returns:
        The advice, in the order of the document.
    """
    name = policy.name if source is None else source
    tree, _ = read_text(text, name)
    document = Document(policy, tools)
    found: dict[tuple[Place, str], Advice] = {}
    for rule in RULES:
        for meant, message, help in rule.find(document):
            path = meant if policy.origin.written is None else _in_intercept(policy.origin.written, document, meant)
            place = place_of(tree, path)
            found.setdefault((place, rule.code), Advice(name, *place, pointer(path), rule.code, message, help))
    return [found[key] for key in sorted(found, key=lambda key: key[0])]


def _in_intercept(written: Any, document: Document, path: Path) -> Path:
    """The same place in a document of Intercept's: a rule is found by its name (PL-8.2)."""
    tool, parts = ("*", path[1:]) if path[0] == "all_tools" else (path[1], path[2:])
    if path[0] == "hide" or tool not in written.get("tools", ()):
        return path
    rule = document.policy.origin.rule_names.get(path[: len(path) - len(parts) + 2])
    names = [one.get("name") for one in written["tools"][tool].get("rules", ())]
    return ("tools", tool, "rules", names.index(rule)) if rule in names else ("tools", tool)


def place_of(tree: Node, path: Path) -> Place:
    """Where the last step of a path stands: a key at its key; the nearest place around what was not written out."""
    node, place = tree, tree.place
    for step in path:
        if type(node.value) is dict and step in node.value:
            place, node = node.keys[str(step)], node.value[step]
        elif type(node.value) is list and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            place = node.place
        else:
            break
    return place
