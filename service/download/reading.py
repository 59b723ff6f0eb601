"""The body of a download: in blocks of one size, or in parts that the server sends by itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from service.export.chunk import Chunker
from service.export.receipt import Meter
from service.file_part import FilePart, SourceFile
from service.ranges import Body, Span

LAST = 64 * 1024  # bytes kept back from a part, so that it is known to be sent before the end


class Blocks:
    """Blocks of exactly ``size`` bytes, the last may be smaller; ``bytes`` counts those given.

    They are read in threads, and there ``digested``, too: ``sha256`` is in hexadecimal.
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
        async with aclosing(self._pieces()) as pieces:
            async for data in pieces:
                for block in chunker.feed(data):
                    yield self._given(block)
        if rest := chunker.rest():
            yield self._given(rest)

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        for piece in self._body.pieces():
            if isinstance(piece, bytes):
                yield self._taken(piece)
                continue
            for offset in range(piece.first, piece.last + 1, self._size):
                last = min(offset + self._size - 1, piece.last)
                yield await self._source.run(self._read, Span(offset, last))

    def _read(self, span: Span) -> bytes:
        return self._taken(self._source.read(span.first, span.length))

    def _taken(self, data: bytes) -> bytes:
        return data if self._meter is None else self._meter.feed(data)

    def _given(self, block: bytes) -> bytes:
        self.bytes += len(block)
        return block


class Parts:
    """Parts of the file as long as may be; ``bytes`` counts those sent, nothing is digested."""

    sha256 = None

    def __init__(self, source: SourceFile, body: Body) -> None:
        self._source = source
        self._body = body
        self._parts: list[FilePart] = []
        self._given = 0

    async def read(self) -> AsyncGenerator[bytes | FilePart, None]:
        """Every part, and ends with some bytes of their own. Raises FileChanged."""
        for piece in self._body.pieces():
            if isinstance(piece, bytes):
                self._given += len(piece)
                yield piece
                continue
            if (most := piece.length - LAST) > 0:
                # So that what cannot be read at all is an ordinary error.
                await self._source.run(self._source.read, piece.first, 1)
                self._parts.append(FilePart(self._source, piece.first, most))
                yield self._parts[-1]
            rest = min(piece.length, LAST)
            data = await self._source.run(self._source.read, piece.last + 1 - rest, rest)
            self._given += len(data)
            yield data

    @property
    def bytes(self) -> int:
        return self._given + sum(part.done for part in self._parts)
