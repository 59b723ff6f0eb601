"""A job that nobody runs: its row says that it runs, and how far it is whenever it is told to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace

from service.database import utcnow
from service.jobs.model import Record
from service.jobs.transitions import cancelled
from tests.job_desk import Desk, desk

NOBODYS = "nobody's"  # a source that no worker has, so that none takes the job


class Pulse:
    """``beat`` says through the worker's own statement how far the job ``id`` is."""

    def __init__(self, runner: asyncio.Runner, at: Desk, record: Record) -> None:
        self.id = record.id
        self.record = record
        self._runner = runner
        self._desk = at

    def beat(self, times: int, every: float) -> None:
        """Say it ``times`` times, one every so many seconds, and wait as long behind the last.

        Each time the bytes are the machine's monotonic clock, in nanoseconds.
        """
        self._runner.run(self._beat(times, every))

    def end(self) -> None:
        """Nothing is left of it."""
        self._runner.run(self._end())

    async def _beat(self, times: int, every: float) -> None:
        due = time.monotonic()
        for number in range(times):
            now = time.monotonic_ns()
            kept, _ = await self._desk.beat(replace(self.record, rows=number, bytes=now))
            assert kept == [self.id], "the job was taken away"
            due += every
            await asyncio.sleep(due - time.monotonic())

    async def _end(self) -> None:
        ledger = self._desk.ledger
        ended = await ledger.apply(self.record, cancelled(None, None, utcnow()))
        assert ended is not None
        await ledger.delete(ended)


@contextmanager
def pulse(database_url: str) -> Iterator[Pulse]:
    """A job in Tailrace's own tables; its row is gone when the block ends."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        at = runner.run(stack.enter_async_context(desk(database_url)))
        try:
            made = Pulse(runner, at, runner.run(at.running(source=NOBODYS)))
            try:
                yield made
            finally:
                made.end()
        finally:
            runner.run(stack.aclose())
