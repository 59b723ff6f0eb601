"""Processes that write down their generations: several are several processes on one database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from service.chat.following import Tails
from service.chat.journal import Journal
from service.chat.live import Live
from service.chat.model import Event, Generation
from service.chat.provider import Answers
from service.chat.store import Batch, Store
from service.database import service_engine
from service.observe import Event as Observed
from tests.generations import WITHIN, Reader, live_of, started
from tests.outage import away
from tests.postgres import Databases
from tests.waiting import eventually

KEEP = timedelta(days=1)
ROWS = """
    SELECT first, last FROM tailrace.generation_events WHERE generation_id = :id ORDER BY last
"""


class Unsure(Store):
    """The next ``unanswered`` batches are committed, and nobody is told so.

    Once it is ``dead``, nothing is written any more, as after SIGKILL.
    """

    unanswered = 0
    dead = False

    async def write(self, batch: Sequence[Batch]) -> None:
        self._breathe()
        await super().write(batch)
        if self.unanswered:
            self.unanswered -= 1
            raise ConnectionResetError("gone before the answer to COMMIT")

    async def alive(self, ids: Sequence[str]) -> list[str]:
        self._breathe()
        return await super().alive(ids)

    async def sweep(self, lost_after: timedelta, keep: timedelta, own: Sequence[str]) -> int:
        self._breathe()
        return await super().sweep(lost_after, keep, own)

    def _breathe(self) -> None:
        if self.dead:
            raise ConnectionResetError("no process, no connection")


@dataclass(slots=True)
class Process:
    engine: AsyncEngine
    store: Unsure
    journal: Journal
    tails: Tails
    told: list[Observed]
    commits: int = 0
    lives: list[Live] = field(default_factory=list)

    def begin(self, provider: Answers, **options: Any) -> tuple[Live, Reader]:
        """A generation that runs here, and who reads it from its first event on."""
        live = live_of(provider, changed=self.journal.changed, **options)
        self.lives.append(live)
        return live, started(live)

    async def written(self, live: Live, seq: int | None = None) -> Generation:
        """As the tables have it, once they have that event; None for the last of all."""
        found: list[Generation] = []

        async def there() -> bool:
            stored = await self.store.get(live.id)
            if stored is None:
                return False
            found.append(stored)
            return stored.state.final if seq is None else stored.seq >= seq

        await eventually(there, within=WITHIN, what="it is written")
        return found[-1]

    async def events(self, live: Live) -> list[Event]:
        """Those that have been written."""
        return await self.store.behind(live.id, 0)

    async def batches(self, live: Live) -> list[tuple[int, int]]:
        """First and last number of each row of events."""
        return [tuple(row) for row in await self.rows(ROWS, live.id)]

    async def rows(self, sql: str, generation_id: str | None = None) -> list[sa.Row[Any]]:
        given = {"id": UUID(generation_id)} if generation_id else {}
        async with self.engine.connect() as connection:
            return list(await connection.execute(sa.text(sql), given))

    async def execute(self, sql: str) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(sa.text(sql))

    def kinds(self) -> set[type[Observed]]:
        """What has been observed."""
        return {type(one) for one in self.told}


@asynccontextmanager
async def process(url: str, *, keep: timedelta = KEEP) -> AsyncIterator[Process]:
    engine = service_engine(url)
    told: list[Observed] = []
    store = Unsure(engine)
    journal, tails = Journal(store, told.append, keep), Tails(store, told.append)
    made = Process(engine, store, journal, tails, told)

    def count(_: object) -> None:
        made.commits += 1

    event.listen(engine.sync_engine, "commit", count)
    journal.start()
    tails.start()
    try:
        yield made
    finally:
        for live in made.lives:
            live.cancel()
            await live.ended(WITHIN)
        await tails.stop()
        await journal.stop()
        await engine.dispose()


@asynccontextmanager
async def away_meanwhile(databases: Databases, url: str) -> AsyncIterator[None]:
    """``away`` in a thread: it runs an event loop of its own."""
    outage = away(databases, url)
    await asyncio.to_thread(outage.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(outage.__exit__, None, None, None)
