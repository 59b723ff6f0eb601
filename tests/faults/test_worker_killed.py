"""kill -9 of a worker at any point: the export is made by another attempt, or it was made whole."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.clients import ask
from tests.curl import downloading
from tests.event_reader import EventReader, assert_each_seen_once
from tests.jobs import (
    LEASE,
    SETTINGS,
    Row,
    assert_gapless,
    assert_nothing_left,
    assert_whole,
    awaited,
    content,
    ended,
    log_of,
    lost,
    pid_of,
    post,
    sha256,
    start,
)
from tests.points import CONFIG, Plain, Point, plain_of
from tests.recovery import assert_never_mixed, recovered
from tests.seeds import FULL, seeds
from tests.serving import Served, serving
from tests.session import Session, session
from tests.workers import Crew, crew_of

AFTER_LEASE = 5.0  # seconds in which another attempt has begun and ended, beside its own time


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    arguments = ("--no-worker",)
    with serving(
        folder, module_database_url, config=CONFIG, arguments=arguments, **SETTINGS
    ) as found:
        yield found


@pytest.fixture(scope="module")
def crew(served: Served, database: Session) -> Iterator[Crew]:
    with crew_of(served, database, 3) as found:
        yield found


@pytest.fixture(scope="module")
def plain(served: Served, database: Session, crew: Crew) -> Plain:
    return plain_of(served, database)


def kill(crew: Crew, chosen: random.Random, found: Row) -> int:
    """Kill the worker of a row, or any where none has it; another one is hired at once."""
    pid = pid_of(found) if found["worker"] else chosen.choice(crew.pids)
    crew.kill(pid)
    crew.hire()
    return pid


@pytest.mark.parametrize("seed", seeds(50))
def test_at_any_point(
    served: Served, database: Session, crew: Crew, plain: Plain, tmp_path: Path, seed: int
) -> None:
    """Now and then the next attempt is killed, too."""
    crew.ready()
    chosen = random.Random(seed)
    point, again = Point.of(chosen), chosen.random() < 0.25
    body = plain.body
    export = start(served, "paced")
    with (
        EventReader(served, export, seed=seed, longest=1.0) as reader,
        downloading(content(served, export), tmp_path, "--fail") as follower,
    ):
        before = point.wait(served, database, export, len(body))
        killed = [kill(crew, chosen, before)]
        if again and before["state"] == "running":
            point = Point(share=chosen.random())
            killed.append(
                kill(crew, chosen, point.wait(served, database, export, len(body), attempt=2))
            )
        within = LEASE + AFTER_LEASE + 3 * plain.seconds
        found = recovered(served, database, export, plain, within)
        assert_never_mixed(follower, body)
        seen = reader.finish()
    codes = lost(found)
    assert set(codes) <= {"attempt_lost"}
    # It may have been done, or another worker's, by the moment at which this one was killed.
    assert codes or before["state"] != "running" or pid_of(found) in killed
    log = log_of(database, export)
    assert_gapless(log, "succeeded", "close")
    assert [event.name for event in log].count("state") == 2 + 2 * len(codes)
    assert_each_seen_once(seen, log)
    assert_nothing_left(served, database)


def test_too_often(database_url: str, tmp_path: Path) -> None:
    """Attempts are counted in the export's row; only who asks for it again gets another one."""
    settings = SETTINGS | {"limits__max_attempts": "2"}
    arguments = ("--no-worker",)
    with (
        session(database_url) as database,
        serving(tmp_path, database_url, config=CONFIG, arguments=arguments, **settings) as served,
        crew_of(served, database, 2) as crew,
    ):
        body = ask(served.base, "/v1/rows/paced.csv").body
        export = start(served, "paced")
        with EventReader(served, export) as reader:
            for attempt in (1, 2):
                point = Point(share=0.1)
                found = point.wait(served, database, export, len(body), attempt)
                crew.kill(pid_of(found))
                if attempt == 1:
                    crew.hire()
            found = ended(database, export)
            seen = reader.finish()
        log = log_of(database, export)
        assert (found["state"], found["attempt"]) == ("failed", 2)
        assert found["error"]["code"] == "attempt_lost"
        assert [attempt["code"] for attempt in found["attempts"]] == ["attempt_lost"] * 2
        assert found["artifact"] is None
        assert_gapless(log, "failed", "close")
        assert_each_seen_once(seen, log)
        assert_nothing_left(served, database)
        assert post(served.base, f"/v1/exports/{export}/retry").status == 202
        found = awaited(database, export, "succeeded")
        assert_whole(served, found, sha256(body))
        assert lost(found) == ["attempt_lost"] * 2
        rest = log_of(database, export)[len(log) :]
        assert_gapless(rest, "succeeded", "close", first=len(log) + 1)


@pytest.mark.parametrize("lease", [LEASE, *([15.0] if FULL else [])])
def test_the_server_starts_its_worker_again(
    database_url: str, tmp_path: Path, lease: float
) -> None:
    """As the README shows it: nobody else is there to do the work."""
    settings = SETTINGS | {"limits__lease": f"{lease}s"}
    began = time.monotonic()
    with (
        session(database_url) as database,
        serving(tmp_path, database_url, config=CONFIG, **settings) as served,
    ):
        plain = plain_of(served, database)
        alone = time.monotonic() - began
        export = start(served, "paced")
        pid = pid_of(Point().wait(served, database, export, len(plain.body)))
        assert psutil.Process(pid).ppid() == served.process.pid
        psutil.Process(pid).kill()
        found = recovered(served, database, export, plain, lease + AFTER_LEASE + alone)
        assert lost(found) == ["attempt_lost"]
        assert pid_of(found) != pid
        assert psutil.Process(pid_of(found)).ppid() == served.process.pid
        assert_nothing_left(served, database)
