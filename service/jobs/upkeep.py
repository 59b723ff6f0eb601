"""What keeps jobs true although processes die: lost leases, lost entries, old artifacts and rows.

Each step is a transaction of its own and may be done again, by any worker, after any crash.
Files are removed after the row has let go of them; what a crash leaves is a stranger, and goes
later. Downloads that are under way keep their descriptor.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.artifacts.folder import ArtifactFolder
from service.database import utcnow
from service.errors import AttemptLost, StorageFailed
from service.jobs.ledger import LIVE_VALUES, Ledger
from service.jobs.model import Kind, Record, State
from service.jobs.queue import Queue
from service.jobs.rows import record_of
from service.jobs.tables import export_events, exports, idempotency_keys, workers
from service.jobs.transitions import Transition, after_failure, cancelled, expired
from service.settings import LimitSettings

AT_ONCE = 100  # rows in one transaction
EVENTS_KEPT = timedelta(hours=1)  # after the end: what a client that comes back may replay
PROGRESS_KEPT = timedelta(minutes=10)  # while it runs
KEYS_KEPT = timedelta(hours=24)
WORKERS_KEPT = timedelta(minutes=1)
STRANGERS_AFTER = 300.0  # seconds; an attempt's row knows its file before the file is made
WAITED_LONG = timedelta(minutes=1)  # then it goes before what is small
OLDEST_FIRST = 100  # the priority of what has waited long


class Upkeep:
    """``sweep`` does all of it and tells how much there was of each."""

    def __init__(
        self,
        engine: AsyncEngine,
        ledger: Ledger,
        queue: Queue,
        folder: ArtifactFolder,
        limits: LimitSettings,
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._queue = queue
        self._folder = folder
        self._limits = limits

    async def sweep(self) -> dict[str, int]:
        """Counts of what was found, without zeros."""
        steps = {
            "lost": self._end_lost,
            "entered_again": self._enter_again,
            "expired": self._expire,
            "forgotten": self._forget,
            "events": self._forget_events,
        }
        found = {name: await step() for name, step in steps.items()}
        async with self._engine.begin() as connection:
            await self._forget_small(connection)
            await self._queue.prefer_old(connection, WAITED_LONG, OLDEST_FIRST)
        found["strangers"] = await self._remove_strangers()
        return {name: count for name, count in found.items() if count}

    async def _end_lost(self) -> int:
        """Attempts whose worker has not been heard of for a lease: the next one, or the end."""
        late = exports.c.lease_until < sa.func.now()
        return await self._changed(_jobs(exports.c.state == State.RUNNING.value, late), _lost)

    async def _enter_again(self) -> int:
        """Exports that wait without an entry in the queue: it was lost, and is only a hint."""
        query = _jobs(
            exports.c.state == State.QUEUED.value, self._queue.without_entry(exports.c.id)
        )
        async with self._engine.begin() as connection:
            records = await _locked(connection, query)
            await self._ledger.put_again(connection, records)
        return len(records)

    async def _expire(self) -> int:
        """Artifacts whose time is over."""
        late = exports.c.expires_at < sa.func.now()
        query = _jobs(exports.c.state == State.SUCCEEDED.value, late)
        return await self._changed(query, lambda _: expired())

    async def _changed(self, query: sa.Select[Any], change: Callable[[Record], Transition]) -> int:
        """Make the change of each of these exports, and drop their artifacts; gives how many."""
        dropped: list[str | None] = []
        async with self._engine.begin() as connection:
            for record in await _locked(connection, query):
                made = await self._ledger.apply_in(connection, record, change(record))
                dropped += [record.artifact] if made is not None else []
        self._remove(dropped)
        return len(dropped)

    async def _forget(self) -> int:
        """Records whose time is over, of every kind; those with an artifact expire first."""
        c = exports.c
        old = sa.func.now() - timedelta(seconds=self._limits.record_ttl)
        ended = sa.and_(c.state.not_in(LIVE_VALUES), c.artifact.is_(None), c.finished_at < old)
        some = sa.select(c.id).where(ended).limit(10 * AT_ONCE)
        return await self._deleted(sa.delete(exports).where(c.id.in_(some)))

    async def _forget_events(self) -> int:
        c = export_events.c
        ended = sa.select(exports.c.id).where(
            exports.c.finished_at < sa.func.now() - EVENTS_KEPT,
            exports.c.finished_at > sa.func.now() - 48 * EVENTS_KEPT,
        )
        old = sa.and_(c.name == "progress", c.at < sa.func.now() - PROGRESS_KEPT)
        gone = await self._deleted(sa.delete(export_events).where(c.export_id.in_(ended)))
        live = sa.select(exports.c.id).where(exports.c.state == State.RUNNING.value)
        statement = sa.delete(export_events).where(old, c.export_id.in_(live))
        return gone + await self._deleted(statement)

    async def _deleted(self, statement: sa.Delete) -> int:
        async with self._engine.begin() as connection:
            return int((await connection.execute(statement)).rowcount)

    async def _forget_small(self, connection: AsyncConnection) -> None:
        now = sa.func.now()
        keys, there = idempotency_keys.c, workers.c
        await connection.execute(
            sa.delete(idempotency_keys).where(keys.created_at < now - KEYS_KEPT)
        )
        await connection.execute(sa.delete(workers).where(there.seen_at < now - WORKERS_KEPT))
        await self._queue.tidy(connection)

    async def _remove_strangers(self) -> int:
        async with self._engine.connect() as connection:
            query = sa.select(exports.c.artifact).where(exports.c.artifact.is_not(None))
            known = set((await connection.execute(query)).scalars())
        try:
            strangers = self._folder.strangers(known, STRANGERS_AFTER)
        except StorageFailed:
            return 0
        self._remove(strangers)
        return len(strangers)

    def _remove(self, names: Iterable[str | None]) -> None:
        """What cannot be removed now is a stranger later."""
        for name in filter(None, names):
            with contextlib.suppress(StorageFailed):
                self._folder.remove(name)


def _jobs(*conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return sa.select(exports).where(exports.c.kind == Kind.JOB.value, *conditions)


async def _locked(connection: AsyncConnection, query: sa.Select[Any]) -> list[Record]:
    """The rows, held for this transaction; those that another one holds are left to it."""
    rows = await connection.execute(query.limit(AT_ONCE).with_for_update(skip_locked=True))
    return [record_of(row) for row in rows]


def _lost(record: Record) -> Transition:
    if record.cancel_requested_at is not None:
        return cancelled(_unproved(record), None, utcnow())
    error = AttemptLost("The worker was not heard of in time.")
    return after_failure(record, error, None, utcnow())


def _unproved(record: Record) -> dict[str, Any]:
    """A dead worker's query: PostgreSQL notices its client's end by itself, but nobody looked."""
    return {"backend_gone": None, "latency_ms": None, "rows_written": record.rows}
