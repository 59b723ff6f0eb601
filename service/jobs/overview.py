"""How many jobs wait and run, and which workers there are."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from service.export.receipt import rfc3339
from service.jobs.model import Kind, State
from service.jobs.tables import exports, workers

_waits = sa.func.count().filter(exports.c.state == State.QUEUED.value)
_runs = sa.func.count().filter(exports.c.state == State.RUNNING.value)
_oldest = sa.func.min(exports.c.created_at).filter(exports.c.state == State.QUEUED.value)
JOBS = sa.select(_waits.label("queued"), _runs.label("running"), _oldest.label("oldest")).where(
    exports.c.kind == Kind.JOB.value,
    exports.c.state.in_([State.QUEUED.value, State.RUNNING.value]),
)
SEEN_LATELY = sa.text("interval '30 seconds'")
WORKERS = (
    sa.select(workers)
    .where(workers.c.seen_at > sa.func.now() - SEEN_LATELY)
    .order_by(workers.c.started_at)
)


async def overview(engine: AsyncEngine) -> dict[str, Any]:
    """``queued``, ``running``, since when the oldest waits, and the workers."""
    async with engine.connect() as connection:
        jobs = (await connection.execute(JOBS)).one()
        there = await connection.execute(WORKERS)
        return {
            "queued": jobs.queued,
            "running": jobs.running,
            "oldest_queued_at": rfc3339(jobs.oldest) if jobs.oldest else None,
            "workers": [
                {
                    "name": worker.name,
                    "running": worker.running,
                    "concurrency": worker.concurrency,
                    "started_at": rfc3339(worker.started_at),
                    "seen_at": rfc3339(worker.seen_at),
                }
                for worker in there
            ],
        }
