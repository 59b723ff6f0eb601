"""Writers of events: each a worker that claims exports, reports on them, loses and ends them.

They go through the ledger and the heartbeat that workers use, at random and all at once, each on
a connection of its own.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from service.database import utcnow
from service.errors import AttemptLost, Conflict, SourceError
from service.jobs.beat import Sign, beat
from service.jobs.ledger import Ledger
from service.jobs.model import Record, State
from service.jobs.queue import Queue
from service.jobs.transitions import asked_again, cancelled, failed, put_back, succeeded
from tests.job_desk import desk

LEASE = timedelta(hours=1)
KEPT = timedelta(days=1)
PAUSE = 0.02  # seconds at most between two writes of one writer


@dataclass(frozen=True, slots=True)
class Plan:
    """How many writers there are, and how many writes each of them makes."""

    seed: int
    writers: int
    writes: int


def entered(url: str, count: int) -> list[str]:
    """Exports that wait, and which no worker knows how to make."""
    return asyncio.run(_enter(url, count))


def written(url: str, exports: Sequence[str], plan: Plan) -> None:
    """Let all of them write at once, and end every export behind that."""
    asyncio.run(_write(url, exports, plan))


class Writer:
    """One of them: whatever it tries, the fence decides whether it is written."""

    def __init__(self, url: str, number: int, plan: Plan) -> None:
        self.engine: AsyncEngine = create_async_engine(url, pool_size=1, max_overflow=0)
        self._name = f"writer:{number}:0"
        self._chosen = random.Random(f"{plan.seed} {number}")
        self._ledger = Ledger(self.engine, Queue(self.engine))
        self._old: list[Record] = []

    async def run(self, exports: Sequence[str], writes: int) -> None:
        for _ in range(writes):
            await asyncio.sleep(self._chosen.uniform(0, PAUSE))  # the load: nothing is waited for
            await self._step(self._chosen.choice(exports))

    async def _step(self, export: str) -> None:
        record = await self._ledger.get(export)
        assert record is not None
        if self._old and self._chosen.random() < 0.2:
            # A zombie writes what it knew once.
            record = self._chosen.choice(self._old)
        self._old = [*self._old[-5:], record]
        match record.state:
            case State.QUEUED:
                artifact = f"{self._chosen.getrandbits(128):032x}"
                await self._ledger.claim(export, self._name, artifact, LEASE)
            case State.RUNNING if self._chosen.random() < 0.6:
                await self._beat(record)
            case State.RUNNING:
                await self._end(record)
            case _:
                await self._again(record)

    async def _beat(self, record: Record) -> None:
        further = replace(record, rows=record.rows + 1, bytes=record.bytes + 10)
        moved = self._chosen.random() < 0.9
        await beat(self.engine, record.worker or "", LEASE, [Sign(further, moved)])

    async def _end(self, record: Record) -> None:
        now, error = utcnow(), AttemptLost("It was lost.")
        changes = [
            put_back(record, error, now, pause=0.0),
            put_back(record, error, now, pause=0.0),
            failed(record, SourceError("It has failed."), None, now),
            cancelled({"backend_gone": True}, None, now),
        ]
        await self._ledger.apply(record, self._chosen.choice(changes))

    async def _again(self, record: Record) -> None:
        try:
            await self._ledger.apply(record, asked_again(record, 1_000))
        except Conflict:
            # Only a failed one is tried again.
            assert record.state is not State.FAILED

    async def finish(self, export: str) -> None:
        """The one writer that is left makes it succeed, if it has not ended already."""
        while True:
            record = await self._ledger.get(export)
            assert record is not None
            if record.state is State.QUEUED:
                await self._ledger.claim(export, self._name, "0" * 32, LEASE)
            elif record.state is State.RUNNING:
                receipt = {"rows": record.rows, "bytes": record.bytes, "outcome": "complete"}
                await self._ledger.apply(record, succeeded(receipt, utcnow(), KEPT))
            else:
                return


async def _write(url: str, exports: Sequence[str], plan: Plan) -> None:
    writers = [Writer(url, number, plan) for number in range(plan.writers)]
    try:
        await asyncio.gather(*(writer.run(exports, plan.writes) for writer in writers))
        for export in exports:
            await writers[0].finish(export)
    finally:
        await asyncio.gather(*(writer.engine.dispose() for writer in writers))


async def _enter(url: str, count: int) -> list[str]:
    async with desk(url) as here:
        return [(await here.waiting(attempts_until=1_000)).id for _ in range(count)]
