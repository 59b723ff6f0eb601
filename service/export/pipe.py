"""A bounded hand-over of bytes between the task that reads the database and the one that sends."""

from __future__ import annotations

import asyncio
from collections import deque


class Pipe:
    """Bytes in whatever pieces come, out in blocks of up to ``block`` bytes.

    The writer waits while two blocks are held, so a reader that stalls stalls the database and
    memory stays flat. One writer and one reader. The reader gets a block when it is full, when
    the oldest byte has waited ``patience`` seconds, or at the end.
    """

    def __init__(self, block: int, patience: float) -> None:
        self._block = block
        self._patience = patience
        self._held: deque[bytes] = deque()
        self._length = 0
        self._ended = False
        self._failure: Exception | None = None
        self._readable = asyncio.Event()
        self._full = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    async def write(self, data: bytes) -> None:
        """Hand over ``data``; waits while the pipe is full."""
        self._held.append(data)
        self._length += len(data)
        self._readable.set()
        if self._length >= self._block:
            self._full.set()
        if self._length >= 2 * self._block:
            self._writable.clear()
            await self._writable.wait()

    def end(self, failure: Exception | None = None) -> None:
        """No more bytes; with ``failure`` the reader gets that instead of the end."""
        self._ended, self._failure = True, failure
        self._readable.set()
        self._full.set()

    @property
    def ended(self) -> bool:
        return self._ended

    async def primed(self, within: float) -> None:
        """Wait until there is something to read, for at most ``within`` seconds.

        Raises what the writer failed with, if that is all there is.
        """
        try:
            async with asyncio.timeout(within):
                await self._readable.wait()
        except TimeoutError:
            return
        if self._failure is not None:
            raise self._failure

    async def read(self, *, pausing: bool = False) -> bytes | None:
        """The next block, or None at the end; raises what the writer failed with.

        With ``pausing``, an empty one once nothing has come for ``patience`` seconds.
        """
        if pausing and not await self._within_patience(self._readable):
            return b""
        await self._readable.wait()
        if not self._full.is_set():
            await self._within_patience(self._full)
        if self._failure is not None:
            raise self._failure
        return self._take() if self._length else None

    async def _within_patience(self, event: asyncio.Event) -> bool:
        try:
            async with asyncio.timeout(self._patience):
                return await event.wait()
        except TimeoutError:
            return False

    def _take(self) -> bytes:
        taken: list[bytes] = []
        length = 0
        while self._held and length < self._block:
            taken.append(self._held.popleft())
            length += len(taken[-1])
        self._length -= length
        if not self._ended:
            if not self._length:
                self._readable.clear()
            if self._length < self._block:
                self._full.clear()
            self._writable.set()
        return taken[0] if len(taken) == 1 else b"".join(taken)
