"""An export's record and its states. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from service.errors import problem
from service.export.receipt import Outcome, rfc3339


class Kind(StrEnum):
    """What made the stream."""

    JOB = "job"
    STREAM = "stream"
    RELAY = "relay"
    FILE = "file"


class State(StrEnum):
    """Where an export is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def final(self) -> bool:
        return self not in (State.QUEUED, State.RUNNING)


PROCESS_LOST = "process_lost"  # the code of the error of a record that nobody ended
STATE_OF = {
    Outcome.COMPLETE: State.SUCCEEDED,
    Outcome.FAILED: State.FAILED,
    Outcome.TRUNCATED: State.FAILED,
    Outcome.CANCELLED: State.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Record:
    """One export as it is stored; ``receipt`` and ``error`` are plain data for JSON."""

    id: str
    kind: Kind
    owner: str
    dataset: str
    source: str
    lane: str
    format: str
    compression: str
    profile: str
    request: dict[str, Any]
    created_at: datetime
    state: State = State.RUNNING
    attempt: int = 1
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    heartbeat_at: datetime | None = None
    rows: int = 0
    bytes: int = 0
    total_rows: int | None = None
    total_kind: str = "unknown"
    error: dict[str, Any] | None = None
    receipt: dict[str, Any] | None = field(default=None, repr=False)

    def finished(
        self,
        receipt: dict[str, Any],
        outcome: Outcome,
        finished_at: datetime,
        error: dict[str, Any] | None,
    ) -> Record:
        """The record after its stream ended."""
        return replace(
            self,
            state=STATE_OF[outcome],
            finished_at=finished_at,
            heartbeat_at=finished_at,
            rows=receipt["rows"],
            bytes=receipt["bytes"],
            error=error,
            receipt=receipt,
        )

    def lost(self, now: datetime) -> Record:
        """The record of a stream whose process is gone without having said how it ended."""
        error = problem(
            500,
            PROCESS_LOST,
            "The process that sent the stream is gone",
            "The stream was not finished and has no receipt.",
            None,
        )
        return replace(self, state=State.FAILED, finished_at=now, error=error)


def describe(record: Record, base: str, now: datetime) -> dict[str, Any]:
    """The export as the API shows it; ``base`` is the address up to ``/v1``."""
    here = f"{base}/v1/exports/{record.id}"
    return {
        "id": record.id,
        "kind": record.kind.value,
        "owner": record.owner,
        "dataset": record.dataset,
        "format": record.format,
        "compression": record.compression,
        "profile": record.profile,
        "request": record.request,
        "state": record.state.value,
        "attempt": record.attempt,
        "created_at": rfc3339(record.created_at),
        "started_at": _time(record.started_at),
        "finished_at": _time(record.finished_at),
        "expires_at": _time(record.expires_at),
        "progress": progress(record, now),
        "error": record.error,
        "links": {"self": here, "receipt": f"{here}/receipt"},
    }


def progress(record: Record, now: datetime) -> dict[str, Any]:
    """Rows and bytes so far with their mean rates per second; unknown figures are None."""
    seconds = _seconds(record, now)
    rows_rate = record.rows / seconds if seconds else None
    total = record.rows if record.state is State.SUCCEEDED else record.total_rows
    left = max(total - record.rows, 0) if total is not None else None
    done, ended = record.state is State.SUCCEEDED, record.state.final
    return {
        "rows": record.rows,
        "bytes": record.bytes,
        "total_rows": total,
        "total_kind": "exact" if done else record.total_kind,
        "fraction": 1.0 if done else min(record.rows / total, 1.0) if total else None,
        "rows_per_s": rows_rate,
        "bytes_per_s": record.bytes / seconds if seconds else None,
        "eta_s": left / rows_rate if rows_rate and left is not None and not ended else None,
    }


def _seconds(record: Record, now: datetime) -> float:
    if record.started_at is None:
        return 0.0
    return max((record.finished_at or now) - record.started_at, timedelta(0)).total_seconds()


def _time(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment else None
