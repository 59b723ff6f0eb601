"""The blocks in which a relay hands its bytes to the server: framing hides them on the wire."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from service.download.relay import Manner, RelayStream
from service.download.transport import trusting
from service.download.upstream import configured_upstream
from service.errors import StreamBroken
from service.jobs.model import Kind, Record
from service.jobs.telling import Telling
from service.settings import UpstreamSettings
from service.streaming import ActiveStreams, StreamResponse
from tests.exporting import ignored
from tests.upstream import Upstream, content, lines, target, upstream

SIZE = 100_000
ODD = ("65536", "1", "4095,2", "4096", "4097,1,8191", "99999", "7,70000")
MAX_LINE = 50_000


@pytest.fixture(scope="module")
def up() -> Iterator[Upstream]:
    with upstream() as found:
        yield found


@asynccontextmanager
async def opened(up: Upstream, path: str, manner: Manner) -> AsyncIterator[RelayStream]:
    settings = UpstreamSettings(base_url=f"{up.base}/")
    route, through = configured_upstream("plain", settings, trusting(None))
    name, _, query = path.removeprefix("/").partition("?")
    record = Record(
        id="x", kind=Kind.RELAY, owner="x", dataset=None, source="plain", lane=None, format=None,
        compression=None, profile=None, request={}, created_at=datetime.now(UTC),
    )  # fmt: skip
    asked = route.asked("GET", name, query, [("accept-encoding", "identity")])
    telling = Telling(record, None, ignored, 0.0)
    try:
        yield RelayStream(through, asked, manner, telling, path=name, announced={}, query_sha256="")
    finally:
        await through.close()


async def sent(stream: RelayStream) -> list[Any]:
    """The messages of the whole response."""
    messages: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()  # as a server whose client stays

    async def send(message: Any) -> None:
        messages.append(message)

    response = StreamResponse(stream, ActiveStreams(), headers={}, max_duration=30)
    try:
        await response({"type": "http"}, receive, send)
    except StreamBroken:
        messages.append(None)
    return messages


def blocks(messages: Sequence[Any]) -> list[bytes]:
    """The bodies that are not empty; the last message is the end, or None if it broke."""
    return [message["body"] for message in messages[1:] if message and message["body"]]


@pytest.mark.parametrize("size", [4096, 4097, 50_000, SIZE, SIZE + 1])
@pytest.mark.parametrize("pieces", ODD)
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_blocks_are_of_exactly_the_size(
    up: Upstream, framing: str, pieces: str, size: int
) -> None:
    wanted = "64,65472" if pieces == "1" else pieces  # so many single bytes take too long
    path = target("/file", size=SIZE, pieces=wanted, framing=framing)
    async with opened(up, path, Manner(chunk_size=size)) as stream:
        messages = await sent(stream)
    found = blocks(messages)
    assert [len(block) for block in found[:-1]] == [size] * (SIZE // size - (SIZE % size == 0))
    assert len(found[-1]) == (SIZE % size or size)
    assert b"".join(found) == content(SIZE)
    assert messages[-1]["more_body"] is False
    assert [message["more_body"] for message in messages[1:-1]] == [True] * (len(messages) - 2)
    receipt = stream.telling.record.receipt
    assert receipt is not None
    assert receipt["sha256"] == hashlib.sha256(content(SIZE)).hexdigest()


async def test_single_bytes_make_whole_blocks(up: Upstream) -> None:
    path = target("/file", size=9_000, pieces="1", framing="chunked")
    async with opened(up, path, Manner(chunk_size=4096)) as stream:
        assert [len(block) for block in blocks(await sent(stream))] == [4096, 4096, 808]


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_an_empty_body_has_no_block(up: Upstream, framing: str) -> None:
    async with opened(
        up, target("/file", size=0, framing=framing), Manner(chunk_size=4096)
    ) as stream:
        messages = await sent(stream)
    assert blocks(messages) == []
    assert messages[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_what_breaks_ends_in_whole_blocks(up: Upstream) -> None:
    """What is held when it breaks is not sent: the client gets blocks of the size alone."""
    path = target("/file", size=SIZE, cut=50_000)
    async with opened(up, path, Manner(chunk_size=4096)) as stream:
        messages = await sent(stream)
    assert messages[-1] is None
    assert [len(block) for block in blocks(messages)] == [4096] * 12


@pytest.mark.parametrize("pieces", ODD)
@pytest.mark.parametrize(
    ("wanted", "bad"),
    [
        ({}, []),
        ({"malformed": "3,17"}, [3, 17]),
        ({"overlong": "5", "width": MAX_LINE}, [5]),
    ],
    ids=["all", "malformed", "overlong"],
)
async def test_lines_end_every_block(
    up: Upstream, wanted: dict[str, Any], bad: list[int], pieces: str
) -> None:
    manner = Manner(lines=True, skip=True, max_line=MAX_LINE)
    path = target("/lines", n=60, pieces=pieces, **wanted)
    async with opened(up, path, manner) as stream:
        found = blocks(await sent(stream))
    assert all(block.endswith(b"\n") for block in found)
    expected = [line for number, line in enumerate(lines(60)) if number not in bad]
    assert b"".join(found) == b"".join(expected)
    receipt = stream.telling.record.receipt
    assert receipt is not None
    assert receipt["rows"] == len(expected)
    assert receipt["download"]["skipped_lines"] == len(bad)


@pytest.mark.parametrize("pieces", ODD)
async def test_a_bad_line_breaks_at_the_same_place_whatever_the_pieces(
    up: Upstream, pieces: str
) -> None:
    manner = Manner(lines=True, skip=False, max_line=MAX_LINE)
    async with opened(up, target("/lines", n=60, malformed=40, pieces=pieces), manner) as stream:
        messages = await sent(stream)
    assert messages[-1] is None
    assert b"".join(blocks(messages)) == b"".join(lines(40))


async def test_lines_in_blocks_of_one_size(up: Upstream) -> None:
    manner = Manner(chunk_size=4096, lines=True, max_line=MAX_LINE)
    async with opened(up, target("/lines", n=60, pieces="61,1021"), manner) as stream:
        found = blocks(await sent(stream))
    assert {len(block) for block in found[:-1]} == {4096}
    assert b"".join(found) == b"".join(lines(60))
