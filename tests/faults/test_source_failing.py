"""The source ends the query of an export: what may pass is tried again, a user's error never."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import ask
from tests.curl import CUT_SHORT, downloading
from tests.event_reader import EventReader, assert_each_seen_once
from tests.jobs import (
    SETTINGS,
    assert_gapless,
    assert_nothing_left,
    assert_whole,
    content,
    ended,
    grown,
    log_of,
    lost,
    row,
    start,
)
from tests.points import CONFIG, Plain, Point, plain_of
from tests.recovery import assert_never_mixed, recovered
from tests.seeds import seeds
from tests.serving import Served, serving
from tests.session import GATE, Session, gated, session
from tests.waiting import wait_until

END = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE application_name = 'tailrace export' AND state <> 'idle' AND datname = current_database()
"""
# While the gate is closed it fails, with the error that its argument names.
FLAKY = f"""
    CREATE FUNCTION flaky(state text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
        IF NOT pg_try_advisory_xact_lock_shared({GATE}) THEN
            RAISE 'it is said to fail' USING ERRCODE = state;
        END IF;
        RETURN '';
    END $$
"""
PASSING = ("40001", "40P01", "57P01", "57P03", "08006", "53300")
HALF = 0.5  # of an export: the database has by far not sent all of it
LATE = 1_005  # a row behind the gate
ARRIVED = 500_000  # bytes that are there while the gate is closed
DATASETS = f"""
[datasets.late]
sql = '''
    select id, word, 1 / (id - {LATE}) as share from ({gated(1_000, 10)}) as g
'''
""" + "".join(
    f"""
[datasets.flaky_{state}]
sql = '''
    select i as id, case when i = 900 then flaky('{state}') else '' end as word
    from (select generate_series(1, 1000) as i) s
'''
"""
    for state in (*PASSING, "22012", "57014")
)


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        opened.execute(FLAKY)
        yield opened


@pytest.fixture(scope="module")
def served(
    module_database_url: str, database: Session, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with serving(folder, module_database_url, config=CONFIG + DATASETS, **SETTINGS) as found:
        yield found


@pytest.fixture(scope="module")
def plain(served: Served, database: Session) -> Plain:
    return plain_of(served, database)


@pytest.mark.parametrize("seed", seeds(20))
def test_its_backend_is_terminated(
    served: Served, database: Session, plain: Plain, tmp_path: Path, seed: int
) -> None:
    chosen = random.Random(seed)
    point = Point.of(chosen, ("claimed", "bytes", "bytes", "rows", "written"))
    export = start(served, "paced")
    with (
        EventReader(served, export, seed=seed, longest=0.5) as reader,
        downloading(content(served, export), tmp_path, "--fail") as follower,
    ):
        point.wait(served, database, export, len(plain.body))
        terminated = database.value(END)
        found = recovered(served, database, export, plain, 20)
        assert_never_mixed(follower, plain.body)
        seen = reader.finish()
    codes = lost(found)
    assert codes in ([], ["source_unavailable"])
    if point.kind in ("bytes", "rows") and point.share < HALF:
        assert (len(codes), terminated) == (1, 1)
    log = log_of(database, export)
    assert_gapless(log, "succeeded", "close")
    assert_each_seen_once(seen, log)
    assert_nothing_left(served, database)


@pytest.mark.parametrize("state", PASSING)
def test_an_error_that_passes(served: Served, database: Session, state: str) -> None:
    database.close_gate()
    export = start(served, f"flaky_{state}")
    wait_until(lambda: row(database, export)["attempt"] == 2, within=20, what="it is put back")
    database.open_gate()
    found = ended(database, export)
    assert_whole(served, found, found["receipt"]["sha256"])
    assert len(lost(found)) == 1
    assert_gapless(log_of(database, export), "succeeded", "close")


@pytest.mark.parametrize("state", ["22012", "57014"])
def test_an_error_that_stays(served: Served, database: Session, state: str) -> None:
    database.close_gate()
    found = ended(database, start(served, f"flaky_{state}"))
    database.open_gate()
    assert (found["state"], found["attempt"]) == ("failed", 1)
    assert [attempt["code"] for attempt in found["attempts"]] == ["source_error"]
    assert found["error"]["sqlstate"] == state


def test_a_users_error_in_a_late_row(served: Served, database: Session, tmp_path: Path) -> None:
    database.close_gate()
    export = start(served, "late")
    with (
        EventReader(served, export) as reader,
        downloading(content(served, export), tmp_path, "--fail") as follower,
    ):
        wait_until(lambda: follower.size > ARRIVED, within=30, what="bytes arrive")
        assert grown(served, row(database, export)) >= follower.size
        database.open_gate()
        assert follower.exit_code() == CUT_SHORT
        found = ended(database, export)
        seen = reader.finish()
    assert (found["state"], found["attempt"], found["artifact"]) == ("failed", 1, None)
    assert (found["error"]["code"], found["error"]["sqlstate"]) == ("source_error", "22012")
    assert "division by zero" in found["error"]["detail"]
    assert found["receipt"]["outcome"] == "failed"
    answer = ask(served.base, content(served, export))
    assert (answer.status, answer.json()["error"]["sqlstate"]) == (409, "22012")
    log = log_of(database, export)
    assert_gapless(log, "failed", "close")
    assert_each_seen_once(seen, log)
    assert_nothing_left(served, database)
    assert database.exporting() == 0
