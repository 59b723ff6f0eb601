"""Who runs the jobs: the worker beside a server, others, none; and that none outlives its parent."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.clients import ask
from tests.jobs import pid_of, row
from tests.postgres import fetch
from tests.serving import Served
from tests.session import Session, session
from tests.waiting import wait_until
from tests.wire.job_service import (
    WITHIN,
    closed_gate,
    done,
    entered,
    job_service,
    numbers_csv,
    reach,
    shown,
    written,
)
from tests.workers import crew_of

IDLE = ("--no-worker",)
ENTRIES = "SELECT dedupe_key, status::text FROM tailrace.queue"


@pytest.fixture
def database(database_url: str) -> Iterator[Session]:
    with session(database_url) as opened:
        yield opened


def worker_of(served: Served) -> psutil.Process:
    """The one child that does not listen."""
    spawned = [
        child
        for child in psutil.Process(served.process.pid).children()
        if "resource_tracker" not in " ".join(child.cmdline())
    ]
    (found,) = [
        child
        for child in spawned
        if not any(one.status == psutil.CONN_LISTEN for one in child.net_connections("inet"))
    ]
    return found


def queue(served: Served) -> Any:
    return served.get("/v1/status")["queue"]


def test_without_a_worker_it_waits_until_there_is_one(
    database_url: str, database: Session, tmp_path: Path
) -> None:
    with job_service(tmp_path, database_url, arguments=IDLE) as served:
        export = entered(served.base, "numbers")
        assert psutil.Process(served.process.pid).children() == []
        assert [tuple(entry) for entry in fetch(database_url, ENTRIES)] == [(export, "queued")]
        assert (queue(served)["queued"], queue(served)["workers"]) == (1, [])
        with crew_of(served, database, 1) as crew:
            made = reach(served.base, export, "succeeded")
            (pid,) = crew.pids
            assert pid_of(row(database, export)) == pid
            told = {"running": 0, "concurrency": 4}
            (worker,) = queue(served)["workers"]
            assert told.items() <= worker.items()
            assert crew.end(pid) == 0
        assert (queue(served)["workers"], made["attempt"]) == ([], 1)
        answer = ask(served.base, f"/v1/exports/{export}/content")
        assert answer.body == numbers_csv()


def test_the_worker_is_a_process_of_its_own(
    database_url: str, database: Session, tmp_path: Path
) -> None:
    with job_service(tmp_path, database_url) as served:
        export = done(served.base, "numbers")["id"]
        worker = worker_of(served)
        assert pid_of(row(database, export)) == worker.pid
    assert not worker.is_running()


def test_a_worker_that_crashes_is_replaced(
    database_url: str, database: Session, tmp_path: Path
) -> None:
    with job_service(tmp_path, database_url) as served:
        done(served.base, "numbers")
        first = worker_of(served)
        first.kill()
        export = done(served.base, "numbers")["id"]
        assert pid_of(row(database, export)) == worker_of(served).pid != first.pid
        (told,) = served.events("process ended")
        assert (told["process"], told["exitcode"]) == ("worker", -signal.SIGKILL)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_no_worker_outlives_its_parent(
    database_url: str, database: Session, tmp_path: Path, processes: str
) -> None:
    with job_service(tmp_path, database_url, arguments=("--processes", processes)) as served:
        done(served.base, "numbers")
        worker = worker_of(served)
        served.process.kill()
        served.process.wait(WITHIN)
        wait_until(lambda: ended(worker), within=WITHIN, what="the worker has ended")


def ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_worker_without_a_parent_lets_go_of_what_it_runs(
    database_url: str, database: Session, tmp_path: Path
) -> None:
    with job_service(tmp_path / "first", database_url) as served:
        database.close_gate()
        export = entered(served.base, "gated")
        written(served.base, export)
        worker = worker_of(served)
        served.process.kill()
        served.process.wait(WITHIN)
        wait_until(lambda: ended(worker), within=WITHIN, what="the worker has ended")
        assert database.exporting() == 0
    found = row(database, export)
    assert (found["state"], found["attempt"], found["attempts_until"]) == ("queued", 2, 5)
    assert [one["code"] for one in found["attempts"]] == ["worker_stopped"]
    database.open_gate()
    with job_service(tmp_path / "second", database_url) as served:
        assert reach(served.base, export, "succeeded")["attempt"] == 2


def test_sigterm_lets_a_running_job_end(
    database_url: str, database: Session, tmp_path: Path
) -> None:
    with job_service(tmp_path, database_url, limits__drain_timeout="60s") as served:
        database.close_gate()
        export = entered(served.base, "gated")
        written(served.base, export)
        served.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refused(served), within=WITHIN, what="it takes no more")
        database.open_gate()
        assert served.process.wait(WITHIN) == 0
    assert (row(database, export)["state"], row(database, export)["attempt"]) == ("succeeded", 1)


def refused(served: Served) -> bool:
    try:
        return bool(ask(served.base, "/readyz").status != 200)
    except OSError:
        return True


def test_so_many_of_a_source_run_at_once(
    database_url: str, database: Session, tmp_path: Path
) -> None:
    config = "[sources.main]\nmax_jobs = 2\n"
    with (
        job_service(tmp_path, database_url, config=config, worker__concurrency="4") as served,
        crew_of(served, database, 1),
        closed_gate(database, served.base),
    ):
        exports = [entered(served.base, "gated") for _ in range(5)]
        for export in exports[:2]:
            written(served.base, export)
        assert [shown(served.base, export)["state"] for export in exports] == [
            *("running", "running"),
            *("queued", "queued", "queued"),
        ]
        assert database.exporting() == 2
        database.open_gate()
        for export in exports:
            assert reach(served.base, export, "succeeded")["attempt"] == 1


def test_a_worker_runs_so_many_at_once(
    database_url: str, database: Session, tmp_path: Path
) -> None:
    with (
        job_service(tmp_path, database_url, worker__concurrency="1") as served,
        closed_gate(database, served.base),
    ):
        first = entered(served.base, "gated")
        written(served.base, first)
        second = entered(served.base, "large")
        small = entered(served.base, "numbers", limit=5)
        assert shown(served.base, second)["state"] == "queued"
        database.open_gate()
        ends = [reach(served.base, export, "succeeded") for export in (first, small, second)]
        starts = [end["started_at"] for end in ends]
        # What is small goes before what was there earlier.
        assert starts == sorted(starts)


def test_jobs_are_logged_with_their_end(database_url: str, tmp_path: Path) -> None:
    with job_service(tmp_path, database_url) as served:
        good, bad = done(served.base, "numbers"), done(served.base, "broken")
        for export, state in ((good, "succeeded"), (bad, "failed")):
            (begun,) = told(served, "job started", export["id"])
            (over,) = told(served, "job ended", export["id"])
            assert (begun["attempt"], begun["dataset"]) == (1, export["dataset"])
            assert (over["state"], over["rows"]) == (state, export["progress"]["rows"])
        for line in served.log.read_text().splitlines():
            assert json.loads(line)["event"]


def told(served: Served, name: str, export: str) -> list[Any]:
    return [line for line in served.events(name) if line["export_id"] == export]
