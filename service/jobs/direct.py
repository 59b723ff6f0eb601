"""A direct stream: an export that goes straight to the client, with a record behind it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from service.database import CHANGED, utcnow
from service.errors import Cancelled, SourceError, TailraceError
from service.export.pipeline import Export
from service.export.receipt import Outcome
from service.grammar.query import RowsQuery
from service.jobs.model import Record
from service.jobs.store import Recorder
from service.observe import Observer, StreamEnded, StreamStarted
from service.preferences import count_headers

GONE_SECONDS = 5.0  # in which a cancelled query is to be gone from its database


def _nothing(_: TailraceError) -> None: ...


async def proof_of(export: Export, asked: float) -> dict[str, object]:
    """Whether the query of a closed ``export`` is gone, as its database says.

    ``asked`` is the monotonic time at which somebody asked to stop it.
    """
    gone = await export.gone(GONE_SECONDS)
    took = round((time.monotonic() - asked) * 1000, 1)
    return {
        "backend_gone": gone,
        "latency_ms": took,
        "rows_written": export.stages.frame.rows,
    }


@dataclass(slots=True)
class DirectStream:
    """What ``streaming.StreamResponse`` sends; it has a record from its first byte on.

    ``created`` is the monotonic time of the request; ``changed`` is called when the source
    turns out to be different from what the catalogue knows, ``break_off`` to end it early.
    """

    export: Export
    record: Record
    recorder: Recorder
    observe: Observer
    created: float
    changed: Callable[[], None]
    query: RowsQuery
    break_off: Callable[[TailraceError], None] = _nothing
    status: int = 200
    cancel_asked: float | None = None
    proof: dict[str, object] | None = None

    def cancel(self) -> None:
        """Somebody asked to stop it."""
        if self.cancel_asked is None:
            self.cancel_asked = time.monotonic()
            self.break_off(Cancelled("Somebody asked to stop it."))

    async def open(self) -> None:
        try:
            await self.export.open()
        except SourceError as error:
            if error.members.get("sqlstate") in CHANGED:
                self.changed()
            raise

    async def read(self) -> bytes | None:
        return await self.export.read()

    async def close(self) -> None:
        await self.export.close()
        if self.cancel_asked is not None:
            self.proof = await proof_of(self.export, self.cancel_asked)

    def headers(self) -> Mapping[str, str]:
        return counted(self.export, self.query)

    def started(self) -> None:
        self.record = replace(self.record, started_at=utcnow())
        if self.export.total is not None and self.query.limit is None:
            total = self.export.total
            self.record = replace(self.record, total_rows=total.rows, total_kind=total.kind.value)
        self.recorder.begin(self._current, self.cancel)
        record = self.record
        self.observe(
            StreamStarted(
                export_id=record.id,
                kind=record.kind.value,
                dataset=record.dataset,
                format=record.format,
                lane=record.lane,
                first_byte_seconds=time.monotonic() - self.created,
            )
        )

    def ended(self, outcome: Outcome, error: TailraceError | None) -> None:
        now = utcnow()
        receipt = self.export.receipt(outcome, now, self.proof).as_dict()
        problem = error.problem(None) if error else None
        self.record = self.record.finished(receipt, outcome, now, problem)
        self.recorder.finish(self.record)
        self.observe(self._ended(outcome, now, error))

    def _current(self) -> Record:
        stages = self.export.stages
        return replace(self.record, rows=stages.frame.rows, bytes=stages.file.bytes)

    def _ended(self, outcome: Outcome, now: datetime, error: TailraceError | None) -> StreamEnded:
        record = self.record
        return StreamEnded(
            export_id=record.id,
            kind=record.kind.value,
            dataset=record.dataset,
            format=record.format,
            lane=record.lane,
            outcome=outcome.value,
            rows=record.rows,
            bytes=record.bytes,
            seconds=(now - (record.started_at or now)).total_seconds(),
            error=error.detail if error else None,
        )


@dataclass(slots=True)
class CountOnly:
    """HEAD with a count: the headers of a stream that is opened and never read."""

    export: Export
    query: RowsQuery
    status: int = 200

    async def open(self) -> None:
        await self.export.open()

    async def read(self) -> bytes | None:
        return None

    async def close(self) -> None:
        await self.export.close()

    def headers(self) -> Mapping[str, str]:
        return counted(self.export, self.query)

    def started(self) -> None:
        """It has no record."""

    def ended(self, outcome: Outcome, error: TailraceError | None) -> None:
        """It has no receipt."""


def counted(export: Export, query: RowsQuery) -> Mapping[str, str]:
    """The headers that tell the total, if it was asked for."""
    if export.total is None:
        return {}
    first = None if query.after else query.offset or 0
    return count_headers(export.total, first, query.limit)
