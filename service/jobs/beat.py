"""The heartbeat of a worker: the progress and the leases of all its attempts in one statement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from service.database import utcnow
from service.jobs.log import EVENTS, event_data, payload_of
from service.jobs.model import Record

# As one statement it is one commit and one notification. The commit waits for the disk: a number
# that a reader has been told must not be given to another event after a crash.
STATEMENT = sa.text("""
    WITH given AS MATERIALIZED (
        SELECT * FROM unnest(
            CAST(:ids AS uuid[]), CAST(:attempts AS int[]), CAST(:rows AS bigint[]),
            CAST(:bytes AS bigint[]), CAST(:totals AS bigint[]), CAST(:kinds AS text[]),
            CAST(:row_rates AS float8[]), CAST(:byte_rates AS float8[]), CAST(:etas AS float8[]),
            CAST(:snapshots AS timestamptz[]), CAST(:moved AS bool[]), CAST(:events AS text[])
        ) AS g (id, attempt, rows, bytes, total, kind, row_rate, byte_rate, eta, snapshot, moved,
                event)
    ), beaten AS (
        UPDATE tailrace.exports AS e
        SET heartbeat_at = now(), lease_until = now() + CAST(:lease AS interval),
            rows = g.rows, bytes = g.bytes, total_rows = g.total, total_kind = g.kind,
            rows_per_s = g.row_rate, bytes_per_s = g.byte_rate, eta_s = g.eta,
            snapshot_at = g.snapshot,
            event_seq = e.event_seq + g.moved::int
        FROM given AS g
        WHERE e.id = g.id AND e.attempt = g.attempt AND e.worker = :worker AND e.state = 'running'
        RETURNING e.id, e.event_seq, g.moved, g.event, e.cancel_requested_at
    ), logged AS (
        INSERT INTO tailrace.export_events (export_id, seq, name, data)
        SELECT id, event_seq, 'progress', event::jsonb FROM beaten WHERE moved
    ), told AS (
        SELECT pg_notify(:channel, :payload) WHERE EXISTS (SELECT FROM beaten WHERE moved)
    )
    SELECT id, cancel_requested_at IS NOT NULL AS stop, (SELECT count(*) FROM told) FROM beaten
""")


@dataclass(frozen=True, slots=True)
class Sign:
    """How far an attempt is, as its record says; ``moved`` since it was written the last time."""

    record: Record
    moved: bool


@dataclass(frozen=True, slots=True)
class Heard:
    """Of which exports the attempt still counts, and which of those are to stop."""

    kept: frozenset[str]
    stopping: frozenset[str]


async def beat(engine: AsyncEngine, worker: str, lease: timedelta, signs: Sequence[Sign]) -> Heard:
    """Write all signs of life; an attempt that is not among those kept has been lost."""
    records = [sign.record for sign in signs]
    now = utcnow()
    given: dict[str, Any] = {
        "ids": [UUID(record.id) for record in records],
        "attempts": [record.attempt for record in records],
        "rows": [record.rows for record in records],
        "bytes": [record.bytes for record in records],
        "totals": [record.total_rows for record in records],
        "kinds": [record.total_kind for record in records],
        "row_rates": [record.rows_per_s for record in records],
        "byte_rates": [record.bytes_per_s for record in records],
        "etas": [record.eta_s for record in records],
        "snapshots": [record.snapshot_at for record in records],
        "moved": [sign.moved for sign in signs],
        "events": [
            orjson.dumps(event_data("progress", record, now)).decode() for record in records
        ],
        "worker": worker,
        "lease": lease,
        "channel": EVENTS,
        "payload": payload_of(record.id for record in records),
    }
    async with engine.begin() as connection:
        rows = list(await connection.execute(STATEMENT, given))
    kept = frozenset(str(row.id) for row in rows)
    return Heard(kept, frozenset(str(row.id) for row in rows if row.stop))
