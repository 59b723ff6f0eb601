"""A pool whose connections serve one request at a time, also those of HTTP/2.

httpcore2 lets requests share a connection of HTTP/2, and with it the window of the connection
(RFC 9113, section 5.2): two clients that stop reading would stop all the others. And it resets no
stream, so that a request which nobody waits for any more would go on at the upstream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Any

import httpcore2
import httpx2
from h2.events import DataReceived
from h2.exceptions import ProtocolError
from httpx2._transports.default import map_httpcore_exceptions

PATIENCE = 1.0  # seconds for the end of a body of which every byte has come


class Pool(httpcore2.AsyncConnectionPool):
    """As httpcore2's, without proxies."""

    def create_connection(self, origin: httpcore2.Origin) -> httpcore2.AsyncConnectionInterface:
        return Exclusive(
            origin=origin,
            ssl_context=self._ssl_context,
            keepalive_expiry=self._keepalive_expiry,
            http2=self._http2,
            network_backend=self._network_backend,
        )


class Exclusive(httpcore2.AsyncHTTPConnection):
    """Of use for a request while there is no other on it."""

    async def handle_async_request(self, request: httpcore2.Request) -> httpcore2.Response:
        try:
            return await super().handle_async_request(request)
        except BaseException:
            if isinstance(self._connection, httpcore2.AsyncHTTP2Connection):
                await _end(self._connection)
            raise

    def is_available(self) -> bool:
        return self.is_idle() and super().is_available()

    def can_multiplex(self) -> bool:
        return False


class StreamBody(httpx2.AsyncByteStream):
    """The body of an HTTP/2 answer; closed before its end, its connection ends."""

    def __init__(self, pooled: Any) -> None:
        self._pooled = pooled
        stream = pooled._stream  # noqa: SLF001 - that of the connection, in that of the pool
        self._connection: httpcore2.AsyncHTTP2Connection = stream._connection  # noqa: SLF001
        self._request: httpcore2.Request = stream._request  # noqa: SLF001
        self._id: int = stream._stream_id  # noqa: SLF001

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with map_httpcore_exceptions(), _protocol_errors():
            async with aclosing(self._blocks()) as blocks:
                async for block in blocks:
                    yield block

    async def aclose(self) -> None:
        with map_httpcore_exceptions():
            if not await self._ends():
                await _end(self._connection)
            await self._pooled.aclose()

    def _blocks(self) -> Any:
        # Not those of the stream itself, which is closed with whoever stops reading them.
        return self._connection._receive_response_body(self._request, self._id)  # noqa: SLF001

    async def _ends(self) -> bool:
        """Whether all of it has been read, so that nothing of it can come between others."""
        state = self._connection._h2_state.streams.get(self._id)  # noqa: SLF001
        if state is not None and not state.closed and _is_whole(state):
            with suppress(TimeoutError, ProtocolError, httpcore2.NetworkError):
                async with asyncio.timeout(PATIENCE), aclosing(self._blocks()) as blocks:
                    async for _ in blocks:
                        pass
        held = self._connection._events.get(self._id, ())  # noqa: SLF001
        unread = any(isinstance(each, DataReceived) and each.data for each in held)
        return not unread and (state is None or state.closed)


def _is_whole(state: Any) -> bool:
    """Whether a stream of h2 has all bytes that its Content-Length announced."""
    expected = state._expected_content_length  # noqa: SLF001
    return expected is not None and expected == state._actual_content_length  # noqa: SLF001


async def _end(connection: httpcore2.AsyncHTTP2Connection) -> None:
    with suppress(ProtocolError):
        await connection.aclose()


@contextmanager
def _protocol_errors() -> Iterator[None]:
    """Those that httpcore2 lets through, as its own."""
    try:
        yield
    except ProtocolError as error:
        raise httpcore2.RemoteProtocolError(f"{type(error).__name__}: {error}") from error
