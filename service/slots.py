"""A bounded number of things at once, with a bounded wait."""

from __future__ import annotations

import asyncio

from service.errors import Busy


class Slots:
    """``total`` slots; who waits longer than ``patience`` seconds for one gets Busy.

    ``things`` are what they are slots for, as Busy says it.
    """

    def __init__(self, name: str, total: int, patience: float, things: str = "connections") -> None:
        self.name = name
        self.things = things
        self.total = total
        self.taken = 0
        self._patience = patience
        self._free = asyncio.Semaphore(total)

    async def acquire(self) -> None:
        """Take a slot, or raise Busy (503 with Retry-After)."""
        try:
            async with asyncio.timeout(self._patience):
                await self._free.acquire()
        except TimeoutError as error:
            raise Busy(
                f"All {self.total} {self.things} of {self.name} are in use; try again soon."
            ) from error
        self.taken += 1

    def release(self) -> None:
        self.taken -= 1
        self._free.release()
