"""In which pieces a stream leaves: of one size while rows flow, at once where they pause."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import zstandard
from fastapi import FastAPI
from starlette.types import Message

from service.app import create_app
from service.configuration import load
from service.errors import StreamBroken
from tests.curl import downloading
from tests.peer import connected
from tests.serving import Served, without_worker
from tests.session import Session, gated, session
from tests.waiting import wait_until

PAUSES = (60, 400, 700, 1_000, 1_300)  # rows of a kilobyte before a query pauses
UNSENT = 16  # rows: what the server itself still holds in its 8 KiB
AFTER = 10
ROWS = 60_000
FAST = f"""
[datasets.fast]
sql = '''
    select i as id, md5(i::text) as word from (select generate_series(1, {ROWS}) as i) s
'''
[datasets.broken]
sql = '''
    select i as id, md5(i::text) as word, 1 / ({ROWS} - i) as quotient
    from (select generate_series(1, {ROWS}) as i) s
'''
"""
PAUSING = "".join(
    f"[datasets.pausing_{rows}]\nsql = '''{gated(rows, AFTER)}'''\n" for rows in PAUSES
)


@pytest.fixture
async def app(database_url: str, tmp_path: Path) -> AsyncIterator[FastAPI]:
    """The whole application, without a server around it."""
    file = tmp_path / "tailrace.toml"
    file.write_text(FAST)
    # Rows that come late are no pause here.
    made = create_app(load(file, {}, {"limits.flush_interval": "60s"}), database_url)
    async with made.router.lifespan_context(made):
        yield made


@dataclass(slots=True)
class Exchange:
    """One request, as an ASGI server would carry it: ``turns`` counts those of the event loop."""

    messages: list[Message] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    _asked: bool = False
    _turn: int = 0

    async def run(self, app: FastAPI, path: str, query: str = "") -> None:
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 50_000),
            "root_path": "",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(b"host", b"127.0.0.1")],
            "state": {},
        }
        counting = asyncio.create_task(self._count())
        try:
            await app(scope, self._receive, self._send)
        finally:
            counting.cancel()

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def bodies(self) -> list[bytes]:
        return [message["body"] for message in self.messages[1:]]

    async def _receive(self) -> Message:
        if self._asked:
            await asyncio.Event().wait()  # the client stays
        self._asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: Message) -> None:
        """Takes everything at once, as a socket with room does: it never waits."""
        self.messages.append(message)
        self.turns.append(self._turn)

    async def _count(self) -> None:
        while True:
            self._turn += 1
            await asyncio.sleep(0)


@pytest.mark.parametrize("size", [4096, 100_001, 262_144, 8 * 1024 * 1024])
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("form", ["csv", "ndjson", "json"])
async def test_chunks_are_of_exactly_one_size(
    app: FastAPI, form: str, compression: str, size: int
) -> None:
    exchange = Exchange()
    query = f"compression={compression}&chunk_size={size}"
    await exchange.run(app, f"/v1/rows/fast.{form}", query)
    *chunks, end = exchange.bodies
    assert {len(chunk) for chunk in chunks[:-1]} <= {size}
    assert 0 < len(chunks[-1]) <= size
    assert end == b""
    assert [message["more_body"] for message in exchange.messages[1:]] == [True] * len(chunks) + [
        False
    ]
    record = await app.state.service.recorder.get(exchange.headers["x-export-id"])
    assert record.receipt["bytes"] == sum(map(len, chunks))
    assert record.receipt["sha256"] == hashlib.sha256(b"".join(chunks)).hexdigest()


async def test_the_event_loop_turns_between_two_chunks(app: FastAPI) -> None:
    """Though neither a full pipe nor a socket with room makes the stream wait."""
    exchange = Exchange()
    await exchange.run(app, "/v1/rows/fast.csv", "chunk_size=4096")
    chunks = exchange.turns[1:-1]
    assert len(chunks) > 500
    assert all(later > earlier for earlier, later in pairwise(chunks))


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
async def test_a_broken_stream_has_no_last_message(
    app: FastAPI, database_url: str, compression: str
) -> None:
    exchange = Exchange()
    with pytest.raises(StreamBroken):
        await exchange.run(app, "/v1/rows/broken.csv", f"compression={compression}")
    assert exchange.messages[0]["status"] == 200
    assert all(message["more_body"] for message in exchange.messages[1:])


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with without_worker(
        folder, module_database_url, config=FAST + PAUSING, limits__prime_timeout="60s"
    ) as found:
        yield found


def readable(data: bytes, compression: str) -> bytes:
    """What a reader can make of a file so far."""
    if compression == "gzip":
        return zlib.decompressobj(wbits=31).decompress(data)
    if compression == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def assert_rows_leave_before_the_pause(
    served: Served, database: Session, folder: Path, target: str, coding: str
) -> None:
    """``target`` is ``pausing_<rows>.<format>`` with a query."""
    rows = int(target.partition("_")[2].partition(".")[0])
    header = ".csv" in target
    # A transfer is coded only if the file itself is not compressed.
    options = ("-H", f"Accept-Encoding: {coding}")

    def lines() -> int:
        return readable(found.body, coding).count(b"\n") - header

    database.close_gate()
    with downloading(f"{served.base}/v1/rows/{target}", folder, *options) as found:
        what = f"{rows} rows are there while the query pauses"
        wait_until(lambda: lines() >= rows - UNSENT, within=30, what=what)
        assert database.exporting() == 1
        database.open_gate()
        assert found.exit_code() == 0
    assert lines() == rows + AFTER


@pytest.mark.parametrize("rows", PAUSES)
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_rows_leave_while_the_query_pauses(
    served: Served, database: Session, tmp_path: Path, compression: str, rows: int
) -> None:
    """Wherever the pause falls between the blocks that pass the stages."""
    target = f"pausing_{rows}.csv?compression={compression}"
    assert_rows_leave_before_the_pause(served, database, tmp_path, target, compression)


@pytest.mark.parametrize("coding", ["identity", "gzip", "zstd"])
@pytest.mark.parametrize("form", ["ndjson", "json"])
def test_rows_leave_in_every_format_and_coding(
    served: Served, database: Session, tmp_path: Path, form: str, coding: str
) -> None:
    target = f"pausing_{PAUSES[1]}.{form}"
    assert_rows_leave_before_the_pause(served, database, tmp_path, target, coding)


def test_a_large_chunk_size_holds_nothing_back(
    served: Served, database: Session, tmp_path: Path
) -> None:
    target = f"pausing_{PAUSES[-1]}.csv?chunk_size={8 * 1024 * 1024}"
    assert_rows_leave_before_the_pause(served, database, tmp_path, target, "identity")


@pytest.mark.parametrize("size", [4096, 65_536])
def test_the_chunks_on_the_wire_are_those_of_the_stream(served: Served, size: int) -> None:
    with connected(served.base) as peer:
        peer.ask(f"/v1/rows/fast.csv?chunk_size={size}", "Connection: close")
        peer.read_head()
        sizes = list(chunk_sizes(peer.read_all()))
    assert sizes[-1] == 0
    assert len(sizes) > 10
    # All but the last, as long as the database delivers without a pause.
    assert max(sizes) == size
    assert sizes.count(size) > len(sizes) // 2


def chunk_sizes(wire: bytes) -> Iterator[int]:
    """The sizes of the chunks of a body (RFC 9112, section 7.1)."""
    start = 0
    while start < len(wire):
        line_end = wire.index(b"\r\n", start)
        size = int(wire[start:line_end], 16)
        start = line_end + 2 + size
        assert wire[start : start + 2] == b"\r\n"
        start += 2
        yield size
