"""Paths, hosts and addresses judged by name: true, false or undecidable (PL-3.6), and 600 published attacks on them."""

from __future__ import annotations

import json
import ntpath
import posixpath
import re
import time
from collections import Counter
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_policy_middleware.policy.places import (
    check_block,
    check_directory,
    check_host,
    host_in,
    ip_in,
    path_within,
)

ATTACKS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "attacks.json").read_text("utf-8"))
URLS = [row for row in ATTACKS if row["kind"] == "url"]
PATHS = [row for row in ATTACKS if row["kind"] == "path"]

HOSTS = ["example.com", "*.example.com", "good.example"]
BLOCK = "203.0.113.0/24"
DIRECTORIES = ["/srv/data", "C:\\data"]

listed_host = host_in(HOSTS)
listed_block = ip_in([BLOCK])
listed_directory = path_within(DIRECTORIES)


def is_listed(host: str) -> bool:
    """What `HOSTS` says of a host, in other words than the code's."""
    return host in ("example.com", "good.example") or host.endswith(".example.com")


def is_in_block(host: str) -> bool:
    """What `BLOCK` says of a host, in other words than the code's."""
    try:
        return ip_address(host) in ip_network(BLOCK)
    except ValueError:
        return False


def ids(row: Any) -> str:
    """A name for a row or a value that is printable and the same in every run."""
    if isinstance(row, dict):
        row = row.get("string", row)
    return ascii(row)[:60] if type(row) in (str, int, float, bool) else getattr(row, "__name__", type(row).__name__)


# ---- published attacks


def test_attacks_are_many_and_sourced() -> None:
    """The data holds hundreds of distinct strings, each with the public list whose trick it is."""
    assert len(URLS) >= 300
    assert len(PATHS) >= 200
    assert all(row["source"] for row in ATTACKS)
    assert max(Counter((row["kind"], row["string"]) for row in ATTACKS).values()) == 1
    assert {tuple(sorted(row)) for row in URLS} == {
        ("kind", "source", "string"),
        ("host", "kind", "source", "string"),
        ("ip", "kind", "source", "string"),
    }


@pytest.mark.parametrize("row", URLS, ids=ids)
def test_attack_on_hosts(row: dict[str, Any]) -> None:
    """A URL with a `host` has that host and no other; any other string names none."""
    host = row.get("host")
    assert listed_host(row["string"]) is (None if host is None else is_listed(host))
    if host is not None:
        assert host_in([host])(row["string"]) is True


@pytest.mark.parametrize("row", URLS, ids=ids)
def test_attack_on_blocks(row: dict[str, Any]) -> None:
    """Only a URL whose host is, or is unwrapped to, a literal of the block is inside."""
    assert (listed_block(row["string"]) is True) is is_in_block(row.get("host", row.get("ip", "")))


@pytest.mark.parametrize("row", PATHS, ids=ids)
def test_attack_on_directories(row: dict[str, Any]) -> None:
    """A path with `within` is inside or outside for every system; any other string is undecidable."""
    assert listed_directory(row["string"]) is row.get("within")


@pytest.mark.parametrize("row", ATTACKS, ids=ids)
def test_attack_on_another_operator(row: dict[str, Any]) -> None:
    """A path is no URL or address, and a URL no path, so nothing is true of it."""
    checks = (listed_directory,) if row["kind"] == "url" else (listed_host, listed_block)
    assert all(check(row["string"]) is not True for check in checks)


# ---- every kind of value

FOREIGN = [0, 1, 2130706433, 1.5, True, [], ["/srv/data"], {}, {"x": 1}, b"/srv/data", Path("/srv/data"), object(), ""]


class Text(str):
    """A string that is not exactly one."""

    __slots__ = ()


@pytest.mark.parametrize("check", [listed_host, listed_block, listed_directory])
@pytest.mark.parametrize(
    "value", [*FOREIGN, Text("/srv/data"), Text("http://example.com/"), Text("203.0.113.1")], ids=ascii
)
def test_only_a_plain_string_is_understood(check: Any, value: Any) -> None:
    """Anything but a string of JSON is undecidable, even one that would convert to an inside place."""
    assert check(value) is None


@pytest.mark.parametrize(
    ("check", "start", "filler"),
    [
        (listed_host, "http://example.com/", "x"),
        (listed_directory, "/srv/data/", "x"),
        (listed_directory, "/srv/data/", "é"),
    ],
)
def test_64_kib_are_read_and_no_more(check: Any, start: str, filler: str) -> None:
    """The bound counts bytes of UTF-8: 65,536 are decided, one more is not."""
    names = (start + f"{filler * 100}/" * 700).encode()[:8_192].decode(errors="ignore").ljust(1)
    full = names + "x" * (8_192 - len(names.encode()))
    assert check(full) is True
    assert check(full + "x") is None


@pytest.mark.parametrize(
    "text", ["/srv/data/\ud800", "http://example.com/\udfff", "http://example.com\ud800/", "\udc00"], ids=ascii
)
def test_lone_surrogates_are_undecidable(text: str) -> None:
    """JSON cannot say a lone surrogate (PL-4.1)."""
    assert [check(text) for check in (listed_host, listed_block, listed_directory)] == [None, None, None]


def test_of_nothing_listed_nothing_is_inside() -> None:
    """An empty list is false of what is understood, and undecidable of the rest."""
    assert [path_within([])(text) for text in ("/x", "C:\\x", "x")] == [False, False, None]
    assert [host_in([])(text) for text in ("http://x/", "http://[::1]/", "x")] == [False, False, None]
    assert [ip_in([])(text) for text in ("10.0.0.1", "::1", "1")] == [False, False, None]


# ---- path_within

POSIX = ["/srv/data", "/var/tmp/été", "/opt/A b"]


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/srv/data/../data/../data/x", True),
        ("/srv/data/x/..", True),
        ("/srv/data/../../../../../srv/data", True),
        ("/srv/data//", True),
        ("/opt/A b/c", True),
        ("/opt/a b/c", None),
        ("/opt/A  b", False),
        ("/var/tmp/été/x", True),
        ("/var/tmp/e\u0301te\u0301/x", None),
        ("/var/tmp/ÉTÉ/x", None),
        ("/var/tmp/été2/x", False),
        ("/var/tmp/ete/x", False),
        ("/srv/data.", None),
        ("/srv/data:x", None),
        ("/srv/data.d", False),
        ("/srv", False),
        ("/", False),
        ("/srv/data/a\\b", None),
        ("/srv/data/a%b", None),
        ("/srv/data/a~", None),
        ("/srv/data/a\u2028b", None),
        ("/srv/data/..a", None),
        ("/srv/data/. /x", None),
        ("/srv/data/ /x", None),
        ("/srv/data/a..", True),
        ("/srv/data/c:/x", None),
        ("/srv/data/cc:/x", True),
        ("/srv/data/…", None),
        ("/srv/data/" + "é" * 1025, None),
        ("/srv/data/" + "é" * 1024, True),
        ("/srv/data/" + "e" * 5000, True),
        ("C:\\srv\\data\\x", None),
        ("C:\\srv\\other", False),
        ("C:/other", None),
        ("\\\\srv\\data\\x", False),
    ],
    ids=ids,
)
def test_posix_directories(path: str, answer: bool | None) -> None:
    """POSIX paths are compared by code points after `.`, `..` and `//`; what may be another's name is undecidable."""
    assert path_within(POSIX)(path) is answer


WINDOWS = ["C:\\Data\\Été", "D:\\", "\\\\fs.corp\\Share\\x", "\\\\fs\\home$"]


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("C:\\Data\\Été", True),
        ("c:\\dATA\\Été\\x", True),
        ("c:/data/Été/x", True),
        ("C:\\Data\\été", None),
        ("C:\\Data\\E\u0301te\u0301", None),
        ("C:\\Data", False),
        ("C:\\Data\\x\\..\\Été", True),
        ("C:\\Data\\Été\\..\\..\\x", False),
        ("d:\\anything", True),
        ("d:/", True),
        ("d:", None),
        ("E:\\Data\\Été", False),
        ("\\\\FS.corp\\sHARE\\X\\y", True),
        ("\\\\fs.corp\\share\\xy", False),
        ("\\\\fs.corp\\share\\..\\..\\x", True),
        ("\\\\fs.corp\\share\\\\x", True),
        ("\\\\fs.corp\\\\share\\x", None),
        ("\\\\\\fs.corp\\share\\x", None),
        ("//fs.corp/share/x", None),
        ("\\\\fs.corp.\\share\\x", None),
        ("\\\\fs_corp\\share\\x", False),
        ("\\\\fs\\home$\\x", True),
        ("\\\\fs\\d$\\x", None),
        ("\\\\fs\\..\\x", None),
        ("\\\\fs\\.\\x", None),
        ("\\\\ﬀs\\home$", None),
        ("D:\\x\\lpt3.txt", None),
        ("D:\\x\\lpt3 .txt", None),
        ("D:\\x\\LPT\u00b2", None),
        ("D:\\x\\\uff4e\uff55\uff4c", None),
        ("D:\\x\\null", True),
        ("D:\\x\\.. ", None),
        ("D:\\x\\a.", None),
        ("D:\\x\\a\uff0e", None),
        ("D:\\x\\a\u00a0", None),
        ("D:\\x:y", None),
        ("D:\\x/y", None),
        ("/data/Été", None),
        ("/other", None),
    ],
    ids=ids,
)
def test_windows_directories(path: str, answer: bool | None) -> None:
    """Windows paths are compared without the case of ASCII letters; a rooted POSIX path may be on a listed drive."""
    assert path_within(WINDOWS)(path) is answer


def test_kinds_never_mix() -> None:
    """No path of one kind is inside a directory of the other, and what is elsewhere in any reading is false."""
    assert path_within(["C:\\data"])("/data/x") is None
    assert path_within(["C:\\data"])("/Data. /x") is None
    assert path_within(["C:\\data"])("/etc/passwd") is False
    assert path_within(["/data"])("C:\\data\\x") is None
    assert path_within(["/data"])("C:\\etc") is False
    assert path_within(["/"])("C:\\etc") is None
    assert path_within(["/data", "C:\\data"])("C:\\data\\x") is True
    assert path_within(["/data", "C:\\data"])("C:/data/x") is None
    assert path_within(["C:\\data"])("C:/data/x") is True
    assert path_within(["C:\\data"])("D:\\data\\x") is False


# ---- host_in


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        ("http://example.com", True),
        ("https://example.com:65535/x?y=http://evil.com#@z", True),
        ("ws://a.b.c.example.com/", True),
        ("wss://Good.EXAMPLE/", True),
        ("http://sub.good.example/", False),
        ("http://xexample.com/", False),
        ("http://com/", False),
        ("http://example.com.br/", False),
        ("http://r3---sn.example.com/", True),
        ("http://example.com:65536/", None),
        ("http://example.com:080/", None),
        ("http://example.com:\u0668\u0660/", None),
        ("http://example.com?x", None),
        ("http://example.com#x", None),
        ("http://example..com/", None),
        ("http://.example.com/", None),
        ("http://example-.com/", None),
        ("http://" + "a" * 63 + ".example.com/", True),
        ("http://" + "a" * 64 + ".example.com/", None),
        ("http://" + "a." * 121 + "example.com/", True),
        ("http://" + "a." * 122 + "example.com/", None),
        ("ftp://example.com/", None),
        ("example.com", None),
        ("http://1.2.3.4/", False),
        ("http://[2001:db8::1]/", False),
        ("http://[::1%25lo]/", None),
        ("http://[::1]x/", None),
        ("http://xn--a.example.com/", None),
        ("http://xn--nda.example.com/", True),
        ("http://xn--NDA.example.com/", True),
        ("http://ö.example.com/", True),
        ("http://Ö.example.com/", None),
        ("http://o\u0308.example.com/", None),
        ("http://ß.example.com/", None),
        ("http://ς.example.com/", None),
        ("http://xn--zca.example.com/", None),
        ("http://\u0661.example.com/", None),
        ("http://aא.example.com/", None),
        ("http://א.example.com/", True),
        ("http://xn--ö.example.com/", None),
        ("http://\u0301a.example.com/", None),
        ("http://é-.example.com/", None),
        ("http://-é.example.com/", None),
        ("http://a\u115f.example.com/", None),
        ("http://\u1d2cx.example.com/", None),
        ("http://\ua722.example.com/", None),
        ("http://\u0750a.example.com/", None),
        ("http://" + "é" * 50 + ".example.com/", True),
        ("http://" + "é" * 63 + ".example.com/", None),
        ("http://" + "é." * 25 + "example.com/", True),
        ("http://" + "é." * 120 + "example.com/", None),
    ],
    ids=ids,
)
def test_hosts(url: str, answer: bool | None) -> None:
    """A host is read from the plain form alone, and compared in lower-case ASCII; `*.domain` is any depth below."""
    assert listed_host(url) is answer


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        ("http://127.0.0.1/", True),
        ("http://127.0.0.2/", False),
        ("http://127.1/", None),
        ("http://[2001:db8::1]:80/", True),
        ("http://[2001:0DB8:0:0:0:0:0:1]/", True),
        ("http://[::ffff:127.0.0.1]/", None),
        ("http://[64:ff9b::1.1.1.1]/", None),
        ("http://[::]/", False),
        ("http://xn--bcher-kva.example/", True),
        ("http://bücher.example/", True),
        ("http://a.xn--bcher-kva.example/", True),
        ("http://bucher.example/", False),
    ],
)
def test_listed_literals_and_idna_names(url: str, answer: bool | None) -> None:
    """An IP literal equals the same address only, and an IDNA name its other spelling."""
    assert host_in(["127.0.0.1", "2001:db8::1", "bücher.example", "*.xn--bcher-kva.example"])(url) is answer


# ---- ip_in


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("10.1.2.3", True),
        ("11.1.2.3", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("2001:db8::5", True),
        ("2001:DB8:0:0::5", True),
        ("2001:db9::5", False),
        ("https://10.1.2.3:8443/x", True),
        ("https://[2001:db8::5]/", True),
        ("https://example.com/", False),
        ("example.com", False),
        ("localhost", False),
        ("10.1.2.3.nip.io", False),
        ("cafe", False),
        ("[2001:db8::5]", None),
        ("10.1.2.3:80", None),
        ("10.1.2.3/32", None),
        ("10.1.2.3.", None),
        ("10.1.2.03", None),
        ("10.1.2", None),
        ("10.1.2.256", None),
        ("0xa.1.2.3", None),
        ("10.1.2.0x3", None),
        ("0x0a010203", None),
        ("167838211", None),
        ("\uff11\uff10.1.2.3", None),
        ("10.1.2.3 ", None),
        ("user@10.1.2.3", None),
        ("fe80::1%eth0", None),
        ("2001:db8::00005", None),
        ("ftp://10.1.2.3/", None),
        # unwrapped
        ("::ffff:10.1.2.3", True),
        ("::ffff:a01:203", True),
        ("::ffff:11.1.2.3", False),
        ("64:ff9b::10.1.2.3", True),
        ("64:ff9b::11.1.2.3", False),
        # leads elsewhere
        ("64:ff9b:1::10.1.2.3", None),
        ("64:ff9b:1:a01:2:300::", None),
        ("64:ff9b:1:a:1:203::", None),
        ("64:ff9b:1::a:102:300:0", None),
        ("64:ff9b:1::11.1.2.3", False),
        ("2002:a01:203::1", None),
        ("2002:b01:203::1", False),
        ("2001:0:a01:203::1", None),
        ("2001:0:b01:203:0:0:f5fe:fdfc", None),
        ("::10.1.2.3", None),
        ("::ffff:0:10.1.2.3", None),
        ("fe80::5efe:10.1.2.3", None),
        ("fe80::200:5efe:a01:203", None),
        ("2001:db8::5efe:11.1.2.3", None),
    ],
)
def test_blocks(text: str, answer: bool | None) -> None:
    """A literal is compared by its bits; one that stands for, or leads to, an IPv4 address is no way around a block."""
    assert ip_in(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"])(text) is answer


def test_this_host_reaches_loopback() -> None:
    """`0.0.0.0` and `::` connect to the machine itself, so a rule about loopback cannot decide them."""
    assert [ip_in(["127.0.0.0/8"])(text) for text in ("0.0.0.0", "::ffff:0.0.0.0", "::1")] == [None, None, False]
    assert ip_in(["127.0.0.0/8", "0.0.0.0/32"])("0.0.0.0") is True
    assert [ip_in(["::1"])(text) for text in ("::", "::1", "0.0.0.0")] == [None, True, False]
    assert ip_in(["203.0.113.0/24"])("0.0.0.0") is False


def test_the_written_address_counts_too() -> None:
    """Where a block holds a mapped address only as it is written, the answer is undecidable."""
    assert ip_in(["::/0"])("::ffff:10.0.0.1") is None
    assert ip_in(["::/0", "0.0.0.0/0"])("::ffff:10.0.0.1") is True
    assert ip_in(["::/0", "0.0.0.0/0"])("2002:a00:1::") is True


# ---- validators

DIRECTORY_ERRORS = [
    "", "data", "./data", "~/data", "/data/", "/data//x", "/data/../x", "/./data", "//data", "/da%ta", "/a\\b",
    "/a\x00", "/data ", " /data", "/..data", "/C:", "C:", "C:data", "C:/data", "C:\\data\\", "C:\\data\\..\\x",
    "C:\\a/b", "C:\\nul", "C:\\a.", "C:\\a:b", "\\\\?\\C:\\a", "\\\\.\\a", "\\\\fs", "\\\\fs\\share\\", "\\\\fs\\c$",
    "\\data", "file:///data", "/a\ud800", "/" + "é" * 2000,
]  # fmt: skip
HOST_ERRORS = [
    "", "*", "*.", ".", "example.com.", ".example.com", "http://example.com", "example.com/", "example.com:80",
    "u@example.com", "*example.com", "a.*.com", "*.*.com", "*.10.0.0.1", "10.0.0", "10.0.0.01", "0x7f.1", "[::1]",
    "::0:1", "::FFFF", "::ffff:10.0.0.1", "64:ff9b::a00:1", "fe80::1%eth0", "a_b.com", "-a.com", "a b.com", "faß.de",
    "Ö.example", "xn--a.com", "a" * 64, "\uff41.com", "a\ud800.com",
]  # fmt: skip
BLOCK_ERRORS = [
    "", "10.0.0.1/8", "10.0.0.0/08", "10.0.0.0/33", "10.0.0.0/255.0.0.0", "10.0.0.0/", "10/8", "10.0.0.0-10.0.0.9",
    "010.0.0.0/8", "0x0a.0.0.0/8", "2001:DB8::/32", "2001:db8:0::/48", "2001:db8::1/32", "::/129", "[::1]",
    "fe80::1%eth0", "fe80::%1/64", "::ffff:10.0.0.0/104", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b::a00:0/104",
    "example.com", " 10.0.0.0/8", "\uff11.1.1.1",
]  # fmt: skip
ERRORS = [
    (check, factory, text)
    for check, factory, texts in (
        (check_directory, path_within, DIRECTORY_ERRORS),
        (check_host, host_in, HOST_ERRORS),
        (check_block, ip_in, BLOCK_ERRORS),
    )
    for text in texts
]


@pytest.mark.parametrize(("check", "factory", "text"), ERRORS, ids=ids)
def test_refused_entries(check: Any, factory: Any, text: str) -> None:
    """A listed entry that could not be compared exactly is refused in one sentence that quotes it."""
    with pytest.raises(ValueError, match=re.escape(f"`{text}`")) as refused:
        check(text)
    assert "\n" not in str(refused.value).replace(text, "")
    with pytest.raises(ValueError, match=re.escape(f"`{text}`")):
        factory([text])


@pytest.mark.parametrize(
    ("check", "texts"),
    [
        (check_directory, ["/", "/data", "/a b/c.d", "/été", "C:\\", "c:\\Data", "\\\\fs\\share", "\\\\fs\\home$\\x"]),
        (
            check_host,
            ["localhost", "example.com", "Example.COM", "*.example.com", "bücher.example", "*.xn--bcher-kva.example"],
        ),
        (check_host, ["10.0.0.1", "::1", "2001:db8::1", "::"]),
        (
            check_block,
            ["10.0.0.0/8", "10.0.0.1", "10.0.0.1/32", "0.0.0.0/0", "::/0", "::1", "::1/128", "64:ff9b:1::/48"],
        ),
    ],
)
def test_accepted_entries(check: Any, texts: list[str]) -> None:
    """Plain entries are accepted, and their own operator is true of them."""
    for text in texts:
        assert check(text) is None
        if check is check_directory:
            assert path_within([text])(text) is True
        elif check is check_block and "/" not in text:
            assert ip_in([text])(text) is True
        elif check is check_host and ":" not in text:
            assert host_in([text])(f"http://{text.replace('*', 'x')}/") is True


# ---- properties

URL_PARTS = [
    "http://", "https://", "ws:", "//", "/", "\\", "@", "#", "?", ":", ":80", ".", "..", "example.com", "evil.com", "a",
    "1", "127.0.0.1", "203.0.113.5", "0x7f", "[", "]", "::1", "[::1]", "%", "%2e", "%40", "xn--", "xn--bcher-kva",
    "bücher", "ß", "日本", "\u3002", "\uff0e", "-", "_", "\u200d", "\u00ad", "\u0663", "\uff11", "İ", "\u017f", "ж",
    "א", "e\u0301", ";", "&", " ", "\t", "\n", "/path", "/@",
]  # fmt: skip
PATH_PARTS = [
    "/", "\\", "//", ".", "..", "...", "srv", "data", "/srv/data", "C:", "C:\\data", "c:/", "\\\\fs\\x", "é", "e\u0301",
    "\uff0e", "…", "\u200b", " ", "~", "%", ":", "nul", "x", "DATA", "\x00", "ß", "\u212a",
]  # fmt: skip
STRICT_URL = re.compile(
    r"(?:https?|wss?)://(\[[0-9a-f:.]+\]|[^/?#@\\:\s%\[\]]+)(?::[0-9]+)?(?:/[^\\\s]*)?", re.IGNORECASE
)
CHECKS = (listed_host, listed_block, listed_directory, path_within(WINDOWS), ip_in(["::/0"]))


def pieces(parts: list[str]) -> st.SearchStrategy[str]:
    """Strings made of the parts and of any characters between them."""
    return st.lists(st.sampled_from(parts) | st.text(max_size=2), max_size=8).map("".join)


@settings(deadline=None, max_examples=500)
@given(
    st.sampled_from(["", "http://", "https://example.com", "http://a."]), pieces(URL_PARTS), st.sampled_from(HOSTS[::2])
)
def test_every_parser_sees_the_host(start: str, middle: str, host: str) -> None:
    """Where a host is accepted, urllib, a strict pattern and IDNA all name that very host."""
    for url in (start + middle, f"{start}{middle}{host}", f"http://{host}{middle}", f"http://{middle}.{host}/{middle}"):
        if listed_host(url) is not True:
            continue
        strict = STRICT_URL.fullmatch(url)
        assert strict is not None
        seen = {urlsplit(url).hostname or "", strict[1].lower()}
        assert all(is_listed(name.encode("idna").decode("ascii")) for name in seen)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(["", "http://", "http://[", "::ffff:"]), pieces(URL_PARTS), st.ip_addresses())
def test_every_parser_sees_the_address(start: str, middle: str, address: Any) -> None:
    """Where a block is said to hold a text, the text's own host is a literal in it."""
    for text in (start + middle, f"{start}{address}", f"http://{address}{middle}", f"http://[{address}]{middle}"):
        if ip_in(["0.0.0.0/1", "8000::/1"])(text) is not True:
            continue
        host = ip_address((urlsplit(text).hostname or "") if "/" in text else text)
        mapped = getattr(host, "ipv4_mapped", None)
        low = mapped or (ip_address(int(host) & 0xFFFF_FFFF) if str(host).startswith("64:ff9b::") else host)
        assert low in ip_network("0.0.0.0/1" if low.version == 4 else "8000::/1")


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_blocks_agree_with_ipaddress(address: Any, length: int) -> None:
    """A plain IPv4 literal is inside a block exactly where the standard library says so, unwrapped ones too."""
    block = ip_network("198.51.100.0/32").supernet(new_prefix=length)
    check = ip_in([str(block)])
    if int(address) != 0:
        assert {check(text) for text in (f"{address}", f"http://{address}:80/", f"::ffff:{address}")} == {
            address in block
        }


@settings(deadline=None, max_examples=500)
@given(pieces(PATH_PARTS))
def test_dots_never_escape(suffix: str) -> None:
    """Whatever follows a listed directory, a path that is called inside is inside for the standard library too."""
    for start in ("/srv/data", "/srv/data/", "/", "", "/srv/"):
        path = start + suffix
        if path_within(["/srv/data"])(path) is True:
            assert posixpath.normpath(path).split("/")[:3] == ["", "srv", "data"]
    for start in ("C:\\data", "C:\\data\\", "c:\\", "", "c:/"):
        path = start + suffix
        if path_within(["C:\\data"])(path) is True:
            assert ntpath.normpath(path).lower().split("\\")[:2] == ["c:", "data"]


@given(st.lists(st.sampled_from(["..", ".", "", "a", "b"]), max_size=12))
def test_plain_paths_are_decided_as_posix_does(names: list[str]) -> None:
    """A path of plain names, dots and doubled slashes is true or false exactly as `normpath` resolves it."""
    path = "/".join(("/srv/data", *names))
    inside = posixpath.normpath(path).startswith(("/srv/data/", "/srv/data")) and path.startswith("/")
    assert listed_directory(path) is inside
    assert listed_directory(path.replace("/srv", "C:", 1).replace("/", "\\")) is (
        ntpath.normpath(path.replace("/srv", "C:", 1)).startswith("C:\\data")
    )


@settings(deadline=None, max_examples=300)
@given(
    st.text() | pieces(URL_PARTS) | pieces(PATH_PARTS) | st.characters(codec=None).map(lambda sign: f"http://a{sign}b/")
)
def test_nothing_raises(text: str) -> None:
    """Any string, lone surrogates included, gets one of the three answers from every operator."""
    assert all(check(text) in (True, False, None) for check in CHECKS)


@pytest.mark.parametrize("validate", [check_directory, check_host, check_block])
@given(text=st.text() | pieces(URL_PARTS) | pieces(PATH_PARTS))
@settings(deadline=None)
def test_validators_accept_or_refuse(validate: Any, text: str) -> None:
    """A validator raises nothing but a ValueError that quotes the text."""
    try:
        message = f"`{text}`" if validate(text) is None else ""
    except ValueError as error:
        message = str(error)
    assert f"`{text}`" in message


SLOW = {
    "slashes": "/" * 8_192,
    "short names": "/a" * 32_768,
    "up and down": "/a/.." * 13_107,
    "marks to be sorted": ("/" + "\u0301\u0316" * 500) * 32,
    "one name of marks": "/" + "\u0301\u0316" * 16_000,
    "letters that grow": ("/" + "\ufdfa" * 1_000) * 21,
    "white space in a name": "/" + " " * 65_000 + "x",
    "dots in a name": "/" + ". " * 32_000 + "x",
    "a device's white space": "C:\\nul" + " " * 65_000 + "x",
    "labels": "a." * 32_768,
    "labels in a URL": "http://" + "é." * 20_000,
    "at signs": "http://" + "@" * 65_000,
    "colons": ":" * 8_192,
    "digits": "1" * 8_192,
    "a port": "http://a:" + "1" * 65_000,
}


@pytest.mark.parametrize("name", SLOW)
def test_time_is_bounded(name: str) -> None:
    """The worst strings of 8 KiB take well under a second; a quadratic step would take many."""
    started = time.process_time()
    answers = [check(SLOW[name]) for check in CHECKS]
    assert time.process_time() - started < 2
    assert True not in answers
