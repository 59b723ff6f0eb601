"""A port that passes connections on to another one, until a test cuts them all."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

from tests.upstream_listener import BACKLOG, Listener

READ = 65_536


class Forwarder:
    """Listens on ``port`` of 127.0.0.1, and connects to ``to``."""

    def __init__(self, port: int, to: int) -> None:
        self.port = port
        self._to = to
        self._sockets: list[socket.socket] = []
        self._threads: list[Thread] = []

    def take(self, taken: socket.socket) -> None:
        """Pass on what comes, both ways."""
        taken.setblocking(True)
        behind = socket.create_connection(("127.0.0.1", self._to))
        self._sockets += [taken, behind]
        for pair in ((taken, behind), (behind, taken)):
            self._threads.append(Thread(target=_pump, args=pair, daemon=True))
            self._threads[-1].start()

    def cut(self) -> None:
        """End every connection, and wait until nothing is left of it."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()
        self._sockets.clear()
        self._threads.clear()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(READ):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def forwarder(to: int) -> Iterator[Forwarder]:
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listening:
        found = Forwarder(listening.getsockname()[1], to)
        with Listener([listening], found.take).running():
            yield found
        found.cut()
