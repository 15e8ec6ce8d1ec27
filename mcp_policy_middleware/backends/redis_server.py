"""One tenant's part of a Redis or Valkey server, or of a cluster: asking it, and telling what its errors mean."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Generator
from functools import partial
from importlib.resources import files
from typing import Any, Final, Literal, TypeAlias, TypeVar, get_args

import redis

from ..errors import PolicyError, StoreError
from ..steps import adrive, drive
from .redis_clients import Clients
from .waiting import in_asyncio, in_thread

__all__ = ["Clock", "Command", "RedisServer", "Script", "Steps", "UnansweredError"]

T = TypeVar("T")
Clock: TypeAlias = Literal["server", "caller"]
"""Whose clock tells the time: the Redis server's; or the guard's, for tests that set it."""

Command: TypeAlias = Callable[[Any], Any]
"""What is asked of a client, sync or async."""

Steps: TypeAlias = Generator[Command, Any, T]
"""Yields commands, is sent their replies, and returns what was asked for."""

_NO_ROOM_TO_FORGET: Final = "noeviction"


class UnansweredError(StoreError):
    """Nobody knows whether the server did what it was asked."""


class Script:
    """A Lua script of a package, and the digest by which a server knows it."""

    def __init__(self, package: str, name: str) -> None:
        self.text = files(package).joinpath(name).read_text("utf-8")
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class RedisServer:
    """A server that keeps what it is given, or a `StoreError`.

    Args:
        url: `redis://HOST:PORT/DB`, `rediss://` for TLS, `unix://PATH`; `valkey://` is the same.
        noun: What messages call what is kept: `counters`.
        tenant: Keeps apart those who share a server; in a cluster, what a tenant keeps is on one node.
        cluster: Whether the server is a node of a cluster.
        timeout: Seconds that one step may take: connecting, or an answer.
        clock: Whose clock tells the time.

    Attributes:
        name: The server, without what is secret.
        prefix: What the tenant's keys begin with.
        callers_clock: Whether the server's clock is not asked.
    """

    def __init__(self, url: str, *, noun: str, tenant: str, cluster: bool, timeout: float, clock: Clock) -> None:
        if clock not in get_args(Clock):
            raise PolicyError(f"clock `{clock}` is not known: give `server` or `caller`")
        if not re.fullmatch(r"[\w.:@-]+", tenant):
            raise PolicyError("a tenant's name is made of letters, digits and any of `_.:@-`")
        self._clients = Clients(url, cluster=cluster, timeout=timeout)
        self.name = self._clients.name
        self.prefix = f"mcp-policy:{{{tenant}}}:"
        self.callers_clock = clock == "caller"
        self._noun = noun
        self._fit = False  # whether the server was found to keep what it is given

    def run(self, steps: Steps[T]) -> T:
        """Carry out the steps, once the server was seen to forget nothing; again after each fault."""
        return drive(steps if self._fit else self._looked_at(steps), lambda command: command(self._clients.sync()))

    async def arun(self, steps: Steps[T]) -> T:
        """`run` for async callers, of asyncio or trio."""
        if in_asyncio():
            return await adrive(steps if self._fit else self._looked_at(steps), self._clients.ask)
        return await in_thread(partial(self.run, steps))

    def ask(self, command: Command) -> Steps[Any]:
        """The reply to one command.

        Raises:
            UnansweredError: There was none in time.
            StoreError: The server refused; its error is the cause.
        """
        try:
            return (yield command)
        except redis.exceptions.NoScriptError:
            raise
        except redis.ResponseError as error:
            self._fit = False
            raise StoreError(f"`{self.name}` refused: {error}") from error
        except (redis.RedisError, redis.exceptions.RedisClusterException, OSError) as error:
            self._fit = False
            raise UnansweredError(f"`{self.name}` did not answer: {type(error).__name__}") from error

    def evaluate(self, script: Script, request: list[Any]) -> Steps[Any]:
        """The reply of a script to its keys and arguments, the number of keys first; the errors are those of `ask`."""
        try:
            return (yield from self.ask(lambda client: client.evalsha(script.digest, *request)))
        except redis.exceptions.NoScriptError:  # a server that began again, or whose scripts were flushed
            return (yield from self.ask(lambda client: client.eval(script.text, *request)))

    def close(self) -> None:
        """Let go of the connections of threads."""
        self._clients.close()

    async def aclose(self) -> None:
        """Let go of the connections of the running event loop."""
        await self._clients.aclose()

    def _looked_at(self, steps: Steps[T]) -> Steps[T]:
        """The steps, after a look at whether the server forgets."""
        found = yield from self.ask(lambda client: client.info("memory"))
        for one in [found] if "maxmemory_policy" in found else found.values():
            policy = one.get("maxmemory_policy")
            if policy != _NO_ROOM_TO_FORGET:
                raise StoreError(
                    f"`{self.name}` may evict {self._noun}, for its `maxmemory-policy` is `{policy}`: "
                    f"set it to `{_NO_ROOM_TO_FORGET}`"
                )
        self._fit = True
        return (yield from steps)
