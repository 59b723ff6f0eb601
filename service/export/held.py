"""A bounded hand-over of rows from whoever makes them, maybe in a thread, to an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Protocol

from service.export.items import Cells

HELD_BYTES = 128 * 1024  # of text; what is made of it at once takes some milliseconds


class Room(Protocol):
    """An event of asyncio or of threading: set while there is room."""

    def set(self) -> None: ...
    def clear(self) -> None: ...


class Held:
    """Rows that are made and not yet taken. One maker, one taker.

    All that is held is taken at once, so batches are as large as the taker is slow, and the
    first row leaves at once.
    """

    def __init__(self, room: Room) -> None:
        self.stopped = False
        self._room = room
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._rows: list[Cells] = []
        self._length = 0
        self._ended = self._wanted = False
        self._failure: Exception | None = None
        self._some = asyncio.Event()

    def add(self, cells: Cells) -> bool:
        """Whether there is room for another row; else the room's event tells when there is."""
        with self._lock:
            self._rows.append(cells)
            self._length += len(cells) + sum(map(len, filter(None, cells)))
            full = self._length >= HELD_BYTES and not self.stopped
            if full:
                self._room.clear()
            wanted, self._wanted = self._wanted, False
        if wanted:
            self._wake()
        return not full

    def end(self, failure: Exception | None) -> None:
        """No more rows; the taker gets ``failure`` after those that are held."""
        with self._lock:
            self._ended, self._failure = True, failure
        self._wake()

    def stop(self) -> None:
        """Nothing will be taken any more."""
        with self._lock:
            self.stopped = True
            self._room.set()

    async def take(self) -> list[Cells]:
        """Everything held, waiting for at least one row; empty at the end."""
        while True:
            with self._lock:
                rows, self._rows, self._length = self._rows, [], 0
                self._wanted, ended = not rows, self._ended
                self._some.clear()
                self._room.set()
            if rows:
                return rows
            if ended:
                break
            await self._some.wait()
        if self._failure is not None:
            raise self._failure
        return []

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(self._some.set)
