"""The proof of a stream: what was sent, from which snapshot, how it ended. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How a stream ended; only ``complete`` proves that every row was sent."""

    COMPLETE = "complete"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TRUNCATED = "truncated"


class Meter:
    """A stage that changes nothing: counts bytes and digests them (SHA-256, FIPS 180-4)."""

    def __init__(self) -> None:
        self.bytes = 0
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The digest so far, in hexadecimal."""
        return self._digest.hexdigest()

    def feed(self, data: bytes) -> bytes:
        self.bytes += len(data)
        self._digest.update(data)
        return data

    def sync(self) -> bytes:
        return b""

    def finish(self) -> bytes:
        return b""


@dataclass(frozen=True, slots=True)
class SnapshotMark:
    """Which state of the database was read: when, and the log position (None if unknown)."""

    at: datetime
    lsn: str | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """``bytes`` and ``sha256`` describe the file that the client saves.

    The ``encoded_`` ones are of the wire, where a Content-Encoding makes it differ; a relay does
    not decode, so of what comes encoded it knows those alone. ``download`` is what is told of
    files and relays beside that. Durations are seconds.
    """

    export_id: str
    outcome: Outcome
    rows: int | None
    bytes: int | None
    sha256: str | None
    encoded_bytes: int | None
    encoded_sha256: str | None
    format: str | None
    compression: str | None
    query_sha256: str
    snapshot: SnapshotMark | None
    started_at: datetime
    finished_at: datetime
    db_seconds_held: float
    next_cursor: str | None = None
    cancel: dict[str, Any] | None = None
    download: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, times as RFC 3339 in UTC."""
        snapshot = self.snapshot
        return {
            "export_id": self.export_id,
            "outcome": self.outcome.value,
            "rows": self.rows,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "encoded_bytes": self.encoded_bytes,
            "encoded_sha256": self.encoded_sha256,
            "format": self.format,
            "compression": self.compression,
            "query_sha256": self.query_sha256,
            "snapshot": {"at": rfc3339(snapshot.at), "lsn": snapshot.lsn} if snapshot else None,
            "next_cursor": self.next_cursor,
            "started_at": rfc3339(self.started_at),
            "finished_at": rfc3339(self.finished_at),
            "db_seconds_held": round(self.db_seconds_held, 6),
            "cancel": self.cancel,
            **({} if self.download is None else {"download": self.download}),
        }


def rfc3339(moment: datetime) -> str:
    """A time in UTC with the ``Z`` of RFC 3339."""
    return moment.isoformat().replace("+00:00", "Z")
