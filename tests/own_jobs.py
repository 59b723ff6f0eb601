"""Jobs of a test's own in the tables of a running service: no worker takes them, the test does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from service.errors import AttemptLost, SourceError
from service.jobs.beat import Sign, beat
from service.jobs.model import Record
from service.jobs.transitions import Transition, failed, put_back, succeeded
from tests.event_stream import Sent
from tests.job_desk import LEASE, MINE, RECEIPT, Desk, desk
from tests.jobs import Logged, log_of
from tests.session import Session

# Together more than our buffer and the kernel's hold for somebody who does not read.
LARGE, SEVERAL = 60_000, 150
UNHEARD = """
    WITH moved AS (
        UPDATE tailrace.exports SET event_seq = event_seq + {count}
        WHERE id = '{id}' RETURNING *
    )
    INSERT INTO tailrace.export_events (export_id, seq, name, data)
    SELECT id, event_seq - {count} + i, '{name}',
           jsonb_build_object('id', id, 'kind', 'job', 'attempt', attempt, 'place', i,
                              'pad', repeat('x', {pad}))
    FROM moved, generate_series(1, {count}) i
"""
ENDED = """
    UPDATE tailrace.exports SET state = 'succeeded', finished_at = now() WHERE id = '{}'
"""
HINT = "SELECT pg_notify('tailrace_events', '{}')"


class OwnJobs:
    """Each step is committed and told of as a worker's is, and has been made when it returns."""

    def __init__(self, url: str, database: Session) -> None:
        self.database = database
        self._runner = asyncio.Runner()
        self._open = AsyncExitStack()
        self._desk: Desk = self._runner.run(self._open.enter_async_context(desk(url)))
        self._made: list[str] = []

    def close(self) -> None:
        """Nothing is left of the jobs that were made."""
        for export in self._made:
            self.remove(export)
        self._runner.run(self._open.aclose())
        self._runner.close()

    def waiting(self, **values: Any) -> Record:
        # A source that no worker has.
        made = self._runner.run(self._desk.waiting(source="nowhere", **values))
        self._made.append(made.id)
        return made

    def claim(self, record: Record) -> Record:
        return self._runner.run(self._desk.claimed(record))

    def running(self, **values: Any) -> Record:
        return self.claim(self.waiting(**values))

    def beat(self, record: Record, rows: int, count: int = 1) -> None:
        """Tell of that many rows, ``count`` times."""
        sign = Sign(replace(record, rows=rows, bytes=10 * rows), moved=True)
        for _ in range(count):
            self._runner.run(beat(self._desk.engine, MINE, LEASE, [sign]))

    def succeed(self, record: Record) -> None:
        self._apply(record, succeeded(RECEIPT, datetime.now(UTC), timedelta(days=1)))

    def fail(self, record: Record) -> None:
        self._apply(record, failed(record, SourceError("It broke."), None, datetime.now(UTC)))

    def put_back(self, record: Record) -> None:
        """Its worker was lost: the next attempt waits."""
        error = AttemptLost("It was lost.")
        self._apply(record, put_back(record, error, datetime.now(UTC), pause=0.0))

    def done(self) -> Record:
        """One that has ended well; its events: two states, three of progress, and the end."""
        record = self.running()
        for rows in (1, 2, 3):
            self.beat(record, rows)
        self.succeed(record)
        return record

    def log(self, record: Record, name: str, count: int = 1, pad: int = 0) -> None:
        """Log events of so many bytes; whoever listens is not told."""
        self.database.execute(UNHEARD.format(id=record.id, name=name, count=count, pad=pad))

    def overfill(self, record: Record, count: int = SEVERAL) -> None:
        """Tell of so much that whoever does not read it has to be waited for."""
        self.log(record, "state", count, pad=LARGE)
        self.hint(record)

    def end_unheard(self, record: Record) -> None:
        """It ends well, and whoever listens is not told."""
        self.database.execute(ENDED.format(record.id))
        self.log(record, "succeeded")
        self.log(record, "close")

    def hint(self, record: Record) -> None:
        """Tell whoever listens that there is something new."""
        self.database.execute(HINT.format(record.id))

    def remove(self, export: str) -> None:
        """Delete the row with its events, without a word."""
        self.database.execute(f"DELETE FROM tailrace.exports WHERE id = '{export}'")
        self.database.execute(f"DELETE FROM tailrace.queue WHERE dedupe_key = '{export}'")

    def _apply(self, record: Record, transition: Transition) -> None:
        made = self._runner.run(self._desk.ledger.apply(record, transition))
        assert made is not None


@contextmanager
def own_jobs(url: str, database: Session) -> Iterator[OwnJobs]:
    jobs = OwnJobs(url, database)
    try:
        yield jobs
    finally:
        jobs.close()


def events_path(export: Record | str) -> str:
    return f"/v1/exports/{export if isinstance(export, str) else export.id}/events"


def logged(database: Session, export: Record | str, base: str, behind: int = 0) -> list[Sent]:
    """What the log has behind that event, as whoever came by the address ``base`` is sent it."""
    events = log_of(database, export if isinstance(export, str) else export.id)
    return as_sent([event for event in events if event.seq > behind], base)


def as_sent(events: Iterable[Logged], base: str) -> list[Sent]:
    """The same of some events; those that hold an export have links."""
    bare = ("progress", "close")
    return [
        Sent(
            event.seq,
            event.name,
            event.data if event.name in bare else _linked(event.data, base),
        )
        for event in events
    ]


def _linked(data: dict[str, Any], base: str) -> dict[str, Any]:
    here = f"{base}/v1/exports/{data['id']}"
    links = {
        "self": here,
        "events": f"{here}/events",
        "content": f"{here}/content?attempt={data['attempt']}" if data["kind"] == "job" else None,
        "receipt": f"{here}/receipt",
        "cancel": f"{here}/cancel",
    }
    return {**data, "links": links}


def ids(events: Sequence[Sent]) -> list[int | None]:
    return [event.id for event in events]
