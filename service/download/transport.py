"""httpx2's transport over our connections, with bodies of a known length taken past h11.

h11 copies every block three times, which is half of a relay's work. What it has to know of a body
of known length is how many bytes are left, and that it gets from here.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import aclosing
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any, cast

import h11
import httpcore2
import httpx2
from httpx2._transports.default import map_httpcore_exceptions

from service.download.network import Backend
from service.download.pool import Pool, StreamBody

KEPT_IDLE = 20  # connections
KEPT_IDLE_SECONDS = 15.0  # most servers close theirs after 60 s or more


def trusting(ca_file: Path | None) -> ssl.SSLContext:
    """Trusts the certificates of ``ca_file``, or else those of certifi.

    Reading certifi's takes some 30 ms and 3 MB. Raises OSError.
    """
    return httpx2.create_ssl_context(verify=str(ca_file) if ca_file else True, trust_env=False)


def no_cookies() -> CookieJar:
    """A jar that takes none in: one for all callers would hand the cookies of one to the next."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


class Transport(httpx2.AsyncHTTPTransport):
    """One pool of connections, which ``backend`` makes; no proxies, nothing from the environment."""

    def __init__(
        self, backend: Backend, trust: ssl.SSLContext, *, max_connections: int, http2: bool
    ) -> None:
        # Not super().__init__(), which has no way to hand a backend on.
        self._pool = Pool(
            ssl_context=trust,
            max_connections=max_connections,
            max_keepalive_connections=min(KEPT_IDLE, max_connections),
            keepalive_expiry=KEPT_IDLE_SECONDS,
            http2=http2,
            network_backend=backend,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        # The stream of httpx2 has that of httpcore2's pool, and that has that of the connection.
        pooled = getattr(response.stream, "_httpcore_stream", None)
        connection = getattr(getattr(pooled, "_stream", None), "_connection", None)
        if isinstance(getattr(connection, "_h11_state", None), h11.Connection):
            response.stream = Body(pooled, connection)
        elif isinstance(connection, httpcore2.AsyncHTTP2Connection):
            response.stream = StreamBody(pooled)
        return response


def _knows_length(state: h11.Connection) -> bool:
    """Whether there is a Content-Length, and h11 counts as this module expects it."""
    reader = getattr(state, "_reader", None)
    return type(reader).__name__ == "ContentLengthReader" and hasattr(reader, "_remaining")


class Body(httpx2.AsyncByteStream):
    """The body of an HTTP/1.1 answer; raises httpx2.RemoteProtocolError where it ends early.

    One of known length comes straight from the network, but for what came with the head.
    """

    def __init__(self, pooled: AsyncIterable[bytes] | None, connection: Any) -> None:
        self._pooled = cast(Any, pooled)
        self._h11: h11.Connection = connection._h11_state  # noqa: SLF001 - see above
        self._network: httpcore2.AsyncNetworkStream = connection._network_stream  # noqa: SLF001

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with map_httpcore_exceptions():
            made = self._blocks() if _knows_length(self._h11) else aiter(self._pooled)
            async with aclosing(made) as blocks:
                async for block in blocks:
                    yield block

    async def aclose(self) -> None:
        if self._h11.trailing_data[0]:
            # What came behind the body would be read as the next answer: h11 is told that the
            # connection cannot be used again.
            self._h11.send_failed()
        with map_httpcore_exceptions():
            await self._pooled.aclose()

    async def _blocks(self) -> AsyncGenerator[bytes, None]:
        # Looks at what follows first: whoever has the last block need not ask for the end.
        event = self._h11.next_event()
        while isinstance(event, h11.Data):
            block, event = bytes(event.data), self._next()
            yield block
        reader: Any = self._h11._reader  # noqa: SLF001
        while event is h11.NEED_DATA:
            block = await self._network.read(0)
            if not block or len(block) > reader._remaining:  # noqa: SLF001
                # The end is h11's to judge, and to keep what came behind it.
                self._h11.receive_data(block)
                event = self._next()
                if not isinstance(event, h11.Data):
                    continue
                block = bytes(event.data)
            else:
                reader._remaining -= len(block)  # noqa: SLF001
            if not reader._remaining:  # noqa: SLF001
                event = self._next()
            yield block

    def _next(self) -> Any:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise httpcore2.RemoteProtocolError(str(error)) from error
