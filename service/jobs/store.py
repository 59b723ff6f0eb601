"""Records in Tailrace's own tables, written in batches behind the streams they describe.

A stream never waits for its record: losing this database costs receipts, not exports. What
has not been written yet is answered from memory, so a client can ask for its receipt at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.database import AWAY, refused, utcnow
from service.jobs.log import append, ids_of, names_for
from service.jobs.model import PROCESS_LOST, Kind, Record, State
from service.jobs.rows import COLUMNS, answered, record_of, row_of
from service.jobs.tables import exports
from service.observe import Observer, RecordsDropped, RecordsNotWritten

BATCH_SECONDS = 0.1  # how far records may lag behind
HEARTBEAT_SECONDS = 2.0
LOST_AFTER = timedelta(seconds=60)
SWEEP_SECONDS = 15.0
MAX_PENDING = 10_000  # records kept in memory while the database is away
MAX_BACKOFF = 5.0  # seconds

_FINAL = [state.value for state in State if state.final]


@dataclass(frozen=True, slots=True)
class Live:
    """A stream of this process."""

    current: Callable[[], Record]
    cancel: Callable[[], None]


class Recorder:
    """The records of this process: live streams, a bounded backlog, and the table."""

    def __init__(self, engine: AsyncEngine, observe: Observer) -> None:
        self._engine = engine
        self._observe = observe
        self._live: dict[str, Live] = {}
        self._looking: asyncio.Future[None] | None = None
        self._pending: dict[str, Record] = {}
        self._dirty = asyncio.Event()
        self._writing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to write, to keep live records fresh and to find lost ones."""
        loops = (self._write_behind(), self._keep_fresh(), self._sweep_for_lost())
        self._tasks = [asyncio.create_task(loop) for loop in loops]

    async def stop(self) -> None:
        """Stop, after one last attempt to write what is pending."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(*AWAY):
            async with asyncio.timeout(MAX_BACKOFF):
                while self._pending:
                    await self._write()

    def begin(self, current: Callable[[], Record], cancel: Callable[[], None]) -> None:
        """A stream started; ``current`` gives its record as it is now, ``cancel`` stops it."""
        record = current()
        self._live[record.id] = Live(current, cancel)
        self._put(record)

    def cancel(self, export_id: str) -> bool:
        """Stop a stream of this process; whether it is one."""
        live = self._live.get(export_id)
        if live is not None:
            live.cancel()
        return live is not None

    def cancel_named(self, payload: str | None) -> None:
        """Somebody asked some process to stop an export; where nobody tells which, look."""
        ids = ids_of(payload)
        for export_id in ids or ():
            self.cancel(export_id)
        if ids is None:
            self._looking = asyncio.ensure_future(self._cancel_wanted())

    def finish(self, record: Record) -> None:
        """A stream ended; ``record`` is how."""
        self._live.pop(record.id, None)
        self._put(record)

    def known(self, export_id: str) -> Record | None:
        """What this process knows by itself of a stream of its own."""
        live = self._live.get(export_id)
        return live.current() if live else self._pending.get(export_id)

    async def get(self, export_id: str) -> Record | None:
        """The newest knowledge of one export, or None if there is none."""
        own = self.known(export_id)
        if own is not None:
            return own
        record = await self._stored(export_id)
        if record is None or not (record.kind is Kind.JOB or record.state.final):
            # It may be another process's, which is one batch ahead of what it has written.
            await asyncio.sleep(2 * BATCH_SECONDS)
            record = await self._stored(export_id)
        return record

    async def _stored(self, export_id: str) -> Record | None:
        query = sa.select(exports).where(exports.c.id == UUID(export_id))
        with answered():
            async with self._engine.connect() as connection:
                row = (await connection.execute(query)).one_or_none()
        return record_of(row) if row else None

    async def flush(self) -> None:
        """Write what is pending, for those who are about to look at the table."""
        with answered():
            await self._write()

    async def newest(
        self,
        *,
        owner: str,
        kind: Kind | None = None,
        state: State | None = None,
        dataset: str | None = None,
        before: tuple[datetime, str] | None = None,
        limit: int = 50,
    ) -> list[Record]:
        """Records of ``owner``, newest first, those before the (created_at, id) of ``before``."""
        query = sa.select(exports).where(exports.c.owner == owner)
        for column, wanted in (("kind", kind), ("state", state), ("dataset", dataset)):
            if wanted is not None:
                query = query.where(exports.c[column] == str(wanted))
        if before is not None:
            place = sa.tuple_(sa.literal(before[0]), sa.literal(UUID(before[1])))
            query = query.where(sa.tuple_(exports.c.created_at, exports.c.id) < place)
        query = query.order_by(exports.c.created_at.desc(), exports.c.id.desc()).limit(limit)
        await self.flush()
        with answered():
            async with self._engine.connect() as connection:
                found = [record_of(row) for row in await connection.execute(query)]
        return [self._fresher(record) for record in found]

    def _fresher(self, record: Record) -> Record:
        return self.known(record.id) or record

    def _put(self, record: Record) -> None:
        self._pending[record.id] = record
        excess = len(self._pending) - MAX_PENDING
        if excess > 0:
            for export_id in list(islice(self._pending, excess)):
                del self._pending[export_id]
            self._observe(RecordsDropped(excess))
        self._dirty.set()

    async def _write_behind(self) -> None:
        pause = BATCH_SECONDS
        while True:
            await self._dirty.wait()
            await asyncio.sleep(pause)
            try:
                await self._write()
                pause = BATCH_SECONDS
            except AWAY as error:
                self._observe(RecordsNotWritten(len(self._pending), repr(error)))
                pause = min(pause * 2, MAX_BACKOFF)

    async def _write(self) -> None:
        """Write everything pending in one transaction; what changes meanwhile stays pending."""
        async with self._writing:
            batch = list(self._pending.values())
            try:
                await self._upsert(batch)
            except DBAPIError as error:
                if not refused(error):
                    raise
                await self._upsert_singly(batch)
            for record in batch:
                if self._pending.get(record.id) is record:
                    del self._pending[record.id]
            if not self._pending:
                self._dirty.clear()

    async def _upsert_singly(self, batch: list[Record]) -> None:
        """One record that the database will never take must not hold up the others."""
        for record in batch:
            try:
                await self._upsert([record])
            except DBAPIError as error:
                if not refused(error):
                    raise
                self._observe(RecordsDropped(1))

    async def _upsert(self, batch: list[Record]) -> None:
        if not batch:
            return
        async with self._engine.begin() as connection:
            await connection.execute(sa.text("SET LOCAL synchronous_commit = off"))
            await self._logged(connection, batch)

    async def _logged(self, connection: AsyncConnection, batch: list[Record]) -> None:
        written = await connection.execute(_UPSERT, [_row(record) for record in batch])
        numbers = {str(row.id): row.event_seq for row in written}
        # Those that are not among them had their end already.
        numbered = (
            replace(record, event_seq=numbers[record.id])
            for record in batch
            if record.id in numbers
        )
        await append(connection, [(record, names_for(record)) for record in numbered], utcnow())

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            for live in list(self._live.values()):
                self._put(live.current())
            await self._cancel_wanted()

    async def _cancel_wanted(self) -> None:
        """The net below the notifications that ask to stop a stream."""
        if not self._live:
            return
        ids = [UUID(key) for key in self._live]
        wanted = sa.select(exports.c.id).where(
            exports.c.id == sa.any_(sa.literal(ids, ARRAY(sa.Uuid))),
            exports.c.cancel_requested_at.is_not(None),
        )
        with contextlib.suppress(*AWAY):
            async with self._engine.connect() as connection:
                for export_id in (await connection.execute(wanted)).scalars():
                    self.cancel(str(export_id))

    async def _sweep_for_lost(self) -> None:
        """A process that was killed leaves records that say running: find and end them."""
        while True:
            with contextlib.suppress(*AWAY):
                await self.end_lost(LOST_AFTER)
            await asyncio.sleep(SWEEP_SECONDS)

    async def end_lost(self, after: timedelta) -> int:
        """End running streams without a heartbeat for ``after``; gives how many there were."""
        c = exports.c
        stale = (c.kind != Kind.JOB.value, c.state == State.RUNNING.value)
        query = sa.select(exports).where(*stale, c.heartbeat_at < sa.func.now() - after)
        async with self._engine.begin() as connection:
            rows = await connection.execute(query.with_for_update(skip_locked=True))
            # Our own live ones only look lost after an outage, until their heartbeat is written.
            lost = [record_of(row).lost(utcnow()) for row in rows if str(row.id) not in self._live]
            if lost:
                await self._logged(connection, lost)
        return len(lost)


# Not what others say of it meanwhile: that it is to stop, and how many events there are.
_OTHERS = ("heartbeat_at", "event_seq", "cancel_requested_at")
_WRITTEN = tuple(name for name in COLUMNS if name not in _OTHERS)
_INSERT = insert(exports).values(
    {name: sa.bindparam(name) for name in _WRITTEN}
    # The database's clock, so that every process is measured against the same one.
    | {"heartbeat_at": sa.func.now(), "event_seq": sa.bindparam("events")}
)
_UPSERT = _INSERT.on_conflict_do_update(
    index_elements=[exports.c.id],
    set_={name: _INSERT.excluded[name] for name in _WRITTEN if name not in ("id", "created_at")}
    | {
        "heartbeat_at": sa.func.now(),
        "event_seq": exports.c.event_seq + _INSERT.excluded.event_seq,
    },
    # Not NOT IN, whose expanding parameter cannot stand in a batch.
    where=sa.or_(
        sa.and_(*(exports.c.state != state for state in _FINAL)),
        # Given up wrongly: its process could not write for a while, but it knows better.
        exports.c.error["code"].astext == PROCESS_LOST,
    ),
).returning(exports.c.id, exports.c.event_seq)


def _row(record: Record) -> dict[str, Any]:
    row = {name: value for name, value in row_of(record).items() if name in _WRITTEN}
    return row | {"events": len(names_for(record))}
