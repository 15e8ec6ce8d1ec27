"""Advice about rules that no call can reach, or that no call can pass (PL-1.5, PL-4, PL-5.5)."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from ..globs import is_glob, rank
from ..model import Limit, Predicate
from ..syntax import Path
from .coverage import covers, dead_after, implies, impossible_at, path_of
from .document import Document, Entry, Finding

__all__ = [
    "contradictions",
    "idle_hiding",
    "outranked_denials",
    "shadowed_globs",
    "unknown_tools",
    "unreachable_rules",
    "wider_limits",
]


def unreachable_rules(document: Document) -> Iterator[Finding]:
    """Rules that no call can reach, because what comes before them decides each call (PL-4)."""
    for entry in document.listed:
        only_mode = entry.rules.model_fields_set == {"mode"} and entry.name not in document.policy.hide
        if document.hides(entry.name) and not (only_mode and not is_glob(entry.name)):
            advice = "take the name out of `hide`, or remove the entry"
            yield entry.path, f"`{entry.name}` is hidden: its rules never apply", advice
    every = document.policy.all_tools
    if every.model_fields_set and document.all_tools not in document.reached:
        message = "no call gets as far as `all_tools`: every tool is denied before"
        yield ("all_tools",), message, "list in `tools` the tools that may be called"
    for entry in document.reached:
        yield from _after_denial(document, entry)
        for path, message in _decided_before(document, entry):
            yield path, message, "remove it, or put it before the rule that decides"


def _after_denial(document: Document, entry: Entry) -> Iterator[Finding]:
    """What stands behind an unconditional denial, or beside what always asks for an approval."""
    rules, every = entry.rules, document.all_tools.rules
    behind = [key for key in ("limits", "rate_limit") if getattr(rules, key)]
    if rules.action == "require_approval":
        behind.append("action")
    if any(not predicate.conditions for predicate in (*rules.deny_if, *every.deny_if)):
        for key in behind:
            message = f"`{key}` stands behind a `deny_if` that denies every call"
            yield (*entry.path, key), message, "give the `deny_if` a condition, or remove what cannot happen"
    elif rules.action == "require_approval" and rules.require_approval_if:
        message = "`require_approval_if` beside `action: require_approval` never asks"
        yield (*entry.path, "require_approval_if"), message, "remove one of the two"


def _decided_before(document: Document, entry: Entry) -> Iterator[tuple[Path, str]]:
    """Predicates that earlier ones leave nothing to decide."""
    required = [one for _, one in entry.conditions("require")]
    if entry is not document.all_tools:
        required += [one for _, one in document.all_tools.conditions("require")]
    earlier: list[tuple[Path, Predicate]] = []
    for path, predicate in entry.predicates("require"):
        by = next((at for at, first in earlier if _follows(predicate, first)), None)
        if by is not None:
            yield path, f"this requirement always holds: `{document.named(by)}` demands it already"
        earlier.append((path, predicate))
    earlier = []
    for key in ("deny_if", "require_approval_if"):
        if key == "require_approval_if" and entry is not document.all_tools:
            earlier += document.all_tools.predicates("deny_if")
        for path, predicate in entry.predicates(key):
            by = next((at for at, first in earlier if _follows(first, predicate)), None)
            if by is not None:
                yield path, f"no call reaches this rule: `{document.named(by)}` fires wherever it would"
            elif dead_after(required, predicate.conditions):
                yield path, "this rule never fires: `require` denies such calls before"
            elif not _may_be_sent(entry, predicate):
                yield path, "this rule never fires: `only_arguments` denies the argument before"
            earlier.append((path, predicate))


def _follows(later: Predicate, first: Predicate) -> bool:
    """Whether the later predicate holds wherever the first does."""
    return all(any(implies(one, wanted) for one in first.conditions) for wanted in later.conditions)


def _may_be_sent(entry: Entry, predicate: Predicate) -> bool:
    only = entry.rules.only_arguments
    for condition in predicate.conditions if only is not None else ():
        path = path_of(condition.path)
        about_absence = condition.op == "exists" and condition.value is False
        if path.root == "args" and only is not None and path.steps[0] not in only and not about_absence:
            return False
    return True


def contradictions(document: Document) -> Iterator[Finding]:
    """Requirements that no call can meet, rules that can never fire, and limits that admit no call."""
    for entry in document.reached:
        every = [] if entry is document.all_tools else list(document.all_tools.conditions("require"))
        if impossible_at([one for _, one in every], every=True) is not None:
            every = []  # told where it stands
        placed = [*every, *entry.conditions("require")]
        at = impossible_at([one for _, one in placed], every=True)
        if at is not None:
            message = f"no call meets this and the other requirements on `{path_of(placed[at][1].path).shown}`"
            yield placed[at][0], message, "one argument has one value and one kind: keep one of the conditions"
        for path, predicate in entry.predicates("require"):
            if not _may_be_sent(entry, predicate):
                yield path, "no call meets this: `only_arguments` does not list the argument", "list it there"
        for path, predicate in entry.predicates("deny_if", "require_approval_if"):
            at = impossible_at(predicate.conditions, every=False)
            if at is not None:
                message = "this rule never holds: its conditions exclude one another"
                advice = "conditions of one predicate are joined by `and`: write a predicate for each"
                yield (*path, "conditions", at), message, advice
        for index, limit in enumerate(entry.rules.limits):
            if limit.increment is not None and 0 < limit.max < limit.increment:
                message = f"limit `{limit.counter}` admits no call: each charges {limit.increment}, of {limit.max}"
                yield (*entry.path, "limits", index, "max"), message, "write a larger `max`, or a smaller `increment`"


def shadowed_globs(document: Document) -> Iterator[Finding]:
    """A glob of `tools` whose names all go to another that comes before it (PL-1.5)."""
    globs = sorted((entry for entry in document.listed if is_glob(entry.name)), key=lambda entry: rank(entry.name))
    for index, entry in enumerate(globs):
        by = next((first.name for first in globs[:index] if covers(first.name, entry.name)), None)
        if by is not None:
            message = f"`{by}` comes before `{entry.name}` and matches every name that it matches"
            yield entry.path, message, "remove one of the two, or give the narrower more letters"


def outranked_denials(document: Document) -> Iterator[Finding]:
    """A tool that a glob denies, and that another glob, which is no exception from it, lets through (PL-1.5)."""
    denials = [entry for entry in document.listed if entry.rules.action == "deny" and is_glob(entry.name)]
    for tool in document.tools.schemas if document.tools else ():
        winner = document.entry_for(tool)
        if winner is None or not is_glob(winner.name) or winner in denials or document.hides(tool):
            continue
        for entry in denials:
            if covers(entry.name, tool) and not covers(entry.name, winner.name):
                message = f"`{tool}` is not denied by `{entry.name}`: `{winner.name}` has more letters and applies"
                yield entry.path, message, f"add an entry `{tool}` that says what shall happen"


def wider_limits(document: Document) -> Iterator[Finding]:
    """A limit on a counter that another limit on every such call keeps lower (PL-5.5)."""
    common = list(_limits(document.all_tools))
    for entry in document.reached:
        own = list(_limits(entry))
        others = own if entry is document.all_tools else [*common, *own]
        for path, limit in own:
            for other_path, other in others:
                same = (limit.counter, limit.scope) == (other.counter, other.scope) and path != other_path
                first = entry is not document.all_tools and (other_path, other) in common
                if same and (limit.max > other.max or (limit.max == other.max and (first or other_path < path))):
                    message = (
                        f"limit `{limit.counter}` of {limit.max} never binds: `{document.named(other_path)}` is lower"
                    )
                    yield (*path, "max"), message, "remove it, or count it under another name"
                    break


def _limits(entry: Entry) -> Iterator[tuple[Path, Limit]]:
    for index, limit in enumerate(entry.rules.limits):
        yield (*entry.path, "limits", index), limit
    if entry.rules.rate_limit is not None and not is_glob(entry.name):
        yield (*entry.path, "rate_limit"), entry.rules.rate_limit.as_limit(entry.name)


def idle_hiding(document: Document) -> Iterator[Finding]:
    """`hide` entries that hide nothing more, and `hide` where `default: deny` denies every tool (PL-1.6)."""
    policy = document.policy
    for index, name in enumerate(policy.hide):
        wider = (one for one in policy.hide if is_glob(one) and one != name and covers(one, name))
        by = next((one for one in wider if one in policy.hide[:index] or not covers(name, one)), None)
        if by is not None:
            yield ("hide", index), f"`{name}` hides nothing more: `{by}` hides it already", "remove it"
    live = [entry for entry in document.reached if entry is not document.all_tools]
    if policy.hide and "*" not in policy.hide and policy.default == "deny" and not policy.tools and not live:
        message = "`hide` decides nothing here: `default: deny` denies every tool, and `tools` permits none"
        yield ("hide",), message, "list in `tools` what may be called, or write `default: allow`"


def unknown_tools(document: Document) -> Iterator[Finding]:
    """Names in `tools` and `hide` that the server's list does not have."""
    known = document.tools.schemas if document.tools else {}
    placed: list[tuple[Path, str]] = [(entry.path, entry.name) for entry in document.listed]
    placed += [(("hide", index), name) for index, name in enumerate(document.policy.hide)]
    for path, name in placed:
        if document.tools and not is_glob(name) and name not in known:
            close = get_close_matches(name, known, n=1)
            advice = f"did you mean `{close[0]}`?" if close else "compare with the server's `tools/list` answer"
            yield path, f"the server lists no tool `{name}`", advice
