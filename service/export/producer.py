"""The task that reads the database into a pipe, apart from whoever sends.

A response's task is cancelled when its client leaves, and a query that runs inside that task
would lose its clean end: the connection is dropped while the server goes on. So the query has
a task of its own, which is cancelled and then waited for.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from service.database import Snapshot, Source
from service.errors import DeadlineExceeded, StreamBroken
from service.export.copy import Sink
from service.export.pipe import Pipe
from service.export.receipt import SnapshotMark


class Lane(Protocol):
    """A way for rows to leave a database as text; lanes differ in speed only."""

    name: str
    source: Source
    texts: tuple[str, ...]
    query_sha256: str

    async def run(self, snapshot: Snapshot, sink: Sink) -> int:
        """Send every row's text into ``sink``; gives the number of rows."""
        ...


class Producer:
    """Runs a lane into ``pipe``: holds the source's slot and connection while it does."""

    def __init__(
        self, lane: Lane, pipe: Pipe, *, max_seconds: float, lock_seconds: float, name: str
    ) -> None:
        self.lane = lane
        self.mark: SnapshotMark | None = None
        self.rows: int | None = None
        self._pipe = pipe
        self._max_seconds = max_seconds
        self._lock_seconds = lock_seconds
        self._name = name
        self._snapshot: Snapshot | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = self._ended = 0.0

    async def start(self) -> None:
        """Take a slot of the source and begin to read. Raises Busy."""
        slots = self.lane.source.slots
        await slots.acquire()
        self._started = time.monotonic()
        self._task = asyncio.create_task(self._run(), name=self._name)
        self._task.add_done_callback(lambda _: slots.release())

    async def close(self, within: float) -> None:
        """Stop the query if it runs and wait until its connection is back in the pool.

        After ``within`` seconds the connection is dropped instead, and the server's own check
        of the connection ends the query.
        """
        if self._task is None:
            return
        self._task.cancel()
        done, _ = await asyncio.wait({self._task}, timeout=within)
        if not done and self._snapshot is not None:
            self._snapshot.driver.terminate()

    @property
    def seconds_held(self) -> float:
        """For how long the database has been held."""
        if not self._started:
            return 0.0
        return (self._ended or time.monotonic()) - self._started

    async def _run(self) -> None:
        failure: Exception | None = StreamBroken("The export was stopped.")
        try:
            await self._read()
            failure = None
        except Exception as error:  # noqa: BLE001 - whoever reads the pipe raises it
            failure = error
        finally:
            self._ended = time.monotonic()
            self._snapshot = None
            self._pipe.end(failure)

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(self._max_seconds):
                await self._carry()
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"The export took longer than {self._max_seconds:g} s."
            ) from error

    async def _carry(self) -> None:
        lane = self.lane
        async with lane.source.snapshot(
            texts=lane.texts, max_seconds=self._max_seconds, lock_seconds=self._lock_seconds
        ) as snapshot:
            self._snapshot, self.mark = snapshot, snapshot.mark
            self.rows = await lane.run(snapshot, self._pipe.write)
