"""A client of raw sockets: it can read as little as it likes, and leave as rudely."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

SECONDS = 60  # for any single read
LINGER_0 = struct.pack("ii", 1, 0)  # close() then sends RST (socket(7), SO_LINGER)


class Peer:
    """One connection; ``receive_buffer`` bytes bound what the kernel takes in unread."""

    def __init__(self, base: str, *, receive_buffer: int | None = None) -> None:
        address = urlsplit(base)
        self.host = address.netloc
        self.socket = socket.socket()
        self.socket.settimeout(SECONDS)
        if receive_buffer is not None:
            # Before the connection is made, or the window is already larger (tcp(7)).
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect((address.hostname, address.port))

    def ask(self, path: str, *fields: str) -> None:
        lines = (f"GET {path} HTTP/1.1", f"Host: {self.host}", *fields, "", "")
        self.socket.sendall("\r\n".join(lines).encode())

    def read(self, most: int) -> bytes:
        """What has arrived, waiting for at least one byte; empty at the end."""
        return self.socket.recv(most)

    def read_at_least(self, count: int) -> bytes:
        """``count`` bytes or a little more; fewer if the connection ends."""
        got = bytearray()
        while len(got) < count and (data := self.read(65_536)):
            got += data
        return bytes(got)

    def read_head(self) -> bytes:
        """The response's head, byte by byte so that nothing of the body is taken."""
        head = bytearray()
        while not head.endswith(b"\r\n\r\n") and (data := self.read(1)):
            head += data
        return bytes(head)

    def read_all(self) -> bytes:
        """Everything up to the end of the connection, be it clean or a reset."""
        got = bytearray()
        with contextlib.suppress(ConnectionError):
            while data := self.read(65_536):
                got += data
        return bytes(got)

    def finish(self) -> None:
        """Leave with FIN."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def reset(self) -> None:
        """Leave with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        self.socket.close()


@contextmanager
def connected(base: str, *, receive_buffer: int | None = None) -> Iterator[Peer]:
    peer = Peer(base, receive_buffer=receive_buffer)
    try:
        yield peer
    finally:
        peer.socket.close()
