"""Tampering is found and located: edits, lines that are dropped, swapped, repeated, foreign, and whole rewrites."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from audit_logs import called, entries, files, guarded, written

from mcp_policy_middleware import PolicyError, StoreError
from mcp_policy_middleware.audit import AuditLog, Head, Verification, verify
from mcp_policy_middleware.audit.chain import NOTHING, hashing, read, seal

KEY = bytes(range(32))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 60 calls, of more than a hundred lines."""
    return written(tmp_path_factory.mktemp("logs") / "audit.jsonl", 60, arguments=("currency", "amount"))


def broken(path: Path, data: bytes, **options: object) -> Verification:
    """What `verify` finds of other contents."""
    path.write_bytes(data)
    return verify([path], **options)  # type: ignore[arg-type]


def kinds(found: Verification) -> list[tuple[str, int]]:
    """Each break's kind and line."""
    return [(one.kind, one.line) for one in found.breaks]


def head_of(path: Path) -> Head:
    """The last line."""
    (log,) = verify([path]).logs
    assert log.head is not None
    return log.head


@pytest.mark.parametrize("key", [None, KEY], ids=["sha256", "hmac"])
def test_every_one_of_a_thousand_random_single_byte_edits_is_found_and_located(
    key: bytes | None, tmp_path: Path
) -> None:
    """Whatever byte becomes whatever other: in names, values, hashes, structure and line breaks, and the last line."""
    data = written(tmp_path / "audit.jsonl", 60, key=key).read_bytes()
    chance = random.Random(7)
    places = [chance.randrange(len(data)) for _ in range(900)]
    breaks = [place for place, byte in enumerate(data) if byte == 10]
    places += [chance.choice(breaks) for _ in range(50)] + [chance.randrange(breaks[-2], len(data)) for _ in range(50)]
    for place in places:
        byte = chance.choice([other for other in range(256) if other != data[place]])
        if chance.random() < 0.2 and data[place] != 10:
            byte = 10
        edited = data[:place] + bytes([byte]) + data[place + 1 :]
        found = broken(tmp_path / "edited.jsonl", edited, key=key)
        line = data.count(b"\n", 0, place) + 1
        assert found.breaks, (place, byte)
        assert abs(found.breaks[0].line - line) <= (data[place] == 10), (place, byte, found.breaks)
        assert len(found.breaks) <= 3


def test_every_dropped_line_before_a_recorded_head_is_found_and_located(log: Path, tmp_path: Path) -> None:
    """The line after the gap is named; where the last ones are dropped, the head is missed."""
    lines = log.read_bytes().splitlines(keepends=True)
    head = head_of(log)
    for index in range(len(lines)):
        found = broken(tmp_path / "cut.jsonl", b"".join(lines[:index] + lines[index + 1 :]), heads=[head])
        last = index == len(lines) - 1
        assert kinds(found) == [("head", 0) if last else ("missing", index + 1)]


def test_every_swapped_pair_of_lines_is_found_and_located(log: Path, tmp_path: Path) -> None:
    """Neighbours, and lines far from each other."""
    lines = log.read_bytes().splitlines(keepends=True)
    chance = random.Random(3)
    pairs = [(index, index + 1) for index in range(len(lines) - 1)]
    pairs += [tuple(sorted(chance.sample(range(len(lines)), 2))) for _ in range(200)]  # type: ignore[misc]
    for first, second in pairs:
        swapped = list(lines)
        swapped[first], swapped[second] = swapped[second], swapped[first]
        found = broken(tmp_path / "swapped.jsonl", b"".join(swapped))
        assert found.breaks, (first, second)
        assert first + 1 <= found.breaks[0].line <= first + 2
        assert found.breaks[-1].line <= second + 2


def test_a_repeated_line_and_a_foreign_one_are_named_alone(log: Path, tmp_path: Path) -> None:
    """What does not belong is told of, and not what follows it."""
    lines = log.read_bytes().splitlines(keepends=True)
    foreign = written(tmp_path / "foreign.jsonl", 60).read_bytes().splitlines(keepends=True)
    for index in range(1, len(lines) - 1):
        repeated = [*lines[:index], lines[index - 1], *lines[index:]]
        assert kinds(broken(tmp_path / "x.jsonl", b"".join(repeated))) == [("misplaced", index + 1)]
        mixed = [*lines[:index], foreign[index], *lines[index:]]
        assert kinds(broken(tmp_path / "x.jsonl", b"".join(mixed))) == [("misplaced", index + 1)]
    interleaved = [line for pair in zip(lines, foreign, strict=False) for line in pair]
    assert broken(tmp_path / "x.jsonl", b"".join(interleaved)).breaks


def test_each_of_several_edits_is_told(log: Path, tmp_path: Path) -> None:
    """One break does not hide the next, not even in the very next line."""
    lines = log.read_bytes().splitlines(keepends=True)
    for index in (4, 5, 30, len(lines) - 1):
        lines[index] = lines[index].replace(b'"time":"2', b'"time":"3')
    assert kinds(broken(tmp_path / "x.jsonl", b"".join(lines))) == [
        ("edited", index + 1) for index in (4, 5, 30, len(lines) - 1)
    ]
    del lines[20:22]
    assert ("missing", 21) in kinds(broken(tmp_path / "x.jsonl", b"".join(lines)))


def forged(data: bytes) -> bytes:
    """The log with one thing changed and every hash made anew, as whoever has no key can."""
    head, made = NOTHING, b""
    for line in data.splitlines():
        told = read(line, hashing(None))
        assert told is not None
        told.entry["grant"] = "somebody else"
        sealed, head = seal(told.entry, head, told.entry["time"], hashing(None))
        made += sealed
    return made


def test_a_wholly_rewritten_log_is_found_against_a_head_or_with_a_key(log: Path, tmp_path: Path) -> None:
    """By itself it is whole, which is why heads are recorded elsewhere."""
    rewritten = forged(log.read_bytes())
    assert broken(tmp_path / "x.jsonl", rewritten).whole
    head = head_of(log)
    for recorded in (head, Head(head.hash), Head.parse(str(head))):
        assert kinds(broken(tmp_path / "x.jsonl", rewritten, heads=[recorded])) == [("head", 0)]
        assert verify([log], heads=[recorded]).whole
    assert not broken(tmp_path / "x.jsonl", log.read_bytes(), heads=[Head(head.hash, 5)]).whole
    keyed = written(tmp_path / "keyed.jsonl", key=KEY)
    assert verify([keyed], key=KEY).whole
    assert not broken(tmp_path / "x.jsonl", forged(keyed.read_bytes()), key=KEY).whole
    assert not verify([log], key=KEY).whole
    assert not verify([keyed], key=KEY[::-1]).whole


def test_a_keyed_log_asks_for_its_key(tmp_path: Path) -> None:
    """Without it nothing can be said; a short key is none."""
    keyed = written(tmp_path / "keyed.jsonl", key=KEY)
    with pytest.raises(PolicyError):
        verify([keyed])
    for short in (b"", b"secret", "a text that is long enough, and no bytes"):
        with pytest.raises(PolicyError):
            AuditLog(tmp_path / "x.jsonl", key=short)  # type: ignore[arg-type]


def test_a_cut_line_and_a_cut_file_are_found(log: Path, tmp_path: Path) -> None:
    """At every length: what ends within a line is not whole, and what ends with one misses the head."""
    data = log.read_bytes()
    head = head_of(log)
    for length in range(len(data) - 700, len(data)):
        found = broken(tmp_path / "x.jsonl", data[:length], heads=[head])
        assert ("head", 0) in kinds(found)
        assert (data[length - 1] == 10) == (len(found.breaks) == 1)


def test_rotated_files_are_one_log_in_whatever_order(tmp_path: Path) -> None:
    """A file that is missing in the middle is missed; the oldest may be left out by saying so."""
    path = written(tmp_path / "audit.jsonl", 60, max_bytes=5_000)
    every = files(path)
    assert len(every) > 5
    found = verify(reversed(every))
    assert found.whole
    (log,) = found.logs
    assert log.files == tuple(map(str, every))
    assert log.lines == len(entries(*every))
    assert [(one.kind, one.file, one.line) for one in verify(every[:2] + every[3:]).breaks] == [
        ("missing", str(every[3]), 1)
    ]
    assert kinds(verify(every[2:])) == [("missing", 1)]
    partial = verify(every[2:], partial=True)
    assert partial.whole
    assert [note.kind for note in partial.notes] == ["partial"]


def test_the_first_line_of_any_file_may_be_the_edited_one(tmp_path: Path) -> None:
    """It is named, in its file, whichever of its bytes is another."""
    path = written(tmp_path / "audit.jsonl", 40, max_bytes=9_000)
    every = files(path)
    assert len(every) > 2
    for file in every:
        data = file.read_bytes()
        for place in range(0, data.index(b"\n"), 3):
            file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            found = verify([path, *every])
            assert (str(file), 1) in [(one.file, one.line) for one in found.breaks], place
        file.write_bytes(data)


def test_several_logs_are_told_apart(tmp_path: Path) -> None:
    """Files of two logs may be given together; a head is one of either."""
    logs = [written(tmp_path / f"{name}.jsonl", 30, max_bytes=5_000) for name in "ab"]
    every = [file for log in logs for file in files(log)]
    random.Random(1).shuffle(every)
    heads = [log.head for log in verify(every).logs]
    assert None not in heads
    found = verify(every, heads=heads)  # type: ignore[arg-type]
    assert found.whole
    assert len(found.logs) == 2


def test_what_is_not_canonical_is_no_line(tmp_path: Path) -> None:
    """A line whose hash fits and whose JSON is spelled otherwise does not pass: its bytes could say two things."""
    hashed = hashing(None)
    line, _ = seal({"kind": "end", "decision": "é"}, NOTHING, "2026-01-01T00:00:00.000000Z", hashed)
    body = line[:-76] + b"}"

    def sealed(text: bytes) -> bytes:
        return text[:-1] + b',"hash":"' + hashed(text).encode() + b'"}'

    assert read(sealed(body), hashed) is not None
    spelled = [
        body.replace(b'"seq":0', b'"seq": 0'),
        body.replace(b'"seq":0', b'"seq":0.0'),
        body.replace(b'"seq":0', b'"seq":-0'),
        body.replace(b'"seq":0', b'"seq":0,"seq":0'),
        body.replace(b'"seq":0', b'"nan":NaN,"seq":0'),
        body.replace(b'"seq":0', b'"seq":0,"a":1'),
        body.replace("é".encode(), b"\\u00e9"),
        body.replace("é".encode(), b"\\ud800"),
        body.replace("é".encode(), b"\xff"),
        body.replace(b'"seq":0', b'"r":1.50,"seq":0'),
        body.replace(b'"seq":0', b'"r":1e999,"seq":0'),
        body.replace(b'"seq":0', b'"r":' + b"[" * 100_000 + b',"seq":0'),
        body.replace(b'"seq":0', b'"seq":true'),
        body.replace(b'"format":1', b'"format":2'),
        b"[]}",
        b"}",
    ]
    for text in spelled:
        assert text != body
        assert read(sealed(text), hashed) is None, text
    assert read(sealed(body.replace(b'"seq":0', b'"r":1.5,"seq":0')), hashed) is not None


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """It is not a break, nor whole."""
    for path in (tmp_path, tmp_path / "missing.jsonl", "a\0b"):
        with pytest.raises(StoreError):
            verify([path])


@pytest.mark.parametrize("data", [b"", b"\n", b"\n\n{}\n", b"no log", b"{}" * 100_000, bytes(range(256)) * 100])
def test_garbage_is_broken_or_empty(data: bytes, tmp_path: Path) -> None:
    """Whatever is there is answered for."""
    found = broken(tmp_path / "x.jsonl", data)
    assert found.whole == (data == b"")
    assert broken(tmp_path / "x.jsonl", data, heads=[Head("0" * 64)]).breaks


@pytest.mark.parametrize(
    "text", ["", "abc", "0" * 63, "0" * 65, "A" * 64, "0" * 64 + ":", "0" * 64 + ":-1", "0" * 64 + ":²"]
)
def test_what_is_no_head_is_refused(text: str) -> None:
    """A head is a hash, and a number where there is one."""
    with pytest.raises(PolicyError):
        Head.parse(text)


def test_anybody_can_verify_the_format(tmp_path: Path) -> None:
    """A reading of the format that shares nothing with the package agrees, with a key and without."""
    for name, key in (("plain", None), ("keyed", KEY)):
        path = written(tmp_path / f"{name}.jsonl", 20, key=key, arguments=("amount",))
        previous = "0" * 64
        for number, line in enumerate(path.read_bytes().splitlines()):
            body, digits = line[:-75] + b"}", line[-66:-2].decode()
            mine = hmac.new(key, body, hashlib.sha256) if key else hashlib.sha256(body)
            assert mine.hexdigest() == digits
            told = json.loads(body)
            assert (told["previous"], told["seq"], told["format"]) == (previous, number, 1)
            previous = digits


def test_a_log_that_is_being_written_verifies(tmp_path: Path) -> None:
    """A line that is under way is not taken for a torn one."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, fsync="never", max_bytes=200_000)
    called(guarded(log), 10)
    code = "import sys\nfrom mcp_policy_middleware.audit import verify\n"
    code += "found = [verify([sys.argv[1]], partial=True).breaks for _ in range(30)]\nassert not any(found), found\n"
    with subprocess.Popen([sys.executable, "-c", code, str(path)]) as reader:
        while reader.poll() is None:
            called(guarded(log), 5)
    assert reader.returncode == 0
    log.close()
