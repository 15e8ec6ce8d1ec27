"""Connections to Redis: one client for threads, one for each event loop, none of which waits for long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from ..errors import PolicyError

__all__ = ["Clients"]

T = TypeVar("T")

_SCHEMES: Final = {"redis": "redis", "rediss": "rediss", "unix": "unix", "valkey": "redis", "valkeys": "rediss"}
_UNREADABLE: Final = "the URL of the Redis store does not read: write `/`, `?`, `#` and `@` in a password as `%2F` etc."
_MOST_CONNECTIONS: Final = 64
"""For each event loop; a burst of more tasks takes turns."""


@dataclass(slots=True)
class _OfLoop:
    """The client of one event loop.

    Attributes:
        turns: Held by each request.
        finding: Held by the task that finds out which nodes a cluster has.
        ready: Whether that is known.
    """

    client: Any
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MOST_CONNECTIONS))
    finding: asyncio.Lock = field(default_factory=asyncio.Lock)
    ready: bool = False


class Clients:
    """The clients of one server or cluster, made when they are first used.

    Args:
        url: `redis://`, `rediss://`, `unix://`, and the same for Valkey.
        cluster: Whether the server is a node of a cluster.
        timeout: Seconds that one step may take: connecting, or an answer.

    Attributes:
        name: The server, without what is secret.
    """

    def __init__(self, url: str, *, cluster: bool, timeout: float) -> None:
        scheme, _, rest = url.partition("://")
        if scheme not in _SCHEMES or not rest:
            raise PolicyError(f"a Redis store needs a URL that begins with one of {', '.join(_SCHEMES)} and `://`")
        self._url = f"{_SCHEMES[scheme]}://{rest}"
        try:
            parts = urlsplit(self._url)
            parse_url(self._url)  # type: ignore[no-untyped-call]  # in redis 8
        except ValueError:
            raise PolicyError(_UNREADABLE) from None  # whose text may quote a part of the password
        if scheme != "unix" and "@" in f"{parts.path}{parts.query}{parts.fragment}":
            raise PolicyError(_UNREADABLE)
        self.name = f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self._cluster = cluster
        self._options = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
        self._lock = threading.Lock()
        self._sync: Any = None
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _OfLoop] = WeakKeyDictionary()

    def sync(self) -> Any:
        """The client for threads."""
        with self._lock:
            if self._sync is None:
                self._sync = self._connected(redis, Retry)
            return self._sync

    async def ask(self, command: Callable[[Any], Awaitable[T]]) -> T:
        """Ask the client of the running event loop, which takes so many requests at a time.

        Raises:
            TimeoutError: No earlier request was done in time.
        """
        mine = self._of_loop()
        if mine.turns.locked():
            async with asyncio.timeout(self._options["socket_timeout"]):
                await mine.turns.acquire()
        else:
            await mine.turns.acquire()  # at once
        try:
            if self._cluster and not mine.ready:
                async with mine.finding:  # one task: several at once would close each other's connections
                    await mine.client.initialize()
                mine.ready = True
            return await command(mine.client)
        except (redis.RedisError, OSError) as error:
            mine.ready = isinstance(error, redis.ResponseError)
            raise
        finally:
            mine.turns.release()

    def close(self) -> None:
        """Close the connections of threads."""
        client, self._sync = self._sync, None
        if client is not None:
            client.close()
            if self._cluster:
                client.disconnect_connection_pools()  # which a cluster's `close` leaves open

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        mine = self._by_loop.pop(asyncio.get_running_loop(), None)
        if mine is not None:
            await mine.client.aclose()

    def _of_loop(self) -> _OfLoop:
        loop = asyncio.get_running_loop()
        mine = self._by_loop.get(loop)
        if mine is None:
            with self._lock:
                for ended in [one for one in self._by_loop if one.is_closed()]:  # its client would keep it alive
                    del self._by_loop[ended]
                mine = self._by_loop[loop] = _OfLoop(self._connected(redis.asyncio, AsyncRetry))
        return mine

    def _connected(self, library: Any, retry: Any) -> Any:
        """A client that sends a request once more where the connection broke, and never where time ran out."""
        again = retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
        if self._cluster:
            return library.RedisCluster.from_url(self._url, retry=again, **self._options)
        return library.Redis.from_url(self._url, retry=again, **self._options)
