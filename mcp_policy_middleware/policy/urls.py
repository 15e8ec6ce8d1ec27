"""The one host that every parser reads from a URL, or nothing (PL-3.6).

Browsers, Python, curl, Go and Java disagree about most odd URLs, and a policy that takes one side is slipped past
on the other. So a host is read only from the plain form `scheme://host[:port][/...]`; whatever any of them could
read otherwise has no host here. Nothing is resolved: there is no DNS.
"""

from __future__ import annotations

import re
import unicodedata
from encodings import idna
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Final, TypeAlias

__all__ = ["INVISIBLE", "Address", "Host", "aliases", "carries_ipv4", "host_of", "read_host", "unwrap"]

Address: TypeAlias = IPv4Address | IPv6Address

Host: TypeAlias = str | IPv4Address | IPv6Address
"""A DNS name in lower-case ASCII, or the address that a literal says."""

INVISIBLE: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Unicode's default-ignorable code points: some readers drop them, others keep them."""

# The scheme is lower case, there is no user info, and `/` or the end follows: a query or fragment that begins
# right behind the host is where parsers have shifted the authority.
_URL: Final = re.compile(
    r"(?:https?|wss?)://(?:\[([0-9A-Fa-f:.]{2,45})\]|([^/?#@:\[\]]{1,253}))(?::([1-9][0-9]{0,4}))?(?:/.*)?", re.DOTALL
)
_UNCLEAR: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\\]")
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_IPV6: Final = re.compile(r"[0-9A-Fa-f:.]{2,45}")

_NAT64: Final = IPv6Network("64:ff9b::/96")
_NAT64_LOCAL: Final = IPv6Network("64:ff9b:1::/48")
_COMPATIBLE: Final = IPv6Network("::/96")
_TRANSLATED: Final = IPv6Network("::ffff:0:0:0/96")
_ISATAP: Final = (0x0000_5EFE, 0x0200_5EFE)
_LOOPBACK: Final = (IPv4Address("127.0.0.1"), IPv6Address("::1"))


def host_of(url: str) -> Host | None:
    """The host of an `http`, `https`, `ws` or `wss` URL; None where two parsers could name two."""
    found = _URL.fullmatch(url)
    if found is None or _UNCLEAR.search(url) is not None:
        return None
    literal, name, port = found.groups()
    if port is not None and int(port) > 65_535:
        return None
    return _read_ipv6(literal) if name is None else _read_name(name)


def read_host(text: str) -> Host | None:
    """The host that a text without scheme, port and brackets names; None where readers could differ."""
    return _read_ipv6(text) if ":" in text else _read_name(text)


def unwrap(address: Address) -> Address:
    """The IPv4 address that an IPv4-mapped or NAT64 address (RFC 6052) certainly stands for, else the same."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return IPv4Address(_bits(address, 96, 32)) if address in _NAT64 else address


def aliases(address: Address) -> tuple[Address, ...]:
    """The other addresses at which a packet for this one may arrive: tunnels, translators, "this host"."""
    if isinstance(address, IPv4Address):
        return _LOOPBACK[:1] if int(address) == 0 else ()
    if int(address) <= 1:
        return _LOOPBACK[1:] if int(address) == 0 else ()
    embedded: list[Address] = []
    if address.sixtofour is not None:
        embedded.append(address.sixtofour)
    if address.teredo is not None:
        embedded.extend(address.teredo)
    if address in _COMPATIBLE or address in _TRANSLATED or _bits(address, 64, 32) in _ISATAP:
        embedded.append(IPv4Address(_bits(address, 96, 32)))
    if address in _NAT64_LOCAL:  # RFC 8215 leaves the prefix's length to the site, and so the place of the address
        at_48 = _bits(address, 48, 16) << 16 | _bits(address, 72, 16)  # bits 64 to 71 are kept zero
        at_56 = _bits(address, 56, 8) << 24 | _bits(address, 72, 24)
        embedded.extend(map(IPv4Address, (at_48, at_56, _bits(address, 72, 32), _bits(address, 96, 32))))
    return tuple(embedded)


def carries_ipv4(address: Address) -> bool:
    """Whether an IPv6 address stands for, or may lead to, an IPv4 one."""
    return address.version == 6 and any(other.version == 4 for other in (unwrap(address), *aliases(address)))


def _bits(address: IPv6Address, first: int, count: int) -> int:
    return int(address) >> (128 - first - count) & ((1 << count) - 1)


def _read_ipv6(text: str) -> IPv6Address | None:
    """Any spelling of RFC 4291, for all readers see the same 128 bits; a zone is none."""
    if _IPV6.fullmatch(text) is None:
        return None
    try:
        return IPv6Address(text)
    except ValueError:
        return None


def _read_name(text: str) -> str | IPv4Address | None:
    if len(text) > 253:
        return None
    labels = []
    for label in text.split("."):
        ascii_label = _to_ascii(label)
        if ascii_label is None:
            return None
        labels.append(ascii_label)
    if labels[-1][0].isdigit():  # no top-level domain begins so: it is an address, `127.1` and `0x7f.1` included
        return _read_ipv4(text)
    name = ".".join(labels)
    return name if len(name) <= 253 else None


def _read_ipv4(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)  # four decimal numbers without leading zeros
    except ValueError:
        return None


def _to_ascii(label: str) -> str | None:
    """The label as DNS holds it (IDNA), or None where it is none or the standards of 2003 and 2008 may differ."""
    if not label.isascii():
        return _to_punycode(label)
    label = label.lower()
    if _LABEL.fullmatch(label) is None:
        return None
    if not label.startswith("xn--"):
        return label
    try:
        decoded = label[4:].encode("ascii").decode("punycode")
    except UnicodeError:
        return None
    return label if not decoded.isascii() and _to_punycode(decoded) == label else None


def _to_punycode(label: str) -> str | None:
    """The `xn--` form of letters that no mapping changes: `ß`, `ς`, joiners, capitals and wide forms have none."""
    if len(label) > 63 or "-" in (label[0], label[-1]) or label[2:4] == "--" or INVISIBLE.search(label) is not None:
        return None
    plain = "".join(letter.lower() if letter.isascii() else letter for letter in label)
    if not all(map(_is_letter, plain)) or unicodedata.category(plain[0])[0] == "M":
        return None
    if unicodedata.normalize("NFKC", plain) != plain or plain.casefold() != plain:
        return None
    directions = set(map(unicodedata.bidirectional, plain))
    if "L" in directions and not directions.isdisjoint(("R", "AL")):
        return None
    try:
        mapped = idna.nameprep(plain)
        encoded = "xn--" + plain.encode("punycode").decode("ascii")
    except UnicodeError:
        return None
    return encoded if mapped == plain and len(encoded) <= 63 else None


def _is_letter(letter: str) -> bool:
    if letter.isascii():
        return letter.isalnum() or letter == "-"
    # digits of other scripts are left out: lenient readers take them for numbers
    return unicodedata.category(letter)[0] in "LM"
