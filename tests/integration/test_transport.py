"""Bodies as our transport gives them, against httpx2's own, however the network cuts them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn, cast

import h11
import httpcore2
import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.download.network import BLOCK, Backend
from service.download.transport import Body, Transport, trusting
from tests.upstream import Upstream, content, target, upstream

URL = "http://files.example/"
WHOLE = content(400)
TRUST = trusting(None)
CUTS = st.lists(st.integers(1, 600), max_size=40).map(sorted)
EACH_BYTE = list(range(1, 600))
SIZES = (0, 1, 2, 65_535, 65_536, 65_537, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 3)

Outcome = tuple[int, bytes, type[Exception] | None]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Pieces that are not empty: an empty one would be the end."""
    ends = [*places, len(data)]
    return [piece for a, b in zip([0, *ends], ends, strict=False) if (piece := data[a:b])]


async def outcome(transport: httpx2.AsyncHTTPTransport, method: str = "GET") -> Outcome:
    got = bytearray()
    async with (
        httpx2.AsyncClient(transport=transport, trust_env=False) as made,
        made.stream(method, URL) as answered,
    ):
        try:
            async for block in answered.aiter_raw():
                got += block
        except httpx2.HTTPError as error:
            return answered.status_code, bytes(got), type(error)
    return answered.status_code, bytes(got), None


async def both(pieces: list[bytes], method: str = "GET") -> list[Outcome]:
    """What the plain transport makes of the pieces, and what ours does."""
    mocks = [httpcore2.AsyncMockBackend(list(pieces)) for _ in range(2)]
    plain = httpx2.AsyncHTTPTransport(trust_env=False, verify=TRUST)
    plain._pool = httpcore2.AsyncConnectionPool(network_backend=mocks[0])
    ours = Transport(cast(Backend, mocks[1]), TRUST, max_connections=1, http2=False)
    return [await outcome(plain, method), await outcome(ours, method)]


def answer(declared: int, sent: int, *fields: str, status: str = "200 OK") -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {declared}", *fields, "", "")
    return "\r\n".join(lines).encode() + WHOLE[:sent]


@given(st.integers(0, 400), st.integers(0, 400), CUTS, st.sampled_from(["", "Connection: close"]))
@example(0, 0, [], "")
@example(0, 0, EACH_BYTE, "")
@example(0, 7, [], "")
@example(1, 1, [], "")
@example(100, 100, EACH_BYTE, "")
@example(100, 99, EACH_BYTE, "")
@example(100, 101, EACH_BYTE, "")
@example(400, 0, [], "")
@example(7, 400, [], "")
async def test_a_declared_length_however_it_is_cut(
    declared: int, sent: int, places: list[int], field: str
) -> None:
    raw = answer(declared, sent, *filter(None, [field]))
    plain, ours = await both(cut(raw, places))
    assert ours == plain
    early = httpx2.RemoteProtocolError if sent < declared else None
    assert ours == (200, WHOLE[: min(sent, declared)], early)


@given(CUTS, st.sampled_from(["204 No Content", "304 Not Modified"]))
async def test_what_has_no_body(places: list[int], status: str) -> None:
    for method, pieces in (
        ("GET", cut(answer(100, 0, status=status), places)),
        ("HEAD", cut(answer(100, 0), places)),
    ):
        plain, ours = await both(pieces, method)
        assert ours == plain
        assert ours[1:] == (b"", None)


@given(CUTS, st.integers(0, 60))
async def test_chunks_however_they_are_cut(places: list[int], missing: int) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw = head + b"5\r\nabcde\r\n20\r\n" + WHOLE[:32] + b"\r\n0\r\nX: y\r\n\r\n"
    plain, ours = await both(cut(raw[: max(len(raw) - missing, len(head))], places))
    assert ours == plain


@given(CUTS)
async def test_early_hints_come_first(places: list[int]) -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
    plain, ours = await both(cut(hint + answer(100, 100), places))
    assert ours == plain == (200, WHOLE[:100], None)


@asynccontextmanager
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    transport = Transport(Backend(), TRUST, max_connections=1, http2=False)
    async with httpx2.AsyncClient(transport=transport, trust_env=False, timeout=20) as made:
        yield made


async def raw(client: httpx2.AsyncClient, up: Upstream, path: str, method: str = "GET") -> bytes:
    async with client.stream(method, up.base + path) as found:
        return b"".join([block async for block in found.aiter_raw()])


async def test_one_connection_serves_one_body_after_another() -> None:
    with upstream() as up:
        async with client() as made:
            for size in SIZES:
                assert await raw(made, up, target("/file", size=size)) == content(size)
                assert await raw(made, up, target("/file", size=size), "HEAD") == b""
            assert await raw(made, up, target("/file", size=9, pieces="1")) == content(9)
            assert await raw(made, up, target("/file", size=9, framing="chunked")) == content(9)
            assert await raw(made, up, target("/file", status=204)) == b""
        assert {request.connection for request in up.seen} == {0}


@pytest.mark.parametrize("size", [1_000, 1_000_000])
async def test_a_body_that_is_left_costs_its_connection(size: int) -> None:
    with upstream() as up:
        async with client() as made:
            async with made.stream("GET", up.base + target("/file", size=size, stall=500)) as left:
                assert await anext(left.aiter_raw()) == content(500)
            assert await raw(made, up, "/file") == content(1_000)
        assert [request.connection for request in up.seen] == [0, 1]
        assert up.connection(0).closed.wait(20)


class Foreign(httpx2.AsyncByteStream):
    """A stream with the same bytes, and nothing that this project knows of."""

    def __init__(self, found: Any) -> None:
        self._found = found

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for block in self._found:
            yield block

    async def aclose(self) -> None:
        await self._found.aclose()


class Halfway(Foreign):
    """One that has the attribute of httpx2's, but not what should be in it."""

    @property
    def _httpcore_stream(self) -> object:
        return object()


@pytest.fixture
def ordinary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be read past h11."""

    def blocks(body: Body) -> NoReturn:
        raise AssertionError("the body is taken past h11")

    monkeypatch.setattr(Body, "_blocks", blocks)


@pytest.mark.usefixtures("ordinary")
@pytest.mark.parametrize("stream", [Foreign, Halfway])
async def test_the_ordinary_way_where_httpx2_is_another(
    stream: type[Foreign], monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = httpx2.AsyncHTTPTransport.handle_async_request

    async def wrapped(self: httpx2.AsyncHTTPTransport, request: httpx2.Request) -> httpx2.Response:
        response = await handle(self, request)
        response.stream = stream(response.stream)
        return response

    monkeypatch.setattr(httpx2.AsyncHTTPTransport, "handle_async_request", wrapped)
    await passes()


class LengthReader(h11._readers.ContentLengthReader):
    """The same under another name."""


class ContentLengthReader:
    """The same name; it counts what has come, and not what is left."""

    def __init__(self, length: int) -> None:
        self._length, self._come = length, 0

    def __call__(self, buffer: Any) -> Any:
        left = self._length - self._come
        if not left:
            return h11.EndOfMessage()
        data = buffer.maybe_extract_at_most(left)
        if data is None:
            return None
        self._come += len(data)
        return h11.Data(data=data)


@pytest.mark.usefixtures("ordinary")
@pytest.mark.parametrize("reader", [LengthReader, ContentLengthReader])
async def test_the_ordinary_way_where_h11_is_another(
    reader: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = cast(dict[str, Any], h11._readers.READERS[h11.SEND_BODY])
    monkeypatch.setitem(readers, "content-length", reader)
    await passes()


async def passes() -> None:
    with upstream() as up:
        async with client() as made:
            for size in (0, 1_000, 1_000_000):
                assert await raw(made, up, target("/file", size=size)) == content(size)
        assert {request.connection for request in up.seen} == {0}
