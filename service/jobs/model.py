"""An export's record, its states, and how the API shows it. Pure."""

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


LIVE = (State.QUEUED, State.RUNNING)
CLOSE = "close"  # the last event of an export that has ended
PROCESS_LOST = "process_lost"  # the code of the error of a record that nobody ended
STATE_OF = {
    Outcome.COMPLETE: State.SUCCEEDED,
    Outcome.FAILED: State.FAILED,
    Outcome.TRUNCATED: State.FAILED,
    Outcome.CANCELLED: State.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Record:
    """One export as it is stored; ``receipt``, ``error`` and ``cancel`` are plain data for JSON.

    ``attempt`` is the one that counts: of a queued export the next, else the last. Rates are
    smoothed and per second. ``event_seq`` is the number of the last event, None where the record
    has never been in the table. Files and relays have a ``source`` and no dataset, lane, format,
    compression and profile; ``total_bytes`` is known of them alone.
    """

    id: str
    kind: Kind
    owner: str
    dataset: str | None
    source: str
    lane: str | None
    format: str | None
    compression: str | None
    profile: str | None
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
    total_bytes: int | None = None
    filename: str | None = None
    fingerprint: str | None = None
    priority: int | None = None
    attempts: list[dict[str, Any]] | None = None
    attempts_until: int | None = None
    artifact: str | None = None
    worker: str | None = None
    not_before: datetime | None = None
    snapshot_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    cancel: dict[str, Any] | None = None
    rows_per_s: float | None = None
    bytes_per_s: float | None = None
    eta_s: float | None = None
    event_seq: int | None = None
    error: dict[str, Any] | None = None
    receipt: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def subject(self) -> str:
        """What it is of: a dataset, or the root or upstream of a download."""
        return self.dataset or self.source

    def finished(
        self,
        receipt: dict[str, Any],
        outcome: Outcome,
        finished_at: datetime,
        error: dict[str, Any] | None,
    ) -> Record:
        """The record after its stream ended."""
        sent = receipt["bytes"]
        return replace(
            self,
            state=STATE_OF[outcome],
            finished_at=finished_at,
            heartbeat_at=finished_at,
            rows=receipt["rows"] or 0,
            bytes=(receipt["encoded_bytes"] or 0) if sent is None else sent,
            error=error,
            receipt=receipt,
            cancel=receipt.get("cancel"),
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
    return linked(body(record, now), base)


def body(record: Record, now: datetime) -> dict[str, Any]:
    """The export as the API shows it, without links: those depend on how a client came here."""
    return {
        "id": record.id,
        "kind": record.kind.value,
        "owner": record.owner,
        "dataset": record.dataset,
        "source": record.source,
        "format": record.format,
        "compression": record.compression,
        "profile": record.profile,
        "request": record.request,
        "state": record.state.value,
        "attempt": record.attempt,
        "attempts": record.attempts or [],
        "created_at": rfc3339(record.created_at),
        "started_at": _time(record.started_at),
        "finished_at": _time(record.finished_at),
        "expires_at": _time(record.expires_at),
        "progress": progress(record, now),
        "error": record.error,
    }


def linked(export: dict[str, Any], base: str) -> dict[str, Any]:
    """``export``, a body, with its links below ``base``."""
    here = f"{base}/v1/exports/{export['id']}"
    content = f"{here}/content?attempt={export['attempt']}"
    links = {
        "self": here,
        "events": f"{here}/events",
        "content": content if export["kind"] == Kind.JOB.value else None,
        "receipt": f"{here}/receipt",
        "cancel": f"{here}/cancel",
    }
    return {**export, "links": links}


def progress(record: Record, now: datetime) -> dict[str, Any]:
    """Rows and bytes so far with their rates per second; unknown figures are None.

    Rates are smoothed while a job runs, and the mean of everything else.
    """
    done, ended = record.state is State.SUCCEEDED, record.state.final
    total = record.rows if done else record.total_rows
    seconds = _seconds(record, now)
    rows_rate, bytes_rate = record.rows_per_s, record.bytes_per_s
    if ended or record.kind is not Kind.JOB:
        rows_rate = record.rows / seconds if seconds else None
        bytes_rate = record.bytes / seconds if seconds else None
    return {
        "rows": record.rows,
        "bytes": record.bytes,
        "total_rows": total,
        "total_kind": "exact" if done else record.total_kind,
        "total_bytes": record.bytes if done else record.total_bytes,
        "fraction": 1.0 if done else _fraction(record),
        "rows_per_s": rows_rate,
        "bytes_per_s": bytes_rate,
        "eta_s": None if ended else _left(record, rows_rate, bytes_rate),
    }


def _fraction(record: Record) -> float | None:
    if record.total_bytes is not None:
        return min(record.bytes / record.total_bytes, 1.0) if record.total_bytes else None
    return min(record.rows / record.total_rows, 1.0) if record.total_rows else None


def _left(record: Record, rows_rate: float | None, bytes_rate: float | None) -> float | None:
    if record.kind is Kind.JOB:
        return record.eta_s
    if record.total_bytes is not None:
        return max(record.total_bytes - record.bytes, 0) / bytes_rate if bytes_rate else None
    if record.total_rows is None:
        return None
    return max(record.total_rows - record.rows, 0) / rows_rate if rows_rate else None


def _seconds(record: Record, now: datetime) -> float:
    if record.started_at is None:
        return 0.0
    return max((record.finished_at or now) - record.started_at, timedelta(0)).total_seconds()


def _time(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment else None
