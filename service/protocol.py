"""HTTP/1.1 connections with the time-outs that uvicorn's own protocol lacks, and files.

httptools is pinned: it always frames a body of unknown length as chunks, so a broken stream is
seen to be broken even by a proxy that speaks HTTP/1.0 to us.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import sys
import termios
from functools import partial
from typing import Any

import orjson
import uuid_utils.compat as uuid_utils
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.errors import PROBLEM_MEDIA_TYPE, problem
from service.file_part import FilePart
from service.file_sender import FileSender
from service.line import Line, Reader
from service.streaming import EXTENSION, ClientLeft

HIGH_WATER = 512 * 1024  # bytes waiting in user space before a sender has to wait
STALL_CHECKS = 4  # looks at a connection per stall time-out
SO_NWRITE = 0x1024  # getsockopt(2) of macOS


class TailraceProtocol(HttpToolsProtocol):
    """Drops a connection whose request head takes too long, or whose client reads nothing.

    ``header_timeout`` and ``stall_timeout`` are seconds; subclasses made by ``with_timeouts``
    set them, since uvicorn makes the instances.
    """

    header_timeout = 10.0
    stall_timeout = 60.0

    _header_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None
    _line: Line | None = None
    _sender: FileSender | None = None
    _unread = _written = 0
    _stalled_checks = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_came()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        line, self._line = self._line, None
        super().connection_lost(exc)
        if line is not None:
            line.reader.lost()

    def send_400_response(self, msg: str) -> None:
        """As uvicorn's, but a problem document, and never in the middle of another response."""
        if self.cycle is None or self.cycle.response_complete:  # type: ignore[redundant-expr]  # None before the first request
            request_id = str(uuid_utils.uuid7())
            title = "The request is not valid HTTP"
            body = orjson.dumps(problem(400, "malformed", title, msg, request_id))
            head = (
                "HTTP/1.1 400 Bad Request",
                f"content-type: {PROBLEM_MEDIA_TYPE}",
                f"content-length: {len(body)}",
                f"x-request-id: {request_id}",
                "cache-control: no-store",
                "connection: close",
                "\r\n",
            )
            self.transport.write("\r\n".join(head).encode() + body)
        self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._header_timer is None:
            self._await_headers()

    def on_headers_complete(self) -> None:
        self._headers_came()
        extensions: dict[str, Any] = {EXTENSION: {"stalled": False}}
        self.scope["extensions"] = extensions
        super().on_headers_complete()
        # When it is called, another request may have come behind this one.
        extensions[EXTENSION]["detach"] = partial(self.detach, self.cycle)
        if self.scheme == "http":  # what is encrypted has to pass through the transport
            extensions[EXTENSION]["send_part"] = partial(self.send_part, self.cycle)
        if self._stall_timer is None:
            self._watch_for_stall()

    def detach(self, cycle: RequestResponseCycle, reader: Reader) -> Line | None:
        """Keep the response open for ``reader`` when the application returns.

        None where the client has left already; ``reader`` is told that, too.
        """
        if cycle.disconnected or self.transport.is_closing():
            reader.lost()
            return None
        # What uvicorn takes for a client that has gone: it neither closes nor complains.
        cycle.disconnected = True
        # All that is left of the request: the connection may live for days.
        cycle.scope = self.scope = {"extensions": {EXTENSION: {}}}  # type: ignore[typeddict-item]
        self.headers = []
        self._only(cycle)
        self._line = Line(self.transport, reader)
        self._line.paused = self.flow.write_paused
        return self._line

    async def send_part(self, cycle: RequestResponseCycle, part: FilePart) -> None:
        """Send a part of a file as if it came in messages of a body whose length is known.

        Raises FileChanged, and ClientLeft.
        """
        if cycle.chunked_encoding or part.left > cycle.expected_content_length:
            raise RuntimeError("Response content longer than Content-Length")
        cycle.expected_content_length -= part.left
        await self._emptied()
        if cycle.disconnected or self.transport.is_closing():
            raise ClientLeft("The client closed the connection.")
        connection = self.transport.get_extra_info("socket")
        self._sender = FileSender(socket.socket(fileno=os.dup(connection.fileno())))
        self._unread, self._written, self._stalled_checks = self._untaken(), 0, 0
        try:
            await self._sender.send(part)
        except BaseException:
            self._sender.abort()
            raise
        finally:
            self._sender.close()
            self._sender = None

    async def _emptied(self) -> None:
        """Wait until the kernel has taken all that was written, so that nothing is overtaken."""
        if not self.transport.is_closing():
            self.transport.set_write_buffer_limits(high=0)
            try:
                await self.flow.drain()
            finally:
                if not self.transport.is_closing():
                    self.transport.set_write_buffer_limits(high=HIGH_WATER)

    def _only(self, cycle: RequestResponseCycle) -> None:
        """Whatever came behind is not answered; reading goes on, to notice when the client leaves."""
        self.cycle = cycle
        self.pipeline.clear()
        self._headers_came()
        self.flow.resume_reading()

    def data_received(self, data: bytes) -> None:
        """What a client sends behind the request of a detached response is not read."""
        if self._line is None:
            super().data_received(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._line is not None:
            self._line.paused = True
            self._written = self._line.written
        self._unread, self._stalled_checks = self._untaken(), 0

    def resume_writing(self) -> None:
        self._stalled_checks = 0
        super().resume_writing()
        if self._line is not None:
            self._line.paused = False
            self._line.reader.resumed()

    def _await_headers(self) -> None:
        self._header_timer = self.loop.call_later(self.header_timeout, self._headers_late)

    def _headers_came(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _headers_late(self) -> None:
        self._header_timer = None
        self.transport.abort()

    def _watch_for_stall(self) -> None:
        delay = self.stall_timeout / STALL_CHECKS
        self._stall_timer = self.loop.call_later(delay, self._check_stall)

    def _check_stall(self) -> None:
        """A client that reads anything at all is slow, not stalled."""
        unread, written = self._untaken(), self._added()
        # Two looks tell what was taken in between where it is known what was added: to a line or
        # from a file, and to others while they are full or all has been said.
        full = self.flow.write_paused or self.transport.is_closing() or self._answered()
        adding = written is None and not full
        written = written or 0
        taken = adding or not unread or unread < self._unread + written - self._written
        self._stalled_checks = 0 if taken else self._stalled_checks + 1
        self._unread, self._written = unread, written
        if self._stalled_checks <= STALL_CHECKS:
            self._watch_for_stall()
            return
        self._stall_timer = None
        self.cycle.scope["extensions"][EXTENSION]["stalled"] = True
        # close() would wait for the buffer that nobody reads.
        self.transport.abort()

    def _added(self) -> int | None:
        """Bytes that the line or the file behind this response has given; None without them."""
        if self._line is not None:
            return self._line.written
        return self._sender.sent if self._sender is not None else None

    def _answered(self) -> bool:
        return self.cycle.response_complete

    def _untaken(self) -> int:
        """Bytes sent that the client's side has not taken: ours, and those in the kernel.

        The kernel holds megabytes, and asks for more only when a third of them is gone.
        """
        return self.transport.get_write_buffer_size() + _in_kernel(
            self.transport.get_extra_info("socket")
        )


def _in_kernel(connection: socket.socket) -> int:
    """Bytes in the send buffer that are not acknowledged."""
    if sys.platform == "linux":
        told = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))  # SIOCOUTQ, tcp(7)
        held = int.from_bytes(told, sys.byteorder)
    else:
        held = connection.getsockopt(socket.SOL_SOCKET, SO_NWRITE)
    return held


def with_timeouts(*, header_timeout: float, stall_timeout: float) -> type[TailraceProtocol]:
    """The protocol class for these time-outs, in seconds."""
    limits = {"header_timeout": header_timeout, "stall_timeout": stall_timeout}
    return type("ConfiguredProtocol", (TailraceProtocol,), limits)
