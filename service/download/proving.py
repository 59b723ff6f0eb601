"""The proofs of downloads, of files and relays alike: no query ran, and nothing was decoded."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from service.export.receipt import Outcome, Receipt
from service.jobs.telling import Telling


def stopped(telling: Telling, rows: int = 0) -> dict[str, Any] | None:
    """The proof that a cancelled one reads nothing any more; None where nobody cancelled it.

    To be made once the file, or the connection to the upstream, is closed.
    """
    if telling.cancel_asked is None:
        return None
    took = time.monotonic() - telling.cancel_asked
    return {"backend_gone": True, "latency_ms": round(took * 1000, 1), "rows_written": rows}


def receipt_of(
    telling: Telling,
    outcome: Outcome,
    now: datetime,
    *,
    sent: int,
    sha256: str | None,
    coded: bool,
    query_sha256: str,
    cancel: dict[str, Any] | None,
    download: dict[str, Any],
    rows: int | None = None,
    format: str | None = None,  # noqa: A002 - the receipt's word
) -> Receipt:
    """``sent`` bytes with this digest: of the file, or where it is ``coded``, of the wire alone."""
    record = telling.record
    return Receipt(
        export_id=record.id,
        outcome=outcome,
        rows=rows,
        bytes=None if coded else sent,
        sha256=None if coded else sha256,
        encoded_bytes=sent if coded else None,
        encoded_sha256=sha256 if coded else None,
        format=format,
        compression=None,
        query_sha256=query_sha256,
        snapshot=None,
        started_at=record.started_at or now,
        finished_at=now,
        db_seconds_held=0.0,
        cancel=cancel,
        download=download,
    )
