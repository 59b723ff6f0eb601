"""A finished artifact as a stream: the whole of it, a part, or several."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

from service.artifacts.ahead import Ahead
from service.artifacts.reading import ArtifactReader
from service.errors import StorageFailed, TailraceError
from service.export.receipt import Outcome
from service.ranges import Body, Span

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
        boundary = secrets.token_hex(16)
        self._body = Body(size, media_type, None if asked is None else tuple(asked), boundary)
        self._reader = reader
        self._chunk_size = chunk_size
        self._told = told
        self._ahead = Ahead(self._chunks())

    @property
    def status(self) -> int:
        return self._body.status

    async def open(self) -> None:
        """Raises StorageFailed where the file is not of its size or cannot be read."""
        if self._reader.size() != self._body.size:
            raise StorageFailed("The stored artifact is not as long as its record says.")
        await self._ahead.prime()

    async def read(self) -> bytes | None:
        """The next chunk, None at the end. Raises StorageFailed where the file has been cut."""
        return await self._ahead.read()

    async def close(self) -> None:
        await self._ahead.close()
        self._reader.close()

    def headers(self) -> Mapping[str, str]:
        return self._body.headers()

    def started(self) -> None:
        """It has no record that wants to know."""

    def ended(self, outcome: Outcome, error: TailraceError | None) -> None:
        if self._told is not None:
            self._told(outcome, error)

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        for piece in self._body.pieces():
            if isinstance(piece, bytes):
                yield piece
                continue
            offset = piece.first
            while offset <= piece.last:
                data = await self._bytes(offset, piece.last)
                offset += len(data)
                yield data

    async def _bytes(self, offset: int, last: int) -> bytes:
        data = await self._reader.read(offset, min(self._chunk_size, last + 1 - offset))
        if not data:
            raise StorageFailed("The stored artifact is shorter than it was.")
        return data
