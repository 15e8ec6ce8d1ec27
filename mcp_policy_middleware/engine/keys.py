"""The names of counters in a store: written for each charge, and read by whoever looks after the store (PL-5.1)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ..calls import UNNAMED, ServerName
from ..canonical import canonical
from ..policy.model import Scope
from ..policy.model import Window as WindowName

__all__ = ["CounterKey", "read_key"]


@dataclass(frozen=True, slots=True)
class CounterKey:
    """What a counter is kept by; what its scope does not keep apart is None.

    Args:
        counter: The counter's name.
        window: The name of its window, or whole seconds.
        algorithm: `fixed` or `sliding`.
        scope: What is kept apart.
        server: The server's name, None also for tools of no server, and `UNNAMED`.
        grant: The grant.
        session: The session, None also where the application named none.
    """

    counter: str
    window: WindowName
    algorithm: str
    scope: Scope
    server: ServerName = None
    grant: str | None = None
    session: str | None = None

    def text(self) -> str:
        """The key of the counter; limits on one counter have one key (PL-5.5)."""
        keeps: list[object] = []
        if self.scope != "global":  # no name of a server is a list, as an unnamed session's is here
            keeps.append([] if self.server is UNNAMED else self.server)
        if self.scope in ("grant", "session"):
            keeps.append(self.grant)
        if self.scope == "session":
            keeps.append(self.session)
        return canonical([self.counter, self.window, self.algorithm, self.scope, *keeps])


def read_key(text: str) -> CounterKey | None:
    """The parts of a key; None where it is not one."""
    try:
        parts: list[Any] = json.loads(text)
        counter, window, algorithm, scope, server, grant, session = [*parts, None, None, None][:7]
        key = CounterKey(counter, window, algorithm, scope, UNNAMED if server == [] else server, grant, session)
        return key if key.text() == text else None
    except (TypeError, ValueError):
        return None
