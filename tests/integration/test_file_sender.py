"""Parts of files past the event loop: the very bytes, no thread held, nothing left open."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service.errors import FileChanged
from service.file_part import FilePart, SourceFile, Threads
from service.file_sender import BURST, LEAST, MOST, FileSender
from service.streaming import ClientLeft
from tests.artifact_files import open_files
from tests.waiting import eventually, wait_until

SIZE = 3 * BURST + 1
DATA = os.urandom(SIZE)
SECONDS = 10


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "file"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def threads() -> Iterator[Threads]:
    """A single thread: whoever holds it keeps all others waiting."""
    pool = Threads(1, "files")
    yield pool
    pool.close()


def source(
    path: Path, threads: Threads, unchanged: Callable[[], bool] = lambda: True
) -> SourceFile:
    return SourceFile(os.open(path, os.O_RDONLY), unchanged, threads)


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection, neither of which blocks."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        server, _ = listening.accept()
    with client, server:
        client.setblocking(False)
        server.setblocking(False)
        yield server, client


async def received(client: socket.socket, most: int) -> bytes:
    got = bytearray()
    loop = asyncio.get_running_loop()
    while len(got) < most and (data := await loop.sock_recv(client, 1 << 20)):
        got += data
    return bytes(got)


@pytest.mark.parametrize(
    ("first", "length"),
    [
        *((0, 0), (0, 1), (SIZE - 1, 1), (0, SIZE), (1, SIZE - 1), (0, BURST), (7, BURST + 1)),
        *((0, MOST), (0, MOST - 1), (3, MOST + 1), (5, LEAST), (5, LEAST + 1), (5, LEAST - 1)),
    ],
)
async def test_a_part_is_that_part(path: Path, threads: Threads, first: int, length: int) -> None:
    file = source(path, threads)
    async with pair() as (server, client):
        sender, part = FileSender(server.dup()), FilePart(file, first, length)
        reading = asyncio.create_task(received(client, length))
        await sender.send(part)
        sender.close()
        assert await reading == DATA[first : first + length]
        assert (part.done, part.left, sender.sent) == (length, 0, length)
    file.close()


async def test_a_client_that_does_not_read_holds_no_thread(path: Path, threads: Threads) -> None:
    file = source(path, threads)
    async with pair() as (server, client), pair() as (other, reader):
        first = FileSender(server.dup())
        stuck = asyncio.create_task(first.send(FilePart(file, 0, SIZE)))
        second = FileSender(other.dup())
        async with asyncio.timeout(SECONDS):
            reading = asyncio.create_task(received(reader, SIZE))
            await second.send(FilePart(file, 0, SIZE))
            assert await reading == DATA
        assert not stuck.done()
        assert await received(client, SIZE) == DATA
        await stuck
        first.close()
        second.close()
    file.close()


class Greedy(socket.socket):
    """A connection that takes whatever it is given; a real one is full now and then."""

    def send(self, data: memoryview) -> int:  # type: ignore[override]  # all that it is given
        return len(data)


async def test_a_fast_client_gives_way_to_others(path: Path, threads: Threads) -> None:
    """It keeps the only thread for as long as nobody else wants it."""

    def look() -> bool:
        wait_until(lambda: threads.wanted or part.done >= BURST, within=SECONDS, what="others")
        return True

    file = source(path, threads, look)
    part = FilePart(file, 0, SIZE)
    async with pair() as (server, _):
        sender = FileSender(Greedy(fileno=server.dup().detach()))
        sending = asyncio.create_task(sender.send(part))
        await asyncio.sleep(0)
        assert BURST <= await threads.start(lambda: part.done) < BURST + MOST
        await sending
        sender.close()
    assert part.done == SIZE
    file.close()


async def test_nothing_leaves_that_was_read_after_a_change(path: Path, threads: Threads) -> None:
    """Each block is asked for between its reading and its sending."""
    looks = iter([True, True, False])
    file = source(path, threads, lambda: next(looks))
    async with pair() as (server, client):
        sender, part = FileSender(server.dup()), FilePart(file, 0, SIZE)
        reading = asyncio.create_task(received(client, SIZE))
        with pytest.raises(FileChanged):
            await sender.send(part)
        sender.abort()
        assert await reading == DATA[: part.done]
        assert part.done <= 2 * MOST
    file.close()


async def test_a_file_that_is_too_short_has_changed(tmp_path: Path, threads: Threads) -> None:
    (tmp_path / "short").write_bytes(b"12345")
    file = source(tmp_path / "short", threads)
    async with pair() as (server, _):
        sender = FileSender(server.dup())
        with pytest.raises(FileChanged):
            await sender.send(FilePart(file, 0, 6))
        sender.close()
    with pytest.raises(FileChanged):
        await FilePart(file, 3, 3).block(3)
    file.close()


async def test_a_client_that_leaves_is_noticed(path: Path, threads: Threads) -> None:
    file = source(path, threads)
    async with pair() as (server, client):
        sender = FileSender(server.dup())
        sending = asyncio.create_task(sender.send(FilePart(file, 0, SIZE)))
        await received(client, 1)
        client.close()
        with pytest.raises(ClientLeft):
            await sending
        sender.abort()
    file.close()


async def test_who_is_cancelled_waits_for_no_disk(path: Path, threads: Threads) -> None:
    """The client sees the end at once; descriptors are closed once the thread is back."""
    before, reads, may = open_files(), threading.Event(), threading.Event()

    def look() -> bool:
        reads.set()
        return may.wait(SECONDS)

    file = source(path, threads, look)
    async with pair() as (server, client):
        connection = server.dup()
        sender = FileSender(connection)
        sending = asyncio.create_task(sender.send(FilePart(file, 0, SIZE)))
        await asyncio.to_thread(reads.wait, SECONDS)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        sender.abort()
        file.close()
        assert await received(client, 1) == b""
        assert connection.fileno() >= 0
        may.set()
        await eventually(lambda: closed(connection), within=SECONDS, what="it is closed")
    assert open_files() == before


async def closed(connection: socket.socket) -> bool:
    return connection.fileno() < 0
