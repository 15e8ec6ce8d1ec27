"""A line of an audit log, and how it is chained to the line before: written, read, and checked.

A line is one JSON object in canonical form but for its last member, `hash`: SHA-256, or HMAC-SHA-256 with a key, over
the canonical form of all the others, of which `previous` is the hash of the line before.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from ..canonical import canonical
from ..errors import PolicyError

__all__ = ["FORMAT", "NOTHING", "Hashing", "Head", "Line", "hashing", "read", "seal"]

FORMAT: Final = 1
"""Which format of lines this is; each line says it."""

_MARK: Final = b',"hash":"'
_HEX: Final = 64
_END: Final = len(_MARK) + _HEX + 2
_SHORTEST_KEY: Final = 16

Hashing: TypeAlias = Callable[[bytes], str]
"""Bytes to 64 lower-case hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class Head:
    """A line that a log was seen to have; record it elsewhere, and a log that was cut or rewritten is found out.

    Attributes:
        hash: The line's hash.
        seq: Its sequence number; None where only the hash was written down.
    """

    hash: str
    seq: int | None = None

    @classmethod
    def parse(cls, text: str) -> Head:
        """A head from `HASH` or `HASH:SEQ`, as `str` writes it.

        Raises:
            PolicyError: It is neither.
        """
        digits, colon, seq = text.strip().partition(":")
        numbered = seq.isascii() and seq.isdigit()
        if len(digits) != _HEX or set(digits) - set("0123456789abcdef") or numbered != bool(colon):
            raise PolicyError(f"`{text}` is no head of a log: give HASH or HASH:SEQ, as `audit verify` prints it")
        return cls(digits, int(seq) if colon else None)

    def __str__(self) -> str:
        return self.hash if self.seq is None else f"{self.hash}:{self.seq}"


NOTHING: Final = Head("0" * _HEX, -1)
"""What a log's first line comes after."""


@dataclass(slots=True)
class Line:
    """A line that reads.

    Attributes:
        entry: Its members but for `hash`.
        head: Its hash and its sequence number.
        whole: Whether the hash is that of the other members.
    """

    entry: dict[str, Any]
    head: Head
    whole: bool

    def follows(self, head: Head) -> bool:
        """Whether it is the next line after one."""
        return self.entry["previous"] == head.hash and self.head.seq == (head.seq or 0) + 1


def hashing(key: bytes | None) -> Hashing:
    """How lines are hashed.

    Raises:
        PolicyError: The key is too short to be one.
    """
    if key is None:
        return lambda data: hashlib.sha256(data).hexdigest()
    if not isinstance(key, bytes) or len(key) < _SHORTEST_KEY:
        raise PolicyError(f"a key is at least {_SHORTEST_KEY} random bytes: `secrets.token_bytes(32)` makes one")
    return lambda data: hmac.digest(key, data, "sha256").hex()


def seal(entry: Mapping[str, Any], after: Head, time: str, hashed: Hashing) -> tuple[bytes, Head]:
    """The line of an entry, with its line break, and the head it makes."""
    seq = (after.seq or 0) + 1
    body = _encoded({**entry, "format": FORMAT, "previous": after.hash, "seq": seq, "time": time}).encode()
    digits = hashed(body)
    return b'%s%s%s"}\n' % (body[:-1], _MARK, digits.encode()), Head(digits, seq)


def read(line: bytes, hashed: Hashing) -> Line | None:
    """A line without its line break; None where it is no canonical line of this format."""
    if line[-_END : -_HEX - 2] != _MARK or line[-2:] != b'"}':
        return None
    body = line[:-_END] + b"}"
    try:
        text = body.decode()
        entry = _decoded(text)
    except (ValueError, RecursionError):  # no UTF-8, no JSON, not canonical, or nested without end
        return None
    if type(entry) is not dict or entry.get("format") != FORMAT:
        return None
    known = [type(entry.get(name)) for name in ("kind", "previous", "seq", "time")]
    if known != [str, str, int, str]:
        return None
    claimed = line[-_HEX - 2 : -2]
    digits = hashed(body)
    return Line(entry, Head(claimed.decode("ascii", "replace"), entry["seq"]), digits.encode() == claimed)


class _NotPlain(Exception):  # noqa: N818  no error: a number that is compared the slow way
    pass


def _refuse(_: str) -> Any:
    raise _NotPlain


_plain: Final = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), check_circular=False).encode
_scan: Final = json.JSONDecoder(parse_float=_refuse, parse_constant=_refuse).raw_decode


def _encoded(entry: dict[str, Any]) -> str:
    """Canonical JSON; quicker where no author or agent gave a name or a number of an object."""
    return canonical(entry) if "values" in entry else _plain(entry)


def _decoded(text: str) -> Any:
    """What a canonical text says: written again it is the same text, which for most lines C code tells.

    Raises:
        ValueError: It is not canonical JSON.
    """
    if text.isascii():  # so that names sort alike in code points and in UTF-16
        try:
            value, end = _scan(text)
        except _NotPlain:
            pass
        else:
            if end == len(text) and _plain(value) == text:
                return value
    value = json.loads(text)
    if canonical(value) != text:
        raise ValueError("not canonical")
    return value
