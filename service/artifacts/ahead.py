"""Chunks that are made while the ones before them are sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Generic, TypeVar

Chunk = TypeVar("Chunk")


class Ahead(Generic[Chunk]):
    """Runs ``chunks`` one ahead of who reads them."""

    def __init__(self, chunks: AsyncGenerator[Chunk, None]) -> None:
        self._chunks = chunks
        self._next: asyncio.Task[Chunk | None] | None = None

    async def prime(self) -> None:
        """Wait for the first chunk; raises what kept it from being made."""
        self._next = self._following()
        await asyncio.wait({self._next})
        if (error := self._next.exception()) is not None:
            raise error

    async def read(self) -> Chunk | None:
        """The next chunk, None at the end; raises what kept it from being made."""
        chunk = await (self._next or self._following())
        if chunk is not None:
            self._next = self._following()
        return chunk

    async def close(self) -> None:
        """Stop; whatever is being made is given up."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
        await self._chunks.aclose()

    def _following(self) -> asyncio.Task[Chunk | None]:
        return asyncio.create_task(self._chunk())

    async def _chunk(self) -> Chunk | None:
        return await anext(self._chunks, None)
