"""Counters in Redis or Valkey, shared by a fleet: one script, and one round trip a decision.

The script (`counters.lua`) goes by the server's clock, so that a fleet agrees, and knows each reservation by an id,
so that a request that is sent twice is charged once. What was asked for and not answered is given back later.
"""

from __future__ import annotations

import math
import secrets
import struct
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from ..backends.redis_server import Clock, RedisServer, Script, Steps, UnansweredError
from ..charges import MILLION, Charge, CounterTotal, Refusal, Reservation
from ..errors import StoreError
from .base import Store
from .ledger import Cell, refusal, totals

__all__ = ["RedisStore"]

_MOST_EXACT: Final = 2**53
_MOST_ABANDONED: Final = 1_000
_GIVEN_BACK_AT_ONCE: Final = 4


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
        self._server = RedisServer(url, noun="counters", tenant=tenant, cluster=cluster, timeout=timeout, clock=clock)
        self._prefix = self._server.prefix
        self._marker = f"{self._prefix}marker"
        self._script = Script(__package__, "counters.lua")
        self._abandoned: deque[Reservation] = deque(maxlen=_MOST_ABANDONED)

    def init(self) -> bool:
        """Say that the server's counters begin empty; once, by an operator. False where they had begun before."""
        return self._server.run(self._begin())

    def peek(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """What `reserve` would answer now; takes nothing."""
        return self._server.run(self._look(charges, now))

    def reserve(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """Take all the charges, or none and name the first that did not fit."""
        return self._server.run(self._replace(None, charges, now))

    def adjust(self, reservation: Reservation, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """Replace a reservation by other charges, in one step; a refusal leaves it as it was."""
        return self._server.run(self._replace(reservation, charges, now))

    def release(self, reservation: Reservation) -> None:
        """Give a reservation back."""
        self._server.run(self._replace(reservation, (), 0.0))

    def counters(self, now: float) -> list[CounterTotal]:
        """The counters whose window is open, in the order of their keys."""
        return self._server.run(self._list(now))

    def reset(self, keys: Iterable[str]) -> None:
        """Forget counters."""
        self._server.run(self._forget([f"{self._prefix}c:{key}" for key in keys]))

    def close(self) -> None:
        """Let go of the connections of threads."""
        self._server.close()

    async def apeek(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """`peek` for async callers."""
        return await self._server.arun(self._look(charges, now))

    async def areserve(self, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """`reserve` for async callers."""
        return await self._server.arun(self._replace(None, charges, now))

    async def aadjust(self, reservation: Reservation, charges: tuple[Charge, ...], now: float) -> Reservation | Refusal:
        """`adjust` for async callers."""
        return await self._server.arun(self._replace(reservation, charges, now))

    async def arelease(self, reservation: Reservation) -> None:
        """`release` for async callers."""
        await self._server.arun(self._replace(reservation, (), 0.0))

    async def aclose(self) -> None:
        """Let go of the connections of the running event loop."""
        await self._server.aclose()

    def _look(self, charges: tuple[Charge, ...], now: float) -> Steps[Reservation | Refusal]:
        reply = yield from self._evaluate(self._request("look", None, "", charges, now))
        return _answer("", charges, reply)

    def _replace(
        self, held: Reservation | None, charges: tuple[Charge, ...], now: float
    ) -> Steps[Reservation | Refusal]:
        """Reserve, adjust or release: other charges instead of those that are held, where any are."""
        for _ in range(min(len(self._abandoned), _GIVEN_BACK_AT_ONCE)):
            yield from self._give_back_abandoned()
        if held is not None and held.released:
            held = None
        mine = secrets.token_hex(8)
        try:
            reply = yield from self._evaluate(self._request("take", held, mine, charges, now))
        except (UnansweredError, GeneratorExit):  # it may have been taken, and nobody would give it back
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
        seconds, micros = yield from self._server.ask(lambda client: client.time())
        text = f"{secrets.token_hex(4)} {0 if self._server.callers_clock else seconds * MILLION + micros}"
        begun = yield from self._server.ask(lambda client: client.set(self._marker, text, nx=True))
        return bool(begun)

    def _list(self, now: float) -> Steps[list[CounterTotal]]:
        if not self._server.callers_clock:
            now, _ = yield from self._server.ask(lambda client: client.time())
        start = f"{self._prefix}c:"
        pattern = f"{start}*"
        keys = yield from self._server.ask(lambda client: list(client.scan_iter(match=pattern, count=1_000)))
        cells: list[tuple[str, Cell]] = []
        for first in range(0, len(keys), 1_000):
            some = keys[first : first + 1_000]
            texts = yield from self._server.ask(lambda client, some=some: client.mget(some))  # type: ignore[misc]
            for key, text in zip(some, texts, strict=True):
                if text is not None:  # it was there when the keys were read
                    starts, ends, used, before, limit, until = map(int, struct.unpack("<6d", text))
                    cells.append((key.decode().removeprefix(start), Cell(starts, ends, until, used, before, limit)))
        return totals(cells, now)

    def _forget(self, keys: list[str]) -> Steps[None]:
        if keys:
            yield from self._server.ask(lambda client: client.delete(*keys))

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

        time = math.floor(now * MILLION) if self._server.callers_clock else -1
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
            return (yield from self._server.evaluate(self._script, request))
        except StoreError as error:
            if not str(error.__cause__).startswith("NOMARKER"):
                raise
            raise StoreError(
                f"`{self._server.name}` is empty, and what was charged may be lost: "
                "where an empty store is meant, run `mcp-policy counters init` with its URL"
            ) from error.__cause__


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
