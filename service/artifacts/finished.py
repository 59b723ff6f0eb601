"""A finished artifact as a stream: the whole of it, a part, or several."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

from service.artifacts.reading import ArtifactReader
from service.errors import StorageFailed, TailraceError
from service.export.receipt import Outcome
from service.ranges import Multipart, Span, content_range

CHUNK = 256 * 1024  # bytes


class FinishedFile:
    """What ``streaming.StreamResponse`` sends of a file of ``size`` bytes, reading a chunk ahead.

    ``asked`` is what ``ranges.spans`` gave: None sends the whole. ``reader`` is closed with it.
    ``told`` is called with how it ended.
    """

    def __init__(
        self,
        reader: ArtifactReader,
        size: int,
        media_type: str,
        asked: Sequence[Span] | None = None,
        *,
        chunk_size: int = CHUNK,
        told: Callable[[Outcome, TailraceError | None], None] | None = None,
    ) -> None:
        self._whole = asked is None
        self._reader = reader
        self._size = size
        self._media_type = media_type
        self._spans = (Span(0, size - 1),) if asked is None else tuple(asked)
        self._multipart: Multipart | None = None
        if len(self._spans) > 1:
            self._multipart = Multipart(self._spans, size, media_type, secrets.token_hex(16))
        self._chunk_size = chunk_size
        self._told = told
        self._chunks = self._body()
        self._ahead: asyncio.Task[bytes | None] | None = None

    @property
    def status(self) -> int:
        return 200 if self._whole else 206

    async def open(self) -> None:
        """Raises StorageFailed where the file is not of its size or cannot be read."""
        if self._reader.size() != self._size:
            raise StorageFailed("The stored artifact is not as long as its record says.")
        self._ahead = self._following()
        await asyncio.wait({self._ahead})
        if (error := self._ahead.exception()) is not None:
            raise error

    async def read(self) -> bytes | None:
        """The next chunk, None at the end. Raises StorageFailed where the file has been cut."""
        chunk = await (self._ahead or self._following())
        if chunk is not None:
            self._ahead = self._following()
        return chunk

    async def close(self) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.gather(self._ahead, return_exceptions=True)
        await self._chunks.aclose()
        self._reader.close()

    def headers(self) -> Mapping[str, str]:
        told = {"Accept-Ranges": "bytes", "Content-Type": self._media_type}
        if self._multipart is not None:
            told["Content-Type"] = self._multipart.content_type
        elif not self._whole:
            (span,) = self._spans
            told["Content-Range"] = content_range(span.first, span.last, self._size)
        return {**told, "Content-Length": str(self._length())}

    def started(self) -> None:
        """It has no record that wants to know."""

    def ended(self, outcome: Outcome, error: TailraceError | None) -> None:
        if self._told is not None:
            self._told(outcome, error)

    def _length(self) -> int:
        if self._multipart is not None:
            return self._multipart.length()
        return sum(span.length for span in self._spans)

    def _following(self) -> asyncio.Task[bytes | None]:
        return asyncio.create_task(self._chunk())

    async def _chunk(self) -> bytes | None:
        return await anext(self._chunks, None)

    async def _body(self) -> AsyncGenerator[bytes, None]:
        heads = [b""] if self._multipart is None else self._multipart.heads()
        for head, span in zip(heads, self._spans, strict=True):
            if head:
                yield head
            offset = span.first
            while offset <= span.last:
                data = await self._bytes(offset, span.last)
                offset += len(data)
                yield data
        if self._multipart is not None:
            yield self._multipart.tail()

    async def _bytes(self, offset: int, last: int) -> bytes:
        data = await self._reader.read(offset, min(self._chunk_size, last + 1 - offset))
        if not data:
            raise StorageFailed("The stored artifact is shorter than it was.")
        return data
