"""kill -9 of the server while an export runs: its readers see that, and come back to the next one."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from service.embedded import EmbeddedPostgres
from tests.clients import ask
from tests.curl import downloading, resumed
from tests.event_reader import EventReader, assert_each_seen_once
from tests.jobs import (
    SETTINGS,
    assert_gapless,
    assert_nothing_left,
    assert_whole,
    content,
    ended,
    log_of,
    lost,
    pid_of,
    row,
    sha256,
    start,
)
from tests.points import CONFIG, Plain, Point, plain_of
from tests.recovery import BROKEN
from tests.seeds import seeds
from tests.serving import Served, serving
from tests.session import Session, gated, session
from tests.succession import Line, line_of
from tests.waiting import wait_until

GATED = f"""
[datasets.gated]
sql = '''{gated(1_000, 500)}'''
"""
ARRIVED = 500_000  # bytes that are there while the gate is closed
# The worker ends with its parent, and may first end what it has begun.
PATIENT = SETTINGS | {"limits__drain_timeout": "30s", "limits__lease": "3s"}


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def line(
    module_database_url: str, database: Session, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Line]:
    folder = tmp_path_factory.mktemp("line")
    with line_of(
        folder, module_database_url, database, config=CONFIG + GATED, settings=PATIENT
    ) as found:
        yield found


@pytest.fixture(scope="module")
def plain(line: Line, database: Session) -> Plain:
    return plain_of(line.served, database)


def killed(line: Line) -> Served:
    """kill -9 of the one that serves; gives the next one."""
    code, _ = line.end(signal.SIGKILL)
    assert code == -signal.SIGKILL
    return line.next()


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_downloads_and_events_go_on_at_the_next_one(
    line: Line, database: Session, tmp_path: Path
) -> None:
    """The worker outlives its parent for as long as its export takes."""
    first = line.served
    database.close_gate()
    export = start(first, "gated")
    with ExitStack() as stack:
        reader = stack.enter_context(EventReader(first, export))
        urls = [content(first, export), f"{content(first, export)}?attempt=1"]
        followers = [stack.enter_context(downloading(url, tmp_path)) for url in urls]
        wait_until(
            lambda: all(one.size > ARRIVED for one in followers), within=30, what="bytes arrive"
        )
        worker = pid_of(row(database, export))
        reader.served = second = killed(line)
        assert {one.exit_code() for one in followers} <= BROKEN
        again = [
            stack.enter_context(resumed(url.replace(first.base, second.base), one))
            for url, one in zip(urls, followers, strict=True)
        ]
        wait_until(lambda: all(one.status == 206 for one in again), within=30, what="it is a part")
        database.open_gate()
        assert {one.exit_code() for one in again} == {0}
        found = ended(database, export)
        digest = found["receipt"]["sha256"]
        assert (found["attempt"], pid_of(found)) == (1, worker)
        assert_whole(second, found, digest)
        assert {sha256(one.body) for one in again} == {digest}
        assert {one.headers["etag"] for one in again} == {one.headers["etag"] for one in followers}
        seen = reader.finish()
    log = log_of(database, export)
    assert_gapless(log, "succeeded", "close")
    assert_each_seen_once(seen, log)
    wait_until(lambda: gone(worker), within=20, what="the orphan ends")


def test_with_its_worker(line: Line, database: Session, tmp_path: Path) -> None:
    """Both are killed: another attempt makes the export, and nobody is given a mixture."""
    first = line.served
    database.close_gate()
    export = start(first, "gated")
    with (
        EventReader(first, export) as reader,
        downloading(content(first, export), tmp_path) as follower,
    ):
        wait_until(lambda: follower.size > ARRIVED, within=30, what="bytes arrive")
        first.process.kill()
        psutil.Process(pid_of(row(database, export))).kill()
        assert follower.exit_code() in BROKEN
        reader.served = second = killed(line)
        wait_until(
            lambda: row(database, export)["attempt"] == 2, within=30, what="the second attempt"
        )
        tag = {"Range": f"bytes={follower.size}-", "If-Range": follower.headers["etag"]}
        database.open_gate()
        whole = ask(second.base, content(second, export), headers=tag)
        assert ask(second.base, f"{content(second, export)}?attempt=1").status == 410
        found = ended(database, export)
        seen = reader.finish()
    assert lost(found) == ["attempt_lost"]
    assert_whole(second, found, sha256(whole.body))
    assert whole.status == 200
    assert whole.headers["ETag"] != follower.headers["etag"]
    log = log_of(database, export)
    assert_gapless(log, "succeeded", "close")
    assert_each_seen_once(seen, log)
    assert_nothing_left(second, database)


def test_with_the_embedded_database(tmp_path: Path) -> None:
    """That outlives it as its worker does, and the next one takes both over."""
    embedded = EmbeddedPostgres(tmp_path / "data").url
    with ExitStack() as stack:
        first = stack.enter_context(serving(tmp_path, None, config=GATED, **PATIENT))
        with session(embedded) as database:
            database.close_gate()
            export = start(first, "gated")
            reader = stack.enter_context(EventReader(first, export))
            follower = stack.enter_context(downloading(content(first, export), tmp_path))
            wait_until(lambda: follower.size > ARRIVED, within=60, what="bytes arrive")
            worker = pid_of(row(database, export))
            assert first.stop(signal.SIGKILL) == -signal.SIGKILL
            assert follower.exit_code() in BROKEN
            reader.served = second = stack.enter_context(
                serving(tmp_path, None, config=GATED, **PATIENT)
            )
            again = stack.enter_context(resumed(content(second, export), follower))
            database.open_gate()
            assert again.exit_code() == 0
            found = ended(database, export)
            assert (lost(found), pid_of(found)) == ([], worker)
            assert_whole(second, found, sha256(again.body))
            log = log_of(database, export)
            assert_gapless(log, "succeeded", "close")
            assert_each_seen_once(reader.finish(), log)
            wait_until(lambda: gone(worker), within=20, what="the orphan ends")
        assert second.stop() == 0


@pytest.mark.parametrize("seed", seeds(20))
def test_at_any_point(
    line: Line, database: Session, plain: Plain, tmp_path: Path, seed: int
) -> None:
    first, chosen = line.served, random.Random(seed)
    point = Point.of(chosen)
    export = start(first, "paced")
    with ExitStack() as stack:
        reader = stack.enter_context(EventReader(first, export, seed=seed, longest=1.0))
        follower = stack.enter_context(downloading(content(first, export), tmp_path, "--fail"))
        point.wait(first, database, export, len(plain.body))
        reader.served = second = killed(line)
        assert follower.exit_code() in BROKEN | {0}
        assert plain.body.startswith(follower.body)
        again = stack.enter_context(resumed(content(second, export), follower))
        found = ended(database, export)
        assert_whole(second, found, plain.digest)
        assert again.exit_code() == 0, again.said.read_text()
        assert again.body == plain.body
        seen = reader.finish()
    assert not lost(found)
    log = log_of(database, export)
    assert_gapless(log, "succeeded", "close")
    assert_each_seen_once(seen, log)
    assert_nothing_left(second, database)
