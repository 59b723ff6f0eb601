"""Jobs in a real table with everything that works on them, and no server around it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import uuid_utils.compat as uuid_utils
from sqlalchemy.ext.asyncio import AsyncEngine

from service.database import service_engine
from service.jobs.beat import Sign, beat
from service.jobs.ledger import Answer, Entered, Key, Ledger, Room
from service.jobs.model import Kind, Record, State
from service.jobs.queue import Queue
from service.jobs.transitions import succeeded

ROOM = Room(all=1_000, caller=1_000)
LEASE = timedelta(seconds=60)
KEPT = timedelta(days=7)
MINE = "host:1:aaaaaaaa"  # the worker of most tests
ANOTHERS = "host:2:bbbbbbbb"
RECEIPT: dict[str, Any] = {"outcome": "complete", "rows": 7, "bytes": 70, "sha256": "ab" * 32}
EVENTS = "SELECT seq, name FROM tailrace.export_events WHERE export_id = :id ORDER BY seq"
ENTRIES = "SELECT dedupe_key, entrypoint, status, priority FROM tailrace.queue ORDER BY id"
BLOCKED = """
    SELECT pid FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND datname = current_database()
"""
COPY = """
    INSERT INTO tailrace.exports
    SELECT (jsonb_populate_record(e, jsonb_build_object('id', gen_random_uuid()))).*
    FROM tailrace.exports e, generate_series(1, {})
"""  # as many more of the rows that there are
TABLES = ("exports", "export_events", "idempotency_keys", "workers", "queue")
Log = list[tuple[int, str]]


def job(**values: Any) -> Record:
    """A job that waits, made now, like no other."""
    number = str(uuid_utils.uuid7())
    fixed = Record(
        id=number,
        kind=Kind.JOB,
        owner="anonymous",
        dataset="numbers",
        source="main",
        lane="copy",
        format="csv",
        compression="none",
        profile="machine",
        request={"dataset": "numbers"},
        created_at=datetime.now(UTC),
        state=State.QUEUED,
        fingerprint=number,
        priority=10,
        attempts_until=4,
    )
    return replace(fixed, **values)


def told(record: Record, joined: bool) -> Answer:  # noqa: FBT001 - as the ledger calls it
    """What a client would be answered."""
    headers = {"X-Export-Joined": "true"} if joined else {}
    return {"status": 202, "headers": headers, "body": {"id": record.id}}


def room_for_all() -> None:
    """There is always room on this disk."""


@dataclass(frozen=True, slots=True)
class Desk:
    """One process's hold on the table; several desks are several processes."""

    engine: AsyncEngine
    queue: Queue
    ledger: Ledger

    async def enter(
        self,
        record: Record,
        room: Room = ROOM,
        *,
        join: timedelta | None = None,
        key: Key | None = None,
    ) -> Entered:
        return await self.ledger.enter(
            record, room, join=join, key=key, storage=room_for_all, answer=told
        )

    async def waiting(self, **values: Any) -> Record:
        """A job that has been entered."""
        entered = (await self.enter(job(**values))).record
        assert entered is not None
        return entered

    async def claimed(self, record: Record, worker: str = MINE) -> Record:
        """The same job as it runs."""
        made = await self.ledger.claim(record.id, worker, uuid_utils.uuid4().hex, LEASE)
        assert made is not None
        return made

    async def running(self, worker: str = MINE, **values: Any) -> Record:
        return await self.claimed(await self.waiting(**values), worker)

    async def ended(self, running: Record) -> Record:
        """The same job once it has succeeded."""
        made = await self.ledger.apply(running, succeeded(RECEIPT, datetime.now(UTC), KEPT))
        assert made is not None
        return made

    async def row(self, export_id: str) -> Any:
        """All columns, None if there is no such row."""
        found = await self.rows("SELECT * FROM tailrace.exports WHERE id = :id", UUID(export_id))
        return found[0] if found else None

    async def state(self, export_id: str) -> str:
        return str((await self.row(export_id)).state)

    async def log(self, export_id: str) -> Log:
        """Numbers and names of the events."""
        return [(row.seq, row.name) for row in await self.rows(EVENTS, UUID(export_id))]

    async def entries(self) -> list[tuple[str, str, str, int]]:
        """What is in the queue: export, source, status and priority."""
        return [tuple(row) for row in await self.rows(ENTRIES)]

    async def rows(self, sql: str, id_: UUID | None = None) -> list[sa.Row[Any]]:
        async with self.engine.connect() as connection:
            return list(await connection.execute(sa.text(sql), {"id": id_} if id_ else {}))

    async def execute(self, sql: str) -> int:
        """How many rows it changed."""
        async with self.engine.begin() as connection:
            return int((await connection.execute(sa.text(sql))).rowcount)

    async def empty(self) -> None:
        """Nothing of an earlier test is left."""
        await self.execute(f"TRUNCATE {', '.join(f'tailrace.{name}' for name in TABLES)}")

    async def blocked(self) -> bool:
        """Whether a statement of this database waits for a lock."""
        return bool(await self.rows(BLOCKED))

    async def beat(self, *records: Record, worker: str = MINE) -> tuple[list[str], list[str]]:
        """Tell that all of these moved; which attempts still count, and which are to stop."""
        signs = [Sign(record, moved=True) for record in records]
        heard = await beat(self.engine, worker, LEASE, signs)
        return sorted(heard.kept), sorted(heard.stopping)


@asynccontextmanager
async def desk(url: str) -> AsyncIterator[Desk]:
    engine = service_engine(url)
    queue = Queue(engine)
    try:
        yield Desk(engine, queue, Ledger(engine, queue))
    finally:
        await engine.dispose()


def gapless(log: Log) -> bool:
    """Whether the numbers are 1, 2, 3 and so on."""
    return [seq for seq, _ in log] == list(range(1, len(log) + 1))
