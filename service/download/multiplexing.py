"""Streams of HTTP/2 that nobody wants any more: their upstream is told so, and gets its window back.

httpcore2 forgets a stream that is closed early and says nothing: the upstream goes on sending,
and what it sends counts against the window of the connection (RFC 9113, section 5.2) until no
other stream gets anything either.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Any

import httpcore2
import httpx2
from h2.errors import ErrorCodes
from h2.events import DataReceived
from h2.exceptions import ProtocolError
from httpx2._transports.default import map_httpcore_exceptions


class StreamBody(httpx2.AsyncByteStream):
    """The body of an HTTP/2 answer; closed early it is reset, and the others go on."""

    def __init__(self, pooled: Any) -> None:
        self._pooled = pooled
        stream = pooled._stream  # noqa: SLF001 - that of the connection, in that of the pool
        self._connection: httpcore2.AsyncHTTP2Connection = stream._connection  # noqa: SLF001
        self._request: httpcore2.Request = stream._request  # noqa: SLF001
        self._id: int = stream._stream_id  # noqa: SLF001

    async def __aiter__(self) -> AsyncIterator[bytes]:
        # Not through the stream itself, which forgets on its way out what had come.
        made = self._connection._receive_response_body(self._request, self._id)  # noqa: SLF001
        with map_httpcore_exceptions(), _protocol_errors():
            async with aclosing(made) as blocks:
                async for block in blocks:
                    yield block

    async def aclose(self) -> None:
        held = self._connection._events.get(self._id, ())  # noqa: SLF001
        unread = sum(each.flow_controlled_length for each in held if isinstance(each, DataReceived))
        with map_httpcore_exceptions():
            with suppress(ProtocolError):
                state = self._connection._h2_state  # noqa: SLF001
                state.acknowledge_received_data(unread, self._id)
            await self._pooled.aclose()
            await reset_forgotten(self._connection)


async def reset_forgotten(connection: httpcore2.AsyncHTTP2Connection) -> None:
    """Tell the upstream of every stream that is open there and not wanted here."""
    state = connection._h2_state  # noqa: SLF001
    wanted = connection._events  # noqa: SLF001
    with suppress(ProtocolError, httpcore2.NetworkError):
        for number, stream in list(state.streams.items()):
            if number not in wanted and not stream.closed:
                state.reset_stream(number, ErrorCodes.CANCEL)
        async with connection._write_lock:  # noqa: SLF001
            await connection._network_stream.write(state.data_to_send())  # noqa: SLF001


@contextmanager
def _protocol_errors() -> Iterator[None]:
    """Those that httpcore2 lets through, as its own."""
    try:
        yield
    except ProtocolError as error:
        raise httpcore2.RemoteProtocolError(f"{type(error).__name__}: {error}") from error
