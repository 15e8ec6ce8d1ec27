"""Counters in Redis or Valkey, shared by a fleet: one script, and one round trip a decision.

The script (`counters.lua`) goes by the server's clock, so that a fleet agrees, and knows each reservation by an id,
so that a request that is sent twice is charged once. What was asked for and not answered is given back later.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
import struct
from collections import deque
from collections.abc import Callable, Generator, Iterable
from functools import partial
from importlib.resources import files
from typing import Any, Final, Literal, TypeAlias, TypeVar, get_args

import redis

from ..charges import MILLION, Charge, CounterTotal, Refusal, Reservation
from ..errors import PolicyError, StoreError
from ..steps import adrive, drive
from .base import Store
from .ledger import Cell, refusal, totals
from .redis_clients import Clients
from .waiting import in_asyncio, in_thread

__all__ = ["Clock", "RedisStore"]

Clock: TypeAlias = Literal["server", "caller"]
"""Whose clock tells the window: the Redis server's; or the guard's, for tests that set the time."""

T = TypeVar("T")
Command: TypeAlias = Callable[[Any], Any]
"""What is asked of a client, sync or async."""

Steps: TypeAlias = Generator[Command, Any, T]
"""Yields commands, is sent their replies, and returns what was asked for."""

_MOST_EXACT: Final = 2**53
_MOST_ABANDONED: Final = 1_000
_GIVEN_BACK_AT_ONCE: Final = 4
_NO_ROOM_TO_FORGET: Final = "noeviction"


class RedisStore(Store):
    """Counts exactly among all processes that reach one Redis or Valkey server, or one cluster.

    An empty server is not taken for a fresh one: `init`, or `mcp-policy counters init`, says that it is meant.

    Args:
        url: `redis://HOST:PORT/DB`, `rediss://` for TLS, `unix://PATH`; `valkey://` is the same.
        tenant: Keeps apart those who share a server; in a cluster, a tenant's counters are on one node.
        cluster: Whether the server is a node of a cluster.
        timeout: Seconds that one step may take: connecting, or an answer.
        clock: Whose clock tells the window. `caller` is for tests.
    """

    def __init__(
        self,
        url: str,
        *,
        tenant: str = "default",
        cluster: bool = False,
        timeout: float = 0.25,
        clock: Clock = "server",
    ) -> None:
        if not re.fullmatch(r"[\w.:@-]+", tenant):
            raise PolicyError("a tenant's name is made of letters, digits and any of `_.:@-`")
        if clock not in get_args(Clock):
            raise PolicyError(f"clock `{clock}` is not known: give `server` or `caller`")
        self._clients = Clients(url, cluster=cluster, timeout=timeout)
        self._prefix = f"mcp-policy:{{{tenant}}}:"
        self._marker = f"{self._prefix}marker"
        self._callers_clock = clock == "caller"
        self._script = files(__package__).joinpath("counters.lua").read_text("utf-8")
        self._digest = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()
        self._fit = False  # whether the server was found to keep what it is given
        self._abandoned: deque[Reservation] = deque(maxlen=_MOST_ABANDONED)

    def init(self) -> bool:
        """Say that the server's counters begin empty; once, by an operator. False where they had begun before."""
        return self._run(self._begin())

    def peek(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """What `reserve` would answer now; takes nothing."""
        return self._run(self._look(charges, now))

    def reserve(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """Take all the charges, or none and name the first that did not fit."""
        return self._run(self._replace(None, charges, now))

    def adjust(self, reservation: Reservation, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """Replace a reservation by other charges, in one step; a refusal leaves it as it was."""
        return self._run(self._replace(reservation, charges, now))

    def release(self, reservation: Reservation) -> None:
        """Give a reservation back."""
        self._run(self._replace(reservation, (), 0.0))

    def counters(self, now: float) -> list[CounterTotal]:
        """The counters whose window is open, in the order of their keys."""
        return self._run(self._list(now))

    def reset(self, keys: Iterable[str]) -> None:
        """Forget counters."""
        self._run(self._forget([f"{self._prefix}c:{key}" for key in keys]))

    def close(self) -> None:
        """Let go of the connections of threads."""
        self._clients.close()

    async def apeek(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """`peek` for async callers."""
        return await self._arun(self._look(charges, now))

    async def areserve(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """`reserve` for async callers."""
        return await self._arun(self._replace(None, charges, now))

    async def aadjust(self, reservation: Reservation, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """`adjust` for async callers."""
        return await self._arun(self._replace(reservation, charges, now))

    async def arelease(self, reservation: Reservation) -> None:
        """`release` for async callers."""
        await self._arun(self._replace(reservation, (), 0.0))

    async def aclose(self) -> None:
        """Let go of the connections of the running event loop."""
        await self._clients.aclose()

    def _run(self, steps: Steps[T]) -> T:
        return drive(steps, lambda command: command(self._clients.sync()))

    async def _arun(self, steps: Steps[T]) -> T:
        if in_asyncio():
            return await adrive(steps, self._clients.ask)
        return await in_thread(partial(self._run, steps))

    def _look(self, charges: tuple[Charge, ...], now: float) -> Steps[Reservation | Refusal]:
        yield from self._ready()
        reply = yield from self._evaluate(self._request("look", None, "", charges, now))
        return _answer("", charges, reply)

    def _replace(
        self, held: Reservation | None, charges: tuple[Charge, ...], now: float
    ) -> Steps[Reservation | Refusal]:
        """Reserve, adjust or release: other charges instead of those that are held, where any are."""
        yield from self._ready()
        for _ in range(min(len(self._abandoned), _GIVEN_BACK_AT_ONCE)):
            yield from self._give_back_abandoned()
        if held is not None and held.released:
            held = None
        mine = secrets.token_hex(8)
        try:
            reply = yield from self._evaluate(self._request("take", held, mine, charges, now))
        except (_UnansweredError, GeneratorExit):  # it may have been taken, and nobody would give it back
            if charges:
                self._abandoned.append(Reservation(charges, (), (), id=f"/{mine}"))
            raise
        answer = _answer(mine, charges, reply)
        if held is not None and isinstance(answer, Reservation):
            held.released = True
        return answer

    def _give_back_abandoned(self) -> Steps[None]:
        try:
            abandoned = self._abandoned.popleft()
        except IndexError:  # another thread was quicker
            return
        try:
            yield from self._evaluate(self._request("take", abandoned, "", (), 0.0))
        except BaseException:
            self._abandoned.appendleft(abandoned)
            raise

    def _begin(self) -> Steps[bool]:
        yield from self._ready()
        seconds, micros = yield from self._ask(lambda client: client.time())
        text = f"{secrets.token_hex(4)} {0 if self._callers_clock else seconds * MILLION + micros}"
        begun = yield from self._ask(lambda client: client.set(self._marker, text, nx=True))
        return bool(begun)

    def _list(self, now: float) -> Steps[list[CounterTotal]]:
        yield from self._ready()
        if not self._callers_clock:
            now, _ = yield from self._ask(lambda client: client.time())
        start = f"{self._prefix}c:"
        pattern = f"{start}*"
        keys = yield from self._ask(lambda client: list(client.scan_iter(match=pattern, count=1_000)))
        cells: list[tuple[str, Cell]] = []
        for first in range(0, len(keys), 1_000):
            some = keys[first : first + 1_000]
            texts = yield from self._ask(lambda client, some=some: client.mget(some))  # type: ignore[misc]
            for key, text in zip(some, texts, strict=True):
                if text is not None:  # it was there when the keys were read
                    starts, ends, used, before, limit, until = map(int, struct.unpack("<6d", text))
                    cells.append((key.decode().removeprefix(start), Cell(starts, ends, until, used, before, limit)))
        return totals(cells, now)

    def _forget(self, keys: list[str]) -> Steps[None]:
        yield from self._ready()
        if keys:
            yield from self._ask(lambda client: client.delete(*keys))

    def _ready(self) -> Steps[None]:
        """See that the server forgets nothing, when it is first asked and after each fault."""
        if self._fit:
            return
        found = yield from self._ask(lambda client: client.info("memory"))
        for one in [found] if "maxmemory_policy" in found else found.values():
            policy = one.get("maxmemory_policy")
            if policy != _NO_ROOM_TO_FORGET:
                raise StoreError(
                    f"`{self._clients.name}` may evict counters, for its `maxmemory-policy` is `{policy}`: "
                    f"set it to `{_NO_ROOM_TO_FORGET}`"
                )
        self._fit = True

    def _request(
        self, mode: str, held: Reservation | None, mine: str, charges: tuple[Charge, ...], now: float
    ) -> list[Any]:
        """The script's keys and arguments, the number of keys first."""
        generation, _, theirs = ("", "", mine) if held is None else held.id.partition("/")
        record = f"{self._prefix}r:{mine or theirs}"
        keys = [self._marker, record, f"{self._prefix}r:{theirs}" if theirs else record]
        places: dict[str, int] = {}

        def place(key: str) -> int:
            if key not in places:
                keys.append(f"{self._prefix}c:{key}")
                places[key] = len(keys)
            return places[key]

        time = math.floor(now * MILLION) if self._callers_clock else -1
        rows = [] if held is None else _held(held)
        numbers: list[float] = [time, len(rows)]
        for key, ends, amount in rows:
            numbers += (place(key), ends, amount)
        for charge in charges:
            window = charge.window
            amount = min(charge.amount, _MOST_EXACT)  # more fits no limit, and no double exactly
            numbers += (place(charge.key), amount, charge.limit, window.seconds, window.offset, charge.sliding)
        return [len(keys), *keys, mode, generation, struct.pack(f"<{len(numbers)}d", *numbers)]

    def _evaluate(self, request: list[Any]) -> Steps[Any]:
        try:
            return (yield from self._ask(lambda client: client.evalsha(self._digest, *request)))
        except redis.exceptions.NoScriptError:  # a server that began again, or whose scripts were flushed
            return (yield from self._ask(lambda client: client.eval(self._script, *request)))

    def _ask(self, command: Command) -> Steps[Any]:
        try:
            return (yield command)
        except redis.exceptions.NoScriptError:
            raise
        except redis.ResponseError as error:
            self._fit = False
            name = self._clients.name
            if str(error).startswith("NOMARKER"):
                raise StoreError(
                    f"`{name}` is empty, and what was charged may be lost: "
                    "where an empty store is meant, run `mcp-policy counters init` with its URL"
                ) from error
            raise StoreError(f"`{name}` refused: {error}") from error
        except (redis.RedisError, redis.exceptions.RedisClusterException, OSError) as error:
            self._fit = False
            raise _UnansweredError(f"`{self._clients.name}` did not answer: {type(error).__name__}") from error


class _UnansweredError(StoreError):
    """Nobody knows whether the server did what it was asked."""


def _held(held: Reservation) -> list[tuple[str, int, int]]:
    """What to give back: counter, end of the window (0 where that was never told), amount; one counter once."""
    largest: dict[str, int] = {}
    for charge in held.charges:
        largest[charge.key] = max(charge.amount, largest.get(charge.key, 0))
    windows = held.windows or (0,) * len(held.charges)
    return [(charge.key, ends, largest.pop(charge.key, 0)) for charge, ends in zip(held.charges, windows, strict=True)]


def _answer(mine: str, charges: tuple[Charge, ...], reply: list[Any]) -> Reservation | Refusal:
    """The script's reply as the store's answer."""
    admitted, *rest = reply
    if not admitted:
        index, starts, ends, used, before, now = rest
        return refusal(index, charges[index], Cell(starts, ends, 0, used, before), ends * MILLION - now)
    generation, *numbers = rest
    return Reservation(charges, tuple(numbers[::2]), tuple(numbers[1::2]), id=f"{generation.decode()}/{mine}")
