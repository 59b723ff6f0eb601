"""SIGTERM while exports run and are followed: everything ends or visibly breaks, and goes on later."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.clients import stalled
from tests.curl import downloading, resumed
from tests.event_reader import EventReader, assert_each_seen_once
from tests.jobs import (
    SETTINGS,
    assert_gapless,
    assert_nothing_left,
    assert_whole,
    awaited,
    content,
    ended,
    files,
    log_of,
    lost,
    pid_of,
    row,
    sha256,
    start,
)
from tests.outage import away
from tests.peer import connected
from tests.points import CONFIG, Plain, Point, plain_of
from tests.postgres import Databases
from tests.recovery import BROKEN, assert_never_mixed, recovered
from tests.seeds import seeds
from tests.session import Session, gated, session
from tests.succession import Line, line_of
from tests.waiting import wait_until
from tests.workers import crew_of

DRAIN = 1.0  # seconds
BOUND = 8.0  # seconds more, in which processes end
ARRIVED = 500_000  # bytes that are there while the gate is closed
LAST_CHUNK = b"\r\n0\r\n\r\n"
DATASETS = f"""
[datasets.gated]
sql = '''{gated(1_000, 10)}'''
[datasets.asleep]
sql = "select i as id, pg_sleep(3600)::text as word from (select generate_series(1, 9) as i) s"
[datasets.large]
sql = '''
    select i as id, repeat(md5(i::text), 30) as word
    from (select generate_series(1, 20000) as i) s
'''
"""


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def line(
    module_database_url: str, database: Session, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Line]:
    folder, config = tmp_path_factory.mktemp("line"), CONFIG + DATASETS
    settings = SETTINGS | {"limits__drain_timeout": f"{DRAIN}s", "limits__lease": "5s"}
    with line_of(folder, module_database_url, database, config=config, settings=settings) as found:
        yield found


@pytest.fixture(scope="module")
def plain(line: Line, database: Session) -> Plain:
    return plain_of(line.served, database)


def test_what_cannot_end_is_broken_and_goes_on_later(
    line: Line, database: Session, tmp_path: Path
) -> None:
    first = line.served
    finished = start(first, "large")
    assert ended(database, finished)["state"] == "succeeded"
    database.close_gate()
    export = start(first, "gated")
    with ExitStack() as stack:
        reader = stack.enter_context(EventReader(first, export))
        follower = stack.enter_context(downloading(content(first, export), tmp_path))
        events = [
            stack.enter_context(connected(first.base))
            for path in (f"/v1/exports/{export}/events", "/v1/events")
        ]
        for peer, path in zip(events, (f"/v1/exports/{export}/events", "/v1/events"), strict=True):
            peer.ask(path)
            assert peer.read_head().startswith(b"HTTP/1.1 200")
        slow = stack.enter_context(stalled(first.base, f"/v1/exports/{finished}/content"))
        wait_until(lambda: follower.size > ARRIVED, within=30, what="bytes arrive")
        before = row(database, export)
        code, seconds = line.end(signal.SIGTERM)
        assert code == 0
        assert seconds < DRAIN + BOUND
        assert follower.exit_code() in BROKEN
        # Streams of events end as such, and without a word about the export's end.
        for peer in events:
            said = peer.read_all()
            assert said.endswith(LAST_CHUNK)
            assert b"event: close" not in said
        size = len(drained(slow))
        assert size < ended(database, finished)["bytes"]
        found = row(database, export)
        assert (found["state"], found["attempt"], found["artifact"]) == ("queued", 2, None)
        assert lost(found) == ["worker_stopped"]
        # It is nobody's fault, and costs none of the attempts that it may have.
        assert found["attempts_until"] == before["attempts_until"] + 1
        assert files(first) == {ended(database, finished)["artifact"]}
        assert database.exporting() == 0
        database.open_gate()
        reader.served = line.next()
        found = ended(database, export)
        assert_whole(line.served, found, found["receipt"]["sha256"])
        assert lost(found) == ["worker_stopped"]
        log = log_of(database, export)
        assert_gapless(log, "succeeded", "close")
        assert_each_seen_once(reader.finish(), log)


def drained(response: object) -> bytes:
    """What was on its way to a client that had stopped reading."""
    got = bytearray()
    try:
        while data := response.read1(65_536):  # type: ignore[attr-defined]  # an HTTPResponse
            got += data
    except OSError:
        pass
    return bytes(got)


def test_what_can_end_does(line: Line, database: Session, tmp_path: Path) -> None:
    """The gate opens in the time that both the worker and the downloads have."""
    first = line.served
    database.close_gate()
    export = start(first, "gated")
    with (
        EventReader(first, export) as reader,
        downloading(content(first, export), tmp_path) as follower,
    ):
        wait_until(lambda: follower.size > ARRIVED, within=30, what="bytes arrive")
        before = row(database, export)
        first.process.send_signal(signal.SIGTERM)
        assert first.process.poll() is None
        database.open_gate()
        assert line.end(signal.SIGTERM)[0] == 0
        found = row(database, export)
        assert (found["state"], found["worker"]) == ("succeeded", before["worker"])
        assert follower.exit_code() == 0
        assert_whole(first, found, sha256(follower.body))
        reader.served = line.next()
        log = log_of(database, export)
        assert_gapless(log, "succeeded", "close")
        assert_each_seen_once(reader.finish(), log)


@pytest.mark.parametrize("seed", seeds(20))
def test_at_any_point(
    line: Line, database: Session, plain: Plain, tmp_path: Path, seed: int
) -> None:
    first, chosen = line.served, random.Random(seed)
    point = Point.of(chosen)
    export = start(first, "paced")
    with ExitStack() as stack:
        reader = stack.enter_context(EventReader(first, export, seed=seed, longest=0.5))
        follower = stack.enter_context(downloading(content(first, export), tmp_path, "--fail"))
        point.wait(first, database, export, len(plain.body))
        code, seconds = line.end(chosen.choice([signal.SIGTERM, signal.SIGINT]))
        assert code == 0
        assert seconds < DRAIN + BOUND
        assert_never_mixed(follower, plain.body)
        assert row(database, export)["state"] in ("queued", "succeeded")
        reader.served = second = line.next()
        found = recovered(second, database, export, plain, 30)
        assert set(lost(found)) <= {"worker_stopped"}
        if found["attempt"] == 1:
            again = stack.enter_context(resumed(content(second, export), follower))
            assert again.exit_code() == 0
            assert again.body == plain.body
        log = log_of(database, export)
        assert_gapless(log, "succeeded", "close")
        assert_each_seen_once(reader.finish(), log)
        assert_nothing_left(second, database)


def test_a_worker_alone(line: Line, database: Session) -> None:
    """It is told to stop, and the service's own goes on with what it had."""
    database.close_gate()
    with crew_of(line.served, database, 1) as crew:
        exports = [start(line.served, "gated") for _ in range(4)]
        rows = [awaited(database, export, "running") for export in exports]
        (pid,) = crew.pids
        its = [found["id"] for found in rows if pid_of(found) == pid]
        assert crew.end(pid) == 0
        for export in its:
            found = awaited(database, export, "queued", "running")
            assert lost(found) == ["worker_stopped"]
    database.open_gate()
    for export in exports:
        found = ended(database, export)
        assert_whole(line.served, found, found["receipt"]["sha256"])
        assert pid_of(found) == line.worker()
    assert_nothing_left(line.served, database)


def test_while_its_database_is_away(
    databases: Databases, database_url: str, tmp_path: Path
) -> None:
    """Nobody hears how the attempt has ended, and it is not waited for: its lease tells."""
    settings = SETTINGS | {"limits__drain_timeout": f"{DRAIN}s", "limits__lease": "60s"}
    with ExitStack() as stack:
        with session(database_url) as database:
            line = stack.enter_context(
                line_of(tmp_path, database_url, database, config=DATASETS, settings=settings)
            )
            export = start(line.served, "asleep")
            before = awaited(database, export, "running")
        stack.enter_context(away(databases, database_url))
        code, seconds = line.end(signal.SIGTERM)
        assert code == 0
        assert seconds < DRAIN + 2 * BOUND
    with session(database_url) as database:
        found = row(database, export)
        assert (found["state"], found["worker"]) == ("running", before["worker"])
