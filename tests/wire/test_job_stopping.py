"""POST …/cancel: the query is gone from the database when the answer says so, wherever it ran."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from tests.clients import Answer, ask, stalled
from tests.curl import CUT_SHORT, Download, downloading
from tests.jobs import artifacts, pid_of, row
from tests.postgres import run_sql
from tests.serving import Served
from tests.session import Session, session
from tests.waiting import wait_until
from tests.wire.job_service import (
    ARRIVED,
    WITHIN,
    asked,
    cancel,
    closed_gate,
    done,
    entered,
    job_service,
    reach,
    receipt,
    shown,
    written,
)
from tests.wire.problems import check_problem

# It goes on when its query is cancelled, and ends only when its backend does.
STUBBORN = """
    create function stubborn() returns text language plpgsql as $$
    begin
        for i in 1..60 loop
            begin
                perform pg_sleep(1);
            exception when query_canceled then
                null;
            end;
        end loop;
        return 'done';
    end $$;
"""
CONFIG = """
[datasets.stubborn]
sql = '''
    select i as id,
           case when i > 3000 then stubborn() else repeat('x', 1000) end as word
    from (select generate_series(1, 3001) as i) s
'''
"""
RUNNING = """
    SELECT pid, backend_start, xact_start FROM pg_stat_activity
    WHERE application_name = 'tailrace export' AND state <> 'idle'
      AND datname = current_database()
"""
STILL = f"""
    SELECT count(*) FROM ({RUNNING}) AS s
    WHERE (pid, backend_start, xact_start) = ($1::int, $2, $3)
"""
KNOWN = "SELECT count(*) FROM tailrace.exports WHERE id::text = $1"
WANTED = f"{KNOWN} AND cancel_requested_at IS NOT NULL"
BACKEND = f"SELECT s FROM ({RUNNING}) AS s"


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    run_sql(module_database_url, STUBBORN)
    folder = tmp_path_factory.mktemp("served")
    with job_service(
        folder, module_database_url, config=CONFIG, limits__close_timeout="1s"
    ) as found:
        yield found


@pytest.fixture(scope="module")
def base(served: Served) -> str:
    return served.base


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        yield opened


@pytest.fixture
def gate(database: Session, base: str) -> Iterator[None]:
    with closed_gate(database, base):
        yield


def backend(database: Session) -> tuple[Any, ...]:
    """The one backend that runs an export now: process, its start, the start of its query."""
    wait_until(lambda: database.exporting() == 1, within=WITHIN, what="one query runs")
    found = database.value(BACKEND)
    assert isinstance(found, tuple)
    return found


def check_proof(answer: Answer, database: Session, query: tuple[Any, ...]) -> Any:
    """The proof that ``answer`` gives, which the database agrees to at this moment."""
    # Nothing is waited for: it is gone once the answer has come.
    assert database.value(STILL, *query) == 0
    assert (answer.status, answer.json()["cancelled"]) == (200, True)
    assert answer.json().keys() == {"cancelled", "proof"}
    proof = answer.json()["proof"]
    assert proof.keys() == {"backend_gone", "latency_ms", "rows_written"}
    assert proof["backend_gone"] is True
    assert 0 <= proof["latency_ms"] < 5_000
    return proof


def test_a_running_job_is_stopped_with_proof(
    base: str, served: Served, database: Session, gate: None
) -> None:
    export = entered(base, "gated")
    written(base, export)
    query = backend(database)
    proof = check_proof(cancel(base, export), database, query)
    found = shown(base, export)
    assert (found["state"], found["error"]) == ("cancelled", None)
    assert found["finished_at"] is not None
    assert proof["rows_written"] == found["progress"]["rows"]
    told = receipt(base, export)
    assert (told["outcome"], told["rows"], told["cancel"]) == (
        "cancelled",
        proof["rows_written"],
        proof,
    )
    name = row(database, export)["artifact"]
    assert name is None
    check_problem(ask(base, f"/v1/exports/{export}/content"), 410, "gone")


def test_its_file_goes_with_it(base: str, served: Served, database: Session, gate: None) -> None:
    export = entered(base, "gated")
    written(base, export)
    name = row(database, export)["artifact"]
    assert [path.name for path in artifacts(served).glob(f"{name}*")] == [f"{name}.part"]
    cancel(base, export)
    wait_until(
        lambda: not list(artifacts(served).glob(f"{name}*")), within=WITHIN, what="it is removed"
    )


def test_a_query_that_has_made_no_row_is_stopped(base: str, database: Session, gate: None) -> None:
    export = entered(base, "closed")
    query = backend(database)
    proof = check_proof(cancel(base, export), database, query)
    assert proof["rows_written"] == 0
    assert shown(base, export)["state"] == "cancelled"


def test_a_query_that_will_not_stop_is_gone_when_the_answer_says_so(
    base: str, database: Session
) -> None:
    export = entered(base, "stubborn")
    written(base, export)
    query = backend(database)
    assert check_proof(cancel(base, export), database, query)["rows_written"] > 0


def test_a_stream_that_will_not_stop_is_gone_when_the_answer_says_so(
    base: str, database: Session, tmp_path: Path
) -> None:
    with downloading(f"{base}/v1/rows/stubborn.csv", tmp_path) as found:
        wait_until(lambda: found.size > ARRIVED, within=WITHIN, what="rows arrive")
        query = backend(database)
        check_proof(cancel(base, found.export_id), database, query)
        assert found.exit_code() == CUT_SHORT


def test_a_job_that_waits_is_stopped_at_once(base: str, database: Session, gate: None) -> None:
    busy = [entered(base, "gated") for _ in range(4)]
    for export in busy:
        reach(base, export, "running")
    waiting = entered(base, "numbers")
    answer = cancel(base, waiting)
    assert answer.json() == {
        "cancelled": True,
        "proof": {"backend_gone": True, "latency_ms": 0.0, "rows_written": 0},
    }
    assert shown(base, waiting)["state"] == "cancelled"
    assert shown(base, waiting)["started_at"] is None
    assert database.value("SELECT count(*) FROM tailrace.queue WHERE status = 'queued'") == 0


@pytest.mark.parametrize(("dataset", "state"), [("numbers", "succeeded"), ("broken", "failed")])
def test_what_has_ended_stays_as_it_is(base: str, dataset: str, state: str) -> None:
    export = done(base, dataset)
    answer = cancel(base, export["id"])
    assert answer.status == 200
    assert answer.json() == {"cancelled": False, "reason": f"already {state}"}
    assert shown(base, export["id"]) == export


def test_a_second_time_is_too_late(base: str, gate: None) -> None:
    export = entered(base, "gated")
    written(base, export)
    assert cancel(base, export).json()["cancelled"] is True
    assert cancel(base, export).json() == {"cancelled": False, "reason": "already cancelled"}


def test_one_of_two_is_stopped_and_the_other_goes_on(
    base: str, database: Session, gate: None
) -> None:
    stopped, other = entered(base, "gated"), entered(base, "gated")
    for export in (stopped, other):
        written(base, export)
    assert cancel(base, stopped).json()["cancelled"] is True
    assert database.exporting() == 1
    database.open_gate()
    assert reach(base, other, "succeeded")["progress"]["rows"] == 3_500


def test_a_direct_stream_is_stopped_with_proof(
    base: str, database: Session, tmp_path: Path, gate: None
) -> None:
    with downloading(f"{base}/v1/rows/gated.csv", tmp_path) as found:
        wait_until(lambda: found.size > ARRIVED, within=WITHIN, what="rows arrive")
        query = backend(database)
        proof = check_proof(cancel(base, found.export_id), database, query)
        assert found.exit_code() == CUT_SHORT
        record = shown(base, found.export_id)
        assert (record["state"], record["kind"]) == ("cancelled", "stream")
        assert record["error"]["code"] == "cancelled"
        told = receipt(base, found.export_id)
        assert (told["outcome"], told["cancel"], told["bytes"]) == (
            "cancelled",
            proof,
            record["progress"]["bytes"],
        )
        assert told["bytes"] >= found.size


def test_a_direct_stream_that_has_ended_stays_as_it_is(base: str) -> None:
    export = ask(base, "/v1/rows/numbers.csv").export_id
    assert cancel(base, export).json() == {"cancelled": False, "reason": "already succeeded"}


@pytest.fixture(scope="module")
def other(
    served: Served, module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Another server on the same database, without a worker."""
    folder = tmp_path_factory.mktemp("other")
    with job_service(folder, module_database_url, arguments=("--no-worker",)) as found:
        yield found


def test_a_job_is_stopped_from_any_replica(
    base: str, other: Served, database: Session, gate: None
) -> None:
    export = entered(base, "gated")
    written(base, export)
    query = backend(database)
    check_proof(cancel(other.base, export), database, query)
    assert shown(base, export)["state"] == "cancelled"


def test_a_direct_stream_is_stopped_from_any_replica(
    base: str, other: Served, database: Session, tmp_path: Path, gate: None
) -> None:
    with downloading(f"{base}/v1/rows/gated.csv", tmp_path) as found:
        wait_until(lambda: found.size > ARRIVED, within=WITHIN, what="rows arrive")
        query = backend(database)
        proof = check_proof(cancel(other.base, found.export_id), database, query)
        assert found.exit_code() == CUT_SHORT
    assert shown(other.base, found.export_id)["state"] == "cancelled"
    assert receipt(other.base, found.export_id)["cancel"] == proof


def children(served: Served, wanted: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    spawned = psutil.Process(served.process.pid).children()
    return [child for child in spawned if wanted(child)]


def test_a_direct_stream_is_stopped_whichever_process_is_asked(
    database_url: str, tmp_path: Path
) -> None:
    arguments = ("--no-worker", "--processes", "2")
    with (
        session(database_url) as database,
        job_service(tmp_path / "two", database_url, arguments=arguments) as two,
        closed_gate(database, two.base),
        downloading(f"{two.base}/v1/rows/gated.csv", tmp_path) as found,
    ):
        wait_until(lambda: found.size > ARRIVED, within=WITHIN, what="rows arrive")
        query = backend(database)
        assert shown(two.base, found.export_id)["state"] == "running"
        wait_until(
            lambda: database.value(KNOWN, found.export_id), within=WITHIN, what="all know of it"
        )
        answer = cancelled_by_the_other(two, found, database)
        check_proof(answer, database, query)
        assert found.exit_code() == CUT_SHORT


def cancelled_by_the_other(served: Served, found: Download, database: Session) -> Answer:
    """The answer of the process that does not send the stream: the other one is halted meanwhile."""
    streaming = serving_to(served, found.process.pid)
    with ThreadPoolExecutor(1) as aside:
        streaming.suspend()
        try:
            answer = aside.submit(cancel, served.base, found.export_id)
            wait_until(
                lambda: database.value(WANTED, found.export_id), within=WITHIN, what="it is asked"
            )
        finally:
            streaming.resume()
        return answer.result(WITHIN)


def serving_to(served: Served, client: int) -> psutil.Process:
    """The process at the other end of the client's connection."""
    (ours,) = psutil.Process(client).net_connections("tcp")
    port = urlsplit(served.base).port

    def has_it(process: psutil.Process) -> bool:
        return any(
            one.raddr == ours.laddr and one.laddr.port == port
            for one in process.net_connections("tcp")
        )

    (found,) = children(served, has_it)
    return found


def test_what_does_not_answer_in_time_is_pending(base: str, database: Session, gate: None) -> None:
    export = entered(base, "gated")
    written(base, export)
    worker = pid_of(row(database, export))
    os.kill(worker, signal.SIGSTOP)
    try:
        answer = cancel(base, export)
    finally:
        os.kill(worker, signal.SIGCONT)
    assert (answer.status, answer.json()) == (202, {"cancelled": "pending"})
    assert reach(base, export, "cancelled")["attempt"] == 1
    told = receipt(base, export)["cancel"]
    assert told["backend_gone"] is True
    # It is counted from the question, and not from when the worker heard it.
    assert told["latency_ms"] >= 5_000


def test_whoever_leaves_a_job_stops_nothing(base: str, database: Session, gate: None) -> None:
    export = entered(base, "gated")
    written(base, export)
    with stalled(base, f"/v1/exports/{export}/content") as response:
        assert len(response.read(1_000)) == 1_000
    assert database.exporting() == 1
    database.open_gate()
    assert reach(base, export, "succeeded")["progress"]["rows"] == 3_500


def test_nobody_joins_what_is_about_to_stop(base: str, gate: None) -> None:
    export = entered(base, "gated")
    written(base, export)
    cancel(base, export)
    again = asked(base, "gated")
    assert again.headers["X-Export-Joined"] is None
    assert again.json()["id"] != export
