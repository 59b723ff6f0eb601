"""One connection of the test upstream: blocking calls that see at once when the peer leaves."""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import struct
import termios
from threading import Event, Lock
from typing import NoReturn

from tests.peer import LINGER_0

GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR  # seen without reading (poll(2))
READ = 65_536
RESET_PAUSE = 0.001  # seconds between two looks at what the peer's system has acknowledged


class Left(Exception):
    """The peer has gone, or the server stops."""


class Connection:
    """``closed`` is set once the peer has closed or reset it, or we have reset it.

    ``sent`` counts the bytes that our kernel has taken. One thread serves it; ``interrupt`` is for
    others.
    """

    def __init__(self, number: int, taken: socket.socket) -> None:
        taken.setblocking(False)
        taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = number
        self.closed = Event()
        self.sent = 0
        self._socket = taken
        self._unread = bytearray()
        self._lock = Lock()
        self._interrupted = False

    def __repr__(self) -> str:
        return f"<Connection {self.number}: {self.sent} sent, closed={self.closed.is_set()}>"

    def read_head(self) -> bytes:
        """The head of the next request, with its empty line."""
        while (end := self._unread.find(b"\r\n\r\n")) < 0:
            self._fill()
        return self._take(end + 4)

    def discard(self, count: int) -> None:
        while len(self._unread) < count:
            self._fill()
        self._take(count)

    def send(self, data: bytes) -> None:
        """All of it, in one segment where there is room for it."""
        view = memoryview(data)
        while view:
            self._watch(select.POLLOUT)
            try:
                count = self._socket.send(view)
            except BlockingIOError:
                continue
            except ConnectionError:
                self._leave()
            self.sent += count
            view = view[count:]

    def pause(self, seconds: float) -> None:
        self._watch(0, seconds)

    def wait_left(self) -> NoReturn:
        """Until the peer leaves; what it sends is not read."""
        while True:
            self._watch(0)

    def finish(self) -> NoReturn:
        """FIN, and then wait for the peer's: close() alone may send RST (RFC 9112, section 9.6)."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._leave()
        self.wait_left()

    def reset(self) -> NoReturn:
        """RST, once the peer's system has all that was sent: its send queue would be dropped."""
        while self._unacknowledged():
            self.pause(RESET_PAUSE)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        self.close()
        self._leave()

    def close(self) -> None:
        with self._lock:
            self._socket.close()

    def interrupt(self) -> None:
        """Have its thread leave, whatever it waits for."""
        with self._lock, contextlib.suppress(OSError):
            self._interrupted = True
            self._socket.shutdown(socket.SHUT_RDWR)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._unread[:count])
        del self._unread[:count]
        return taken

    def _fill(self) -> None:
        self._poll(select.POLLIN)
        try:
            data = self._socket.recv(READ)
        except ConnectionError:
            data = b""
        if not data:
            self._leave()
        self._unread += data

    def _watch(self, events: int, seconds: float | None = None) -> None:
        """Until one of the events or the end of the time; raises Left if the peer does."""
        if self._poll(events | select.POLLRDHUP, seconds) & GONE:
            self._leave()

    def _poll(self, events: int, seconds: float | None = None) -> int:
        poller = select.poll()
        poller.register(self._socket, events)
        found = poller.poll(None if seconds is None else seconds * 1000)
        return found[0][1] if found else 0

    def _unacknowledged(self) -> int:
        """Bytes that have been sent and not been acknowledged (SIOCOUTQ of tcp(7))."""
        answer = fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4))
        return int(struct.unpack("i", answer)[0])

    def _leave(self) -> NoReturn:
        if not self._interrupted:
            self.closed.set()
        raise Left
