"""Somebody cancels an export at any point of it: the proof is true, and nothing is left."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import ask
from tests.curl import downloading
from tests.event_reader import EventReader, assert_each_seen_once
from tests.jobs import (
    SETTINGS,
    assert_gapless,
    assert_nothing_left,
    assert_whole,
    content,
    ended,
    log_of,
    pid_of,
    post,
    row,
    start,
)
from tests.points import CONFIG, Plain, Point, plain_of
from tests.recovery import BROKEN, REFUSED
from tests.seeds import seeds
from tests.serving import Served, serving
from tests.session import Session, gated, session
from tests.waiting import wait_until

GONE_SECONDS = 1.0  # from the answer to a backend that does nothing for it
DATASETS = f"""
[datasets.gated]
sql = '''{gated(1_000, 10)}'''
[datasets.asleep]
sql = "select i as id, pg_sleep(3600)::text as word from (select generate_series(1, 9) as i) s"
[datasets.endless]
sql = '''
    select i as id, md5(i::text) as word
    from (select generate_series(1, 1000000000000) as i) s
'''
"""
WRITTEN = 20_000_000  # bytes at most of the endless one


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with serving(folder, module_database_url, config=CONFIG + DATASETS, **SETTINGS) as found:
        yield found


@pytest.fixture(scope="module")
def plain(served: Served, database: Session) -> Plain:
    return plain_of(served, database)


def cancel(served: Served, export: str) -> tuple[dict[str, object], float]:
    """The answer, and how many milliseconds it took."""
    began = time.monotonic()
    answer = post(served.base, f"/v1/exports/{export}/cancel")
    took = (time.monotonic() - began) * 1000
    assert answer.status == 200, answer.body
    told: dict[str, object] = answer.json()
    return told, took


def assert_cancelled(
    served: Served, database: Session, export: str, told: dict[str, object]
) -> None:
    found = row(database, export)
    assert found["state"] == "cancelled"
    assert found["artifact"] is None
    assert found["cancel"] == told["proof"]
    log = log_of(database, export)
    assert_gapless(log, "cancelled", "close")
    if found["receipt"] is not None:
        assert found["receipt"]["outcome"] == "cancelled"
        assert log[-2].data["receipt"] == found["receipt"]
    assert_nothing_left(served, database)
    assert ask(served.base, content(served, export)).status == 410


@pytest.mark.parametrize("seed", seeds(20))
def test_at_any_point(
    served: Served, database: Session, plain: Plain, tmp_path: Path, seed: int
) -> None:
    chosen = random.Random(seed)
    endless = chosen.random() < 0.5
    kinds = ("claimed", "bytes", "bytes") if endless else ("queued", "claimed", "bytes", "written")
    size = chosen.randint(1, WRITTEN) if endless else len(plain.body)
    point = Point.of(chosen, kinds)
    export = start(served, "endless" if endless else "paced")
    with (
        EventReader(served, export, seed=seed, longest=0.5) as reader,
        downloading(content(served, export), tmp_path, "--fail") as follower,
    ):
        before = point.wait(served, database, export, size)
        told, took = cancel(served, export)
        # At once: it is what the answer has told.
        left = database.exporting()
        seen = reader.finish()
        code = follower.exit_code()
    if told["cancelled"] is False:
        assert not endless
        assert told["reason"] == "already succeeded"
        assert_whole(served, row(database, export), plain.digest)
        return
    proof = told["proof"]
    assert isinstance(proof, dict)
    assert (proof["backend_gone"], left) == (True, 0)
    assert took < GONE_SECONDS * 1000
    assert 0 <= proof["latency_ms"] <= took
    assert before["state"] != "running" or proof["latency_ms"] > 0
    assert code in BROKEN | {REFUSED}
    assert code != REFUSED or follower.size == 0
    assert_cancelled(served, database, export, told)
    assert_each_seen_once(seen, log_of(database, export))


@pytest.mark.parametrize("dataset", ["asleep", "gated"])
def test_a_query_that_waits(served: Served, database: Session, dataset: str) -> None:
    """Before its first row, and in the middle: nothing is on its way that could meet its end."""
    database.close_gate()
    export = start(served, dataset)
    wait_until(lambda: database.exporting() == 1, within=30, what="the query runs")
    if dataset == "gated":
        Point(share=0.5).wait(served, database, export, size=1_000_000)
    told, took = cancel(served, export)
    assert database.exporting() == 0
    database.open_gate()
    proof = told["proof"]
    assert isinstance(proof, dict)
    assert proof["backend_gone"] is True
    assert 0 < proof["latency_ms"] <= took < GONE_SECONDS * 1000
    assert_cancelled(served, database, export, told)


def test_one_of_several(served: Served, database: Session, plain: Plain) -> None:
    """The others of the same worker are made, and it goes on working."""
    exports = [start(served, "paced") for _ in range(3)]
    waited = [Point("claimed").wait(served, database, export, 1) for export in exports]
    assert len({pid_of(found) for found in waited}) == 1
    told, _ = cancel(served, exports[1])
    assert told["cancelled"] is True
    for export in (exports[0], exports[2], start(served, "paced")):
        assert_whole(served, ended(database, export), plain.digest)
    assert_cancelled(served, database, exports[1], told)
