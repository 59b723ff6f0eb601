"""The events of all exports of a caller, and those of one on another server than it runs on."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import pytest

from service.jobs.model import Record
from tests.clients import TIMEOUT, ask
from tests.event_stream import EventStream, Sent, events_of, names
from tests.job_desk import RECEIPT
from tests.own_jobs import OwnJobs, events_path, ids, logged, own_jobs
from tests.serving import Served
from tests.session import Session, session
from tests.wire.job_service import (
    closed_gate,
    entered,
    gated_csv,
    job_service,
    receipt,
    shown,
)

ALL = "/v1/events"
QUIET = 25  # pings in a row at every tenth of a second: longer than a look takes to come
LONG_AGO = "UPDATE tailrace.exports SET finished_at = now() - interval '1 day' WHERE id = '{}'"


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        yield opened


@contextmanager
def service(url: str, folders: pytest.TempPathFactory, *arguments: str) -> Iterator[Served]:
    folder = folders.mktemp("served")
    with job_service(folder, url, arguments=arguments, limits__ping_interval="100ms") as found:
        yield found


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with service(module_database_url, tmp_path_factory) as found:
        yield found


@pytest.fixture(scope="module")
def other(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """It has no worker."""
    with service(module_database_url, tmp_path_factory, "--no-worker") as found:
        yield found


@pytest.fixture
def jobs(module_database_url: str, database: Session) -> Iterator[OwnJobs]:
    with own_jobs(module_database_url, database) as found:
        yield found


@contextmanager
def direct(base: str, path: str) -> Iterator[http.client.HTTPResponse]:
    """An answer that has begun; the rest is read in the block."""
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=TIMEOUT)
    with closing(connection):
        connection.request("GET", path)
        with connection.getresponse() as response:
            yield response


def take(stream: EventStream, count: int) -> list[Sent]:
    events = [stream.next() for _ in range(count)]
    return [event for event in events if event is not None]


def of(event: Sent | None) -> tuple[str, str, str, int]:
    """Which export it is about, and how that is."""
    assert event is not None
    data = event.data
    return (event.name, data["id"], data["state"], data["progress"]["rows"])


def test_every_live_export_is_told_of_on_every_connect(served: Served, jobs: OwnJobs) -> None:
    jobs.done()
    waiting, running = jobs.waiting(), jobs.running()
    jobs.beat(running, 5)
    expected = [
        Sent(None, "export", shown(served.base, record.id)) for record in (waiting, running)
    ]
    assert [event.data["state"] for event in expected] == ["queued", "running"]
    with events_of(served.base, ALL) as one, events_of(served.base, ALL) as two:
        for stream in (one, two):
            assert take(stream, 2) == expected
            assert stream.retries == [3_000]
            # Nothing has changed since, so that nothing but pings comes.
            assert stream.hear(QUIET) == ["ping"] * QUIET


def test_every_change_is_told_of_once(served: Served, jobs: OwnJobs) -> None:
    with events_of(served.base, ALL) as stream:
        record = jobs.waiting()
        seen = [stream.next()]
        jobs.claim(record)
        seen.append(stream.next())
        running = record
        for rows in (1, 2):
            jobs.beat(running, rows)
            seen.append(stream.next())
        jobs.succeed(record)
        seen.append(stream.next())
        end = shown(served.base, record.id)
        assert ask(served.base, f"/v1/exports/{record.id}", "DELETE").status == 204
        assert stream.next() == Sent(None, "deleted", {"id": record.id})
        heard = len(stream.comments)
        stream.hear(heard + QUIET)
    job = ("export", record.id)
    assert [of(event) for event in seen] == [
        (*job, "queued", 0),
        (*job, "running", 0),
        (*job, "running", 1),
        (*job, "running", 2),
        (*job, "succeeded", RECEIPT["rows"]),
    ]
    assert seen[-1] == Sent(None, "export", {**end, "receipt": RECEIPT})
    assert not any("receipt" in event.data for event in seen[:-1] if event)


def test_the_deletion_of_an_old_export_is_told_of(
    served: Served, jobs: OwnJobs, database: Session
) -> None:
    record = jobs.done()
    database.execute(LONG_AGO.format(record.id))
    with events_of(served.base, ALL) as stream:
        assert ask(served.base, f"/v1/exports/{record.id}", "DELETE").status == 204
        assert stream.next() == Sent(None, "deleted", {"id": record.id})


def test_the_exports_of_others_are_not_told_of(served: Served, jobs: OwnJobs) -> None:
    jobs.running(owner="somebody")
    with events_of(served.base, ALL) as stream:
        theirs = jobs.waiting(owner="somebody")
        jobs.succeed(jobs.claim(theirs))
        mine = jobs.waiting()
        assert of(stream.next()) == ("export", mine.id, "queued", 0)


def test_a_direct_stream_has_events(served: Served, database: Session) -> None:
    with (
        closed_gate(database, served.base),
        events_of(served.base, ALL) as all_of_them,
        direct(served.base, "/v1/rows/gated.csv") as response,
    ):
        export = str(response.headers["X-Export-Id"])
        with events_of(served.base, events_path(export)) as stream:
            seen = stream.until("state")
            told = all_of_them.until("export")
            database.open_gate()
            assert response.read() == gated_csv()
            seen += stream.rest()
        while told[-1].data["state"] == "running":
            told += all_of_them.until("export")
    assert {(event.data["id"], event.data["kind"]) for event in told} == {(export, "stream")}
    assert [event.name for event in told[:-1] if "receipt" in event.data] == []
    end = {**shown(served.base, export), "receipt": receipt(served.base, export)}
    assert told[-1].data == end
    assert seen[1:] == logged(database, export, served.base, behind=1)
    assert (ids(seen)[0], seen[0].data["state"]) == (1, "running")
    assert names(seen) == ["state", "succeeded", "close"]
    assert seen[-2].data == end
    assert end["receipt"]["outcome"] == "complete"


def test_a_server_without_a_worker_tells_the_same(
    served: Served, other: Served, database: Session
) -> None:
    """Of a job that another one runs, from the queue to its end."""
    with closed_gate(database, served.base), events_of(other.base, ALL) as all_of_them:
        export = entered(other.base, "gated")
        path = events_path(export)
        with events_of(other.base, path) as there, events_of(served.base, path) as here:
            begun = [there.until("progress"), here.until("progress")]
            database.open_gate()
            seen = [begun[0] + there.rest(), begun[1] + here.rest()]
        told = all_of_them.until("export")
        while told[-1].data["state"] in ("queued", "running"):
            told += all_of_them.until("export")
    for events, base in zip(seen, (other.base, served.base), strict=True):
        assert events[1:] == logged(database, export, base, behind=events[0].id or 0)
        assert names(events)[-2:] == ["succeeded", "close"]
    states = [event.data["state"] for event in told]
    assert states == sorted(states, key=["queued", "running", "succeeded"].index)
    assert {*states, "queued"} == {"queued", "running", "succeeded"}
    assert told[-1].data == {**shown(other.base, export), "receipt": receipt(other.base, export)}


def test_nothing_is_missed_where_nobody_is_notified(
    served: Served, other: Served, jobs: OwnJobs, database: Session
) -> None:
    """A notification may be lost; a look every two seconds finds what it was about."""
    record = jobs.running()
    with (
        events_of(served.base, events_path(record)) as here,
        events_of(other.base, events_path(record)) as there,
        events_of(other.base, ALL) as all_of_them,
    ):
        for stream in (here, there):
            assert ids(take(stream, 1)) == [2]
        assert of(all_of_them.next()) == ("export", record.id, "running", 0)
        jobs.log(record, "state")
        jobs.log(record, "progress", 2)
        for stream, base in ((here, served.base), (there, other.base)):
            assert take(stream, 3) == logged(database, record, base, behind=2)
        assert of(all_of_them.next()) == ("export", record.id, "running", 0)


@contextmanager
def behind(server: Served, jobs: OwnJobs, record: Record) -> Iterator[EventStream]:
    """A reader at a server that knows the events 2 and 3, and has yet to look for more."""
    with events_of(server.base, events_path(record)) as stream:
        assert ids(take(stream, 1)) == [2]
        jobs.beat(record, 1)
        # Nothing that it was notified of is still on its way.
        assert ids(take(stream, 1)) == [3]
        yield stream


def test_a_replica_that_is_behind_tells_nothing_twice(
    served: Served, other: Served, jobs: OwnJobs
) -> None:
    """A client comes from one that knows more."""
    record = jobs.running()
    path = events_path(record)
    with behind(other, jobs, record) as early:
        jobs.log(record, "progress")
        with events_of(served.base, path) as ahead:
            assert ids(take(ahead, 1)) == [4]
        with events_of(other.base, path, 4) as stream:
            assert ids(take(early, 1)) == [4]
            jobs.beat(record, 2)
            jobs.succeed(record)
            assert ids(stream.rest()) == ids(early.rest()) == [5, 6, 7]


def test_a_replica_that_is_behind_knows_who_has_the_end(
    served: Served, other: Served, jobs: OwnJobs
) -> None:
    record = jobs.running()
    path = events_path(record)
    with behind(other, jobs, record) as early:
        jobs.end_unheard(record)
        for last in (4, 5):
            answer = ask(other.base, path, headers={"Last-Event-ID": str(last)})
            assert (answer.status, answer.body) == (204, b"")
        with events_of(other.base, path, 3) as stream:
            assert ids(stream.rest()) == ids(early.rest()) == [4, 5]
