"""The rows of jobs. Each write is fenced: it changes nothing once another attempt counts.

An export's row is the truth. Its events, its entry in the queue and the hint to those who listen
are written in the same transaction, so none of them can say anything else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.database import AWAY, utcnow
from service.errors import KeyReused, QueueFull, TooManyQueued
from service.jobs.log import CANCEL, DELETED, EVENTS, append, notify, payload_of
from service.jobs.model import LIVE, Kind, Record, State
from service.jobs.queue import Queue
from service.jobs.rows import answered, record_of, row_of
from service.jobs.tables import exports, idempotency_keys
from service.jobs.transitions import Transition, cancelled, claimed

KEY_KEPT = timedelta(hours=24)
RETRY_AFTER = {"Retry-After": "10"}  # seconds
AT_ONCE = 100  # exports that may be entered at the same moment, by all processes
ROOM_LOCK = int.from_bytes(b"tailroom", "big")
LIVE_VALUES = [state.value for state in LIVE]

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Key:
    """The client's Idempotency-Key, and the digest of the body that it came with."""

    text: str
    digest: str


@dataclass(frozen=True, slots=True)
class Room:
    """How many exports may wait: in all, and of one caller."""

    all: int
    caller: int


@dataclass(frozen=True, slots=True)
class Entered:
    """What became of a request: the export and whether it was there already, or an old answer."""

    record: Record | None
    joined: bool = False
    answer: Answer | None = None


class Ledger:
    """Jobs in the table; times are the database's clock where several processes compare them."""

    def __init__(self, engine: AsyncEngine, queue: Queue) -> None:
        self._engine = engine
        self._reads = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._queue = queue

    async def enter(
        self,
        record: Record,
        room: Room,
        *,
        join: timedelta | None,
        key: Key | None,
        storage: Callable[[], None],
        answer: Callable[[Record, bool], Answer],
    ) -> Entered:
        """Enter a job, or find the one that does the same.

        ``join`` is how old the snapshot of a running one may be; None joins nothing. Raises
        KeyReused, QueueFull, TooManyQueued, and what ``storage`` raises if nothing new fits.
        """
        with answered():
            async with self._engine.begin() as connection:
                if key is not None:
                    old = await _replayed(connection, record.owner, key)
                    if old is not None:
                        return Entered(None, answer=old)
                found = await _same(connection, record, join)
                if found is None:
                    storage()
                entered = found or await self._insert(connection, record, room)
                if key is not None:
                    told = answer(entered, found is not None)
                    await _remember(connection, record.owner, key, told)
        return Entered(entered, found is not None)

    async def get(self, export_id: str) -> Record | None:
        """The row as it is."""
        query = sa.select(exports).where(exports.c.id == UUID(export_id))
        with answered():
            async with self._reads.connect() as connection:
                row = (await connection.execute(query)).one_or_none()
        return record_of(row) if row else None

    async def apply(self, record: Record, transition: Transition, **values: Any) -> Record | None:
        """Make the transition; None when ``record`` is no longer what the table holds.

        ``values`` are further columns.
        """
        with answered():
            async with self._engine.begin() as connection:
                return await self.apply_in(connection, record, transition, **values)

    async def apply_in(
        self, connection: AsyncConnection, record: Record, transition: Transition, **values: Any
    ) -> Record | None:
        """The same in the transaction of ``connection``."""
        made = await _updated(connection, record, transition, values)
        if made is None:
            return None
        await append(connection, [(made, transition.events)], utcnow())
        if made.state is not State.RUNNING:
            await self._queue.remove(connection, [made.id])
        if made.state is State.QUEUED:
            await self._put(connection, made, delay=transition.pause)
        return made

    async def claim(
        self, export_id: str, worker: str, artifact: str, lease: timedelta
    ) -> Record | None:
        """Begin the attempt of an export that waits; None when it does not, or not any more."""
        record = await self.get(export_id)
        if record is None or record.state is not State.QUEUED:
            return None
        transition = claimed(worker, artifact, utcnow())
        until = sa.func.now() + lease
        return await self.apply(record, transition, lease_until=until, heartbeat_at=sa.func.now())

    async def ask_to_stop(self, export_id: str) -> Record | None:
        """Stop an export that waits, or tell who runs it to stop it; gives the row as it is then.

        None when there is no such export. One that has ended stays as it is.
        """
        wanted = sa.func.coalesce(exports.c.cancel_requested_at, sa.func.now())
        statement = (
            sa.update(exports)
            .where(exports.c.id == UUID(export_id), exports.c.state.in_(LIVE_VALUES))
            .values(cancel_requested_at=wanted)
            .returning(*exports.c)
        )
        with answered():
            async with self._engine.begin() as connection:
                row = (await connection.execute(statement)).one_or_none()
                if row is not None:
                    record = record_of(row)
                    if record.state is State.QUEUED:
                        proof = {"backend_gone": True, "latency_ms": 0.0, "rows_written": 0}
                        gone = cancelled(proof, None, utcnow())
                        return await self.apply_in(connection, record, gone)
                    await notify(connection, CANCEL, record.id)
                    return record
        return await self.get(export_id)

    async def remember(self, owner: str, key: Key, answer: Answer) -> None:
        """From now on ``answer`` is what the key is answered with; else it is the first one."""
        with contextlib.suppress(*AWAY):
            async with self._engine.begin() as connection:
                await _remember(connection, owner, key, answer)

    async def delete(self, record: Record) -> bool:
        """Remove the row with its events; False when it is live again."""
        ended = exports.c.state.not_in(LIVE_VALUES)
        statement = sa.delete(exports).where(exports.c.id == UUID(record.id), ended)
        with answered():
            async with self._engine.begin() as connection:
                gone = bool((await connection.execute(statement)).rowcount)
                if gone:
                    await notify(connection, EVENTS, payload_of([record.id]))
                    await notify(connection, DELETED, f"{record.id} {record.owner}")
                return gone

    async def put_again(self, connection: AsyncConnection, records: Sequence[Record]) -> None:
        """Enter exports whose entries are gone."""
        now = utcnow()
        for record in records:
            pause = record.not_before - now if record.not_before else timedelta(0)
            await self._put(connection, record, delay=max(pause.total_seconds(), 0.0))

    async def _put(
        self, connection: AsyncConnection, record: Record, *, delay: float = 0.0
    ) -> None:
        await self._queue.put(
            connection, record.source, record.id, priority=record.priority or 0, delay=delay
        )

    async def _insert(self, connection: AsyncConnection, record: Record, room: Room) -> Record:
        await _require_room(connection, record.owner, room)
        values = row_of(record) | {"heartbeat_at": sa.func.now(), "event_seq": 1}
        statement = sa.insert(exports).values(values).returning(*exports.c)
        made = record_of((await connection.execute(statement)).one())
        await append(connection, [(made, ("state",))], utcnow())
        await self._put(connection, made)
        return made


async def _updated(
    connection: AsyncConnection, record: Record, transition: Transition, values: dict[str, Any]
) -> Record | None:
    origins = [state.value for state in transition.origins]
    fence = [
        exports.c.id == UUID(record.id),
        exports.c.attempt == record.attempt,
        exports.c.state.in_(origins),
    ]
    if record.state is State.RUNNING:
        fence.append(exports.c.worker == record.worker)
    changes = {**transition.changes, "state": transition.target.value}
    statement = (
        sa.update(exports)
        .where(*fence)
        .values(
            **changes,
            **values,
            event_seq=exports.c.event_seq + len(transition.events),
        )
        .returning(*exports.c)
    )
    row = (await connection.execute(statement)).one_or_none()
    return record_of(row) if row else None


async def _same(
    connection: AsyncConnection, record: Record, join: timedelta | None
) -> Record | None:
    """A live job that makes the same file, of data that is new enough."""
    if join is None:
        return None
    # Two requests at once are one after the other from here on.
    lock = sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(record.fingerprint, 0))
    await connection.execute(sa.select(lock))
    c = exports.c
    new_enough = sa.or_(c.snapshot_at.is_(None), c.snapshot_at > sa.func.clock_timestamp() - join)
    query = (
        sa.select(exports)
        .where(
            c.kind == Kind.JOB.value,
            c.state.in_(LIVE_VALUES),
            c.fingerprint == record.fingerprint,
            c.owner == record.owner,
            c.cancel_requested_at.is_(None),
            sa.or_(c.state == State.QUEUED.value, new_enough),
        )
        .order_by(c.created_at.desc())
        .limit(1)
    )
    row = (await connection.execute(query)).one_or_none()
    return record_of(row) if row else None


async def _require_room(connection: AsyncConnection, owner: str, room: Room) -> None:
    waiting, own = await _waiting(connection, owner)
    if min(room.all - waiting, room.caller - own) <= AT_ONCE:
        # So few places could be taken by others before this one is.
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ROOM_LOCK)))
        waiting, own = await _waiting(connection, owner)
    if waiting >= room.all:
        raise QueueFull(f"{waiting} exports are waiting; try again later.", headers=RETRY_AFTER)
    if own >= room.caller:
        raise TooManyQueued(f"{own} exports of yours are waiting already.", headers=RETRY_AFTER)


async def _waiting(connection: AsyncConnection, owner: str) -> tuple[int, int]:
    """How many exports wait: in all, and of ``owner``."""
    c = exports.c
    mine = sa.func.count().filter(c.owner == owner)
    query = sa.select(sa.func.count(), mine).where(
        c.kind == Kind.JOB.value, c.state == State.QUEUED.value
    )
    waiting, own = (await connection.execute(query)).one()
    return waiting, own


async def _replayed(connection: AsyncConnection, owner: str, key: Key) -> Answer | None:
    """The answer that the key was given before; takes the key where there is none."""
    c = idempotency_keys.c
    mine = (c.owner == owner, c.key == key.text)
    old = sa.delete(idempotency_keys).where(*mine, c.created_at < sa.func.now() - KEY_KEPT)
    await connection.execute(old)
    taking = insert(idempotency_keys).values(owner=owner, key=key.text, request_sha256=key.digest)
    # It waits for another request with this key, and sees its row then.
    taken = await connection.execute(taking.on_conflict_do_nothing().returning(c.key))
    if taken.one_or_none() is not None:
        return None
    row = (await connection.execute(sa.select(c.request_sha256, c.answer).where(*mine))).one()
    if row.request_sha256 != key.digest:
        raise KeyReused(f"The Idempotency-Key {key.text!r} was used with another body.")
    answer: Answer = row.answer
    return answer


async def _remember(connection: AsyncConnection, owner: str, key: Key, answer: Answer) -> None:
    c = idempotency_keys.c
    plain = orjson.loads(orjson.dumps(answer))
    statement = sa.update(idempotency_keys).where(c.owner == owner, c.key == key.text)
    await connection.execute(statement.values(answer=plain))
