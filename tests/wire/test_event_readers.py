"""Readers of events that are slow or read nothing, pings, and the end of a server."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.clients import ask, stalled
from tests.event_stream import EventStream, Sent, events_in, events_of, names, nobody_reads, readers
from tests.job_desk import RECEIPT
from tests.jobs import log_of
from tests.own_jobs import (
    LARGE,
    SEVERAL,
    OwnJobs,
    as_sent,
    events_path,
    ids,
    logged,
    own_jobs,
)
from tests.peer import connected
from tests.serving import Served, serving
from tests.session import Session, session

ALL = "/v1/events"
SMALL_BUFFER = 4096  # bytes that the kernel takes for a client that does not read
STALL = 1.0  # seconds
LONG = "60s"
EXIT_SECONDS = 20  # far below LONG
LAST_CHUNK = b"\r\n0\r\n\r\n"


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        yield opened


@pytest.fixture
def jobs(module_database_url: str, database: Session) -> Iterator[OwnJobs]:
    with own_jobs(module_database_url, database) as found:
        yield found


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """It pings all the time."""
    with serving(
        tmp_path_factory.mktemp("served"),
        module_database_url,
        arguments=("--no-worker",),
        limits__ping_interval="200ms",
    ) as found:
        yield found


@pytest.fixture(scope="module")
def impatient(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """It never pings while a test runs, and waits for nobody."""
    with serving(
        tmp_path_factory.mktemp("impatient"),
        module_database_url,
        arguments=("--no-worker",),
        limits__stall_timeout=f"{STALL}s",
        limits__ping_interval="1h",
    ) as found:
        yield found


def test_pings_come_while_nothing_happens(served: Served, jobs: OwnJobs) -> None:
    record = jobs.running()
    with events_of(served.base, events_path(record)) as stream:
        assert ids(stream.until("state")) == [2]
        for rows in (1, 2):
            stream.comments.clear()
            assert stream.hear(3) == ["ping"] * 3
            jobs.beat(record, rows)
            assert [event.data["rows"] for event in stream.until("progress")] == [rows]
    with events_of(served.base, ALL) as stream:
        assert stream.until("export")[0].data["id"] == record.id
        assert stream.hear(3) == ["ping"] * 3


def test_a_slow_reader_misses_nothing_but_superseded_progress(
    served: Served, jobs: OwnJobs, database: Session
) -> None:
    record = jobs.running()
    path = events_path(record)
    with stalled(served.base, path) as slow:
        jobs.overfill(record)
        last = 2 + SEVERAL
        with events_of(served.base, path, last) as quick:
            for count in (1, 5, 30):
                jobs.log(record, "progress", count)
                jobs.log(record, "state")
                jobs.hint(record)
            jobs.beat(record, 1, count=20)
            jobs.succeed(record)
            # Once this one has been told all, so has the other.
            assert ids(quick.rest()) == list(range(last + 1, last + 62))
        seen = events_in(slow.read())
    log = log_of(database, record.id)[1:]
    kept = [
        event
        for event, following in pairwise([*log, None])
        if event and (event.name != "progress" or (following and following.name != "progress"))
    ]
    assert [event.name for event in kept[-9:]] == [
        *(("progress", "state") * 3),
        *("progress", "succeeded", "close"),
    ]
    assert seen == as_sent(kept, served.base)


def test_a_slow_reader_of_all_gets_the_newest_of_each_and_every_end(
    served: Served, jobs: OwnJobs
) -> None:
    old, one, two = jobs.done(), jobs.running(), jobs.running()
    with stalled(served.base, ALL) as slow, events_of(served.base, ALL) as quick:
        assert len([quick.next(), quick.next()]) == 2
        # It fills every buffer, so that what follows waits.
        large = jobs.waiting(request={"pad": "x" * LARGE * SEVERAL})
        quick.until("export")
        for rows in (1, 2):
            for record in (one, two):
                jobs.beat(record, rows)
                quick.until("export")
        jobs.succeed(one)
        quick.until("export")
        jobs.beat(two, 3)
        quick.until("export")
        assert ask(served.base, f"/v1/exports/{old.id}", "DELETE").status == 204
        # Once this one has been told all, so has the other.
        quick.until("deleted")
        seen = EventStream(slow).until("deleted")
    assert [(event.data["id"], rows_of(event)) for event in seen] == [
        *((one.id, 0), (two.id, 0), (large.id, 0)),
        *((one.id, 2), (two.id, 3), (one.id, RECEIPT["rows"]), (old.id, None)),
    ]
    assert seen[5].data["receipt"] == RECEIPT


def rows_of(event: Sent) -> int | None:
    rows: int | None = event.data.get("progress", {}).get("rows")
    return rows


@pytest.mark.parametrize("large", [SEVERAL, 2])
def test_a_reader_that_takes_nothing_is_dropped(
    impatient: Served, jobs: OwnJobs, large: int
) -> None:
    """Be it much that waits for it or little."""
    record = jobs.running()
    with connected(impatient.base, receive_buffer=SMALL_BUFFER) as peer:
        peer.ask(events_path(record))
        assert b"200 OK" in peer.read_head()
        jobs.overfill(record, large)
        nobody_reads(impatient)
        assert not peer.read_all().endswith(LAST_CHUNK)


@pytest.mark.parametrize(("large", "step"), [(SEVERAL, 8192), (2, 512)])
def test_a_reader_that_takes_a_little_is_kept(
    impatient: Served, jobs: OwnJobs, large: int, step: int
) -> None:
    record = jobs.running()
    with connected(impatient.base, receive_buffer=SMALL_BUFFER) as peer:
        peer.ask(events_path(record))
        assert b"200 OK" in peer.read_head()
        jobs.overfill(record, large)
        until = time.monotonic() + 3 * STALL
        while time.monotonic() < until:
            # There is more to read than it takes.
            jobs.log(record, "state", pad=4 * step)
            jobs.hint(record)
            assert peer.read(step)
            time.sleep(STALL / 20)  # this is the load: nothing is waited for
        assert readers(impatient) == 1
    nobody_reads(impatient)


def test_a_drain_ends_streams_so_that_nothing_is_missed(
    served: Served, jobs: OwnJobs, database: Session, module_database_url: str, tmp_path: Path
) -> None:
    """They end well but without ``close``, at once, and whoever comes back goes on elsewhere."""
    record, another = jobs.running(), jobs.running()
    path = events_path(record)
    with (
        serving(
            tmp_path,
            module_database_url,
            arguments=("--no-worker",),
            limits__drain_timeout=LONG,
            limits__stall_timeout=f"{STALL}s",
        ) as first,
        events_of(first.base, path) as one,
        events_of(first.base, ALL) as all_of_them,
        stalled(first.base, events_path(another)),
    ):
        seen = one.until("state")
        jobs.beat(record, 1)
        seen += one.until("progress")
        jobs.overfill(another)
        first.process.send_signal(signal.SIGTERM)
        # Without their last chunks these would raise.
        assert one.rest() == []
        assert set(names(all_of_them.rest())) == {"export"}
        assert first.process.wait(EXIT_SECONDS) == 0
    jobs.beat(record, 2, count=2)
    jobs.succeed(record)
    with events_of(served.base, path, seen[-1].id) as stream:
        missed = stream.rest()
    assert ids(seen + missed) == [2, 3, 4, 5, 6, 7]
    assert missed == logged(database, record, served.base, behind=3)
