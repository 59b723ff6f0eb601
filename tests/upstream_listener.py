"""A thread that takes in connections, and is gone when its block ends."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock, Thread

BACKLOG = 1024
STOP_SECONDS = 1


class Listener:
    """Gives each connection of some listening sockets to ``take``, never two at a time."""

    def __init__(
        self, sockets: Sequence[socket.socket], take: Callable[[socket.socket], None]
    ) -> None:
        for each in sockets:
            each.setblocking(False)
        self._sockets = sockets
        self._take = take
        self._lock = Lock()

    def take_waiting(self) -> None:
        """Take all whose handshake has ended by now."""
        with self._lock:
            for each in self._sockets:
                while (taken := _accepted(each)) is not None:
                    self._take(taken)

    @contextmanager
    def running(self) -> Iterator[None]:
        bell, stop = socket.socketpair()
        with bell, stop:
            thread = Thread(target=self._run, args=(stop,), name="listener", daemon=True)
            thread.start()
            try:
                yield
            finally:
                bell.send(b"!")
                thread.join(STOP_SECONDS)
                assert not thread.is_alive()
                self.take_waiting()
                self._sockets = ()

    def _run(self, stop: socket.socket) -> None:
        poller = select.poll()
        for each in (*self._sockets, stop):
            poller.register(each, select.POLLIN)
        while all(descriptor != stop.fileno() for descriptor, _ in poller.poll()):
            self.take_waiting()


def _accepted(listening: socket.socket) -> socket.socket | None:
    try:
        return listening.accept()[0]
    except BlockingIOError:
        return None
