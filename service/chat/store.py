"""Generations in the tables: written whole, read back with the text so far."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.chat.model import Event, Generation, State
from service.chat.provider import Failure
from service.chat.tables import generation_events, generations
from service.chat.transcript import CLOSE
from service.jobs.log import notify, payload_of
from service.jobs.rows import answered

GENERATIONS = "tailrace_generations"  # the channel that names those that have new events
STOP = "tailrace_stop"  # the channel that names one that is to stop
Batch = tuple[Generation, Sequence[Event]]  # one as it is, and its events that are new
COLUMNS = tuple(field.name for field in fields(Generation))
# Its process may have told events that it had not written: none of those has the number of the
# end that others write for it, or whoever has seen one would take it for that.
MOST_UNWRITTEN = 10_000_000
LOST = {
    "code": Failure.UNKNOWN.value,
    "message": "The process that ran the generation is gone.",
    "retry": True,
}


class Store:
    """What a process asks of the tables of generations."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._reads = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def write(self, batch: Sequence[Batch]) -> None:
        """Each generation as it is, with its events that are new, in one transaction.

        One that was given up as lost meanwhile stays so.
        """
        async with self._engine.begin() as connection:
            taken = await connection.execute(UPSERT, [_row(generation) for generation, _ in batch])
            ids = {str(key) for key in taken.scalars()}
            rows = [
                _events(generation.id, events)
                for generation, events in batch
                if events and generation.id in ids
            ]
            if rows:
                await connection.execute(INSERT_EVENTS, rows)
            await notify(connection, GENERATIONS, payload_of(ids))

    async def get(self, generation_id: str) -> Generation | None:
        """The row; while it runs, with the text of the events that have been written."""
        with answered():
            async with self._reads.connect() as connection:
                query = sa.select(generations).where(generations.c.id == UUID(generation_id))
                row = (await connection.execute(query)).one_or_none()
                if row is None:
                    return None
                values = {name: row._mapping[name] for name in COLUMNS}
                if row.text is None:
                    events = await _behind(connection, generation_id, 0)
                    values["text"] = _text(events)
        return Generation(**values | {"id": generation_id, "state": State(row.state)})

    async def behind(self, generation_id: str, seq: int) -> list[Event]:
        """The events behind the number ``seq`` that have been written."""
        with answered():
            async with self._reads.connect() as connection:
                return await _behind(connection, generation_id, seq)

    async def has(self, generation_id: str, seq: int) -> bool:
        """Whether the event of that number has been written."""
        c = generation_events.c
        within = (c.generation_id == UUID(generation_id), c.first <= seq, c.last >= seq)
        with answered():
            async with self._reads.connect() as connection:
                found = await connection.execute(sa.select(sa.exists().where(*within)))
                return bool(found.scalar_one())

    async def ask_to_stop(self, generation_id: str) -> None:
        """Tell whichever process runs it to stop."""
        c = generations.c
        wanted = (
            sa.update(generations)
            .where(c.id == UUID(generation_id), c.state == State.RUNNING.value)
            .values(cancel_requested_at=sa.func.coalesce(c.cancel_requested_at, sa.func.now()))
        )
        with answered():
            async with self._engine.begin() as connection:
                if (await connection.execute(wanted)).rowcount:
                    await notify(connection, STOP, generation_id)

    async def alive(self, ids: Sequence[str]) -> list[str]:
        """Say that these run, and tell which of them are to stop."""
        c = generations.c
        beat = (
            sa.update(generations)
            .where(c.id.in_([UUID(key) for key in ids]))
            .values(heartbeat_at=sa.func.now())
            .returning(c.id, c.cancel_requested_at)
        )
        async with self._engine.begin() as connection:
            rows = await connection.execute(beat)
            return [str(row.id) for row in rows if row.cancel_requested_at is not None]

    async def sweep(self, lost_after: timedelta, keep: timedelta, own: Sequence[str]) -> int:
        """End those whose process is gone, remove what is too old; gives how many were lost."""
        c = generations.c
        stale = (
            sa.select(c.id, c.seq)
            .where(
                c.state == State.RUNNING.value,
                c.heartbeat_at < sa.func.now() - lost_after,
                c.id.not_in([UUID(key) for key in own]),
            )
            .with_for_update(skip_locked=True)
        )
        async with self._engine.begin() as connection:
            lost = (await connection.execute(stale)).all()
            for row in lost:
                await _lose(connection, str(row.id), row.seq)
            # The index has when it was created, which was before.
            old = [column < sa.func.now() - keep for column in (c.created_at, c.finished_at)]
            await connection.execute(sa.delete(generations).where(*old))
            if lost:
                await notify(connection, GENERATIONS, payload_of(str(row.id) for row in lost))
        return len(lost)


async def _lose(connection: AsyncConnection, generation_id: str, seq: int) -> None:
    """End it as failed: what its process had not written is lost."""
    text = _text(await _behind(connection, generation_id, 0))
    error = seq + MOST_UNWRITTEN + 1
    ends = [Event(error, "error", LOST), Event(error + 1, CLOSE, {})]
    ended = (
        sa.update(generations)
        .where(generations.c.id == UUID(generation_id))
        .values(
            state=State.FAILED.value,
            error=LOST,
            finished_at=sa.func.now(),
            seq=error + 1,
            text=text,
        )
    )
    await connection.execute(ended)
    await connection.execute(sa.insert(generation_events), [_events(generation_id, ends)])


async def _behind(connection: AsyncConnection, generation_id: str, seq: int) -> list[Event]:
    c = generation_events.c
    query = (
        sa.select(generation_events)
        .where(c.generation_id == UUID(generation_id), c.last > seq)
        .order_by(c.last)
    )
    found: list[Event] = []
    for row in await connection.execute(query):
        # A batch whose commit was not answered is written again, with what has come since.
        last = found[-1].seq if found else seq
        found += [event for event in expanded(row) if event.seq > last]
    return found


def _text(events: Iterable[Event]) -> str:
    return "".join(event.data["t"] for event in events if event.name == "token")


def expanded(row: sa.Row[Any]) -> list[Event]:
    """The events of one batch."""
    return [Event(number, name, data) for number, (name, data) in enumerate(row.events, row.first)]


def _row(generation: Generation) -> dict[str, Any]:
    row = {name: getattr(generation, name) for name in COLUMNS}
    final = generation.state.final
    return row | {
        "id": UUID(generation.id),
        "state": generation.state.value,
        # Until then it is in the events, and would be written again with every batch.
        "text": generation.text if final else None,
    }


def _events(generation_id: str, events: Sequence[Event]) -> dict[str, Any]:
    return {
        "generation_id": UUID(generation_id),
        "first": events[0].seq,
        "last": events[-1].seq,
        "events": [[event.name, event.data] for event in events],
    }


_INSERT = insert(generations).values(
    {name: sa.bindparam(name) for name in COLUMNS} | {"heartbeat_at": sa.func.now()}
)
_FIXED = ("id", "owner", "provider", "model", "asked", "created_at")
UPSERT = _INSERT.on_conflict_do_update(
    index_elements=[generations.c.id],
    set_={name: _INSERT.excluded[name] for name in COLUMNS if name not in _FIXED}
    | {"heartbeat_at": sa.func.now()},
    where=generations.c.state == State.RUNNING.value,
).returning(generations.c.id)
INSERT_EVENTS = insert(generation_events).on_conflict_do_nothing()
