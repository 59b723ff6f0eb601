"""PostgreSQL restarts in mid-export, orderly or by a crash: all goes on, and nothing is restarted."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.clients import ask
from tests.curl import downloading
from tests.event_reader import EventReader, assert_each_seen_once
from tests.jobs import (
    SETTINGS,
    Row,
    assert_gapless,
    assert_nothing_left,
    assert_whole,
    content,
    ended,
    grown,
    log_of,
    lost,
    pid_of,
    row,
    sha256,
    start,
)
from tests.own_postgres import OwnPostgres, own_postgres
from tests.points import CONFIG, PACED, Plain, Point, plain_of
from tests.postgres import Databases
from tests.recovery import assert_never_mixed, recovered
from tests.seeds import seeds
from tests.serving import Served, serving
from tests.session import Session, gated, session
from tests.waiting import wait_until

BACK_SECONDS = 20.0  # until the next attempt has ended, though everybody connects anew
TOLD_SECONDS = 10.0  # until a reader has heard of it
AWAY = (0.0, 0.0, 0.5, 1.5)  # seconds
LIVE = 2  # connections of a reader that is never cut: the one, and that which is told 204
GATED_HERE = f"""
[datasets.gated]
sql = '''{gated(1_000, 10)}'''
"""
ELSEWHERE = f"""
[sources.main]
url = "{{url}}"
[datasets.paced]
sql = '''{PACED}'''
[datasets.gated]
sql = '''{gated(1_000, 10)}'''
"""


@pytest.fixture(scope="module")
def server() -> Iterator[OwnPostgres]:
    with own_postgres() as found:
        yield found


@pytest.fixture(scope="module")
def own(server: OwnPostgres) -> Databases:
    return Databases(server.url)


@pytest.fixture(scope="module")
def url(own: Databases) -> Iterator[str]:
    with own.clone() as found:
        yield found


@pytest.fixture
def other_url(own: Databases) -> Iterator[str]:
    """One that no other service works on."""
    with own.clone() as found:
        yield found


@pytest.fixture(scope="module")
def served(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Its tables and its source are on the same server."""
    with serving(tmp_path_factory.mktemp("served"), url, config=CONFIG, **SETTINGS) as found:
        yield found


@pytest.fixture(scope="module")
def plain(served: Served, url: str) -> Plain:
    with session(url) as database:
        return plain_of(served, database)


def restart(server: OwnPostgres, chosen: random.Random) -> None:
    server.stop_now(chosen.choice(["fast", "immediate"]))
    time.sleep(chosen.choice(AWAY))  # the outage itself: nothing is waited for
    server.start_again()


def processes(served: Served) -> set[int]:
    """The service's own process and its children."""
    own = psutil.Process(served.process.pid)
    return {own.pid, *(child.pid for child in own.children())}


def assert_streams(served: Served, plain: Plain) -> None:
    """Direct streams go as before, maybe after a moment."""

    def whole() -> bool:
        answer = ask(served.base, "/v1/rows/paced.csv")
        return answer.status == 200 and answer.body == plain.body

    wait_until(whole, within=10, what="direct streams go again")


def assert_told(readers: list[EventReader], database: Session, export: str) -> None:
    log = log_of(database, export)
    assert_gapless(log, "succeeded", "close")
    for reader in readers:
        assert_each_seen_once(reader.finish(TOLD_SECONDS), log)


@pytest.mark.parametrize("seed", seeds(20))
def test_at_any_point(
    server: OwnPostgres, served: Served, url: str, plain: Plain, tmp_path: Path, seed: int
) -> None:
    chosen = random.Random(seed)
    point = Point.of(chosen)
    before = processes(served)
    with ExitStack() as stack:
        with session(url) as database:
            export = start(served, "paced")
            readers = [
                stack.enter_context(EventReader(served, export, seed=seed, longest=longest))
                for longest in (None, 0.5)
            ]
            wait_until(lambda: all(reader.events for reader in readers), within=30, what="events")
            follower = stack.enter_context(downloading(content(served, export), tmp_path, "--fail"))
            point.wait(served, database, export, len(plain.body))
        restart(server, chosen)
        with session(url) as database:
            found = recovered(served, database, export, plain, BACK_SECONDS)
            assert set(lost(found)) <= {"source_unavailable", "attempt_lost"}
            assert_told(readers, database, export)
            assert readers[0].connections == LIVE
            assert_never_mixed(follower, plain.body)
            assert_streams(served, plain)
            assert_nothing_left(served, database)
    assert processes(served) == before


@pytest.fixture
def gate(database_url: str) -> Iterator[Session]:
    """A database on the server that all tests share."""
    with session(database_url) as opened:
        yield opened


def arrived(served: Served, database: Session, export: str) -> Row:
    """The row of an export that waits at its gate."""
    wait_until(
        lambda: grown(served, row(database, export)) > 500_000, within=30, what="bytes arrive"
    )
    return row(database, export)


def test_what_was_told_survives_a_crash(
    server: OwnPostgres, other_url: str, tmp_path: Path
) -> None:
    """A number that a reader has is never that of another event, which it would miss."""
    with ExitStack() as stack:
        served = stack.enter_context(
            serving(tmp_path, other_url, config=GATED_HERE, **SETTINGS | {"limits__lease": "60s"})
        )
        with session(other_url) as database:
            database.close_gate()
            export = start(served, "gated")
            reader = stack.enter_context(EventReader(served, export))
            arrived(served, database, export)
            wait_until(
                lambda: reader.events and reader.events[-1].name == "progress",
                within=30,
                what="progress is told",
            )
            server.stop_now("immediate")
        told = reader.events[-1]
        server.start_again()
        with session(other_url) as database:
            assert log_of(database, export)[(told.id or 0) - 1].name == "progress"
            assert ended(database, export)["state"] == "succeeded"
            assert_told([reader], database, export)


def test_its_own_tables_alone(
    server: OwnPostgres, other_url: str, database_url: str, gate: Session, tmp_path: Path
) -> None:
    """Shorter than a lease: the attempt goes on, and no stream of data notices."""
    gate.close_gate()
    config = ELSEWHERE.format(url=database_url)
    settings: dict[str, Any] = SETTINGS | {"limits__lease": "30s"}
    with ExitStack() as stack:
        served = stack.enter_context(serving(tmp_path, other_url, config=config, **settings))
        with session(other_url) as database:
            export = start(served, "gated")
            readers = [
                stack.enter_context(EventReader(served, export, longest=longest))
                for longest in (None, 0.5)
            ]
            before = arrived(served, database, export)
        streams = [
            stack.enter_context(downloading(address, tmp_path))
            for address in (content(served, export), f"{served.base}/v1/rows/gated.csv")
        ]
        wait_until(lambda: all(one.size for one in streams), within=30, what="streams run")
        server.stop_now("immediate")
        gate.open_gate()
        assert streams[1].exit_code() == 0
        assert ask(served.base, f"/v1/exports/{export}").status == 503
        server.start_again()
        with session(other_url) as database:
            found = ended(database, export)
            assert lost(found) == []
            assert (found["attempt"], found["worker"]) == (1, before["worker"])
            assert streams[0].exit_code() == 0
            assert_whole(served, found, sha256(streams[0].body))
            assert streams[0].body == streams[1].body
            assert_told(readers, database, export)
            assert readers[0].connections == LIVE


def test_its_source_alone(
    server: OwnPostgres, url: str, database_url: str, gate: Session, tmp_path: Path
) -> None:
    """The attempt ends at once, and the next one begins when it may; events never stop."""
    config = ELSEWHERE.format(url=url)
    with ExitStack() as stack:
        served = stack.enter_context(serving(tmp_path, database_url, config=config, **SETTINGS))
        plain = plain_of(served, gate)
        export = start(served, "paced")
        readers = [stack.enter_context(EventReader(served, export))]
        # Early, since a busy machine needs a moment to stop the server.
        before = Point(share=0.01).wait(served, gate, export, len(plain.body))
        restart(server, random.Random(0))
        found = recovered(served, gate, export, plain, BACK_SECONDS)
        assert set(lost(found)) == {"source_unavailable"}
        assert pid_of(found) == pid_of(before)
        assert_told(readers, gate, export)
        assert readers[0].connections == LIVE
        assert_streams(served, plain)
