"""One answer of an upstream: its head, then blocks, each within the stall time-out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass

import httpx2

from service.download.upstream import Asked, Upstream, translated
from service.errors import UpstreamTimeout
from service.ranges import VERY_LARGE

OK, NO_CONTENT, PARTIAL, NOT_MODIFIED, UNSATISFIABLE = 200, 204, 206, 304, 416
CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
NOTHING_THERE = re.compile(r"bytes \*/([0-9]{1,18})")
STRONG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')


@dataclass(frozen=True, slots=True)
class Part:
    """Which bytes of a whole an answer holds: ``last`` and ``size`` are None where unknown."""

    first: int
    last: int | None
    size: int | None

    def follows(self, was: Part, place: int) -> bool:
        """Whether it begins at ``place`` in the same whole, and goes no further than ``was``."""
        if self.first != place or (None not in (was.size, self.size) and was.size != self.size):
            return False
        if was.last is None:
            return self.size is not None  # else nobody could tell whether it goes to the end
        return self.last is not None and self.last <= was.last


class Answer:
    """What came back for ``asked``; ``stall`` is how many seconds a block may take."""

    def __init__(self, name: str, asked: Asked, response: httpx2.Response, stall: float) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self.headers.encoding = "latin-1"  # the bytes as they are, for they are sent on so
        self._name = name
        self._method = asked.method
        self._response = response
        self._stall = stall
        self._blocks = response.aiter_raw()

    async def read(self) -> bytes | None:
        """The next block, None at the end. Raises UpstreamError and what comes below it."""
        async with within(self._stall, f"{self._name} sent nothing for {self._stall:g} s."):
            with translated(self._name):
                return await anext(self._blocks, None)

    async def close(self) -> None:
        with suppress(httpx2.HTTPError):
            async with aclosing(self._blocks):
                pass
            await self._response.aclose()

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Every field of the head, in order."""
        return self.headers.multi_items()

    @property
    def has_body(self) -> bool:
        """Whether its method and status let it have one (RFC 9110, section 6.4.1)."""
        return self._method != "HEAD" and self.status not in (NO_CONTENT, NOT_MODIFIED)

    @property
    def length(self) -> int | None:
        """The Content-Length, of the body or of what it would have been; None without one."""
        if "transfer-encoding" in self.headers:
            return None
        text = self.headers.get("content-length", "")
        return int(text) if text.isdecimal() else None

    @property
    def expected(self) -> int | None:
        """How many bytes its body has to have, by its length or else as the part that it is."""
        part = self.part
        if self.length is not None or part is None or part.last is None:
            return self.length
        return part.last + 1 - part.first

    @property
    def framing(self) -> str:
        """What tells the end of the body; "close" is an end that proves nothing."""
        if self._response.http_version == "HTTP/2":
            return "http2"
        if "transfer-encoding" in self.headers:
            return "chunked"
        return "close" if self.length is None else "length"

    @property
    def etag(self) -> str | None:
        """Its strong validator, if it has one."""
        etag: str = self.headers.get("etag", "")
        return etag if STRONG.fullmatch(etag) else None

    @property
    def part(self) -> Part | None:
        """Which bytes it holds, where the rest of them could be asked for; else None."""
        if self.status == OK and "bytes" in self.headers.get("accept-ranges", "").lower():
            return Part(0, None, self.length)
        found = CONTENT_RANGE.fullmatch(self.headers.get("content-range", ""))
        if self.status != PARTIAL or found is None:
            return None
        first, last = int(found[1]), int(found[2])
        size = None if found[3] == "*" else int(found[3])
        return Part(first, None if last >= VERY_LARGE else last, size)

    @property
    def size_behind_which_nothing_is(self) -> int | None:
        """The size of the whole that a 416 tells."""
        found = NOTHING_THERE.fullmatch(self.headers.get("content-range", ""))
        return int(found[1]) if self.status == UNSATISFIABLE and found else None


async def ask(upstream: Upstream, asked: Asked) -> Answer:
    """The head of the answer; raises as ``Upstream.answer``."""
    response = await upstream.answer(asked)
    return Answer(upstream.name, asked, response, upstream.limits.stall_timeout)


@asynccontextmanager
async def within(seconds: float, otherwise: str) -> AsyncIterator[None]:
    """Raise UpstreamTimeout after so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise UpstreamTimeout(otherwise) from error
