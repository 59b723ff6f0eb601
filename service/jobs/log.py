"""The durable log of each export's events, written in the transaction that makes them.

The export's row is locked by its update when an event gets its number, so the numbers of one
export become visible in their order and without gaps.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from service.jobs.model import CLOSE, Record, State, body, progress
from service.jobs.tables import export_events

EVENTS = "tailrace_events"  # the channel whose payload names exports that have new events
DELETED = "tailrace_deleted"  # the channel that names one whose row is gone, and its owner
CANCEL = "tailrace_cancel"  # the channel whose payload names one that is to stop
EVERYTHING = "*"
MAX_PAYLOAD = 7_900  # bytes; NOTIFY takes less than 8000 (PostgreSQL's manual)
TERMINAL = {
    State.SUCCEEDED: "succeeded",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
    State.EXPIRED: "succeeded",
}

NOTIFY = sa.select(sa.func.pg_notify(sa.bindparam("channel"), sa.bindparam("payload")))


def payload_of(ids: Iterable[str]) -> str:
    """The ids as a payload, or a word for everything where they are too many for one."""
    text = " ".join(ids)
    return text if len(text) <= MAX_PAYLOAD else EVERYTHING


def ids_of(payload: str | None) -> frozenset[str] | None:
    """The ids that a payload names; None for everything, or where nothing is known."""
    return None if payload in (None, EVERYTHING) else frozenset((payload or "").split())


def event_data(name: str, record: Record, now: datetime) -> dict[str, Any]:
    """What a client is sent with the event ``name``, without links."""
    if name == CLOSE:
        return {}
    if name == "progress":
        return {"attempt": record.attempt, **progress(record, now)}
    shown = body(record, now)
    return shown if name == "state" else {**shown, "receipt": record.receipt}


def names_for(record: Record) -> tuple[str, ...]:
    """The events of a direct stream's record that was written as it is."""
    if record.state.final:
        return (TERMINAL[record.state], CLOSE)
    return ("state",) if record.event_seq in (None, 1) else ("progress",)


async def append(
    connection: AsyncConnection, records: Iterable[tuple[Record, tuple[str, ...]]], now: datetime
) -> None:
    """Log the events of records whose ``event_seq`` counts them already, and tell who listens."""
    rows: list[dict[str, Any]] = []
    ids: list[str] = []
    for record, names in records:
        first = (record.event_seq or 0) - len(names) + 1
        ids.append(record.id)
        rows.extend(
            {
                "export_id": UUID(record.id),
                "seq": first + place,
                "name": name,
                "data": event_data(name, record, now),
            }
            for place, name in enumerate(names)
        )
    if rows:
        await connection.execute(sa.insert(export_events), rows)
    if ids:
        await notify(connection, EVENTS, payload_of(ids))


async def notify(connection: AsyncConnection, channel: str, payload: str) -> None:
    """A hint for those who listen, sent when the transaction commits."""
    await connection.execute(NOTIFY, {"channel": channel, "payload": payload})
