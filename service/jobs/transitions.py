"""How a job goes from state to state. Pure: a transition is data, ``jobs.ledger`` applies it.

::

    queued ──claimed──▶ running ──succeeded──▶ succeeded ──expired──▶ expired
      ▲ │                 │ │ └────failed─────▶ failed
      │ └───cancelled──┐  │ │                    │
      │                ▼  │ │                    │
      │            cancelled◀┘                   │
      ├──────── put_back ─┘                      │
      └──────────────────── asked_again ─────────┘

Each leaves one state of one attempt, and the ledger applies it only while the export is still
there: whoever comes too late changes nothing. An attempt that is put back becomes the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from service.errors import (
    AttemptLost,
    Busy,
    Conflict,
    SourceError,
    SourceUnavailable,
    TailraceError,
)
from service.export.receipt import rfc3339
from service.jobs.model import CLOSE, LIVE, Record, State

FIRST_PAUSE = 1.0  # seconds before the second attempt; doubled before each further one
LONGEST_PAUSE = 60.0  # seconds
KEPT_ATTEMPTS = 100  # reasons in a row

# Serialization failures and deadlocks (PostgreSQL's manual, appendix A): the same query may well
# succeed the next time. A standby that cancels a query for replication says 40001, too.
PASSING = frozenset({"40001", "40P01"})


@dataclass(frozen=True, slots=True)
class Transition:
    """New values of the export's row, and the events that tell of it, in this order.

    ``pause`` seconds pass before a queued attempt may begin. ``drops`` tells that the artifact
    of the attempt that was left is of no use any more.
    """

    origins: tuple[State, ...]
    changes: dict[str, Any]
    events: tuple[str, ...]
    pause: float = 0.0
    drops: bool = False

    @property
    def target(self) -> State:
        state: State = self.changes["state"]
        return state


def claimed(worker: str, artifact: str, now: datetime) -> Transition:
    """A worker begins the attempt that waits."""
    return Transition(
        (State.QUEUED,),
        {
            "state": State.RUNNING,
            "worker": worker,
            "artifact": artifact,
            "started_at": now,
            **_nothing_made(),
        },
        ("state",),
    )


def succeeded(receipt: dict[str, Any], now: datetime, kept: timedelta) -> Transition:
    """The artifact is whole and has its name."""
    return Transition(
        (State.RUNNING,),
        {
            "state": State.SUCCEEDED,
            **_ended(now, receipt),
            "total_rows": receipt["rows"],
            "total_kind": "exact",
            "expires_at": now + kept,
        },
        ("succeeded", CLOSE),
    )


def after_failure(
    record: Record, error: TailraceError, receipt: dict[str, Any] | None, now: datetime
) -> Transition:
    """What becomes of a running attempt that met ``error``: the next attempt, or the end."""
    if passing(error) and record.attempt < (record.attempts_until or 1):
        return put_back(record, error, now, pause=pause_after(record.attempt))
    return failed(record, error, receipt, now)


def failed(
    record: Record, error: TailraceError, receipt: dict[str, Any] | None, now: datetime
) -> Transition:
    """No other attempt would help, or there have been enough."""
    return Transition(
        LIVE,
        {
            "state": State.FAILED,
            **_ended(now, receipt),
            "error": error.problem(None),
            "attempts": _attempts(record, error, now),
            "artifact": None,
        },
        ("failed", CLOSE),
        drops=True,
    )


def put_back(
    record: Record, error: TailraceError, now: datetime, *, pause: float, free: bool = False
) -> Transition:
    """The attempt is over and the next one waits; a ``free`` one does not count as a try."""
    until = (record.attempts_until or 1) + (1 if free else 0)
    return Transition(
        (State.RUNNING,),
        {
            "state": State.QUEUED,
            "attempt": record.attempt + 1,
            "attempts": _attempts(record, error, now),
            "attempts_until": until,
            "started_at": None,
            "worker": None,
            "lease_until": None,
            "artifact": None,
            "not_before": now + timedelta(seconds=pause),
            **_nothing_made(),
        },
        ("state",),
        pause=pause,
        drops=True,
    )


def cancelled(
    proof: dict[str, Any] | None, receipt: dict[str, Any] | None, now: datetime
) -> Transition:
    """Somebody stopped it; ``proof`` is what is known of its query."""
    return Transition(
        LIVE,
        {"state": State.CANCELLED, **_ended(now, receipt), "cancel": proof, "artifact": None},
        ("cancelled", CLOSE),
        drops=True,
    )


def expired() -> Transition:
    """The artifact's time is over. It is no event of its own: the log ended with the export."""
    return Transition(
        (State.SUCCEEDED,), {"state": State.EXPIRED, "artifact": None}, (), drops=True
    )


def asked_again(record: Record, attempts: int) -> Transition:
    """A failed one is tried again, ``attempts`` times at most."""
    if record.state is not State.FAILED:
        raise Conflict(f"The export {record.id} is {record.state}; only a failed one is retried.")
    return Transition(
        (State.FAILED,),
        {
            "state": State.QUEUED,
            "attempt": record.attempt + 1,
            "attempts_until": record.attempt + attempts,
            "started_at": None,
            "finished_at": None,
            "worker": None,
            "lease_until": None,
            "not_before": None,
            "cancel_requested_at": None,
            "error": None,
            "receipt": None,
            **_nothing_made(),
        },
        ("state",),
    )


def passing(error: TailraceError) -> bool:
    """Whether the same export may well succeed if it is tried again."""
    if isinstance(error, (SourceUnavailable, Busy, AttemptLost)):
        return True
    return isinstance(error, SourceError) and error.members.get("sqlstate") in PASSING


def pause_after(attempt: int, longest: float = LONGEST_PAUSE) -> float:
    """Seconds until the attempt behind ``attempt`` may begin."""
    return min(FIRST_PAUSE * 2.0 ** min(attempt - 1, 16), longest)


def _nothing_made() -> dict[str, Any]:
    fresh = ("rows_per_s", "bytes_per_s", "eta_s", "snapshot_at")
    return {"rows": 0, "bytes": 0, **dict.fromkeys(fresh)}


def _ended(now: datetime, receipt: dict[str, Any] | None) -> dict[str, Any]:
    ended = {"finished_at": now, "lease_until": None, "eta_s": None, "receipt": receipt}
    if receipt is not None:
        ended |= {"rows": receipt["rows"], "bytes": receipt["bytes"]}
    return ended


def _attempts(record: Record, error: TailraceError, now: datetime) -> list[dict[str, Any]]:
    """The attempts so far, with what ended this one."""
    this = {
        "attempt": record.attempt,
        "started_at": rfc3339(record.started_at) if record.started_at else None,
        "ended_at": rfc3339(now),
        "worker": record.worker,
        "code": error.code,
        "reason": error.detail,
    }
    return [*(record.attempts or []), this][-KEPT_ATTEMPTS:]
