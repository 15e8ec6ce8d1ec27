"""What a SQLite file is to hold: how it is marked and made, and told from what is not ours."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from ..errors import StoreError

__all__ = ["Contents"]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file holds.

    Args:
        noun: What messages call it: `counters`.
        in_memory: The class that keeps the same without a file.
        application: Marks the file as such a one, as SQLite's `application_id`.
        version: The release of the schema.
        schema: Statements that make the tables.
        private: Whether nobody but the owner may read a file that is made, nor anybody what was deleted from it.
    """

    noun: str
    in_memory: str
    application: int
    version: int
    schema: tuple[str, ...]
    private: bool = False

    def are_in(self, database: sqlite3.Connection, path: str) -> bool:
        """Whether the tables are there; False for an empty file.

        Raises:
            StoreError: The file holds something else.
        """
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if application == self.application and version == self.version:
            return True
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application == self.application:
            raise StoreError(f"`{path}` holds {self.noun} of another release, version {version}: use a new file")
        if application or version or tables:
            raise StoreError(f"`{path}` is another program's database: name a file of its own for {self.noun}")
        return False

    def put(self, database: sqlite3.Connection) -> None:
        """Make the tables."""
        for statement in self.schema:
            database.execute(statement)
        database.execute(f"PRAGMA user_version = {self.version}")
        database.execute(f"PRAGMA application_id = {self.application}")
