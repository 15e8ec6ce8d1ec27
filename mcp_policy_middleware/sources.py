"""Where documents come from: how a guard's files read now, and whether they have changed (PL-9.1, PL-9.4)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

from .errors import DocumentError, PolicyError, Problem
from .policy import Dialect, Policy, load_directory, load_policy
from .policy.reader import list_documents, read_directory

__all__ = ["Fingerprint", "Name", "Policies", "Sources", "read_policies"]

Policies: TypeAlias = Policy | Mapping[str, Policy] | str | os.PathLike[str]
"""One policy for every call, a map of server name to policy, or a directory of policies."""

Name: TypeAlias = str | None
"""What a guard knows a document by: `stripe`, `stripe@ops`, `_local`; None where it is for every call."""

Look: TypeAlias = tuple[int, ...] | None
"""How a file or directory looks from outside; None where there is none."""

Fingerprint: TypeAlias = Mapping[str, Look]
"""How each file looks from outside: two that are equal, taken apart, are of files that nobody is writing."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The files that a guard's documents came from; a text has none and stays as it is.

    Attributes:
        directory: Where every policy is a document.
        files: Single files by the names of their documents, and the dialect that each was read as.
    """

    directory: Path | None = None
    files: Mapping[Name, tuple[str, Dialect]] = field(default_factory=dict)

    def check(self) -> None:
        """Make sure that there is something to read again.

        Raises:
            PolicyError: There is no file.
        """
        if self.directory is None and not self.files:
            raise PolicyError(
                "none of the guard's policies came from a file: read them with `load_policy`, or give them to `reload`"
            )

    def read_again(
        self, known: Iterable[Name], seen: Fingerprint | None = None
    ) -> tuple[dict[Name, Policy], list[Problem]]:
        """The documents that read, and the problems of all others.

        Args:
            known: The documents that a guard has; it is a problem of a directory's that it has them no longer.
            seen: How the files look at rest; left out, as they look now.

        Raises:
            PolicyError: There is nothing to read.
        """
        self.check()
        if self.directory is not None:
            return _read_again(self.directory, known, seen)
        documents: dict[Name, Policy] = {}
        problems: list[Problem] = []
        for name, (file, dialect) in self.files.items():
            try:
                documents[name] = _read_at_rest(Path(file), dialect, seen=seen)
            except DocumentError as error:
                problems += error.problems
        return documents, problems

    def fingerprint(self) -> Fingerprint:
        """How the files look now, through every link on their paths; empty where there are none."""
        if self.directory is None:
            return {file: _look(file) for file, _ in self.files.values()}
        try:
            return {str(self.directory): (), **{str(file): _look(file) for file in list_documents(self.directory)}}
        except (OSError, ValueError):
            return {str(self.directory): None}

    def directories(self) -> Mapping[str, Look]:
        """The directories that hold the files, where they are there, and which directory each is."""
        files = (Path(file).parent for file, _ in self.files.values())
        paths = files if self.directory is None else [self.directory]
        return {str(path): (status.st_dev, status.st_ino) for path in paths if (status := _status(path)) is not None}


def read_policies(policies: Policies) -> tuple[dict[Name, Policy], Sources]:
    """The documents that a guard was given, and where they came from.

    Raises:
        PolicyError: It was given something else; `DocumentError` where a directory does not read.
    """
    documents: dict[Name, Policy]
    if isinstance(policies, (str, os.PathLike)):
        documents = dict(load_directory(policies).items())
        return documents, Sources(directory=Path(policies).absolute())
    documents = {None: policies} if isinstance(policies, Policy) else dict(_checked(policies).items())
    files = {name: policy.origin.file for name, policy in documents.items()}
    return documents, Sources(files={name: file for name, file in files.items() if file is not None})


def _checked(policies: object) -> Mapping[str, Policy]:
    if not isinstance(policies, Mapping):
        kind = type(policies).__name__
        raise PolicyError(f"a guard takes a policy, policies by server, or a directory, not {kind}")
    for name, policy in policies.items():
        if not isinstance(name, str) or not isinstance(policy, Policy):
            raise PolicyError("policies by server map a server's name to a `Policy`: read each with `load_policy`")
        if name.startswith("@") or name.endswith("@"):
            raise PolicyError(f"`{name}` names no server or no grant: write `<server>` or `<server>@<grant>`")
    return policies


def _read_again(
    directory: Path, known: Iterable[Name], seen: Fingerprint | None
) -> tuple[dict[Name, Policy], list[Problem]]:
    try:
        documents, names, problems = read_directory(directory, partial(_read_at_rest, seen=seen))
    except DocumentError as error:
        return {}, list(error.problems)
    advice = "put it back; to do without it, give `reload` the directory"
    problems += [
        Problem(str(directory), 0, 0, "", f"the file of `{name}` is gone, and its policy stays", advice)
        for name in known
        if name not in names
    ]
    return dict(documents.items()), problems


def _read_at_rest(file: Path, dialect: Dialect = "auto", *, seen: Fingerprint | None) -> Policy:
    """Read a file that nobody is writing: half a document may well be valid, and mean something else.

    Raises:
        DocumentError: It does not read, or it looks other than before.
    """
    before = _look(file) if seen is None else seen.get(str(file))
    found: Policy | DocumentError
    try:
        found = load_policy(file, dialect)
    except DocumentError as error:
        found = error
    if _look(file) != before:
        message = "the file changed while it was read"
        advice = "read it again once it is written; a file that is put in place by renaming is never half there"
        raise DocumentError([Problem(str(file), 0, 0, "", message, advice)])
    if isinstance(found, DocumentError):
        raise found
    return found


def _look(path: str | Path) -> Look:
    """A change of what is in the file, of which file it is, or of who may read it changes this."""
    status = _status(path)
    return None if status is None else (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _status(path: str | Path) -> os.stat_result | None:
    try:
        return Path(path).stat()
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None
