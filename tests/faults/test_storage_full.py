"""The disk of artifacts is full: the export says so, nothing of it stays, and the service lives on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.clients import ask
from tests.curl import downloading
from tests.disks import FILLER, filled, free_bytes, small_disk
from tests.event_reader import EventReader, assert_each_seen_once
from tests.jobs import (
    SETTINGS,
    Row,
    artifacts,
    assert_gapless,
    assert_whole,
    content,
    ended,
    files,
    log_of,
    pid_of,
    post,
    row,
    start,
)
from tests.points import CONFIG, Plain, Point, plain_of
from tests.recovery import BROKEN, assert_never_mixed, assert_whole_or_absent
from tests.seeds import seeds
from tests.serving import Served, serving
from tests.session import Session, gated, session
from tests.waiting import wait_until

MEBIBYTE = 1024 * 1024
DISK = 4 * MEBIBYTE
LOW_WATER = MEBIBYTE // 2
ARRIVED = 500_000  # bytes that are there while the gate is closed
DATASETS = f"""
[datasets.gated]
sql = '''{gated(1_000, 10_000)}'''
[datasets.small]
sql = "select i as id from (select generate_series(1, 1000) as i) s"
"""


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    settings = SETTINGS | {"limits__min_free_space": str(LOW_WATER)}
    with (
        small_disk(folder / "data" / "artifacts", DISK),
        serving(folder, module_database_url, config=CONFIG + DATASETS, **settings) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def plain(served: Served, database: Session) -> Plain:
    return plain_of(served, database)


@pytest.fixture(autouse=True)
def empty(served: Served, database: Session) -> None:
    """Every test begins with the whole disk."""
    database.execute("UPDATE tailrace.exports SET expires_at = now() WHERE artifact IS NOT NULL")
    wait_until(lambda: not files(served), within=10, what="the disk is empty")


def assert_lives(served: Served, database: Session) -> Row:
    """Everything else goes, and a small export is made."""
    assert ask(served.base, "/livez").status == 200
    assert ask(served.base, "/v1/rows/small.csv").status == 200
    found = ended(database, start(served, "small"))
    assert_whole(served, found, found["receipt"]["sha256"])
    return found


def test_an_export_that_is_too_large(served: Served, database: Session, tmp_path: Path) -> None:
    database.close_gate()
    export = start(served, "gated")
    with ExitStack() as stack:
        reader = stack.enter_context(EventReader(served, export))
        followers = [
            stack.enter_context(downloading(content(served, export), tmp_path)) for _ in range(2)
        ]
        wait_until(
            lambda: all(one.size > ARRIVED for one in followers), within=30, what="bytes arrive"
        )
        worker = pid_of(row(database, export))
        database.open_gate()
        assert {one.exit_code() for one in followers} <= BROKEN
        found = ended(database, export)
        seen = reader.finish()
    assert (found["state"], found["attempt"], found["artifact"]) == ("failed", 1, None)
    assert found["error"]["code"] == "storage_full"
    assert found["error"]["status"] == 507
    assert str(served.log.parent) not in str(found["error"])
    assert found["receipt"]["outcome"] == "failed"
    wait_until(lambda: not files(served), within=10, what="nothing of it stays")
    assert free_bytes(artifacts(served)) == DISK
    answer = ask(served.base, content(served, export))
    assert (answer.status, answer.json()["error"]["code"]) == (409, "storage_full")
    log = log_of(database, export)
    assert_gapless(log, "failed", "close")
    assert_each_seen_once(seen, log)
    assert pid_of(assert_lives(served, database)) == worker
    assert psutil.pid_exists(worker)
    assert database.exporting() == 0


@pytest.mark.parametrize("seed", seeds(20))
def test_somebody_else_fills_it(
    served: Served, database: Session, plain: Plain, tmp_path: Path, seed: int
) -> None:
    """At any point: the export fails, or it had all the room that it needed."""
    chosen = random.Random(seed)
    point = Point.of(chosen, ("queued", "claimed", "bytes", "bytes", "bytes", "written"))
    export = start(served, "paced")
    with (
        EventReader(served, export, seed=seed, longest=0.5) as reader,
        downloading(content(served, export), tmp_path, "--fail") as follower,
    ):
        point.wait(served, database, export, len(plain.body))
        with filled(artifacts(served)):
            found = ended(database, export)
            assert_whole_or_absent(served, found, plain.body)
            code = follower.exit_code()
            seen = reader.finish()
            if found["state"] == "failed":
                assert found["error"]["code"] == "storage_full"
                wait_until(lambda: files(served) == {FILLER}, within=10, what="nothing stays")
                assert code != 0
            else:
                assert_whole(served, found, plain.digest)
                assert_never_mixed(follower, plain.body)
    log = log_of(database, export)
    assert_gapless(log, found["state"], "close")
    assert_each_seen_once(seen, log)
    assert_lives(served, database)


def test_below_the_low_water_mark(served: Served, database: Session) -> None:
    wanted = {"dataset": "small", "fresh": True}
    with filled(artifacts(served), left=LOW_WATER // 2):
        before = database.value("SELECT count(*) FROM tailrace.exports")
        answer = post(served.base, "/v1/exports", wanted)
        assert (answer.status, answer.json()["code"]) == (507, "storage_full")
        assert int(answer.headers["Retry-After"]) > 0
        assert database.value("SELECT count(*) FROM tailrace.exports") == before
        # What needs no room goes on, and so does a worker that has begun.
        assert ask(served.base, "/v1/rows/small.csv").status == 200
        assert post(served.base, "/v1/exports/preview", wanted | {"fresh": False}).status == 200
    assert_lives(served, database)
