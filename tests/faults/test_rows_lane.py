"""PostgreSQL's rows lane keeps what the COPY lane promises, whoever leaves, stalls or fails."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.curl import CUT_SHORT, download, downloading
from tests.peer import connected
from tests.serving import Served, without_worker
from tests.session import EXPORTING, Session, gated, session
from tests.waiting import wait_until

FULL = os.environ.get("TAILRACE_FAULTS") == "full"
POINTS = 200 if FULL else 10
BIG_CELLS = 1000 if FULL else 100  # of a megabyte each
CONNECTIONS = 4
GONE_WITHIN = 1.0  # seconds from leaving to a database that does nothing for us
FURTHEST = 4_000_000  # bytes read before leaving
ARRIVED = 400_000  # bytes that are there while the gate is closed
SMALL_BUFFER = 4096  # bytes; the kernel doubles it
MEGABYTE = 1024 * 1024
MEMORY = 24 * MEGABYTE
ROWS, FAILING = 60_000, 50_000
CONFIG = f"""
[sources.main]
lane = "rows"
max_connections = {CONNECTIONS}
[datasets.endless]
sql = '''
    select i as id, md5(i::text) as word
    from (select generate_series(1, 1000000000000) as i) s
'''
[datasets.million]
sql = "select i as id, md5(i::text) as word from (select generate_series(1, 1000000) as i) s"
[datasets.wide]
sql = '''
    select i as id, repeat(md5(i::text), 32768) as word
    from (select generate_series(1, {BIG_CELLS}) as i) s
'''
[datasets.asleep]
sql = "select i as id, pg_sleep(3600)::text as word from (select generate_series(1, 9) as i) s"
[datasets.gated]
sql = '''{gated(1_000, 10)}'''
[datasets.fails]
sql = '''
    select i as id, md5(i::text) as word, 1 / abs({FAILING} - i) as near
    from (select generate_series(1, {ROWS}) as i) s
'''
[datasets.fails_at_once]
sql = "select 1 / (i - 1) as near from (select generate_series(1, 9) as i) s"
"""


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with without_worker(
        tmp_path_factory.mktemp("served"),
        module_database_url,
        config=CONFIG,
        limits__slot_timeout="60s",
        limits__prime_timeout="60s",
        limits__stall_timeout="2s",
    ) as found:
        assert found.get("/v1/datasets/endless")
        yield found


@pytest.fixture(scope="module")
def brief(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Ends whatever takes longer than a second."""
    folder = tmp_path_factory.mktemp("brief")
    with without_worker(
        folder, module_database_url, config=CONFIG, limits__max_duration="1s"
    ) as found:
        assert found.get("/v1/datasets/endless")
        yield found


def assert_nothing_runs(database: Session) -> None:
    wait_until(lambda: database.exporting() == 0, within=GONE_WITHIN, what="the query is gone")


def assert_nothing_is_held(served: Served) -> None:
    def idle() -> bool:
        status = served.get("/v1/status")
        source = status["sources"]["main"]
        return not (status["streams"] or source["slots"]["taken"] or source["pool"]["in_use"])

    wait_until(idle, within=10, what="no stream, slot or connection is held")


def ended(served: Served, export: str) -> tuple[str | None, str | None]:
    """The code of an export's error and its outcome, once they are recorded."""
    path = f"/v1/exports/{export}"
    wait_until(lambda: served.get(path)["error"], within=30, what="the stream is recorded")
    return served.get(path)["error"]["code"], served.get(f"{path}/receipt")["outcome"]


def export_of(head: bytes) -> str:
    return head.decode().lower().split("x-export-id: ")[1].split("\r\n")[0]


@pytest.mark.parametrize("seed", range(POINTS))
def test_leaving_at_any_point(served: Served, database: Session, seed: int) -> None:
    chosen = random.Random(seed)
    form = chosen.choice(["csv", "ndjson", "json"])
    compression = chosen.choice(["none", "gzip", "zstd"])
    leave = chosen.choice(["finish", "reset"])
    count = int(FURTHEST ** chosen.random())
    with connected(served.base) as peer:
        peer.ask(f"/v1/rows/endless.{form}?compression={compression}&chunk_size=4096")
        head = peer.read_head()
        assert len(peer.read_at_least(count)) >= count
        assert database.exporting() == 1
        getattr(peer, leave)()
        assert_nothing_runs(database)
    assert_nothing_is_held(served)
    assert ended(served, export_of(head)) == ("client_left", "truncated")
    assert served.get(f"/v1/exports/{export_of(head)}/receipt")["rows"] > 0


@pytest.mark.parametrize("leave", ["finish", "reset"])
def test_leaving_while_the_first_row_is_awaited(
    served: Served, database: Session, leave: str
) -> None:
    with connected(served.base) as peer:
        peer.ask("/v1/rows/asleep.csv")
        wait_until(lambda: database.exporting() == 1, within=30, what="the query runs")
        getattr(peer, leave)()
        assert_nothing_runs(database)
    assert_nothing_is_held(served)


def test_leaving_in_the_middle_of_a_query_that_pauses(served: Served, database: Session) -> None:
    database.close_gate()
    with connected(served.base) as peer:
        peer.ask("/v1/rows/gated.csv")
        peer.read_at_least(ARRIVED)
        peer.reset()
        assert_nothing_runs(database)
    database.open_gate()
    assert_nothing_is_held(served)


def test_a_stopped_query_leaves_its_connection_in_the_pool(
    served: Served, database: Session
) -> None:
    running = EXPORTING.replace("count(*)", "max(pid)")
    for _ in range(3):
        with connected(served.base) as peer:
            peer.ask("/v1/rows/endless.ndjson")
            peer.read_at_least(100_000)
            pid = database.value(running)
            peer.reset()
            assert_nothing_runs(database)
        assert_nothing_is_held(served)
        assert database.value("SELECT state FROM pg_stat_activity WHERE pid = $1", pid) == "idle"


def test_afterwards_every_connection_is_of_use(
    served: Served, database: Session, tmp_path: Path
) -> None:
    for _ in range(3):
        with ExitStack() as peers:
            leaving = [peers.enter_context(connected(served.base)) for _ in range(CONNECTIONS)]
            for peer in leaving:
                peer.ask("/v1/rows/endless.ndjson")
            for peer in leaving:
                peer.read_at_least(100_000)
            for peer in leaving:
                peer.reset()
        assert_nothing_runs(database)
        assert_nothing_is_held(served)
    with ExitStack() as downloads:
        url = f"{served.base}/v1/rows/million.csv?limit=1000"
        found = [downloads.enter_context(downloading(url, tmp_path)) for _ in range(CONNECTIONS)]
        assert [one.exit_code() for one in found] == [0] * CONNECTIONS
        assert [one.body.count(b"\n") for one in found] == [1_001] * CONNECTIONS


@pytest.mark.parametrize("form", ["csv", "ndjson", "json"])
def test_a_deadline_before_the_first_row_is_a_504(
    brief: Served, database: Session, tmp_path: Path, form: str
) -> None:
    found = download(f"{brief.base}/v1/rows/asleep.{form}", tmp_path)
    assert found.status == 504
    assert b'"code":"deadline_exceeded"' in found.body
    wait_until(lambda: not database.exporting(), within=10, what="the query is gone")
    assert_nothing_is_held(brief)


@pytest.mark.parametrize("dataset", ["gated", "endless"])
def test_a_deadline_after_the_first_row_breaks_the_stream(
    brief: Served, database: Session, tmp_path: Path, dataset: str
) -> None:
    database.close_gate()
    found = download(f"{brief.base}/v1/rows/{dataset}.csv", tmp_path)
    assert found.exit_code() == CUT_SHORT
    assert found.size > ARRIVED
    assert ended(brief, found.export_id) == ("deadline_exceeded", "failed")
    assert_nothing_runs(database)
    assert_nothing_is_held(brief)
    database.open_gate()


@pytest.mark.parametrize("form", ["csv", "ndjson", "json"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_an_error_in_the_middle_breaks_the_stream(
    served: Served, tmp_path: Path, form: str, compression: str
) -> None:
    url = f"{served.base}/v1/rows/fails.{form}?compression={compression}&chunk_size=4096"
    found = download(url, tmp_path)
    assert found.status == 200
    assert found.exit_code() == CUT_SHORT
    assert b"division" not in found.body
    assert ended(served, found.export_id) == ("source_error", "failed")
    assert served.get(f"/v1/exports/{found.export_id}")["error"]["sqlstate"] == "22012"
    assert 0 < served.get(f"/v1/exports/{found.export_id}/receipt")["rows"] < FAILING
    assert_nothing_is_held(served)


def test_an_error_in_the_first_row_is_a_502(served: Served, tmp_path: Path) -> None:
    found = download(f"{served.base}/v1/rows/fails_at_once.csv", tmp_path)
    assert found.status == 502
    assert_nothing_is_held(served)


KILL = EXPORTING.replace("count(*)", "count(pg_terminate_backend(pid))")


def test_a_killed_backend_breaks_the_stream_and_the_pool_heals(
    served: Served, database: Session, tmp_path: Path
) -> None:
    database.close_gate()
    with downloading(f"{served.base}/v1/rows/gated.ndjson", tmp_path) as found:
        wait_until(lambda: found.size > ARRIVED, within=30, what="rows arrive")
        assert database.value(KILL) == 1
        assert found.exit_code() == CUT_SHORT
    database.open_gate()
    assert ended(served, found.export_id) == ("source_unavailable", "failed")
    assert_nothing_is_held(served)
    again = download(f"{served.base}/v1/rows/gated.ndjson", tmp_path)
    assert (again.exit_code(), again.body.count(b"\n")) == (0, 1_010)


def test_a_client_that_stops_reading_is_dropped(served: Served, database: Session) -> None:
    with connected(served.base, receive_buffer=SMALL_BUFFER) as peer:
        peer.ask("/v1/rows/endless.csv")
        export = export_of(peer.read_head())
        assert ended(served, export) == ("client_stalled", "truncated")
        assert_nothing_runs(database)
        assert not peer.read_all().endswith(b"\r\n0\r\n\r\n")
    assert_nothing_is_held(served)


FLAT = [("million", "csv"), ("wide", "ndjson")]
REST = [("million", "ndjson"), ("million", "json"), ("wide", "csv")] if FULL else []


@pytest.mark.parametrize(("dataset", "form"), FLAT + REST)
def test_memory_is_flat(served: Served, tmp_path: Path, dataset: str, form: str) -> None:
    process = psutil.Process(served.process.pid)
    warm = download(f"{served.base}/v1/rows/{dataset}.{form}?limit=60", tmp_path)
    assert warm.exit_code() == 0
    warm.file.unlink()
    before = highest = process.memory_info().rss
    with downloading(f"{served.base}/v1/rows/{dataset}.{form}", tmp_path) as found:

        def over() -> bool:
            nonlocal highest
            highest = max(highest, process.memory_info().rss)
            return found.process.poll() is not None

        wait_until(over, within=110, what="the stream ends")
    assert found.exit_code() == 0
    assert found.size > 30_000_000
    found.file.unlink()
    assert highest - before < MEMORY
