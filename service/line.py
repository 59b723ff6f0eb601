"""A response that goes on after its application has returned: no task and no frames wait for it.

Thousands of readers of events would hold tens of kilobytes each if a task stood behind every
one of them, and a new event would have to wake them all. So the server keeps the connection, and
whoever has something to say writes it.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """``data`` as one chunk of a body whose length is not known (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Reader(Protocol):
    """Who writes to a line; both are called in the event loop."""

    def resumed(self) -> None:
        """The client takes bytes again."""
        ...

    def lost(self) -> None:
        """The connection is gone. Called once."""
        ...


class Line:
    """The rest of a response in chunks; ``paused`` while its client does not keep up.

    ``written`` counts its bytes.
    """

    __slots__ = ("_ended", "_transport", "paused", "reader", "written")

    def __init__(self, transport: asyncio.Transport, reader: Reader) -> None:
        self._transport = transport
        self._ended = False
        self.reader = reader
        self.paused = False
        self.written = 0

    def write(self, chunks: bytes) -> None:
        """Send whole chunks. To be called while it is not paused, else they wait in memory."""
        if not self._ended:
            self.written += len(chunks)
            self._transport.write(chunks)

    def end(self) -> None:
        """Say that this was all, and close the connection behind it."""
        if not self._ended:
            self._ended = True
            self._transport.write(LAST_CHUNK)
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection, so that the client sees that this was not all."""
        self._ended = True
        self._transport.abort()
