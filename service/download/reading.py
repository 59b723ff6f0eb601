"""The body of a download in blocks of one size, read and digested in threads."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from service.export.chunk import Chunker
from service.export.receipt import Meter
from service.file_part import SourceFile
from service.ranges import Body, Span


class Blocks:
    """Blocks of exactly ``size`` bytes, the last may be smaller; ``bytes`` counts those given.

    ``sha256`` is of all of them, in hexadecimal, where they are ``digested``.
    """

    def __init__(self, source: SourceFile, body: Body, size: int, *, digested: bool) -> None:
        self.bytes = 0
        self._source = source
        self._body = body
        self._size = size
        self._meter = Meter() if digested else None

    @property
    def sha256(self) -> str | None:
        return self._meter.sha256 if self._meter is not None else None

    async def read(self) -> AsyncGenerator[bytes, None]:
        """Every block. Raises FileChanged."""
        chunker = Chunker(self._size)
        for piece in self._body.pieces():
            if isinstance(piece, bytes):
                blocks = chunker.feed(self._taken(piece))
                for block in blocks:
                    yield self._given(block)
                continue
            for offset in range(piece.first, piece.last + 1, self._size):
                data = await self._data(Span(offset, min(offset + self._size - 1, piece.last)))
                for block in chunker.feed(data):
                    yield self._given(block)
        if rest := chunker.rest():
            yield self._given(rest)

    async def _data(self, span: Span) -> bytes:
        return await self._source.run(self._read, span)

    def _read(self, span: Span) -> bytes:
        return self._taken(self._source.read(span.first, span.length))

    def _taken(self, data: bytes) -> bytes:
        return data if self._meter is None else self._meter.feed(data)

    def _given(self, block: bytes) -> bytes:
        self.bytes += len(block)
        return block
