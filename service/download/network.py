"""Connections to upstreams: to exactly the addresses that were decided on, read in large blocks.

httpcore2's own backend resolves a name by itself, so that another answer could slip in between a
decision and its connection, and reads 64 KiB at once, which costs a third of a relay's speed.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from mmap import mmap
from typing import Any

import httpcore2
from aiohappyeyeballs import AddrInfoType, start_connection

BLOCK = 1024 * 1024  # bytes read at once from one connection
AT_ONCE = 4 * BLOCK  # bytes that all connections share, so that none keeps the others waiting
LEAST = 64 * 1024
HELD = 2 * BLOCK  # bytes that wait for a reader before the upstream has to wait
FALL_BACK = (
    0.25  # seconds until the next address is tried beside one that does not answer (RFC 8305)
)

Resolve = Callable[[str, int], Awaitable[Sequence[AddrInfoType]]]
Decide = Callable[[Sequence[str]], Sequence[str]]


async def resolve(host: str, port: int) -> Sequence[AddrInfoType]:
    """Every address of ``host`` by the system's resolver. Raises OSError."""
    loop = asyncio.get_running_loop()
    try:
        return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label that is empty or too long
        raise OSError(f"{host} is no name: {error}") from error


class Backend(httpcore2.AsyncNetworkBackend):
    """Connects for a pool of httpcore2; ``decide`` says which of the addresses may be used.

    What ``decide`` raises passes through to whoever made the request.
    """

    def __init__(self, decide: Decide | None = None, resolve: Resolve = resolve) -> None:
        self._decide = decide
        self._resolve = resolve
        self._rooms = Rooms()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore2's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Connection:
        del local_address, socket_options
        with _translated(httpcore2.ConnectTimeout, httpcore2.ConnectError):
            async with asyncio.timeout(timeout):
                return await self._connected(await self._addresses(host, port))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _addresses(self, host: str, port: int) -> Sequence[AddrInfoType]:
        found = await self._resolve(host, port)
        if self._decide is not None:
            allowed = self._decide([str(info[4][0]) for info in found])
            found = [info for info in found if info[4][0] in allowed]
        if not found:
            raise OSError(f"{host} has no address to connect to")
        return found

    async def _connected(self, addresses: Sequence[AddrInfoType]) -> Connection:
        loop = asyncio.get_running_loop()
        made = await start_connection(list(addresses), happy_eyeballs_delay=FALL_BACK, loop=loop)
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            inbound = Inbound(self._rooms)
            transport, _ = await loop.create_connection(lambda: inbound, sock=made)
        except BaseException:
            made.close()
            raise
        return Connection(transport, inbound)


class Connection(httpcore2.AsyncNetworkStream):
    """One connection. Durations are seconds, None waits for ever."""

    def __init__(self, transport: asyncio.Transport, inbound: Inbound) -> None:
        self._transport = transport
        self._inbound = inbound

    async def read(
        self,
        max_bytes: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore2's signature
    ) -> bytes:
        """What has come, in blocks larger than ``max_bytes`` too: its callers take any."""
        del max_bytes
        if (held := self._inbound.take()) is not None:
            return held
        with _translated(httpcore2.ReadTimeout, httpcore2.ReadError):
            async with asyncio.timeout(timeout):
                return await self._inbound.read()

    async def write(
        self,
        buffer: bytes,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore2's signature
    ) -> None:
        with _translated(httpcore2.WriteTimeout, httpcore2.WriteError):
            self._require_open()
            self._transport.write(buffer)
            async with asyncio.timeout(timeout):
                await self._inbound.writable.wait()
            self._require_open()

    async def aclose(self) -> None:
        # Not close(), which would wait for the upstream to take what was written.
        self._transport.abort()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore2's signature
    ) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            with _translated(httpcore2.ConnectTimeout, httpcore2.ConnectError):
                if self._inbound.readable:
                    # It would be read as if it had come through TLS, whoever it is from.
                    raise ConnectionResetError("The upstream sent something before TLS.")
                async with asyncio.timeout(timeout):
                    transport = await loop.start_tls(
                        self._transport,
                        self._inbound,
                        ssl_context,
                        server_hostname=server_hostname,
                    )
        except BaseException:
            self._transport.abort()
            raise
        if transport is None:
            raise httpcore2.ConnectError("The upstream closed the connection during TLS.")
        self._inbound.transport = transport
        return Connection(transport, self._inbound)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return self._inbound.readable
        return self._transport.get_extra_info(info)

    def _require_open(self) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError("The upstream has closed the connection.")


class Rooms:
    """Where connections read to, one after the other: smaller parts the more of them there are."""

    def __init__(self) -> None:
        self.open = 0
        # Of whole pages: copies from and to others take up to twice as long.
        self._room = memoryview(mmap(-1, BLOCK))

    def room(self) -> memoryview:
        """Free until the event loop turns to another connection."""
        return self._room[: max(AT_ONCE // max(self.open, 1), LEAST)]


class Inbound(asyncio.BufferedProtocol):
    """What comes in: copied out of a room of all connections, held until it is asked for."""

    def __init__(self, rooms: Rooms) -> None:
        self.transport: asyncio.Transport | None = None
        self.writable = asyncio.Event()
        self.writable.set()
        self._rooms = rooms
        self._room = memoryview(b"")
        self._held: deque[bytes] = deque()
        self._length = 0
        self._ended = False
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def readable(self) -> bool:
        """Whether a read would give something at once, be it the end."""
        return bool(self._held) or self._ended

    def take(self) -> bytes | None:
        """The next block if it is there."""
        if not self._held:
            return None
        block = self._held.popleft()
        self._length -= len(block)
        if self._length < HELD <= self._length + len(block) and self.transport is not None:
            self.transport.resume_reading()
        return block

    async def read(self) -> bytes:
        """The next block, b"" at the end. Raises OSError."""
        while not self.readable:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if (block := self.take()) is not None:
            return block
        if self._failure is not None:
            raise self._failure
        return b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # it is one that reads and writes
        self._rooms.open += 1

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        self._room = self._rooms.room()
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        self._held.append(self._room[:nbytes].tobytes())
        self._length += nbytes
        if self._length >= HELD > self._length - nbytes and self.transport is not None:
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._rooms.open -= 1
        self._end(exc)
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def _end(self, failure: Exception | None) -> None:
        if not self._ended:
            self._ended, self._failure = True, failure
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@contextmanager
def _translated(late: type[Exception], failed: type[Exception]) -> Iterator[None]:
    """A time-out and a failure of the network as httpcore2 calls them."""
    try:
        yield
    except TimeoutError as error:
        raise late(str(error)) from error
    except (OSError, ssl.SSLError) as error:
        raise failed(str(error)) from error
