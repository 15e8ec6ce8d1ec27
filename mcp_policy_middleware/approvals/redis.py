"""Approval requests in Redis or Valkey, shared by a fleet: one script, and one round trip to open or to move one.

The script (`requests.lua`) goes by the server's clock and by the table of states that it is handed. It knows each step
by a token, so that one which is sent twice is one step, and is answered alike.
"""

from __future__ import annotations

import json
import secrets
from typing import Any, Final

from ..backends.redis_server import Clock, RedisServer, Script, Steps
from ..errors import StoreError
from .base import KEPT, ApprovalStore
from .floods import Flood, FloodLimits, flood
from .requests import STANDING, ApprovalRequest, Found, lapsed, stands
from .states import TRANSITIONS, Event, State

__all__ = ["RedisApprovals"]

_MOVES: Final = {
    event.value: {before.value: after.value for (before, on), after in TRANSITIONS.items() if on is event}
    for event in Event
}
_ENDED: Final = {state.value: True for state in State if state not in STANDING}
_TEXTS: Final = ("id", "binding", "grant", "state")


class RedisApprovals(ApprovalStore):
    """Keeps approval requests among all processes that reach one Redis or Valkey server, or one cluster.

    An empty server has approved nothing, and people are asked anew. A server that comes back with an older state, as
    from a replica that had not heard of the last steps or from a log that was not written through, may have
    forgotten that an approval was used or a call denied: then an approval admits its one call once more, until its
    time is up. Where that must not be, have a server of one node write its log through (`appendfsync always`).

    Args:
        url: `redis://HOST:PORT/DB`, `rediss://` for TLS, `unix://PATH`; `valkey://` is the same.
        tenant: Keeps apart those who share a server; in a cluster, a tenant's requests are on one node.
        cluster: Whether the server is a node of a cluster.
        timeout: Seconds that one step may take: connecting, or an answer.
        clock: Whose clock tells the time. `caller` is for tests.
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
        self._server = RedisServer(url, noun="approvals", tenant=tenant, cluster=cluster, timeout=timeout, clock=clock)
        prefix = f"{self._server.prefix}approvals:"
        self._requests, self._latest, self._ends = (f"{prefix}{name}" for name in ("requests", "latest", "ends"))
        self._grants = f"{prefix}grant:"
        self._script = Script(__package__, "requests.lua")

    def open(self, request: ApprovalRequest, seconds: float, limits: FloodLimits, now: float) -> Found | Flood:
        """The request that stands for the binding of this one, or else this one."""
        return self._server.run(self._open(request, seconds, limits, now))

    def move(self, id: str, event: Event, now: float, by: str = "", why: str = "") -> Found:
        """What an event makes of a request."""
        return self._server.run(self._move(id, event, now, by, why))

    def find(self, binding: str, now: float) -> ApprovalRequest | None:
        """The request that stands for a binding."""
        return self._server.run(self._find(binding, now))

    def get(self, id: str, now: float) -> ApprovalRequest | None:
        """A request by its id."""
        return self._server.run(self._get(_utf8(id), now))

    def requests(self, now: float) -> list[ApprovalRequest]:
        """Every request that is kept, the oldest first."""
        return self._server.run(self._list(now))

    def close(self) -> None:
        """Let go of the connections of threads."""
        self._server.close()

    async def aopen(self, request: ApprovalRequest, seconds: float, limits: FloodLimits, now: float) -> Found | Flood:
        """`open` for async callers."""
        return await self._server.arun(self._open(request, seconds, limits, now))

    async def amove(self, id: str, event: Event, now: float, by: str = "", why: str = "") -> Found:
        """`move` for async callers."""
        return await self._server.arun(self._move(id, event, now, by, why))

    async def afind(self, binding: str, now: float) -> ApprovalRequest | None:
        """`find` for async callers."""
        return await self._server.arun(self._find(binding, now))

    async def aclose(self) -> None:
        """Let go of the connections of the running event loop."""
        await self._server.aclose()

    def _open(self, request: ApprovalRequest, seconds: float, limits: FloodLimits, now: float) -> Steps[Found | Flood]:
        rest = {name: value for name, value in request.as_dict(arguments=False).items() if name not in _TEXTS}
        made = {name: str(getattr(request, name)) for name in _TEXTS}
        made |= {"rest": json.dumps(rest), "said": "{}", "arguments": json.dumps(request.arguments)}
        most = {"pending": limits.pending, "an_hour": limits.an_hour}
        told = {"made": made, "spare": secrets.token_hex(8), "seconds": seconds, "ended": _ENDED, "most": most}
        at, changed, found = yield from self._evaluate([f"{self._grants}{request.grant}"], told, now)
        if changed < 0:
            return flood([self._read(one) for one in found], limits, float(at)) or Flood(1)
        return Found(self._read(found), bool(changed))

    def _move(self, id: str, event: Event, now: float, by: str, why: str) -> Steps[Found]:
        told = {"id": _utf8(id), "event": event.value, "said": json.dumps({"by": by, "why": why})}
        _, changed, found = yield from self._evaluate([], told, now)
        return Found(None) if found is None else Found(self._read(found), bool(changed))

    def _find(self, binding: str, now: float) -> Steps[ApprovalRequest | None]:
        id = yield from self._server.ask(lambda client: client.hget(self._latest, binding))
        at = yield from self._time(now)
        found = None if id is None else (yield from self._kept(id))
        return found if found is not None and stands(found, at) else None

    def _get(self, id: str, now: float) -> Steps[ApprovalRequest | None]:
        at = yield from self._time(now)
        found = yield from self._kept(id)
        return found and lapsed(found, at)

    def _kept(self, id: str | bytes) -> Steps[ApprovalRequest | None]:
        text = yield from self._server.ask(lambda client: client.hget(self._requests, id))
        return None if text is None else self._read(text)

    def _list(self, now: float) -> Steps[list[ApprovalRequest]]:
        at = yield from self._time(now)
        texts = yield from self._server.ask(lambda client: client.hvals(self._requests))
        return sorted((lapsed(self._read(one), at) for one in texts), key=lambda one: (one.asked_at, one.id))

    def _time(self, now: float) -> Steps[float]:
        if self._server.callers_clock:
            return now
        seconds, micros = yield from self._server.ask(lambda client: client.time())
        return float(seconds + micros / 1_000_000)

    def _evaluate(self, more: list[str], told: dict[str, Any], now: float) -> Steps[Any]:
        """The script's reply, with a token of its own for this step."""
        keys = [self._requests, self._latest, self._ends, *more]
        told |= {"now": now if self._server.callers_clock else -1, "kept": KEPT, "moves": _MOVES}
        told |= {"pending": State.PENDING.value, "token": secrets.token_hex(8)}
        return (yield from self._server.evaluate(self._script, [len(keys), *keys, json.dumps(told)]))

    def _read(self, text: bytes) -> ApprovalRequest:
        """A request as it was written.

        Raises:
            StoreError: It does not read, or is in a state that there is not.
        """
        try:
            return _request(json.loads(text))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise StoreError(
                f"`{self._server.name}` holds an approval request that does not read ({type(error).__name__}): "
                "it is of another release, or was written by another program"
            ) from None  # its text may quote what is stored


def _request(kept: dict[str, str]) -> ApprovalRequest:
    told = {**json.loads(kept["rest"]), **json.loads(kept["said"]), **{name: kept[name] for name in _TEXTS}}
    told |= {name: float(kept[name]) for name in ("asked_at", "expires_at", "answered_at") if name in kept}
    return ApprovalRequest.from_dict({**told, "arguments": json.loads(kept.get("arguments", "null"))})


def _utf8(id: str) -> str:
    """An id that can be sent, whatever a person types."""
    return id.encode("utf-8", "replace").decode()
