"""SQLite at its worst: locked, full, damaged, replaced, forked, killed. It denies in bounded time, and recovers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from kill_rounds import kill_rounds
from racing import NOON, Place, charge, used
from watching import longest_pause

from mcp_policy_middleware import Guard, PolicyError, Reason, StoreError, ToolCall, parse_policy
from mcp_policy_middleware.charges import Refusal, Reservation
from mcp_policy_middleware.stores import SQLiteStore

POLICY = parse_policy(
    '{"version": "1", "default": "deny", "tools": {"t": {"limits": [{"counter": "c", "window": "hour", "max": 1000}]}}}'
)
CALL = ToolCall("t", {})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "counters.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    """A store in use."""
    made = SQLiteStore(path)
    take(made)
    yield made
    made.close()


def take(store: SQLiteStore, key: str = "k", limit: float = 1_000_000) -> Reservation:
    """Take one, which fits."""
    answer = store.reserve((charge(key, limit),), NOON)
    assert isinstance(answer, Reservation)
    return answer


def stored(path: Path, key: str = "k") -> float:
    """What another process would find; in one of its own, since closing here would not be what closing there is."""
    code = f"from racing import *; s = Place({str(path)!r}, timeout=5).opened(); print(used(s, {key!r})[0]); s.close()"
    ran = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, check=True)
    return float(ran.stdout)


def denied(store: SQLiteStore) -> bool:
    """Whether a guard denies for want of the store."""
    return Guard(POLICY, store=store, telemetry=False).begin(CALL).reason is Reason.STORE_UNAVAILABLE


def admitted(store: SQLiteStore) -> bool:
    """Whether a guard admits a call."""
    return Guard(POLICY, store=store, telemetry=False).begin(CALL).allowed


def holding(path: Path, lock: Any, done: Any) -> None:
    """Another process: hold the file until told."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    lock.set()
    done.wait(60)
    database.execute("ROLLBACK")
    database.close()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[Callable[[], None]]:
    """Another process holds the file meanwhile, or until the function that this gives is called."""
    context = multiprocessing.get_context("fork")
    lock, done = context.Event(), context.Event()
    process = context.Process(target=holding, args=(path, lock, done))
    process.start()
    assert lock.wait(30)

    def unlock() -> None:
        done.set()
        process.join(30)

    try:
        yield unlock
    finally:
        unlock()
        process.close()


# ---- locked


def test_a_locked_file_denies_in_time_and_recovers(store: SQLiteStore, path: Path) -> None:
    """While another process holds the file a call is denied after the timeout; then at once admitted."""
    with locked(path) as unlock:
        started = time.monotonic()
        assert denied(store)
        assert 0.2 < time.monotonic() - started < 2
        with pytest.raises(StoreError, match="locked"):
            store.release(take_held(store))
        unlock()
        assert admitted(store)
    assert used(store, "k") == [1]


def take_held(store: SQLiteStore) -> Reservation:
    """A reservation that was made before."""
    return Reservation((charge("k", 10),), (int(NOON) + 3_600,), (0,))


def test_a_locked_file_leaves_the_event_loop_free(store: SQLiteStore, path: Path) -> None:
    """Async callers wait without blocking, all of them are denied, and none of them keeps a lock."""

    async def main() -> None:
        guard = Guard(POLICY, store=store, telemetry=False)
        with locked(path):
            async with longest_pause() as pause:
                decisions = await asyncio.gather(*(guard.abegin(CALL) for _ in range(20)))
            assert {decision.reason for decision in decisions} == {Reason.STORE_UNAVAILABLE}
            assert pause.longest < 0.15
        assert (await guard.abegin(CALL)).allowed

    asyncio.run(main())


def test_trio_waits_without_blocking(store: SQLiteStore, path: Path) -> None:
    """The same store under trio."""

    async def main() -> None:
        guard = Guard(POLICY, store=store, telemetry=False)
        assert (await guard.abegin(CALL)).allowed
        ticks = 0
        with locked(path):
            async with trio.open_nursery() as nursery:

                async def ask() -> None:
                    assert (await guard.abegin(CALL)).reason is Reason.STORE_UNAVAILABLE
                    nursery.cancel_scope.cancel()

                nursery.start_soon(ask)
                while True:
                    await trio.sleep(0.01)
                    ticks += 1
        assert ticks > 3

    with contextlib.suppress(trio.Cancelled):
        trio.run(main)


def test_a_cancelled_wait_keeps_no_lock(path: Path) -> None:
    """A task that is cancelled while it waits is out of the way of the next."""

    async def main() -> None:
        store = SQLiteStore(path, timeout=30)
        with locked(path):
            task = asyncio.create_task(store.areserve((charge("k", 9),), NOON))
            while not store._file.turn.locked():  # noqa: ASYNC110  the store tells nobody
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert not store._file.turn.locked()
        assert isinstance(await store.areserve((charge("k", 9),), NOON), Reservation)
        await store.aclose()
        assert used(store, "k") == [1]
        await store.aclose()

    asyncio.run(main())


def test_closing_does_not_wait_for_a_task_that_waits(path: Path) -> None:
    """The loop that closes the store is the one that the waiting task needs."""

    async def main() -> None:
        store = SQLiteStore(path, timeout=30)
        with locked(path) as unlock:
            task = asyncio.create_task(store.areserve((charge("k", 9),), NOON))
            while not store._file.turn.locked():  # noqa: ASYNC110  the store tells nobody
                await asyncio.sleep(0.001)
            await store.aclose()
            unlock()
            assert isinstance(await task, Reservation)
        await store.aclose()

    asyncio.run(main())


def test_threads_that_queue_are_denied_in_time(path: Path) -> None:
    """Threads wait for the one before them no longer than for the file."""
    store = SQLiteStore(path, timeout=0.1)
    failed: list[float] = []

    def work() -> None:
        started = time.monotonic()
        with pytest.raises(StoreError):
            store.reserve((charge("k", 9),), NOON)
        failed.append(time.monotonic() - started)

    with locked(path):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(failed) == 4
    assert max(failed) < 2
    assert isinstance(store.reserve((charge("k", 9),), NOON), Reservation)
    store.close()


# ---- the disk


def fill(store: SQLiteStore) -> list[str]:
    """Take new counters until there is no room, also for what is tried again; those that were acknowledged."""
    keys: list[str] = []
    failed = 0
    while failed < 8:
        key = f"fill-{len(keys)}-{'x' * 500}"
        try:
            store.reserve((charge(key, 1),), NOON)
            keys.append(key)
            failed = 0
        except StoreError:
            failed += 1
    return keys


def check_full(folder: Path, make_room: Callable[[], None]) -> None:
    """Fill the disk through the store: denied, nothing lost, and admitted again when there is room."""
    with contextlib.closing(SQLiteStore(folder / "counters.db")) as store:
        check_full_store(store, make_room)


def check_full_store(store: SQLiteStore, make_room: Callable[[], None]) -> None:
    """The same, with the store."""
    for _ in range(5):
        assert isinstance(store.reserve((charge("k", 7),), NOON), Reservation)
    keys = fill(store)
    assert len(keys) > 10
    long = Guard(POLICY, store=store, telemetry=False, grant="x" * 5_000)  # whose counter needs pages of its own
    assert long.begin(CALL).reason is Reason.STORE_UNAVAILABLE
    make_room()
    assert long.begin(CALL).allowed
    assert used(store, "k") == [5]
    assert sum(isinstance(store.reserve((charge("k", 7),), NOON), Reservation) for _ in range(5)) == 2
    for key in keys:
        assert isinstance(store.reserve((charge(key, 1),), NOON), Refusal)


def child(work: Callable[[], None]) -> int:
    """Run it in a forked child; its exit status."""
    pid = os.fork()
    if pid == 0:
        sys.settrace(None)  # who measures coverage has locks of its own, which an interruption would leave held
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def succeeded(pid: int) -> bool:
    """Whether a child ended well."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_file_that_may_not_grow_denies_and_recovers(tmp_path: Path) -> None:
    """The limit on a file's size stands in for a full disk where nothing can be mounted."""

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
        check_full(tmp_path, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)))

    assert child(work) == 0


def test_a_full_disk_denies_and_recovers(tmp_path: Path) -> None:
    """A disk of one mebibyte where one can be mounted; the test before shows the same where none can."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        test_a_file_that_may_not_grow_denies_and_recovers(tmp_path)
        return
    try:
        (disk / "ballast").write_bytes(b"x" * 400_000)
        check_full(disk, (disk / "ballast").unlink)
    finally:
        gc.collect()
        subprocess.run(["umount", str(disk)], check=True)


def test_with_fsync_charges_count_as_well(path: Path) -> None:
    """Written through to the disk, and exact."""
    store = SQLiteStore(path, fsync=True)
    take(store)
    assert store._file.opened().execute("PRAGMA synchronous").fetchone() == (2,)
    store.close()
    assert stored(path) == 1


# ---- the file


def damage_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"garbage " * 12)


def damage_pages(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4_096)
        file.write(os.urandom(path.stat().st_size - 4_096))


def cut_short(path: Path) -> None:
    os.truncate(path, 4_096)


def empty(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("damage", [damage_header, damage_pages, cut_short, empty])
def test_a_damaged_file_denies_until_it_is_restored(path: Path, damage: Callable[[Path], None]) -> None:
    """What cannot be read is not counted anew; the file that was saved is taken up where it is put back."""
    store = SQLiteStore(path)
    assert admitted(store)
    store.close()  # the log is in the file
    saved = path.read_bytes()
    damage(path)
    for _ in range(2):
        assert denied(store)
    path.write_bytes(saved)
    for side in ("-wal", "-shm"):
        Path(f"{path}{side}").unlink(missing_ok=True)
    decision = Guard(POLICY, store=store, telemetry=False).begin(CALL)
    assert decision.reservation is not None
    assert decision.reservation.used == (1_000_000,)
    store.close()


def test_a_file_that_vanished_denies_and_is_not_made_again(store: SQLiteStore, path: Path) -> None:
    """Whoever removed it may have meant to forget the counters, and says so by starting again."""
    path.unlink()
    for _ in range(2):
        assert denied(store)
    assert not path.exists()
    again = SQLiteStore(path)
    assert used(again, "k") == [0]
    assert admitted(store)
    assert used(again, "k") == [0]
    again.close()


def test_a_file_that_was_replaced_is_taken_up(store: SQLiteStore, path: Path, tmp_path: Path) -> None:
    """Another file of counters at the path is the one that counts."""
    other = SQLiteStore(tmp_path / "other.db")
    for _ in range(3):
        take(other)
    other.close()
    store.close()
    (tmp_path / "other.db").replace(path)
    assert used(store, "k") == [3]
    take(store)
    assert stored(path) == 4


def test_a_file_that_is_replaced_in_use_is_taken_up(store: SQLiteStore, path: Path, tmp_path: Path) -> None:
    """Also where the old one is open, with its log out of the way."""
    other = SQLiteStore(tmp_path / "other.db")
    for _ in range(3):
        take(other)
    other.close()
    for side in ("-wal", "-shm"):
        Path(f"{path}{side}").unlink()
    (tmp_path / "other.db").replace(path)
    assert used(store, "k") == [3]
    take(store)
    assert stored(path) == 4


def foreign_tables(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE theirs (x)")
    database.close()


def foreign_mark(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("PRAGMA application_id = 7")
    database.close()


def newer(path: Path) -> None:
    SQLiteStore(path).close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()


def text(path: Path) -> None:
    path.write_text("not a database at all, but long enough to be looked at\n" * 50)


@pytest.mark.parametrize("make", [foreign_tables, foreign_mark, newer, text])
def test_what_is_not_ours_is_refused_and_left_as_it_is(path: Path, make: Callable[[Path], None]) -> None:
    """Another program's database, another release's, or no database: an error at the start, and not a byte changed."""
    make(path)
    before = path.read_bytes()
    with pytest.raises(StoreError):
        SQLiteStore(path)
    gc.collect()
    assert path.read_bytes() == before


def test_paths_that_cannot_be_files_are_refused(tmp_path: Path) -> None:
    """A folder, a file in no folder, and no file."""
    for place in (tmp_path, tmp_path / "missing" / "counters.db"):
        with pytest.raises(StoreError):
            SQLiteStore(place)
    for name in ("", ":memory:"):
        with pytest.raises(PolicyError):
            SQLiteStore(name)


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that changes its folder, as daemons do, keeps its file."""
    monkeypatch.chdir(tmp_path)
    store = SQLiteStore("counters.db")
    monkeypatch.chdir("/")
    assert admitted(store)
    store.close()
    assert (tmp_path / "counters.db").exists()


@pytest.mark.parametrize("mode", [0o444, 0o000])
@pytest.mark.parametrize("whole_folder", [False, True])
def test_what_may_not_be_written_denies(tmp_path: Path, mode: int, whole_folder: bool) -> None:
    """A file or a folder without permission: seen by a user without privileges, for root may do everything."""
    folder = tmp_path / "folder"
    folder.mkdir()
    SQLiteStore(folder / "counters.db").close()
    for one in [tmp_path, *list(tmp_path.parents)[:2]]:
        one.chmod(0o755)
    folder.chmod(0o777)
    (folder / "counters.db").chmod(0o666)

    def work() -> None:
        if os.getuid() == 0:
            os.setgid(65_534)
            os.setuid(65_534)
        store = SQLiteStore(folder / "counters.db")
        assert admitted(store)
        store.close()
        os.write(writing, b"x")
        os.read(reading_go, 1)
        assert denied(store)
        with pytest.raises(StoreError):
            SQLiteStore(folder / "counters.db").reserve((charge("k", 1),), NOON)

    reading, writing = os.pipe()
    reading_go, writing_go = os.pipe()

    def forbid() -> None:
        os.read(reading, 1)
        (folder if whole_folder else folder / "counters.db").chmod(mode | (0o111 if whole_folder and mode else 0))
        os.write(writing_go, b"x")

    thread_free = os.fork()
    if thread_free == 0:
        forbid()
        os._exit(0)
    assert child(work) == 0
    os.waitpid(thread_free, 0)
    for descriptor in (reading, writing, reading_go, writing_go):
        os.close(descriptor)
    folder.chmod(0o755)
    (folder / "counters.db").chmod(0o644)


def test_a_file_system_without_shared_memory_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a network's may be; here SQLite is told to lock by files beside it, which shares no memory."""
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda name, **more: connect(f"{name}&vfs=unix-dotfile", **more))
    with pytest.raises(StoreError, match="shared memory"):
        SQLiteStore(path)


# ---- processes


def test_two_stores_of_a_process_on_one_file_keep_their_locks(path: Path) -> None:
    """A second store must not drop the first one's locks: another process would then take itself for the last one,
    and remove the log under the first, whose later charges nobody would see."""
    first = SQLiteStore(path)
    take(first)
    second = SQLiteStore(path)
    second.close()
    assert stored(path) == 1
    take(first)
    assert stored(path) == 2
    first.close()
    assert stored(path) == 2


def test_a_forked_child_holds_locks_of_its_own(path: Path) -> None:
    """A parent that closes the file must not remove the log under its child, nor the child under its parent."""
    store = SQLiteStore(path)
    take(store)
    to_child, from_child = os.pipe(), os.pipe()

    def work() -> None:
        take(store)
        os.write(from_child[1], b"x")
        os.read(to_child[0], 1)
        take(store)

    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            work()
        os._exit(0)
    os.read(from_child[0], 1)
    take(store)
    store.close()
    assert stored(path) == 3
    os.write(to_child[1], b"x")
    os.waitpid(pid, 0)
    assert stored(path) == 4
    for descriptor in (*to_child, *from_child):
        os.close(descriptor)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_threads_count_locks_nobody_out(path: Path) -> None:
    """Whatever a thread was in the middle of, the child can count; and the parent counts on."""
    store = SQLiteStore(path, timeout=5)
    stop = threading.Event()
    taken: list[int] = []

    def work() -> None:
        count = 0
        while not stop.is_set():
            take(store)
            count += 1
        taken.append(count)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            assert child(lambda: [take(store) for _ in range(3)] and store.close()) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert used(store, "k") == [sum(taken) + 60]
    store.close()


def test_a_fork_while_a_task_waits(path: Path) -> None:
    """A task that waits for the file does not keep its loop from forking, nor the child from counting."""

    async def main() -> None:
        store = SQLiteStore(path, timeout=30)
        with locked(path) as unlock:
            task = asyncio.create_task(store.areserve((charge("k", 9),), NOON))
            while not store._file.turn.locked():  # noqa: ASYNC110  the store tells nobody
                await asyncio.sleep(0.001)
            pid = os.fork()
            if pid == 0:
                status = 1
                with contextlib.suppress(BaseException):
                    take(store)
                    status = 0
                os._exit(status)
            unlock()
            assert isinstance(await task, Reservation)
        assert await asyncio.to_thread(succeeded, pid)
        assert used(store, "k") == [2]
        store.close()

    asyncio.run(main())


def test_200_writers_killed_at_a_random_moment_lose_nothing(path: Path) -> None:
    """What was acknowledged is stored after SIGKILL, at most one charge more, and the file is whole."""
    killed = kill_rounds(path, 200)
    assert killed.deviations == []
    assert killed.acknowledged > 200


# ---- interruptions


class Interruption(BaseException):
    """As a keyboard interrupt is."""


@pytest.mark.parametrize("where", ["BEGIN", "SELECT", "UPDATE", "COMMIT"])
def test_an_interruption_leaves_no_lock_and_no_transaction(store: SQLiteStore, path: Path, where: str) -> None:
    """Whatever statement it comes after, the charge is taken or not, and everybody goes on."""
    real = store._file.opened()

    class Interrupted:
        """A connection that is interrupted after a statement, once."""

        def __init__(self) -> None:
            self.armed = True

        def execute(self, statement: str, *values: Any) -> Any:
            done = real.execute(statement, *values)
            if self.armed and statement.startswith(where):
                self.armed = False
                raise Interruption
            return done

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    store._file._database = Interrupted()  # type: ignore[assignment]
    with pytest.raises(Interruption):
        take(store)
    expected = 2 if where == "COMMIT" else 1
    assert stored(path) == expected
    started = time.monotonic()
    take(store)
    assert time.monotonic() - started < 1
    assert stored(path) == expected + 1


def test_signals_at_random_moments_leave_the_store_usable(path: Path) -> None:
    """An alarm raises wherever it comes; afterwards nothing is locked, and no acknowledged charge is lost."""
    store = SQLiteStore(path, timeout=5)

    def work() -> None:
        acknowledged = interrupted = 0
        rung = False

        def ring(*_: Any) -> None:
            nonlocal rung
            rung = True
            raise Interruption

        signal.signal(signal.SIGALRM, ring)
        for number in range(300):
            rung = False
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.000_05 + (number % 50) * 0.000_02)
                while not rung:  # where it comes while something is cleaned up, Python only reports it
                    take(store)
                    acknowledged += 1
            except Interruption:
                interrupted += 1
        found = Place(str(path), timeout=5).opened()
        assert interrupted > 200
        assert acknowledged <= used(found, "k")[0] <= acknowledged + 300

    assert child(work) == 0
    store.close()


def test_a_closed_store_opens_again(store: SQLiteStore) -> None:
    """Closing lets go of the file; whoever counts on opens it."""
    for _ in range(2):
        store.close()
    take(store)
    assert used(store, "k") == [2]


def test_sweeping_bounds_the_file(path: Path) -> None:
    """Sessions that come and go over hours leave a small file."""
    store = SQLiteStore(path)
    for number in range(20_000):
        store.reserve((charge(f"session-{number}", 1, window=60),), NOON + number)
    store.close()
    assert path.stat().st_size < 1_000_000
