"""The connections of event streams: their heads, what else comes on them, and their ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from tests.clients import ask
from tests.curl import downloading
from tests.event_stream import events_in, events_of, nobody_reads, readers
from tests.own_jobs import OwnJobs, events_path, logged, own_jobs
from tests.peer import Peer, connected
from tests.serving import Served, serving
from tests.session import Session, session
from tests.waiting import wait_until
from tests.wire.problems import check_problem

ALL = "/v1/events"
WITHIN = 30.0  # seconds
READERS = 200
SECOND = b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n"
HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}
ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """It never pings while a test runs, so that it has to notice by itself who leaves."""
    with serving(
        tmp_path_factory.mktemp("served"),
        module_database_url,
        arguments=("--no-worker",),
        server__cors_origins=ORIGIN,
        limits__header_timeout="1s",
        limits__ping_interval="1h",
    ) as found:
        yield found


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        yield opened


@pytest.fixture
def jobs(module_database_url: str, database: Session) -> Iterator[OwnJobs]:
    with own_jobs(module_database_url, database) as found:
        yield found


def test_headers_keep_everybody_from_holding_events_back(served: Served, jobs: OwnJobs) -> None:
    for path in (events_path(jobs.waiting()), ALL):
        with events_of(served.base, path, Origin=ORIGIN) as stream:
            found = stream.headers
        assert stream.status == 200
        assert {name: found[name] for name in HEADERS} == HEADERS
        assert found["Transfer-Encoding"] == "chunked"
        assert found["Content-Length"] is None
        assert found["Content-Encoding"] is None
        assert found["X-Request-Id"]
        assert found["Access-Control-Allow-Origin"] == ORIGIN
        exposed = found["Access-Control-Expose-Headers"].split(", ")
        assert {"X-Export-Id", "ETag", "Link"} <= set(exposed)


def test_head_has_the_same_headers_and_no_stream(served: Served, jobs: OwnJobs) -> None:
    for path in (events_path(jobs.running()), events_path(jobs.done()), ALL):
        answer = ask(served.base, path, "HEAD")
        assert (answer.status, answer.body) == (200, b"")
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    ended = events_path(jobs.done())
    assert ask(served.base, ended, "HEAD", {"Last-Event-ID": "7"}).status == 204
    nobody_reads(served)


def test_what_is_not_there_is_not_found(served: Served, jobs: OwnJobs) -> None:
    theirs = jobs.waiting(owner="somebody")
    for path in (events_path(str(uuid4())), events_path(theirs)):
        for headers in ({}, {"Last-Event-ID": "1"}):
            check_problem(ask(served.base, path, headers=headers), 404, "not_found")
        assert ask(served.base, path, "HEAD").status == 404
    assert ask(served.base, events_path("nothing")).status == 422


@pytest.mark.parametrize("option", ["-0", "--http1.1"])
def test_curl_follows_to_the_end(
    served: Served, jobs: OwnJobs, database: Session, tmp_path: Path, option: str
) -> None:
    """In HTTP/1.0, too."""
    record = jobs.running()
    with downloading(served.base + events_path(record), tmp_path, option) as found:
        wait_until(lambda: found.body.endswith(b"\n\n"), within=WITHIN, what="the state comes")
        jobs.beat(record, 1)
        jobs.succeed(record)
        assert found.exit_code() == 0
    assert found.status == 200
    assert events_in(found.body) == logged(database, record, served.base, behind=1)


@pytest.mark.parametrize("leave", [Peer.finish, Peer.reset])
@pytest.mark.parametrize("behind", [b"", SECOND], ids=["", "and has sent more"])
def test_a_client_that_leaves_is_forgotten(
    served: Served, jobs: OwnJobs, behind: bytes, leave: Callable[[Peer], None]
) -> None:
    """At once, and not only when there is something to tell it."""
    path = events_path(jobs.running())
    with ExitStack() as peers:
        found = [peers.enter_context(connected(served.base)) for _ in range(6)]
        for place, peer in enumerate(found):
            peer.socket.sendall(get(peer, ALL if place % 2 else path) + behind)
            assert b"200 OK" in peer.read_head()
        wait_until(lambda: readers(served) == 6, within=WITHIN, what="all of them read")
        for peer in found[1:]:
            leave(peer)
        wait_until(lambda: readers(served) == 1, within=WITHIN, what="five are forgotten")
    nobody_reads(served)


def get(peer: Peer, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {peer.host}\r\n\r\n".encode()


@pytest.mark.parametrize("behind", [SECOND, SECOND[:9]], ids=["whole", "half"])
@pytest.mark.parametrize("when", ["together", "later"])
def test_what_is_sent_behind_the_request_does_no_harm(
    served: Served, jobs: OwnJobs, database: Session, behind: bytes, when: str
) -> None:
    """Be it a second request or the half of one: the events go on, and are all that is answered."""
    record = jobs.running()
    together = when == "together"
    with connected(served.base) as peer:
        peer.socket.sendall(get(peer, events_path(record)) + (behind if together else b""))
        assert b"200 OK" in peer.read_head()
        peer.socket.sendall(b"" if together else behind)
        header_timeout(served)
        jobs.beat(record, 1)
        jobs.succeed(record)
        body = peer.read_all()
    assert events_in(unchunked(body)) == logged(database, record, served.base, behind=1)


def header_timeout(served: Served) -> None:
    """Wait until the time is over in which a request has to be there."""
    with connected(served.base) as peer:
        peer.socket.sendall(SECOND[:9])
        assert peer.read_all() == b""


def unchunked(body: bytes) -> bytes:
    """What the chunks hold, when the last one is the end of ``body``."""
    data = b""
    while not body.startswith(b"0\r\n"):
        size, body = body.split(b"\r\n", 1)
        count = int(size, 16)
        assert body[count : count + 2] == b"\r\n"
        data, body = data + body[:count], body[count + 2 :]
    assert body == b"0\r\n\r\n"
    return data


def test_many_readers_get_the_same_bytes(served: Served, jobs: OwnJobs, database: Session) -> None:
    record = jobs.waiting()
    with ExitStack() as peers:
        found = [peers.enter_context(connected(served.base)) for _ in range(READERS)]
        for peer in found:
            peer.ask(events_path(record))
        for peer in found:
            assert b"200 OK" in peer.read_head()
        assert readers(served) == READERS
        running = jobs.claim(record)
        for rows in range(10):
            jobs.beat(running, rows)
        jobs.succeed(running)
        bodies = {peer.read_all() for peer in found}
    (body,) = bodies
    assert events_in(unchunked(body)) == logged(database, record, served.base)
    nobody_reads(served)
