"""What a stream that goes straight to the client tells of itself: its record, the log, metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from service.database import utcnow
from service.errors import Cancelled, TailraceError
from service.export.receipt import Outcome
from service.jobs.model import Record
from service.jobs.store import Recorder
from service.observe import Observer, StreamEnded, StreamStarted


def _nothing(_: TailraceError) -> None: ...


@dataclass(slots=True)
class Telling:
    """The record of one stream, from its first byte to its receipt.

    ``created`` is the monotonic time of the request; ``break_off`` ends the stream early. Without
    a ``recorder`` no record is kept, and the log and the metrics alone are told.
    """

    record: Record
    recorder: Recorder | None
    observe: Observer
    created: float
    break_off: Callable[[TailraceError], None] = _nothing
    cancel_asked: float | None = None

    def cancel(self) -> None:
        """Somebody asked to stop it."""
        if self.cancel_asked is None:
            self.cancel_asked = time.monotonic()
            self.break_off(Cancelled("Somebody asked to stop it."))

    def started(self, progress: Callable[[Record], Record]) -> None:
        """The first byte is about to leave; ``progress`` brings a record up to date."""
        self.record = replace(self.record, started_at=utcnow())
        if self.recorder is not None:
            self.recorder.begin(lambda: progress(self.record), self.cancel)
        record = self.record
        self.observe(
            StreamStarted(
                export_id=record.id,
                kind=record.kind.value,
                dataset=record.subject,
                format=record.format or "",
                lane=record.lane or record.kind.value,
                first_byte_seconds=time.monotonic() - self.created,
            )
        )

    def ended(
        self, receipt: dict[str, Any], outcome: Outcome, now: datetime, error: TailraceError | None
    ) -> None:
        """It ended ``now``, and ``receipt`` is its proof."""
        problem = error.problem(None) if error else None
        self.record = self.record.finished(receipt, outcome, now, problem)
        if self.recorder is not None:
            self.recorder.finish(self.record)
        self.observe(self._ended(outcome, now, error))

    def _ended(self, outcome: Outcome, now: datetime, error: TailraceError | None) -> StreamEnded:
        record = self.record
        return StreamEnded(
            export_id=record.id,
            kind=record.kind.value,
            dataset=record.subject,
            format=record.format or "",
            lane=record.lane or record.kind.value,
            outcome=outcome.value,
            rows=record.rows,
            bytes=record.bytes,
            seconds=(now - (record.started_at or now)).total_seconds(),
            error=error.detail if error else None,
        )
