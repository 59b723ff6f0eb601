"""Connections on which files are sent: used again, pipelined, many at once, given back."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.clients import stalled
from tests.peer import connected
from tests.serving import Served
from tests.waiting import wait_until
from tests.wire.shared_files import LARGE, SMALL, put, sharing

MIDDLE = os.urandom(300_000)
LONG = os.urandom(7_000_000)
FILES = {"small.csv": SMALL, "middle.bin": MIDDLE, "large.bin": LARGE, "empty.txt": b""}
MANY = 100
ENDLESS = 1 << 30  # bytes, more than every buffer holds
SMALL_BUFFER = 4096  # bytes; the kernel doubles it


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    for path, data in FILES.items():
        put(folder / path, data)
    put(folder / "long.bin", LONG)
    with (folder / "endless").open("wb") as sparse:
        sparse.truncate(ENDLESS)
    return folder


@pytest.fixture(scope="module")
def served(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory, root: Path
) -> Iterator[Served]:
    with sharing(tmp_path_factory.mktemp("served"), module_database_url, root) as found:
        yield found


def descriptors(served: Served) -> int:
    return int(psutil.Process(served.process.pid).num_fds())


def test_a_connection_is_used_again(served: Served) -> None:
    connection = http.client.HTTPConnection(urlsplit(served.base).netloc, timeout=60)
    with closing(connection):
        connection.connect()
        before = connection.sock
        for path in [*FILES, *reversed(FILES)]:
            for query in ("", "?chunk_size=4096"):
                connection.request("GET", f"/v1/files/files/{path}{query}")
                response = connection.getresponse()
                assert (response.status, response.read()) == (200, FILES[path])
        assert connection.sock is before


def test_requests_that_come_at_once_are_answered_in_order(served: Served) -> None:
    paths = ["large.bin", "small.csv", "large.bin", "empty.txt", "middle.bin", "large.bin"]
    with connected(served.base) as peer:
        for path in paths[:-1]:
            peer.ask(f"/v1/files/files/{path}")
        peer.ask(f"/v1/files/files/{paths[-1]}", "Connection: close")
        everything = peer.read_all()
    for path in paths:
        head, _, behind = everything.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        body, everything = behind[: len(FILES[path])], behind[len(FILES[path]) :]
        assert body == FILES[path]
    assert everything == b""


def test_a_file_overtakes_nothing(served: Served) -> None:
    """What was said before it may still wait in the server, where the kernel takes no more."""
    before = len(served.events("stream started"))
    asked = range(1_000_000, 7_000_000, 400_000)  # some end between that and our own buffer
    with ExitStack() as stack:
        peers = []
        for size in asked:
            peer = stack.enter_context(connected(served.base, receive_buffer=SMALL_BUFFER))
            peer.ask("/v1/files/files/long.bin?chunk_size=8388608", f"Range: bytes=0-{size - 1}")
            peer.ask("/v1/files/files/large.bin", "Connection: close")
            peers.append(peer)
        wait_until(
            lambda: len(served.events("stream started")) > before + len(peers) + 1,
            within=30,
            what="large files wait behind what is in the server",
        )
        for size, peer in zip(asked, peers, strict=True):
            answers = peer.read_all()
            assert answers.endswith(b"\r\n\r\n" + LARGE)
            assert b"\r\n\r\n" + LONG[:size] + b"HTTP/1.1 200 OK\r\n" in answers


def test_http_1_0_ends_with_the_file(served: Served) -> None:
    with connected(served.base) as peer:
        peer.socket.sendall(b"GET /v1/files/files/large.bin HTTP/1.0\r\nHost: a\r\n\r\n")
        head, _, body = peer.read_all().partition(b"\r\n\r\n")
    assert f"content-length: {len(LARGE)}".encode() in head
    assert body == LARGE


async def sha256_of(base: str, path: str) -> str:
    address = urlsplit(base)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    line = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    writer.write(line.encode())
    await reader.readuntil(b"\r\n\r\n")
    digest = hashlib.sha256()
    while data := await reader.read(65_536):
        digest.update(data)
    writer.close()
    await writer.wait_closed()
    return digest.hexdigest()


@pytest.mark.parametrize("query", ["", "?chunk_size=65536"])
async def test_many_at_once_are_whole_while_others_are_answered(served: Served, query: str) -> None:
    expected = hashlib.sha256(LARGE).hexdigest()
    path = f"/v1/files/files/large.bin{query}"
    downloads = [asyncio.create_task(sha256_of(served.base, path)) for _ in range(MANY)]
    alive, lives = await sha256_of(served.base, "/livez"), 0
    while not all(one.done() for one in downloads):
        assert await sha256_of(served.base, "/livez") == alive
        lives += 1
    assert {one.result() for one in downloads} == {expected}
    assert lives > 0


@pytest.mark.parametrize("query", ["", "?chunk_size=65536", "?receipt=1"])
@pytest.mark.parametrize("fields", [{}, {"Range": "bytes=0-99999999,200000000-"}])
def test_who_leaves_holds_no_descriptor(served: Served, query: str, fields: dict[str, str]) -> None:
    wait_until(lambda: served.get("/v1/status")["streams"] == 0, within=30, what="it is quiet")
    served.get("/v1/exports?kind=file")
    before = descriptors(served)
    for _ in range(5):
        with stalled(served.base, f"/v1/files/files/endless{query}", fields):
            assert descriptors(served) > before
            assert served.get("/v1/status")["roots"]["files"]["slots"]["taken"] == 1
    wait_until(lambda: served.get("/v1/status")["streams"] == 0, within=10, what="streams end")
    # A connection to the database may have been opened meanwhile, and none per download.
    wait_until(lambda: descriptors(served) <= before + 2, within=10, what="descriptors are back")
    ended = served.events("stream ended")[-5:]
    assert {(one["outcome"], one["error"]) for one in ended} == {
        ("truncated", "The client closed the connection.")
    }
