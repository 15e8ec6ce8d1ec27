"""A TCP proxy on loopback that delays replies, holds them back, or breaks connections after the server has acted."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["Proxy", "proxied"]

RESET = struct.pack("ii", 1, 0)  # closing sends a reset


class Proxy:
    """Stands between a client and a server on another port.

    Attributes:
        delay: Seconds that each reply is late.
        replies: Replies pass while this is set.
        cuts: How many replies to a script are still to be answered with a reset of the connection.
        scripts: How many requests to run a script have passed.
        requests: How many requests have passed.
    """

    def __init__(self, port: int) -> None:
        self.delay = 0.0
        self.replies = threading.Event()
        self.replies.set()
        self.cuts = 0
        self.scripts = 0
        self.requests = 0
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self._threads[0].start()

    def close(self) -> None:
        """Break every connection and end."""
        self.replies.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(20)  # after which there are no more
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
        for one in (self._listener, *self._sockets):
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                server = socket.create_connection(("127.0.0.1", self._server))
                self._sockets.append(server)
                ran = threading.Event()  # a script, whose reply may be cut
                for target, pair in ((self._requests, (client, server)), (self._replies, (server, client))):
                    thread = threading.Thread(target=target, args=(*pair, ran))
                    self._threads.append(thread)
                    thread.start()

    def _requests(self, client: socket.socket, server: socket.socket, ran: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(65_536):
                self.requests += 1
                if b"EVALSHA" in data:
                    ran.set()
                    self.scripts += 1
                server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _replies(self, server: socket.socket, client: socket.socket, ran: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(65_536):
                if self.cuts and ran.is_set():
                    self.cuts -= 1
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    break
                self.replies.wait(60)
                time.sleep(self.delay)
                client.sendall(data)
        for one in (client, server):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied(port: int) -> Iterator[Proxy]:
    """A proxy before a server, ended in the end."""
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
