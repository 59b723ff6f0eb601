"""A client that comes back: it gets what it missed, all of it and only that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.jobs.model import Record
from service.jobs.watching import REPLAYED_PROGRESS
from tests.clients import ask
from tests.event_stream import Sent, events_of, names
from tests.job_desk import RECEIPT
from tests.jobs import log_of
from tests.own_jobs import OwnJobs, as_sent, events_path, ids, logged, own_jobs
from tests.serving import Served, serving
from tests.session import Session, session
from tests.wire.job_service import shown

CLOSE = 7  # the number of the last event of ``OwnJobs.done``
NEVER = ("0", "8", "999999999999999999", "9" * 19, "9" * 400, "-1", "+3", "3.0", "0x3", "abc", "²")


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with serving(folder, module_database_url, arguments=("--no-worker",)) as found:
        yield found


@pytest.fixture(scope="module")
def jobs(module_database_url: str, database: Session) -> Iterator[OwnJobs]:
    with own_jobs(module_database_url, database) as found:
        yield found


@pytest.fixture(scope="module")
def ended(jobs: OwnJobs) -> Record:
    """Whose events have the numbers from 1 to 7."""
    return jobs.done()


def read(served: Served, export: Record, last: int | str | None = None) -> list[Sent]:
    """The events of an export that has ended, up to the clean end of the response."""
    with events_of(served.base, events_path(export), last) as stream:
        assert stream.status == 200
        seen = stream.rest()
        assert (stream.retries, stream.comments) == ([3_000], [])
        return seen


@pytest.mark.parametrize(
    ("header", "parameter", "last"),
    [("3", None, 3), (None, "3", 3), ("4", "2", 4), ("2", "4", 2), ("", "5", 5), ("003", None, 3)],
)
def test_a_client_that_comes_back_gets_what_it_missed(
    served: Served,
    ended: Record,
    database: Session,
    header: str | None,
    parameter: str | None,
    last: int,
) -> None:
    path = events_path(ended) + (f"?last_event_id={parameter}" if parameter else "")
    with events_of(served.base, path, header) as stream:
        seen = stream.rest()
    assert seen == logged(database, ended, served.base, behind=last)
    assert ids(seen) == list(range(last + 1, CLOSE + 1))


def test_what_was_missed_is_followed_by_what_comes(
    served: Served, jobs: OwnJobs, database: Session
) -> None:
    record = jobs.running()
    jobs.beat(record, 1, count=3)
    with events_of(served.base, events_path(record), 2) as stream:
        missed = [stream.next() for _ in range(3)]
        jobs.beat(record, 2)
        live = stream.next()
        jobs.succeed(record)
        end = stream.rest()
    assert [*missed, live, *end] == logged(database, record, served.base, behind=2)
    assert names(end) == ["succeeded", "close"]
    assert stream.retries == [3_000]


def test_who_has_all_so_far_gets_what_comes(served: Served, jobs: OwnJobs) -> None:
    record = jobs.running()
    with events_of(served.base, events_path(record), 2) as stream:
        jobs.beat(record, 1)
        assert ids([*stream.until("progress")]) == [3]


@pytest.mark.parametrize("last", NEVER)
def test_an_id_that_never_was_starts_anew(
    served: Served, jobs: OwnJobs, ended: Record, last: str
) -> None:
    assert_anew(served, ended, read(served, ended, last))
    with events_of(served.base, f"{events_path(ended)}?last_event_id=3", last) as stream:
        assert_anew(served, ended, stream.rest())


def test_an_id_that_never_was_starts_a_live_one_anew(served: Served, jobs: OwnJobs) -> None:
    record = jobs.running()
    with events_of(served.base, f"{events_path(record)}?last_event_id=never") as stream:
        reset, state = stream.until("state")
        jobs.beat(record, 1)
        (progress,) = stream.until("progress")
    assert reset == Sent(None, "reset", {})
    assert (state.id, state.data["state"], progress.id) == (2, "running", 3)


def assert_anew(served: Served, record: Record, seen: list[Sent]) -> None:
    """Forget what you know; how it is; how it ended."""
    assert seen[0] == Sent(None, "reset", {})
    assert_end(served, record, seen[1:])


def assert_end(served: Served, record: Record, seen: list[Sent]) -> None:
    """How it is, and how it ended: the one behind the other, and with the numbers of the log."""
    export = shown(served.base, record.id)
    assert export["state"] == "succeeded"
    assert seen == [
        Sent(CLOSE - 2, "state", export),
        Sent(CLOSE - 1, "succeeded", {**export, "receipt": RECEIPT}),
        Sent(CLOSE, "close", {}),
    ]


def test_after_the_end_a_new_client_gets_the_end(served: Served, ended: Record) -> None:
    assert_end(served, ended, read(served, ended))


@pytest.mark.parametrize("last", [CLOSE - 1, CLOSE])
def test_a_client_that_has_the_end_gets_no_more(served: Served, ended: Record, last: int) -> None:
    for query, headers in (
        ("", {"Last-Event-ID": str(last)}),
        (f"?last_event_id={last}", {}),
        ("?last_event_id=2", {"Last-Event-ID": str(last)}),
    ):
        answer = ask(served.base, events_path(ended) + query, headers=headers)
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["Cache-Control"] == "no-store"


def test_an_end_that_is_forgotten_is_told_anew(
    served: Served, jobs: OwnJobs, database: Session
) -> None:
    """The log is kept for an hour, the row for a month."""
    record = jobs.done()
    database.execute(f"DELETE FROM tailrace.export_events WHERE export_id = '{record.id}'")
    for last in (1, CLOSE - 2):
        assert_anew(served, record, read(served, record, last))
    assert_end(served, record, read(served, record))
    for last in (CLOSE - 1, CLOSE):
        answer = ask(served.base, f"{events_path(record)}?last_event_id={last}")
        assert answer.status == 204


def test_progress_that_is_forgotten_starts_a_live_one_anew(
    served: Served, jobs: OwnJobs, database: Session
) -> None:
    record = jobs.running()
    jobs.beat(record, 1, count=3)
    database.execute(
        f"DELETE FROM tailrace.export_events WHERE export_id = '{record.id}' AND seq IN (3, 4)"
    )
    with events_of(served.base, events_path(record), 4) as stream:
        reset, state = stream.until("state")
    assert (reset, state.id) == (Sent(None, "reset", {}), 5)
    with events_of(served.base, events_path(record), 2) as stream:
        assert ids(stream.until("progress")) == [5]


def test_progress_that_is_superseded_is_not_replayed(
    served: Served, jobs: OwnJobs, database: Session
) -> None:
    """Whatever else was missed is, wherever it stands."""
    record = jobs.running()
    jobs.log(record, "progress", 200)
    jobs.log(record, "state")
    jobs.log(record, "progress", REPLAYED_PROGRESS + 100)
    jobs.succeed(record)
    seen = read(served, record, 2)
    last = 2 + 200 + 1 + REPLAYED_PROGRESS + 100 + 2
    assert ids(seen) == [203, *range(last - REPLAYED_PROGRESS + 1, last + 1)]
    kept = [event for event in log_of(database, record.id) if event.seq in ids(seen)]
    assert seen == as_sent(kept, served.base)
