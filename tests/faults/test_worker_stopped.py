"""A worker that is stopped (SIGSTOP) for longer than its lease, and then goes on: a zombie."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator

import pytest

from tests.event_reader import EventReader, assert_each_seen_once
from tests.jobs import (
    SETTINGS,
    Row,
    assert_gapless,
    assert_nothing_left,
    assert_whole,
    awaited,
    ended,
    files,
    log_of,
    lost,
    pid_of,
    row,
    start,
)
from tests.points import CONFIG, Plain, Point, plain_of
from tests.recovery import recovered
from tests.seeds import seeds
from tests.serving import Served, serving
from tests.session import Session, gated, session
from tests.waiting import wait_until
from tests.workers import Crew, crew_of, now, open_artifacts

GATED = f"""
[datasets.gated]
sql = '''{gated(1_000, 10)}'''
"""
ARRIVED = 500_000  # bytes that are there while the gate is closed
LINES = 1 + 1_010
AWAKE_SECONDS = 20


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with serving(
        folder, module_database_url, config=CONFIG + GATED, arguments=("--no-worker",), **SETTINGS
    ) as found:
        yield found


@pytest.fixture(scope="module")
def crew(served: Served, database: Session) -> Iterator[Crew]:
    with crew_of(served, database, 2) as found:
        yield found


@pytest.fixture(scope="module")
def plain(served: Served, database: Session, crew: Crew) -> Plain:
    return plain_of(served, database)


def wake(crew: Crew, database: Session, pid: int) -> None:
    """Let it go on; returns once it knows what it missed and has let go of every artifact."""
    since = now(database)
    crew.tell(pid, signal.SIGCONT)
    wait_until(lambda: crew.awake(pid, since), within=AWAKE_SECONDS, what="the zombie beats")
    wait_until(lambda: not open_artifacts(pid), within=AWAKE_SECONDS, what="it lets go of its file")


def taken_from(database: Session, export: str, pid: int) -> Row:
    """The row once another worker runs the export, or has made it."""

    def taken() -> bool:
        found = row(database, export)
        return found["state"] in ("running", "succeeded") and pid_of(found) != pid

    wait_until(taken, within=30, what="another worker has taken over")
    return row(database, export)


@pytest.mark.parametrize("after", ["while the other one runs", "when the other one is done"])
def test_in_the_middle(served: Served, database: Session, crew: Crew, after: str) -> None:
    database.close_gate()
    export = start(served, "gated")
    with EventReader(served, export) as reader:
        before = awaited(database, export, "running")
        Point(share=ARRIVED / 2).wait(served, database, export, size=2)
        pid = pid_of(before)
        crew.tell(pid, signal.SIGSTOP)
        assert len(open_artifacts(pid)) == 1
        between = taken_from(database, export, pid)
        # The file of the lost attempt goes with the attempt.
        assert not any(name.startswith(before["artifact"]) for name in files(served))
        if after == "while the other one runs":
            wake(crew, database, pid)
            assert row(database, export)["artifact"] == between["artifact"]
        database.open_gate()
        found = ended(database, export)
        if after == "when the other one is done":
            wake(crew, database, pid)
        assert reader.finish()
    assert row(database, export) == found
    assert (found["worker"], found["attempt"]) == (between["worker"], between["attempt"])
    assert set(lost(found)) == {"attempt_lost"}
    assert found["receipt"]["rows"] == LINES - 1
    assert_whole(served, found, found["receipt"]["sha256"])
    log = log_of(database, export)
    assert_gapless(log, "succeeded", "close")
    assert_each_seen_once(reader.events, log)
    assert not any(name.startswith(before["artifact"]) for name in files(served))
    assert_nothing_left(served, database)


@pytest.mark.parametrize("seed", seeds(20))
def test_at_any_point(
    served: Served, database: Session, crew: Crew, plain: Plain, seed: int
) -> None:
    chosen = random.Random(seed)
    point = Point.of(chosen, ("claimed", "claimed", "bytes", "written", "renamed"))
    export = start(served, "paced")
    with EventReader(served, export, seed=seed, longest=1.0) as reader:
        before = point.wait(served, database, export, len(plain.body))
        pid = pid_of(before)
        crew.tell(pid, signal.SIGSTOP)
        if row(database, export)["state"] != "succeeded":
            taken_from(database, export, pid)
        if chosen.random() < 0.5:
            ended(database, export)
        wake(crew, database, pid)
        found = recovered(served, database, export, plain, 30)
        seen = reader.finish()
    assert row(database, export) == found
    codes = lost(found)
    assert set(codes) <= {"attempt_lost"}
    assert bool(codes) == (found["artifact"] != before["artifact"])
    log = log_of(database, export)
    assert_gapless(log, "succeeded", "close")
    assert_each_seen_once(seen, log)
    assert_nothing_left(served, database)


def test_alone(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """There is nobody else: it takes its own export over, as the next attempt."""
    folder = tmp_path_factory.mktemp("alone")
    with (
        session(database_url) as database,
        serving(folder, database_url, config=CONFIG + GATED, **SETTINGS) as served,
    ):
        database.close_gate()
        export = start(served, "gated")
        with EventReader(served, export) as reader:
            before = awaited(database, export, "running")
            Point(share=ARRIVED / 2).wait(served, database, export, size=2)
            os.kill(pid_of(before), signal.SIGSTOP)
            wait_until(
                lambda: database.value(
                    "SELECT lease_until < now() FROM tailrace.exports WHERE id = $1::text::uuid",
                    export,
                ),
                within=10,
                what="the lease is over",
            )
            os.kill(pid_of(before), signal.SIGCONT)
            wait_until(
                lambda: row(database, export)["attempt"] > 1, within=60, what="it is put back"
            )
            database.open_gate()
            found = ended(database, export)
            seen = reader.finish()
        assert lost(found) == ["attempt_lost"]
        assert pid_of(found) == pid_of(before)
        assert_whole(served, found, found["receipt"]["sha256"])
        log = log_of(database, export)
        assert_gapless(log, "succeeded", "close")
        assert_each_seen_once(seen, log)
        assert_nothing_left(served, database)
