"""One connection to an upstream: large blocks, what waits for whom, and every way to end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpcore2
import pytest

from service.download.network import BLOCK, HELD, Backend, Connection
from tests.names import Names
from tests.peer import LINGER_0
from tests.upstream import content
from tests.waiting import eventually

SECONDS = 20.0
SHORT = 0.1  # seconds, for what never comes
ASKED = 65_536  # bytes, as httpcore2 asks for
BLOCKED = 20  # looks at a peer that cannot send, before it is taken to wait
LARGE = 16 * 1024 * 1024  # bytes, more than all buffers of the system take
BYTES = content(LARGE)


@dataclass
class Ends:
    """A connection and its other end, a plain socket."""

    connection: Connection
    peer: socket.socket

    @property
    def held(self) -> int:
        return self.connection._inbound._length

    async def read_all(self) -> bytes:
        blocks = []
        while block := await self.connection.read(ASKED, SECONDS):
            blocks.append(block)
        return b"".join(blocks)

    async def read(self, count: int) -> bytes:
        """So many bytes or a little more."""
        got = bytearray()
        while len(got) < count and (block := await self.connection.read(ASKED, SECONDS)):
            got += block
        return bytes(got)

    async def fill(self) -> int:
        """Send for as long as somebody takes it; how many bytes that were."""
        self.peer.setblocking(False)
        sent = blocked = 0
        while blocked < BLOCKED:
            try:
                sent += self.peer.send(BYTES[:ASKED])
                blocked = 0
            except BlockingIOError:
                blocked += 1
            await asyncio.sleep(0.001)
        self.peer.setblocking(True)
        return sent

    def reset(self) -> None:
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        self.peer.close()

    def peer_ends(self) -> bool:
        """Whether the peer has seen the end; what came before it is thrown away."""
        self.peer.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            try:
                while self.peer.recv(ASKED):
                    pass
            except ConnectionResetError:
                return True
            return True
        return False


@asynccontextmanager
async def linked() -> AsyncIterator[Ends]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host, port = listening.getsockname()
        dns = Names()
        dns.serve(host, [host])
        connection = await Backend(None, dns.resolve).connect_tcp(host, port, timeout=SECONDS)
        with listening.accept()[0] as peer:
            peer.settimeout(SECONDS)
            try:
                yield Ends(connection, peer)
            finally:
                await connection.aclose()


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    async with linked() as found:
        yield found


async def test_blocks_are_larger_than_those_asked_for(ends: Ends) -> None:
    sending = asyncio.create_task(asyncio.to_thread(ends.peer.sendall, BYTES))
    got, largest = bytearray(), 0
    while len(got) < LARGE:
        block = await ends.connection.read(ASKED, SECONDS)
        largest = max(largest, len(block))
        got += block
    await sending
    assert got == BYTES
    assert ASKED < largest <= BLOCK


async def test_a_sender_has_to_wait_for_who_reads(ends: Ends) -> None:
    sent = await ends.fill()
    assert HELD <= ends.held < HELD + BLOCK
    assert sent > ends.held  # the rest waits in the buffers of the system
    got = await ends.read(sent)
    assert len(got) == sent
    # And goes on as soon as somebody reads.
    more = await ends.fill()
    assert more >= HELD
    assert len(await ends.read(more)) == more


async def test_what_was_held_comes_before_the_end(ends: Ends) -> None:
    sent = await ends.fill()
    ends.peer.close()
    assert len(await ends.read_all()) == sent
    for _ in range(2):
        assert await ends.connection.read(ASKED, SECONDS) == b""


async def test_the_end_may_come_while_somebody_waits(ends: Ends) -> None:
    reading = asyncio.create_task(ends.connection.read(ASKED, SECONDS))
    await asyncio.sleep(0)
    ends.peer.shutdown(socket.SHUT_WR)
    assert await reading == b""
    assert await ends.connection.read(ASKED, SECONDS) == b""


async def test_a_reset_comes_behind_what_was_sent(ends: Ends) -> None:
    ends.peer.sendall(b"some")
    assert await ends.connection.read(ASKED, SECONDS) == b"some"
    ends.reset()
    for _ in range(2):
        with pytest.raises(httpcore2.ReadError):
            await ends.connection.read(ASKED, SECONDS)


async def test_a_reset_while_nothing_is_read(ends: Ends) -> None:
    """Nobody looks at the connection then: it is seen once there is room again."""
    await ends.fill()
    ends.reset()
    with pytest.raises(httpcore2.ReadError):
        await ends.read_all()


async def test_a_reset_while_somebody_waits(ends: Ends) -> None:
    reading = asyncio.create_task(ends.connection.read(ASKED, SECONDS))
    await asyncio.sleep(0)
    ends.reset()
    with pytest.raises(httpcore2.ReadError):
        await reading


async def test_a_read_that_was_given_up_loses_nothing(ends: Ends) -> None:
    with pytest.raises(httpcore2.ReadTimeout):
        await ends.connection.read(ASKED, SHORT)
    cancelled = asyncio.create_task(ends.connection.read(ASKED, SECONDS))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    ends.peer.sendall(b"late")
    assert await ends.connection.read(ASKED, SECONDS) == b"late"


async def test_tells_whether_there_is_something_to_read(ends: Ends) -> None:
    """httpcore2 takes an idle connection that is readable for a closed one."""

    async def readable() -> object:
        return ends.connection.get_extra_info("is_readable")

    assert not await readable()
    ends.peer.sendall(b"x")
    await eventually(readable, within=SECONDS, what="bytes have come")
    await ends.connection.read(ASKED, SECONDS)
    assert not await readable()
    ends.peer.shutdown(socket.SHUT_WR)
    await eventually(readable, within=SECONDS, what="the end has come")


async def test_a_writer_has_to_wait_for_who_reads(ends: Ends) -> None:
    with pytest.raises(httpcore2.WriteTimeout):
        await ends.connection.write(BYTES, SHORT)
    reading = asyncio.create_task(asyncio.to_thread(received, ends.peer, LARGE + 4))
    await ends.connection.write(b"more", SECONDS)
    assert await reading == BYTES + b"more"


async def test_writing_to_who_has_left(ends: Ends) -> None:
    ends.reset()
    with pytest.raises(httpcore2.ReadError):
        await ends.connection.read(ASKED, SECONDS)
    with pytest.raises(httpcore2.WriteError):
        await ends.connection.write(b"x", SECONDS)


async def test_a_writer_that_waits_learns_that_the_peer_has_left(ends: Ends) -> None:
    writing = asyncio.create_task(ends.connection.write(BYTES, SECONDS))
    await asyncio.sleep(0)
    ends.reset()
    with pytest.raises(httpcore2.WriteError):
        await writing


@pytest.mark.parametrize("unread", [0, 10, LARGE])
async def test_closing_frees_the_socket_at_once(unread: int, ends: Ends) -> None:
    """Whatever is on its way in or out."""
    if unread:
        await ends.fill()
        with contextlib.suppress(httpcore2.WriteTimeout):
            await ends.connection.write(BYTES[:unread], SHORT)
    await ends.connection.aclose()

    async def left() -> bool:
        return ends.peer_ends()

    await eventually(left, within=SECONDS, what="the peer sees the end")
    with contextlib.suppress(httpcore2.ReadError):
        await ends.read_all()
    await ends.connection.aclose()


async def test_pieces_keep_their_order(ends: Ends) -> None:
    sizes = [1, 2, 3, 65_535, 65_536, 65_537, BLOCK - 1, BLOCK, BLOCK + 1, 7]

    def send() -> None:
        place = 0
        for size in sizes:
            ends.peer.sendall(content(sum(sizes))[place : place + size])
            place += size
        ends.peer.shutdown(socket.SHUT_WR)

    sending = asyncio.create_task(asyncio.to_thread(send))
    assert await ends.read_all() == content(sum(sizes))
    await sending


def received(peer: socket.socket, count: int) -> bytes:
    got = bytearray()
    while len(got) < count and (data := peer.recv(ASKED)):
        got += data
    return bytes(got)
