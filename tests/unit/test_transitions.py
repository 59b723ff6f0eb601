"""Who may go where, which failures are tried again, and what a row holds afterwards: as tables."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.errors import (
    AttemptLost,
    Busy,
    Cancelled,
    Conflict,
    DeadlineExceeded,
    InvalidParameter,
    NotFound,
    RecordsUnavailable,
    SourceError,
    SourceUnavailable,
    StorageFailed,
    StorageFull,
    TailraceError,
)
from service.jobs import transitions
from service.jobs.model import Kind, Record, State
from service.jobs.transitions import (
    FIRST_PAUSE,
    KEPT_ATTEMPTS,
    LONGEST_PAUSE,
    Transition,
    after_failure,
    asked_again,
    cancelled,
    claimed,
    expired,
    failed,
    passing,
    pause_after,
    put_back,
    succeeded,
)

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STARTED = CREATED + timedelta(seconds=10)
NOW = CREATED + timedelta(seconds=70)
LATER = CREATED + timedelta(seconds=71)
KEPT = timedelta(days=7)
RECEIPT: dict[str, Any] = {"outcome": "complete", "rows": 7, "bytes": 70}
PROOF = {"backend_gone": True, "latency_ms": 4.5, "rows_written": 3}
LOST = AttemptLost("The worker was not heard of in time.")
USERS = InvalidParameter("where.id", "where.id: 'x' is not a number")
NOTHING_MADE = {
    "rows": 0,
    "bytes": 0,
    "rows_per_s": None,
    "bytes_per_s": None,
    "eta_s": None,
    "snapshot_at": None,
}
LEFT = {"artifact": None, "worker": None, "lease_until": None}
ENDED = {"finished_at": NOW, "lease_until": None, "eta_s": None}
PASSING = [
    SourceUnavailable("The database cannot be reached."),
    Busy("Every slot is taken."),
    LOST,
    SourceError("could not serialize", members={"sqlstate": "40001"}),
    SourceError("deadlock detected", members={"sqlstate": "40P01"}),
]
LASTING = [
    SourceError("division by zero", members={"sqlstate": "22012"}),
    SourceError("no such table", members={"sqlstate": "42P01"}),
    SourceError("The query failed."),
    DeadlineExceeded("The export took longer than 3600 s."),
    StorageFull("There is no room left for artifacts."),
    StorageFailed("The storage of artifacts failed."),
    NotFound("There is no dataset flights."),
    USERS,
    Cancelled("Somebody asked to stop it."),
    RecordsUnavailable(),
    TailraceError("Unexpected KeyError."),
]


def record(**values: Any) -> Record:
    """A job in its first attempt of four."""
    fixed = Record(
        id="019b7f5e-0000-7000-8000-000000000001",
        kind=Kind.JOB,
        owner="anonymous",
        dataset="flights",
        source="main",
        lane="copy",
        format="csv",
        compression="none",
        profile="machine",
        request={"dataset": "flights"},
        created_at=CREATED,
        started_at=STARTED,
        worker="host:1:aa",
        artifact="ab" * 16,
        attempts_until=4,
        event_seq=9,
    )
    return replace(fixed, **values)


def again(record: Record) -> Transition:
    return put_back(record, LOST, NOW, pause=2.0)


@pytest.mark.parametrize(
    ("transition", "origins", "target", "events"),
    [
        (claimed("w", "a", NOW), {"queued"}, "running", ("state",)),
        (succeeded(RECEIPT, NOW, KEPT), {"running"}, "succeeded", ("succeeded", "close")),
        (failed(record(), USERS, None, NOW), {"queued", "running"}, "failed", ("failed", "close")),
        (again(record()), {"running"}, "queued", ("state",)),
        (cancelled(PROOF, None, NOW), {"queued", "running"}, "cancelled", ("cancelled", "close")),
        (expired(), {"succeeded"}, "expired", ()),
        (asked_again(record(state=State.FAILED), 4), {"failed"}, "queued", ("state",)),
    ],
    ids=["claimed", "succeeded", "failed", "put back", "cancelled", "expired", "asked again"],
)
def test_who_may_go_where(
    transition: Transition, origins: set[str], target: str, events: tuple[str, ...]
) -> None:
    assert {state.value for state in transition.origins} == origins
    assert transition.target.value == target
    assert transition.events == events


@pytest.mark.parametrize(
    ("transition", "pause", "drops"),
    [
        (claimed("w", "a", NOW), 0.0, False),
        (succeeded(RECEIPT, NOW, KEPT), 0.0, False),
        (failed(record(), USERS, None, NOW), 0.0, True),
        (again(record()), 2.0, True),
        (cancelled(PROOF, None, NOW), 0.0, True),
        (expired(), 0.0, True),
        (asked_again(record(state=State.FAILED), 4), 0.0, False),
    ],
    ids=["claimed", "succeeded", "failed", "put back", "cancelled", "expired", "asked again"],
)
def test_who_waits_and_who_leaves_a_file(
    transition: Transition, pause: float, *, drops: bool
) -> None:
    assert (transition.pause, transition.drops) == (pause, drops)


def test_a_claimed_attempt_starts_from_nothing() -> None:
    assert claimed("w", "a", NOW).changes == {
        "state": State.RUNNING,
        "worker": "w",
        "artifact": "a",
        "started_at": NOW,
        **NOTHING_MADE,
    }


def test_what_succeeds_is_known_exactly_and_kept_for_a_while() -> None:
    assert succeeded(RECEIPT, NOW, KEPT).changes == {
        "state": State.SUCCEEDED,
        **ENDED,
        "receipt": RECEIPT,
        "rows": 7,
        "bytes": 70,
        "total_rows": 7,
        "total_kind": "exact",
        "expires_at": NOW + KEPT,
    }


def test_what_is_cancelled_keeps_its_proof() -> None:
    changes = cancelled(PROOF, RECEIPT, NOW).changes
    ended = ENDED | {"receipt": RECEIPT, "rows": 7, "bytes": 70}
    assert changes == {"state": State.CANCELLED, "cancel": PROOF, "artifact": None} | ended


def test_what_expires_loses_its_file_alone() -> None:
    assert expired().changes == {"state": State.EXPIRED, "artifact": None}


def test_without_a_receipt_the_figures_stay() -> None:
    changes = cancelled(None, None, NOW).changes
    assert changes["receipt"] is None
    assert not changes.keys() & {"rows", "bytes"}


def test_what_fails_tells_why() -> None:
    changes = failed(record(), USERS, None, NOW).changes
    attempts = changes.pop("attempts")
    assert changes == {
        "state": State.FAILED,
        **ENDED,
        "receipt": None,
        "error": USERS.problem(None),
        "artifact": None,
    }
    assert attempts == [
        {
            "attempt": 1,
            "started_at": "2026-01-02T03:04:15Z",
            "ended_at": "2026-01-02T03:05:15Z",
            "worker": "host:1:aa",
            "code": "invalid_parameter",
            "reason": "where.id: 'x' is not a number",
        }
    ]


def test_the_next_attempt_has_nothing_of_this_one() -> None:
    changes = again(record(attempt=2)).changes
    assert [told["attempt"] for told in changes.pop("attempts")] == [2]
    assert changes == {
        "state": State.QUEUED,
        "attempt": 3,
        "attempts_until": 4,
        "started_at": None,
        "not_before": NOW + timedelta(seconds=2),
        **LEFT,
        **NOTHING_MADE,
    }


@pytest.mark.parametrize(("free", "until"), [(False, 4), (True, 5)])
def test_an_attempt_that_is_no_fault_of_the_export_is_free(*, free: bool, until: int) -> None:
    changes = put_back(record(), LOST, NOW, pause=0.0, free=free).changes
    assert (changes["attempt"], changes["attempts_until"]) == (2, until)


def test_reasons_are_kept_in_their_order_and_the_newest_of_many() -> None:
    first = again(record()).changes["attempts"]
    second = after_failure(record(attempt=2, attempts=first), USERS, None, LATER)
    told = [(one["attempt"], one["code"]) for one in second.changes["attempts"]]
    assert told == [(1, "attempt_lost"), (2, "invalid_parameter")]
    many = [{"attempt": number} for number in range(1, KEPT_ATTEMPTS + 1)]
    kept = again(record(attempt=KEPT_ATTEMPTS + 1, attempts=many)).changes["attempts"]
    assert [one["attempt"] for one in kept] == list(range(2, KEPT_ATTEMPTS + 2))


def test_what_waited_has_no_beginning_to_tell() -> None:
    waiting = record(state=State.QUEUED, started_at=None, worker=None)
    (told,) = failed(waiting, USERS, None, NOW).changes["attempts"]
    assert (told["started_at"], told["worker"]) == (None, None)


@pytest.mark.parametrize("error", PASSING, ids=lambda error: error.detail)
def test_what_passes_is_tried_again(error: TailraceError) -> None:
    assert passing(error)
    assert after_failure(record(), error, None, NOW).target is State.QUEUED


@pytest.mark.parametrize("error", LASTING, ids=lambda error: error.detail)
def test_what_stays_is_not_tried_again(error: TailraceError) -> None:
    assert not passing(error)
    transition = after_failure(record(), error, RECEIPT, NOW)
    assert transition.target is State.FAILED
    assert transition.changes["error"]["code"] == error.code
    assert transition.changes["receipt"] == RECEIPT


@pytest.mark.parametrize(
    ("attempt", "until", "target"),
    [
        (1, 4, State.QUEUED),
        (3, 4, State.QUEUED),
        (4, 4, State.FAILED),
        (5, 4, State.FAILED),
        (1, 1, State.FAILED),
        (1, None, State.FAILED),
        (5, 8, State.QUEUED),
    ],
)
def test_attempts_are_capped(attempt: int, until: int | None, target: State) -> None:
    current = record(attempt=attempt, attempts_until=until)
    assert after_failure(current, LOST, None, NOW).target is target


def stored(current: Record, made: Transition) -> Record:
    """What the table holds then, as far as records know it."""
    known = {field.name for field in fields(Record)}
    return replace(current, **{key: made.changes[key] for key in made.changes.keys() & known})


def test_the_whole_life_of_an_export_that_never_succeeds() -> None:
    current, pauses = record(), []
    while (made := after_failure(current, LOST, None, NOW)).target is State.QUEUED:
        pauses.append(made.pause)
        current = stored(stored(current, made), claimed("w", "a", NOW))
    assert pauses == [1.0, 2.0, 4.0]
    told = [(one["attempt"], one["code"]) for one in made.changes["attempts"]]
    assert told == [(number, "attempt_lost") for number in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("attempt", "seconds"),
    [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 16.0), (6, 32.0), (7, 60.0), (10**9, 60.0)],
)
def test_the_pause_doubles_up_to_a_minute(attempt: int, seconds: float) -> None:
    assert (FIRST_PAUSE, LONGEST_PAUSE) == (1.0, 60.0)
    assert pause_after(attempt) == seconds
    waiting = after_failure(record(attempt=attempt, attempts_until=2 * 10**9), LOST, None, NOW)
    assert waiting.pause == seconds
    assert waiting.changes["not_before"] == NOW + timedelta(seconds=seconds)


def test_a_failed_one_is_tried_again_with_as_many_attempts_as_at_first() -> None:
    given = {"error": {"code": "x"}, "receipt": RECEIPT, "attempts": [{"attempt": 3}]}
    transition = asked_again(record(state=State.FAILED, attempt=3, **given), 4)
    assert transition.changes == {
        "state": State.QUEUED,
        "attempt": 4,
        "attempts_until": 7,
        "started_at": None,
        "finished_at": None,
        "worker": None,
        "lease_until": None,
        "not_before": None,
        "cancel_requested_at": None,
        "error": None,
        "receipt": None,
        **NOTHING_MADE,
    }


@pytest.mark.parametrize("state", [state for state in State if state is not State.FAILED])
def test_only_a_failed_one_is_tried_again(state: State) -> None:
    with pytest.raises(Conflict) as caught:
        asked_again(record(state=state), 4)
    assert caught.value.detail == (
        f"The export 019b7f5e-0000-7000-8000-000000000001 is {state}; only a failed one is retried."
    )


def test_nobody_leaves_an_end() -> None:
    ends = (failed(record(), USERS, None, NOW), cancelled(None, None, NOW))
    assert [state for end in ends for state in end.origins if state.final] == []


def test_every_transition_of_the_module_is_in_these_tables() -> None:
    made = {name for name, value in vars(transitions).items() if _makes_one(value)}
    tested = {"claimed", "succeeded", "failed", "put_back", "cancelled", "expired", "asked_again"}
    assert made == tested | {"after_failure"}


def _makes_one(value: object) -> bool:
    return getattr(value, "__annotations__", {}).get("return") == "Transition"
