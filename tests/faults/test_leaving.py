"""A client that leaves takes its query along, and leaves nothing behind."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.curl import downloading
from tests.peer import Peer, connected
from tests.serving import Served, without_worker
from tests.session import Session, gated, session
from tests.waiting import wait_until

POINTS = 200 if os.environ.get("TAILRACE_FAULTS") == "full" else 15
CONNECTIONS = 4
GONE_WITHIN = 1.0  # seconds from leaving to a database that does nothing for us
FURTHEST = 8_000_000  # bytes read before leaving
CONFIG = f"""
[sources.main]
max_connections = {CONNECTIONS}
[datasets.endless]
sql = '''
    select i as id, md5(i::text) as word
    from (select generate_series(1, 1000000000000) as i) s
'''
[datasets.asleep]
sql = "select i as id, pg_sleep(3600)::text as word from (select generate_series(1, 9) as i) s"
[datasets.gated]
sql = '''{gated(1_000, 10)}'''
"""
GATED_LINES = 1 + 1_010


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with without_worker(
        folder,
        module_database_url,
        config=CONFIG,
        limits__slot_timeout="60s",
        limits__prime_timeout="60s",
    ) as found:
        # So that the first point meets a service that knows its datasets.
        assert found.get("/v1/datasets/endless")
        yield found


@pytest.fixture(scope="module")
def hasty(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Does not wait for first rows: the headers leave before them."""
    folder = tmp_path_factory.mktemp("hasty")
    with without_worker(
        folder, module_database_url, config=CONFIG, limits__prime_timeout="50ms"
    ) as found:
        yield found


def assert_nothing_runs(database: Session) -> None:
    wait_until(lambda: database.exporting() == 0, within=GONE_WITHIN, what="the query is gone")


def assert_nothing_is_held(served: Served) -> None:
    def idle() -> bool:
        status = served.get("/v1/status")
        source = status["sources"]["main"]
        # The look itself uses a connection, and gives it back before it answers.
        return not (status["streams"] or source["slots"]["taken"] or source["pool"]["in_use"])

    wait_until(idle, within=10, what="no stream, slot or connection is held")


def leave(peer: Peer, how: str) -> None:
    if how == "reset":
        peer.reset()
    else:
        peer.finish()


@pytest.mark.parametrize("seed", range(POINTS))
def test_at_any_point_of_the_stream(served: Served, database: Session, seed: int) -> None:
    chosen = random.Random(seed)
    form = chosen.choice(["csv", "ndjson", "json"])
    compression = chosen.choice(["none", "gzip", "zstd"])
    chunk_size = chosen.choice([4096, 65_536, 262_144])
    how = chosen.choice(["finish", "reset"])
    # Many early points, some late ones.
    count = int(FURTHEST ** chosen.random())
    path = f"/v1/rows/endless.{form}?compression={compression}&chunk_size={chunk_size}"
    with connected(served.base) as peer:
        peer.ask(path)
        assert len(peer.read_at_least(count)) >= count
        assert database.exporting() == 1
        leave(peer, how)
        assert_nothing_runs(database)
    assert_nothing_is_held(served)


@pytest.mark.parametrize("how", ["finish", "reset"])
@pytest.mark.parametrize("form", ["csv", "ndjson", "json"])
def test_while_the_first_row_is_awaited(
    served: Served, database: Session, form: str, how: str
) -> None:
    before = served.get("/v1/exports")
    with connected(served.base) as peer:
        peer.ask(f"/v1/rows/asleep.{form}")
        wait_until(lambda: database.exporting() == 1, within=30, what="the query runs")
        leave(peer, how)
        assert_nothing_runs(database)
    assert_nothing_is_held(served)
    # No byte has left, so there is nothing to prove and nothing to record.
    assert served.get("/v1/exports") == before


@pytest.mark.parametrize("how", ["finish", "reset"])
def test_while_rows_are_awaited_after_the_headers(
    hasty: Served, database: Session, how: str
) -> None:
    with connected(hasty.base) as peer:
        peer.ask("/v1/rows/asleep.csv")
        assert peer.read_head().startswith(b"HTTP/1.1 200")
        assert database.exporting() == 1
        leave(peer, how)
        assert_nothing_runs(database)
    assert_nothing_is_held(hasty)


@pytest.mark.parametrize("how", ["finish", "reset"])
def test_in_the_middle_of_a_query_that_pauses(served: Served, database: Session, how: str) -> None:
    """No byte is on its way then that could meet the closed connection."""
    database.close_gate()
    with connected(served.base) as peer:
        peer.ask("/v1/rows/gated.csv")
        peer.read_at_least(900_000)
        leave(peer, how)
        assert_nothing_runs(database)
    database.open_gate()
    assert_nothing_is_held(served)


@pytest.mark.parametrize("how", ["finish", "reset"])
def test_right_after_the_request(served: Served, database: Session, how: str) -> None:
    before = len(served.events("request"))
    for _ in range(20):
        with connected(served.base) as peer:
            peer.ask("/v1/rows/endless.csv")
            leave(peer, how)
    # A reset may overtake its request, so not every one of them has to arrive.
    wait_until(lambda: len(served.events("request")) > before, within=30, what="requests arrive")
    assert_nothing_is_held(served)
    assert_nothing_runs(database)


def test_while_waiting_for_a_slot(served: Served, database: Session) -> None:
    with ExitStack() as peers:
        holding = [peers.enter_context(connected(served.base)) for _ in range(CONNECTIONS)]
        for peer in holding:
            peer.ask("/v1/rows/asleep.csv")
        wait_until(lambda: database.exporting() == CONNECTIONS, within=30, what="slots are taken")
        waiting = [peers.enter_context(connected(served.base)) for _ in range(CONNECTIONS)]
        for peer in waiting:
            peer.ask("/v1/rows/asleep.csv")
        wait_until(
            lambda: served.get("/v1/status")["streams"] == 2 * CONNECTIONS,
            within=30,
            what="the others wait",
        )
        for peer in waiting:
            peer.reset()
        wait_until(
            lambda: served.get("/v1/status")["streams"] == CONNECTIONS,
            within=10,
            what="nobody waits any more",
        )
        assert database.exporting() == CONNECTIONS
    assert_nothing_runs(database)
    assert_nothing_is_held(served)


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
            for number, peer in enumerate(leaving):
                leave(peer, "reset" if number % 2 else "finish")
        assert_nothing_runs(database)
    database.close_gate()
    with ExitStack() as downloads:
        found = [
            downloads.enter_context(downloading(f"{served.base}/v1/rows/gated.csv", tmp_path))
            for _ in range(CONNECTIONS)
        ]
        wait_until(lambda: database.exporting() == CONNECTIONS, within=30, what="all run at once")
        database.open_gate()
        assert [one.exit_code() for one in found] == [0] * CONNECTIONS
        assert [one.body.count(b"\n") for one in found] == [GATED_LINES] * CONNECTIONS
    assert_nothing_is_held(served)


def test_the_record_says_that_the_client_left(served: Served, database: Session) -> None:
    with connected(served.base) as peer:
        peer.ask("/v1/rows/endless.csv")
        head = peer.read_head().decode()
        peer.read_at_least(1_000_000)
    export_id = head.lower().split("x-export-id: ")[1].split("\r\n")[0]
    assert_nothing_runs(database)
    wait_until(
        lambda: served.get(f"/v1/exports/{export_id}")["state"] == "failed",
        within=10,
        what="the record is closed",
    )
    assert served.get(f"/v1/exports/{export_id}")["error"]["code"] == "client_left"
    receipt = served.get(f"/v1/exports/{export_id}/receipt")
    assert receipt["outcome"] == "truncated"
    assert receipt["bytes"] >= 1_000_000
