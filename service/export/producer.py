"""The task that reads the database into a pipe, apart from whoever sends.

A response's task is cancelled when its client leaves, and a query that runs inside that task
would lose its clean end: the connection is dropped while the server goes on. So the query has
a task of its own, which is cancelled and then waited for.
"""

from __future__ import annotations

import asyncio
import time

from service.databases.source import Snapshot
from service.errors import DeadlineExceeded, StreamBroken
from service.export.lane import Lane, Reading
from service.export.pipe import Pipe
from service.export.receipt import SnapshotMark
from service.export.survey import Survey


class Producer:
    """Runs a lane into ``pipe``: holds the source's slot and connection while it does."""

    def __init__(
        self,
        lane: Lane,
        pipe: Pipe,
        *,
        survey: Survey | None = None,
        max_seconds: float,
        lock_seconds: float,
        name: str,
    ) -> None:
        self.lane = lane
        self._survey = survey
        self._surveyed = asyncio.Event()
        self.mark: SnapshotMark | None = None
        self.rows: int | None = None
        self._pipe = pipe
        self._max_seconds = max_seconds
        self._lock_seconds = lock_seconds
        self._name = name
        self._reading: Reading | None = None
        self._snapshot: Snapshot | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = self._ended = 0.0

    async def start(self) -> None:
        """Take a slot of the source and begin to read. Raises Busy."""
        slots = self.lane.slots
        await slots.acquire()
        self._started = time.monotonic()
        self._task = asyncio.create_task(self._run(), name=self._name)
        self._task.add_done_callback(lambda _: slots.release())

    async def surveyed(self) -> None:
        """Wait until everything is known that is asked before the rows, or it has failed."""
        await self._surveyed.wait()

    async def close(self, within: float) -> None:
        """Stop the query if it runs and wait until its connection is back in the pool.

        After ``within`` seconds the connection is dropped instead, and the server's own check
        of the connection ends the query. The slot is free when the task has ended.
        """
        if self._task is None:
            return
        self._task.cancel()
        done, _ = await asyncio.wait({self._task}, timeout=within)
        if not done and self._reading is not None:
            self._reading.abort()

    async def gone(self) -> bool:
        """Whether the database has nothing of it any more, as the database itself says."""
        return self._snapshot is None or await self._snapshot.gone()

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
            self._reading = None
            self._pipe.end(failure)
            self._surveyed.set()

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(self._max_seconds):
                await self._carry()
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"The export took longer than {self._max_seconds:g} s."
            ) from error

    async def _carry(self) -> None:
        async with self.lane.reading(
            max_seconds=self._max_seconds,
            lock_seconds=self._lock_seconds,
        ) as reading:
            self._reading, self._snapshot = reading, reading.snapshot
            snapshot = self._snapshot
            self.mark = snapshot.mark if snapshot else None
            if snapshot and self._survey:
                await self._survey.before(snapshot)
            self._surveyed.set()
            rows = await reading.carry(self._pipe.write)
            if snapshot and self._survey:
                await self._survey.after(snapshot, rows)
            self.rows = rows
