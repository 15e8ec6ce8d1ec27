"""Where an argument points to: a directory, a host or an address block, judged by name alone (PL-3.6).

A regex guards such arguments badly, for `..`, user info and `0x7f.1` are meanings, not texts. Each factory takes the
policy's list and returns a check of a present, non-null value: True, False, or None (undecidable) where two programs
could understand two places. No disk and no DNS is asked, so a symbolic link or a DNS name may still lead elsewhere.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any, Final, TypeAlias

from .urls import INVISIBLE, Address, Host, aliases, carries_ipv4, host_of, read_host, unwrap

__all__ = ["check_block", "check_directory", "check_host", "host_in", "ip_in", "path_within"]

Tristate: TypeAlias = bool | None
"""True, False, or None for undecidable."""

Check: TypeAlias = Callable[[Any], Tristate]
"""Takes one value that is present and not null."""

Place: TypeAlias = tuple[str, ...]
"""A root (`/`, `c:` or `\\\\server\\share`) and the names below it."""

_MAX_TEXT: Final = 8 * 1024
"""Bytes of UTF-8: no file system takes a longer path and no server a longer URL, and the work stays small."""

_MAX_NAME: Final = 1024
"""Characters of a name that is not ASCII; no file system has longer ones, and normalising takes time."""

_ODD: Final = r"[\x00-\x1f\x7f-\x9f\u2028\u2029/\\~%]|^\s*\.\.|^[\s.]*$"
# `/C:/x` is a Windows path to Java and to URLs
_ODD_POSIX: Final = re.compile(_ODD + r"|^[A-Za-z][:|]$")
# a slash that the ANSI code pages make of another sign, what Windows forbids or strips, and devices
_ODD_WINDOWS: Final = re.compile(
    _ODD + r"|[<>:\"|?*\u00a5\u2044\u20a9\u2215\u2216\u29f5\u29f8]|[\s.]$"
    r"|^(?:con|prn|aux|nul|conin\$|conout\$|clock\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(?:\.|$)",
    re.IGNORECASE,
)
_DRIVE: Final = re.compile(r"[A-Za-z]:(?=[\\/])")
_UNC: Final = re.compile(r"\\\\[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\\([^\\]+)")
# shares that are a drive, a pipe or a mail slot under another name
_SYSTEM_SHARE: Final = re.compile(r"(?:[a-z]|admin|ipc|print|fax)\$|pipe|mailslot|davwwwroot", re.IGNORECASE)
_ASCII_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def path_within(directories: list[str]) -> Check:
    r"""Whether an absolute path lies in, or is, one of the directories (PL-3.6).

    `.`, `..` and doubled separators are resolved by text; `..` above the root stays there. POSIX names are compared
    by code points, Windows names by code points but for the case of ASCII letters.

    Undecidable, beyond what PL-3.6 lists, is a path that some system takes for another one: two leading slashes
    (POSIX leaves their meaning open), names that begin with `..` or consist of dots and white space, a name with
    signs that normalise to such a name or to a separator, device names, administrative shares, and `C:/x` where a
    POSIX directory is listed too. So is a path that is outside by code points and would be inside after NFC, NFKC,
    case folding or the loss of invisible signs and of what Windows strips: some file systems compare in that way.
    The same holds for a POSIX path that is inside a Windows directory, or the reverse, when the drive is left away.

    Args:
        directories: Directories that `check_directory` accepts.

    Raises:
        ValueError: A directory is none that `check_directory` accepts.
    """
    places = [_directory(text) for text in directories]
    listed = frozenset(_key(place) for place in places)
    # a rooted POSIX path names a place of the current drive, so each kind is also listed under the other one's mark
    alike = frozenset(key for place in places for key in _near(place, "drive", "posix"))
    depths = tuple(sorted({len(place) for place in places}))
    has_posix = any(place[0] == "/" for place in places)

    def check(value: Any) -> Tristate:
        text = _text(value)
        place = None if text is None else _read_path(text)
        if text is None or place is None:
            return None
        if has_posix and place[0] != "/" and "/" in text:  # to a POSIX system, `C:/x` is relative
            return None
        key = _key(place)
        if any(key[:depth] in listed for depth in depths):
            return True
        maybe = any(near in alike for depth in depths for near in _near(place[:depth], "posix", "drive"))
        return None if maybe else False

    return check


def host_in(hosts: list[str]) -> Check:
    """Whether an `http`, `https`, `ws` or `wss` URL's host is one of the hosts, or under a listed `*.domain` (PL-3.6).

    `*.example.com` holds for any depth below `example.com`, and not for `example.com` itself. An IP literal equals
    the same address, however it is listed; an IPv6 literal that carries an IPv4 address is undecidable.

    Args:
        hosts: Hosts that `check_host` accepts.

    Raises:
        ValueError: A host is none that `check_host` accepts.
    """
    read = [_listed_host(text) for text in hosts]
    exact = frozenset(host for host, is_domain in read if not is_domain)
    domains = frozenset(host for host, is_domain in read if is_domain)

    def check(value: Any) -> Tristate:
        text = _text(value)
        host = None if text is None else host_of(text)
        if host is None:
            return None
        if not isinstance(host, str):
            return None if carries_ipv4(host) else host in exact
        if host in exact:
            return True
        while domains and (dot := host.find(".")) >= 0:
            host = host[dot + 1 :]
            if host in domains:
                return True
        return False

    return check


def ip_in(blocks: list[str]) -> Check:
    """Whether an IP literal, or the one that is a URL's host, is inside one of the blocks (PL-3.6).

    A bare literal has no brackets, port or zone. IPv4-mapped and NAT64 (64:ff9b::/96) addresses are unwrapped first,
    and undecidable where only the written address is inside. Where an address leads to another one (6to4, Teredo,
    ISATAP, IPv4-compatible and translated addresses, 64:ff9b:1::/48, and 0.0.0.0 and `::`, which reach the machine
    itself), all of them must be inside or none, else the answer is undecidable. A DNS name is false, bare ones too.

    Args:
        blocks: Blocks that `check_block` accepts.

    Raises:
        ValueError: A block is none that `check_block` accepts.
    """
    masks: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
    for network in map(_block, blocks):
        masks[network.version].append((int(network.netmask), int(network.network_address)))

    def is_inside(address: Address) -> bool:
        number = int(address)
        return any(number & mask == first for mask, first in masks[address.version])

    def check(value: Any) -> Tristate:
        text = _text(value)
        if text is None:
            return None
        host = host_of(text) if "/" in text else read_host(text)
        if host is None:
            return None
        if isinstance(host, str):
            return False
        meant = unwrap(host)
        inside = is_inside(meant)
        if all(is_inside(other) is inside for other in aliases(meant)):
            return inside or (None if is_inside(host) else False)
        return None

    return check


def check_directory(text: str) -> None:
    """Refuse a directory that `path_within` could not compare exactly.

    Raises:
        ValueError: It is not absolute, not canonical, or holds what makes an argument undecidable (PL-3.6).
    """
    _directory(text)


def check_host(text: str) -> None:
    """Refuse what is no host name, `*.domain` or canonical IP literal.

    Raises:
        ValueError: It has a scheme, port, path or brackets, or IDNA does not map it for certain (PL-3.6).
    """
    _listed_host(text)


def check_block(text: str) -> None:
    """Refuse what is no canonical CIDR block; an address alone means /32 or /128.

    Raises:
        ValueError: It is no block, has host bits, or lies where addresses are unwrapped first (PL-3.6).
    """
    _block(text)


def _text(value: Any) -> str | None:
    """The value, if it is a string of JSON of at most 8 KiB."""
    if type(value) is not str or len(value) > _MAX_TEXT:
        return None
    try:
        return None if not value.isascii() and len(value.encode()) > _MAX_TEXT else value
    except UnicodeEncodeError:
        return None


def _read_path(text: str) -> Place | None:
    """The place that an absolute path names, its names as written; None where systems differ."""
    if text.strip() != text:
        return None
    if text.startswith("/"):
        return None if text.startswith("//") else _resolve("/", text.split("/"), _ODD_POSIX)
    if "/" in text and "\\" in text:
        return None
    if _DRIVE.match(text) is not None:
        return _resolve(text[:2], text[3:].replace("/", "\\").split("\\"), _ODD_WINDOWS)
    unc = _UNC.match(text)
    if unc is None or _is_odd(unc[1], _ODD_WINDOWS) or _SYSTEM_SHARE.fullmatch(unc[1]) is not None:
        return None
    return _resolve(unc[0], text[unc.end() :].split("\\"), _ODD_WINDOWS)


def _resolve(root: str, names: list[str], odd: re.Pattern[str]) -> Place | None:
    place = [root]
    for name in names:
        if name in ("", "."):
            continue
        if name != "..":
            if _is_odd(name, odd):
                return None
            place.append(name)
        elif len(place) > 1:
            place.pop()
    return tuple(place)


def _is_odd(name: str, odd: re.Pattern[str]) -> bool:
    if odd.search(name) is not None:
        return True
    if name.isascii():
        return False
    return len(name) > _MAX_NAME or odd.search(_fold(name)) is not None


def _key(place: Place) -> Place:
    """What is equal for equal places."""
    return place if place[0] == "/" else tuple(name.translate(_ASCII_LOWER) for name in place)


def _near(place: Place, posix: str, drive: str) -> tuple[Place, Place]:
    """What is equal for places that some system may take for one: under their root, and under a mark for its kind."""
    names = tuple(_fold(name).partition(":")[0].rstrip(" .") for name in place[1:])
    root = _fold(place[0])
    mark = posix if root == "/" else drive if len(root) == 2 else root
    return (root, *names), (mark, *names)


def _fold(name: str) -> str:
    if name.isascii():
        return name.lower()
    bare = unicodedata.normalize("NFKC", INVISIBLE.sub("", name))
    return unicodedata.normalize("NFKC", bare.casefold())


def _directory(text: str) -> Place:
    place = None if _text(text) is None else _read_path(text)
    if place is None:
        raise ValueError(f"`{text}` is not an absolute path that every system reads alike")
    root, *names = place
    spelled = (
        f"/{'/'.join(names)}"
        if root == "/"
        else "\\".join((root, *names)) + "\\" * (len(place) == 1 and root[1:] == ":")
    )
    if spelled != text:
        raise ValueError(f"`{text}` is not in its plain form, which is `{spelled}`")
    return place


def _listed_host(text: str) -> tuple[Host, bool]:
    is_domain = text.startswith("*.")
    host = read_host(text[2:] if is_domain else text)
    if host is None or (is_domain and not isinstance(host, str)):
        raise ValueError(f"`{text}` is not a host name, a `*.domain` or an IP address, without scheme, port and path")
    if isinstance(host, IPv6Address):
        if carries_ipv4(host):
            raise ValueError(f"`{text}` carries an IPv4 address, which no host equals for certain")
        if str(host) != text:
            raise ValueError(f"`{text}` is not in its plain form, which is `{host}`")
    return host, is_domain


def _block(text: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text.replace("%", "?"), strict=False)  # a zone is no part of a block
    except ValueError:
        raise ValueError(f"`{text}` is not an address block such as `10.0.0.0/8`") from None
    first, last = network[0], network[-1]
    if unwrap(first) != first and unwrap(last) != last:
        raise ValueError(f"`{text}` holds no address once IPv4 is unwrapped: list the IPv4 block")
    if text not in (str(network), str(first) if first == last else ""):
        raise ValueError(f"`{text}` is not in its plain form, which is `{network}`")
    return network
