"""An upstream: where requests to it may go, how long they may take, and what its failures mean."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import urljoin

import httpx2

from service.download.forwarding import is_redirect_allowed, path_below
from service.download.guard import decide, parse_target
from service.download.network import Backend, Resolve, resolve
from service.download.transport import Transport, no_cookies
from service.errors import (
    Forbidden,
    NotFound,
    RedirectRefused,
    RequestError,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from service.settings import RelaySection, RelaySettings, UpstreamSettings
from service.slots import Slots

REDIRECTS = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS = 5
DIGITS_OF_SHORT = 5  # of the length of a body that is read although nobody wants it
PATIENCE = 1.0  # seconds for that
# As httpcore2 and h11 say it.
ENDED_EARLY = re.compile(
    "Server disconnected|closed connection|incomplete chunked read"
    "|InvalidBodyLengthError|StreamReset|ConnectionTerminated"
)
# As OpenSSL numbers what it finds wrong with a certificate (X509_V_ERR_…).
CERTIFICATES = {9: "is not valid yet", 10: "has expired", 62: "is for another name"}
CERTIFICATES |= {64: CERTIFICATES[62]}
FREE = "(url)"  # the name of what free addresses go through; no upstream can have it

Fields = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for an upstream. ``fields`` go to every host, ``private`` to its own alone."""

    method: str
    url: str
    fields: Fields
    private: Fields = ()

    def elsewhere(self, url: str) -> Asked:
        """The same request for another server."""
        return replace(self, url=url, private=())


class Route(Protocol):
    """Where the requests of one upstream may go."""

    def redirected(self, asked: Asked, url: str) -> Asked:
        """What to ask for where the answer to ``asked`` leads to ``url``. Raises RedirectRefused."""
        ...


class Upstream:
    """Asks an upstream: one pool of connections, at most ``max_connections`` at once.

    ``name`` is for messages and metrics. Errors never tell what was sent to it.
    """

    def __init__(self, name: str, limits: RelaySection, route: Route, transport: Transport) -> None:
        self.name = name
        self.limits = limits
        self.slots = Slots(name, limits.max_connections, limits.connect_timeout)
        self._route = route
        self._client = httpx2.AsyncClient(
            transport=transport,
            trust_env=False,
            cookies=no_cookies(),
            timeout=httpx2.Timeout(None, connect=limits.connect_timeout),
        )

    async def answer(self, asked: Asked) -> httpx2.Response:
        """The head of the answer, redirects followed; to be closed by the caller.

        Raises UpstreamError and what comes below it, AddressRefused where a name leads inside.
        """
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._head(asked)
            location = response.headers.get("location")
            if response.status_code not in REDIRECTS or location is None:
                return response
            await _pass_over(response)
            asked = self._route.redirected(asked, self._joined(asked.url, location))
        raise RedirectRefused(f"{self.name} redirected more than {MAX_REDIRECTS} times.")

    async def close(self) -> None:
        await self._client.aclose()

    def _joined(self, url: str, location: str) -> str:
        try:
            return urljoin(url, location)
        except ValueError as error:
            raise RedirectRefused(f"{self.name} redirects to what is no address.") from error

    async def _head(self, asked: Asked) -> httpx2.Response:
        try:
            return await self._sent(asked)
        except UpstreamClosed:
            # An idle connection that it closed at this very moment; the next one is a new one.
            return await self._sent(asked)

    async def _sent(self, asked: Asked) -> httpx2.Response:
        request = httpx2.Request(
            asked.method,
            asked.url,
            headers=[*asked.fields, *asked.private],
            extensions={"timeout": self._client.timeout.as_dict()},
        )
        with translated(self.name):
            return await self._client.send(request, stream=True)


class UpstreamClosed(UpstreamUnavailable):
    """The connection ended before the answer, or within it."""


async def _pass_over(response: httpx2.Response) -> None:
    """Close it; a short body is read, so that its connection is of use again."""
    with suppress(httpx2.HTTPError, TimeoutError):
        if len(response.headers.get("content-length", "")) <= DIGITS_OF_SHORT:
            async with asyncio.timeout(PATIENCE), aclosing(response.aiter_raw()) as blocks:
                async for _ in blocks:
                    pass
    await response.aclose()


@contextmanager
def translated(name: str) -> Iterator[None]:
    """What httpx2 raises, as our errors."""
    try:
        yield
    except httpx2.TimeoutException as error:
        raise UpstreamTimeout(f"{name} did not accept the connection in time.") from error
    except httpx2.ConnectError as error:
        raise UpstreamUnavailable(f"{name} {_why(error)}.") from error
    except httpx2.NetworkError as error:
        raise UpstreamClosed(f"{name} broke off the connection.") from error
    except httpx2.RemoteProtocolError as error:
        if ENDED_EARLY.search(str(error)):
            raise UpstreamClosed(f"{name} closed the connection too early.") from error
        raise UpstreamError(f"What {name} sent is not HTTP as it should be.") from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise UpstreamError(f"{name} cannot be asked for this.") from error


def _why(error: httpx2.ConnectError) -> str:
    """What was wrong, without the address."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__  # httpcore2 drops the first of them
    if isinstance(cause, ssl.SSLCertVerificationError):
        found = CERTIFICATES.get(cause.verify_code, "is signed by nobody who is trusted")
        return f"cannot be trusted: its certificate {found}"
    return "does not speak TLS as it should" if cause else "cannot be reached"


@dataclass(frozen=True, slots=True)
class ConfiguredRoute:
    """Below the base address, and to the hosts that the configuration names."""

    name: str
    settings: UpstreamSettings

    def asked(self, method: str, raw_path: str, query: str, fields: Fields) -> Asked:
        """``raw_path`` as it stood in the request. Raises NotFound for what is not relayed."""
        settings = self.settings
        if method not in settings.methods:
            raise Forbidden(f"{self.name} is not asked with {method}.")
        path = path_below(raw_path, settings.paths)
        own = {name.lower() for name in settings.headers}
        forwarded = {name.lower() for name in settings.forward}
        return Asked(
            method,
            f"{settings.base_url}{path}{'?' if query else ''}{query}",
            [field for field in fields if field[0] not in own | forwarded],
            [
                *(field for field in fields if field[0] in forwarded - own),
                *settings.headers.items(),
            ],
        )

    def redirected(self, asked: Asked, url: str) -> Asked:
        url = url.partition("#")[0]
        base = self.settings.base_url
        if url.startswith(base):
            path, mark, query = url.removeprefix(base).partition("?")
            try:
                below = path_below(path, self.settings.paths)
            except NotFound as error:
                raise self._refused() from error
            return replace(asked, url=f"{base}{below}{mark}{query}")
        from_https = asked.url.startswith("https:")
        if not is_redirect_allowed(url, self.settings.redirects, from_https=from_https):
            raise self._refused()
        return asked.elsewhere(url)

    def _refused(self) -> RedirectRefused:
        return RedirectRefused(f"{self.name} redirects to where its relay may not follow.")


@dataclass(frozen=True, slots=True)
class FreeRoute:
    """Anywhere on the public network, to a list of ports; each hop is decided on."""

    settings: RelaySettings

    def asked(self, method: str, url: str, fields: Fields) -> Asked:
        """Raises InvalidParameter and AddressRefused."""
        return Asked(method, parse_target(url, self.settings.ports).url, fields)

    def redirected(self, asked: Asked, url: str) -> Asked:
        try:
            target = parse_target(url, self.settings.ports)
        except RequestError as error:
            raise RedirectRefused("The address redirects to where a relay may not go.") from error
        if asked.url.startswith("https:") and target.scheme != "https":
            raise RedirectRefused("The address redirects from https to http.")
        return asked.elsewhere(target.url)


def configured_upstream(
    name: str, settings: UpstreamSettings, trust: ssl.SSLContext, resolving: Resolve = resolve
) -> tuple[ConfiguredRoute, Upstream]:
    """An upstream of the configuration, which may be inside: its operator named it."""
    route = ConfiguredRoute(name, settings)
    most, http2 = settings.max_connections, settings.http2
    transport = Transport(Backend(None, resolving), trust, max_connections=most, http2=http2)
    return route, Upstream(name, settings, route, transport)


def free_upstream(
    settings: RelaySettings, trust: ssl.SSLContext, resolving: Resolve = resolve
) -> tuple[FreeRoute, Upstream]:
    """What free addresses go through: connections to public addresses alone."""
    route, most = FreeRoute(settings), settings.max_connections
    transport = Transport(Backend(decide, resolving), trust, max_connections=most, http2=False)
    return route, Upstream(FREE, settings, route, transport)
