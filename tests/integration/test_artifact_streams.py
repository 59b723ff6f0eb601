"""Reading artifacts: the bytes that were asked for, framed exactly, or a break."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.artifacts.finished import FinishedFile
from service.artifacts.reading import ArtifactReader
from service.errors import RangeNotSatisfiable, StorageFailed, TailraceError
from service.export.receipt import Outcome
from service.ranges import Span, spans
from service.streaming import Stream
from tests.artifact_files import open_files

MIB = 1024 * 1024


def reader_of(path: Path, data: bytes) -> ArtifactReader:
    path.write_bytes(data)
    return ArtifactReader(os.open(path, os.O_RDONLY))


async def rest(stream: Stream) -> list[bytes]:
    chunks = []
    while (chunk := await stream.read()) is not None:
        assert isinstance(chunk, bytes)
        chunks.append(chunk)
    return chunks


async def sent(stream: Stream) -> bytes:
    """The whole body; the stream is closed."""
    await stream.open()
    chunks = await rest(stream)
    assert await stream.read() is None
    await stream.close()
    return b"".join(chunks)


def bytes_sent(stream: FinishedFile) -> bytes:
    body = asyncio.run(sent(stream))
    assert stream.headers()["Content-Length"] == str(len(body))
    return body


def parts(content_type: str, body: bytes) -> list[tuple[str, str, bytes]]:
    """Type, place and bytes of each part, as Python's own reader of multipart finds them."""
    message = message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    assert message.get_content_type() == "multipart/byteranges"
    assert not message.defects
    return [found(part) for part in message.walk() if part is not message]


def found(part: Message) -> tuple[str, str, bytes]:
    data = part.get_payload(decode=True)
    assert isinstance(data, bytes)
    return part["Content-Type"], part["Content-Range"], data


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts") / "artifact"


@given(
    data=st.binary(min_size=1, max_size=300),
    asked=st.lists(st.tuples(st.integers(0, 320), st.integers(0, 60)), min_size=1, max_size=6),
    chunk_size=st.integers(1, 100),
)
@example(data=b"\r\n--\r\n", asked=[(4, 1), (0, 1)], chunk_size=1)
@example(data=bytes(range(256)), asked=[(200, 55), (0, 0), (10, 3)], chunk_size=256)
def test_spans_are_slices(
    place: Path, data: bytes, asked: list[tuple[int, int]], chunk_size: int
) -> None:
    header = "bytes=" + ",".join(f"{first}-{first + more}" for first, more in asked)
    try:
        wanted = spans(header, len(data))
    except RangeNotSatisfiable:
        return
    assert wanted is not None
    stream = FinishedFile(
        reader_of(place, data), len(data), "text/csv; charset=utf-8", wanted, chunk_size=chunk_size
    )
    body, told = bytes_sent(stream), stream.headers()
    slices = [data[span.first : span.last + 1] for span in wanted]
    places = [f"bytes {span.first}-{span.last}/{len(data)}" for span in wanted]
    assert stream.status == 206
    if len(wanted) == 1:
        assert [(told["Content-Type"], told["Content-Range"], body)] == [
            ("text/csv; charset=utf-8", places[0], slices[0])
        ]
        return
    assert "Content-Range" not in told
    assert parts(told["Content-Type"], body) == [
        ("text/csv; charset=utf-8", *part) for part in zip(places, slices, strict=True)
    ]


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB])
def test_the_whole(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    stream = FinishedFile(reader_of(tmp_path / "a", data), size, "text/csv")
    assert bytes_sent(stream) == data
    assert stream.status == 200
    assert stream.headers() == {
        "Accept-Ranges": "bytes",
        "Content-Type": "text/csv",
        "Content-Length": str(size),
    }


@pytest.mark.parametrize("asked", [None, (Span(0, MIB - 1),), (Span(9, 99), Span(500, MIB - 1))])
async def test_a_file_that_is_cut_meanwhile_breaks_the_stream(
    tmp_path: Path, asked: Sequence[Span] | None
) -> None:
    stream = FinishedFile(reader_of(tmp_path / "a", bytes(MIB)), MIB, "text/csv", asked)
    await stream.open()
    await stream.read()
    os.truncate(tmp_path / "a", 600_000)
    with pytest.raises(StorageFailed, match="shorter"):
        await rest(stream)
    await stream.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("size", [9, 11])
async def test_a_file_of_another_size_is_an_ordinary_error(tmp_path: Path, size: int) -> None:
    stream = FinishedFile(reader_of(tmp_path / "a", bytes(10)), size, "text/csv")
    with pytest.raises(StorageFailed):
        await stream.open()
    await stream.close()


async def test_what_cannot_be_read_is_an_ordinary_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    stream = FinishedFile(ArtifactReader(os.open(tmp_path / "a", os.O_WRONLY)), 1, "text/csv")
    with pytest.raises(StorageFailed, match="Bad file descriptor"):
        await stream.open()
    await stream.close()


async def test_closing_gives_back_the_descriptor_at_any_time(tmp_path: Path) -> None:
    opened = open_files()
    told: list[tuple[Outcome, TailraceError | None]] = []
    for steps in range(4):
        reader = reader_of(tmp_path / "a", bytes(MIB))
        stream = FinishedFile(
            reader, MIB, "text/csv", told=lambda outcome, error: told.append((outcome, error))
        )
        for step in (stream.open, stream.read, stream.read)[:steps]:
            await step()
        await stream.close()
        stream.ended(Outcome.TRUNCATED, None)
    assert told == [(Outcome.TRUNCATED, None)] * 4
    assert open_files() == opened
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closing_does_not_wait_for_a_disk(tmp_path: Path) -> None:
    asyncio.get_running_loop().set_default_executor(pool := ThreadPoolExecutor(1))
    may = threading.Event()
    pool.submit(may.wait, 30)
    stream = FinishedFile(reader_of(tmp_path / "a", bytes(20)), 20, "text/csv", chunk_size=10)
    await stream.open()
    os.truncate(tmp_path / "a", 10)
    await stream.read()
    async with asyncio.timeout(10):
        await stream.close()
    may.set()


async def test_what_memory_holds_needs_no_thread(tmp_path: Path) -> None:
    """And what it does not hold never stops the loop: it waits for a thread."""
    asyncio.get_running_loop().set_default_executor(pool := ThreadPoolExecutor(1))
    may = threading.Event()
    pool.submit(may.wait, 30)
    reader = reader_of(tmp_path / "a", bytes(range(256)))
    assert await reader.read(5, 2) == b"\5\6"
    assert await reader.read(250, 100) == bytes(range(250, 256))
    at_the_end = asyncio.create_task(reader.read(256, 1))
    await asyncio.wait({at_the_end}, timeout=0.05)
    assert not at_the_end.done()
    may.set()
    assert await at_the_end == b""
    reader.close()


async def test_a_descriptor_is_not_closed_under_a_thread(tmp_path: Path) -> None:
    asyncio.get_running_loop().set_default_executor(pool := ThreadPoolExecutor(1))
    may = threading.Event()
    pool.submit(may.wait, 30)
    reader = reader_of(tmp_path / "a", b"x")
    file = reader._file
    reading = asyncio.create_task(reader.read(1, 1))
    await asyncio.wait({reading}, timeout=0.05)
    reading.cancel()
    await asyncio.wait({reading})
    reader.close()
    assert os.fstat(file).st_size == 1
    may.set()
    await asyncio.get_running_loop().run_in_executor(None, int)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)
    reader.close()
    with pytest.raises(StorageFailed):
        reader.size()


async def test_a_cold_file_is_read_whole(tmp_path: Path) -> None:
    data = os.urandom(3 * MIB)
    reader = reader_of(tmp_path / "a", data)
    with (tmp_path / "a").open("rb+") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert await sent(FinishedFile(reader, len(data), "text/csv")) == data
