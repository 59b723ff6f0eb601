"""Counting and digesting what passes without keeping the event loop from anything else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from service.export.receipt import Meter

BATCH = 4 * 1024 * 1024  # bytes; handing over to a thread costs as much as digesting 100 KiB


class ThreadMeter:
    """Counts bytes at once, and digests them in a thread a batch at a time (SHA-256, FIPS 180-4).

    At most two batches are held. ``sha256`` is of everything once it has settled.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._meter = Meter()
        self._batch: list[bytes] = []
        self._batched = 0
        self._digesting: asyncio.Future[None] | None = None

    @property
    def sha256(self) -> str:
        """In hexadecimal."""
        return self._meter.sha256

    async def feed(self, block: bytes) -> None:
        """Take ``block`` in; waits where digesting falls behind."""
        self.bytes += len(block)
        self._batch.append(block)
        self._batched += len(block)
        if self._batched >= BATCH:
            await self._digested()
            batch, self._batch, self._batched = self._batch, [], 0
            loop = asyncio.get_running_loop()
            self._digesting = loop.run_in_executor(None, self._digest, batch)

    async def settle(self) -> None:
        """Wait until all that was taken in has been digested."""
        await self._digested()
        batch, self._batch, self._batched = self._batch, [], 0
        self._digest(batch)

    async def _digested(self) -> None:
        if self._digesting is not None:
            # Shielded: the thread goes on with the digest whatever becomes of who waits.
            await asyncio.shield(self._digesting)
            self._digesting = None

    def _digest(self, batch: Sequence[bytes]) -> None:
        for block in batch:
            self._meter.feed(block)
