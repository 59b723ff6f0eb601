"""The folder of artifacts is gone, is none, or cannot be written: clear errors, and all is mended."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clients import ask
from tests.curl import downloading
from tests.disks import read_only
from tests.event_reader import EventReader, assert_each_seen_once
from tests.jobs import (
    SETTINGS,
    Row,
    artifacts,
    assert_gapless,
    assert_nothing_left,
    assert_whole,
    content,
    ended,
    log_of,
    start,
)
from tests.recovery import BROKEN
from tests.serving import Served, serving
from tests.session import Session, gated, session
from tests.waiting import wait_until

ARRIVED = 500_000  # bytes that are there while the gate is closed
LARGEST = 1_500_000  # bytes
DATASETS = f"""
[datasets.gated]
sql = '''{gated(1_000, 10)}'''
[datasets.large]
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
    settings = SETTINGS | {"limits__max_artifact_size": str(LARGEST)}
    with serving(folder, module_database_url, config=DATASETS, **settings) as found:
        yield found


@contextmanager
def removed(folder: Path) -> Iterator[None]:
    """It is gone, and nobody but the service makes it again."""
    shutil.rmtree(folder)
    yield


@contextmanager
def replaced(folder: Path) -> Iterator[None]:
    """A file has its name."""
    shutil.rmtree(folder)
    folder.write_bytes(b"not a folder")
    try:
        yield
    finally:
        folder.unlink()


BREAKING = {"removed": removed, "replaced by a file": replaced, "read-only": read_only}


def failed(served: Served, database: Session, dataset: str) -> Row:
    found = ended(database, start(served, dataset))
    assert (found["state"], found["attempt"], found["artifact"]) == ("failed", 1, None)
    return found


@pytest.mark.parametrize("how", BREAKING)
def test_in_the_middle(served: Served, database: Session, tmp_path: Path, how: str) -> None:
    folder = artifacts(served)
    database.close_gate()
    export = start(served, "gated")
    with (
        EventReader(served, export) as reader,
        downloading(content(served, export), tmp_path) as follower,
    ):
        wait_until(lambda: follower.size > ARRIVED, within=30, what="bytes arrive")
        with BREAKING[how](folder):
            database.open_gate()
            found = ended(database, export)
            assert follower.exit_code() in BROKEN
            seen = reader.finish()
            assert ask(served.base, content(served, export)).status == 409
            assert ask(served.base, "/livez").status == 200
            assert ask(served.base, "/v1/rows/small.csv").status == 200
            if how != "removed":
                again = failed(served, database, "small")
                assert again["error"]["code"] == "storage_failed"
    assert (found["state"], found["attempt"], found["artifact"]) == ("failed", 1, None)
    assert (found["error"]["code"], found["error"]["status"]) == ("storage_failed", 507)
    assert str(folder) not in str(found["error"])
    log = log_of(database, export)
    assert_gapless(log, "failed", "close")
    assert_each_seen_once(seen, log)
    found = ended(database, start(served, "gated"))
    assert_whole(served, found, found["receipt"]["sha256"])
    assert folder.stat().st_mode & 0o777 == 0o700
    assert database.exporting() == 0


def test_what_was_finished_is_told_as_gone(served: Served, database: Session) -> None:
    """Its record may know better than the disk."""
    found = ended(database, start(served, "small"))
    export = str(found["id"])
    with replaced(artifacts(served)):
        answer = ask(served.base, content(served, export))
        assert (answer.status, answer.json()["code"]) == (507, "storage_failed")
    answer = ask(served.base, content(served, export))
    assert (answer.status, answer.json()["code"]) == (410, "gone")


def test_the_largest_that_may_be(served: Served, database: Session, tmp_path: Path) -> None:
    database.close_gate()
    export = start(served, "large")
    with downloading(content(served, export), tmp_path) as follower:
        wait_until(lambda: follower.size > ARRIVED, within=30, what="bytes arrive")
        database.open_gate()
        assert follower.exit_code() in BROKEN
    found = ended(database, export)
    assert (found["state"], found["error"]["code"]) == ("failed", "storage_full")
    assert str(LARGEST) in found["error"]["detail"]
    assert found["attempt"] == 1
    assert_nothing_left(served, database)
