"""Real Redis and Valkey servers on free loopback ports, started and stopped by the tests."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["RedisServer", "cluster", "free_port", "server"]


def free_port() -> int:
    """A port that nobody listens on, and whose neighbour for a cluster's bus is a port too."""
    while True:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
        if port < 55_000:
            return port


class RedisServer:
    """One server process that can be stopped, frozen and started again on its port.

    Args:
        folder: Where it keeps what it keeps.
        program: `redis-server` or `valkey-server`.
        options: Options of the command line.
    """

    def __init__(self, folder: Path, program: str = "redis-server", *options: str) -> None:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._program = program
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--save", "", "--enable-debug-command", "yes", "--daemonize", "no", *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise RuntimeError(f"{self._program} ended with {self._process.returncode}")
            try:
                if self.ask("PING") == b"+PONG\r\n":
                    return
            except OSError:
                time.sleep(0.01)
        raise RuntimeError(f"{self._program} does not answer")

    def ask(self, *words: str) -> bytes:
        """The first bytes of its answer to a command, without a client library."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall((" ".join(words) + "\r\n").encode())
            return connection.recv(65_536)

    def stop(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def freeze(self) -> None:
        """Stop it in its tracks: connections are accepted, and nothing is answered."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)


@contextmanager
def server(folder: Path, program: str = "redis-server", *options: str) -> Iterator[RedisServer]:
    """A running server, ended in the end."""
    one = RedisServer(folder, program, *options)
    one.start()
    try:
        yield one
    finally:
        one.stop()


@contextmanager
def cluster(folder: Path) -> Iterator[list[RedisServer]]:
    """Three nodes that share the slots."""
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "5000")
    nodes = [RedisServer(folder / str(number), "redis-server", *options) for number in range(3)]
    try:
        for number, node in enumerate(nodes):
            node.start()
            first, last = 16_384 * number // 3, 16_384 * (number + 1) // 3 - 1
            node.ask(f"CLUSTER ADDSLOTSRANGE {first} {last}")
            node.ask(f"CLUSTER SET-CONFIG-EPOCH {number + 1}")
        for node in nodes[1:]:
            nodes[0].ask(f"CLUSTER MEET 127.0.0.1 {node.port}")
        until = time.monotonic() + 30
        while not all(b"cluster_state:ok" in node.ask("CLUSTER INFO") for node in nodes) or not all(
            node.ask("CLUSTER NODES").count(b"connected") == 3 for node in nodes
        ):
            if time.monotonic() > until:
                raise RuntimeError("the cluster does not come up")
            time.sleep(0.05)
        yield nodes
    finally:
        for node in nodes:
            node.stop()
