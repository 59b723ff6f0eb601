"""Bytes behind the end of an answer: never read as the answer to the next request."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from service.download.network import Backend
from service.download.transport import Transport, trusting
from tests.upstream import Upstream, content, target, upstream

SIZES = (10, 1_000, 300_000)


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    transport = Transport(Backend(), trusting(None), max_connections=1, http2=False)
    async with httpx2.AsyncClient(transport=transport, trust_env=False) as made:
        yield made


async def fetched(client: httpx2.AsyncClient, url: str) -> bytes:
    async with client.stream("GET", url) as answer:
        return b"".join([block async for block in answer.aiter_raw()])


def connections(server: Upstream) -> list[int]:
    return [request.connection for request in server.seen]


@pytest.mark.parametrize("size", SIZES)
async def test_a_connection_with_surplus_bytes_is_not_used_again(
    client: httpx2.AsyncClient, size: int
) -> None:
    with upstream() as server:
        more = server.base + target("/file", size=size, long=7)
        assert await fetched(client, more) == content(size)[: size - 7]
        assert await fetched(client, server.base + target("/file", size=5)) == content(5)
        first, second = connections(server)
        assert first != second


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", SIZES)
async def test_a_connection_without_them_is(
    client: httpx2.AsyncClient, size: int, framing: str
) -> None:
    with upstream() as server:
        url = server.base + target("/file", size=size, framing=framing)
        assert [await fetched(client, url) for _ in range(3)] == [content(size)] * 3
        assert len({*connections(server)}) == 1
