"""The database commits the end of an export, and is gone before it can say so."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clients import ask
from tests.event_reader import EventReader, assert_each_seen_once
from tests.jobs import (
    SETTINGS,
    assert_gapless,
    assert_nothing_left,
    assert_whole,
    awaited,
    content,
    files,
    log_of,
    lost,
    post,
    row,
    sha256,
    start,
)
from tests.own_postgres import own_postgres
from tests.postgres import Databases
from tests.serving import serving
from tests.session import Session, gated, session
from tests.waiting import wait_until
from tests.workers import crew_of, now

CONFIG = f"""
[datasets.gated]
sql = '''{gated(500, 10)}'''
"""
PATIENT = SETTINGS | {"limits__lease": "60s"}  # what is tested here is no loss of a lease
NOBODY = "a_replica_that_is_not_there"
# A commit that waits for a replica is done already: who is ended then cannot know that it is.
WAITING = """
    SELECT count(*) FROM pg_stat_activity AS a
    WHERE wait_event = 'SyncRep' AND EXISTS (
        SELECT FROM pg_locks AS l
        WHERE l.pid = a.pid AND l.relation = 'tailrace.export_events'::regclass
    )
"""
TAKEN = WAITING.replace("count(*)", "count(pg_cancel_backend(pid))").replace(
    "'tailrace.export_events'::regclass", "'tailrace.queue'::regclass AND query NOT LIKE 'COMMIT%'"
)
AT_REST = """
    SELECT count(*) FROM tailrace.workers WHERE running = 0 AND seen_at > $1::text::timestamptz
"""
END = WAITING.replace("count(*)", "count(pg_terminate_backend(pid))")


@pytest.fixture(scope="module")
def own() -> Iterator[Databases]:
    with own_postgres() as server:
        yield Databases(server.url)


@pytest.fixture
def url(own: Databases) -> Iterator[str]:
    with own.clone() as found:
        yield found


@contextmanager
def waiting(database: Session) -> Iterator[None]:
    """Until the block ends, what others commit is done, and not answered yet."""
    database.execute("SET synchronous_commit = off")
    database.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{NOBODY}'")
    database.execute("SELECT pg_reload_conf()")
    try:
        wait_until(
            lambda: database.value("SHOW synchronous_standby_names") == NOBODY,
            within=10,
            what="commits wait",
        )
        yield
    finally:
        database.execute("ALTER SYSTEM RESET synchronous_standby_names")
        database.execute("SELECT pg_reload_conf()")


def at_rest(database: Session) -> None:
    """Return when the worker has told, later than now, that it runs nothing."""
    since = now(database)
    wait_until(lambda: database.value(AT_REST, since), within=20, what="the worker has ended it")


def test_a_success_that_was_not_answered_keeps_its_file(url: str, tmp_path: Path) -> None:
    with (
        session(url) as database,
        serving(tmp_path, url, config=CONFIG, **PATIENT) as served,
    ):
        database.close_gate()
        export = start(served, "gated")
        with EventReader(served, export) as reader:
            before = awaited(database, export, "running")
            with waiting(database):
                database.open_gate()
                wait_until(
                    lambda: before["artifact"] in files(served), within=30, what="it has its name"
                )
                wait_until(lambda: database.value(WAITING), within=30, what="its commit waits")
                assert database.value(END)
            found = awaited(database, export, "succeeded")
            at_rest(database)
            assert_whole(served, found, found["receipt"]["sha256"])
            answer = ask(served.base, content(served, export))
            assert sha256(answer.body) == found["receipt"]["sha256"]
            seen = reader.finish()
        log = log_of(database, export)
        assert_gapless(log, "succeeded", "close")
        assert_each_seen_once(seen, log)
        assert_nothing_left(served, database)


def test_a_cancellation_that_was_not_answered_happens_once(url: str, tmp_path: Path) -> None:
    with (
        session(url) as database,
        serving(tmp_path, url, config=CONFIG, **PATIENT) as served,
    ):
        database.close_gate()
        export = start(served, "gated")
        with EventReader(served, export) as reader:
            awaited(database, export, "running")
            database.execute(
                f"UPDATE tailrace.exports SET cancel_requested_at = now() WHERE id = '{export}'"
            )
            with waiting(database):
                wait_until(lambda: database.value(WAITING), within=30, what="its commit waits")
                assert database.value(END)
            found = awaited(database, export, "cancelled")
            database.open_gate()
            at_rest(database)
            assert row(database, export) == found
            answer = post(served.base, f"/v1/exports/{export}/cancel")
            assert answer.json() == {"cancelled": False, "reason": "already cancelled"}
            seen = reader.finish()
        log = log_of(database, export)
        assert_gapless(log, "cancelled", "close")
        assert_each_seen_once(seen, log)
        assert_nothing_left(served, database)


def test_a_worker_is_told_to_stop_while_it_claims(url: str, tmp_path: Path) -> None:
    """The attempt has begun in the table, so it is put back like every other one."""
    arguments, settings = ("--no-worker",), PATIENT | {"limits__drain_timeout": "3s"}
    with (
        session(url) as database,
        serving(tmp_path, url, config=CONFIG, arguments=arguments, **settings) as served,
        crew_of(served, database, 0) as crew,
    ):
        database.close_gate()
        export = start(served, "gated")
        with waiting(database):
            pid = crew.hire()

            def claiming() -> bool:
                # The wait behind the taking of the entry is given up; that behind the claim stays.
                database.value(TAKEN)
                return bool(database.value(WAITING))

            wait_until(claiming, within=30, what="it claims the export")
            crew.tell(pid, signal.SIGTERM)
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not database.value(WAITING), within=1, what="it gives up")
        assert crew.end(pid) == 0
        found = row(database, export)
        assert (found["state"], found["attempt"]) == ("queued", 2)
        assert lost(found) == ["worker_stopped"]
        assert_gapless(log_of(database, export))
        assert_nothing_left(served, database)
