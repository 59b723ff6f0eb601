"""A service that is told to stop: downloads end or visibly break, and the process goes."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from service.database import service_engine
from service.jobs.store import Recorder
from tests.curl import CUT_SHORT, downloading
from tests.exporting import ignored
from tests.peer import connected
from tests.postgres import fetch
from tests.serving import Served, without_worker
from tests.session import Session, gated, session
from tests.waiting import wait_until

CONFIG = f"""
[sources.main]
max_connections = 20
[datasets.gated]
sql = '''{gated(1_000, 10)}'''
[datasets.endless]
sql = '''
    select i as id, md5(i::text) as word
    from (select generate_series(1, 1000000000000) as i) s
'''
"""
LINES = 1 + 1_010
ARRIVED = 900_000  # bytes that are there while the gate is closed
LONG = "60s"
EXIT_SECONDS = 20  # far below LONG
ROW_BYTES = 40
LIVE = b'{"status":"ok"}'
EXPORT = "SELECT state, error, receipt FROM tailrace.exports WHERE id = $1"


@pytest.fixture
def database(database_url: str) -> Iterator[Session]:
    with session(database_url) as opened:
        yield opened


def refuses(served: Served) -> bool:
    """Whether a new connection is refused."""
    address = urlsplit(served.base)
    with socket.socket() as asked:
        return asked.connect_ex((address.hostname, address.port)) != 0


def export_id(head: bytes) -> str:
    return head.decode().lower().split("x-export-id: ")[1].split("\r\n")[0]


def stored(url: str, export_id: str) -> dict[str, Any]:
    """The record as it stands in the table."""
    (row,) = fetch(url, EXPORT, export_id)
    parsed = {name: json.loads(row[name]) if row[name] else None for name in ("error", "receipt")}
    return {"state": row["state"], **parsed}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_running_download_may_end(
    database_url: str, database: Session, tmp_path: Path, number: signal.Signals
) -> None:
    database.close_gate()
    with (
        without_worker(tmp_path, database_url, config=CONFIG, limits__drain_timeout=LONG) as served,
        downloading(f"{served.base}/v1/rows/gated.csv", tmp_path) as found,
    ):
        wait_until(lambda: found.size > ARRIVED, within=30, what="rows arrive")
        served.process.send_signal(number)
        wait_until(lambda: refuses(served), within=10, what="new connections are refused")
        assert served.process.poll() is None
        database.open_gate()
        assert found.exit_code() == 0
        assert found.body.count(b"\n") == LINES
        assert served.process.wait(EXIT_SECONDS) == 0
    record = stored(database_url, found.export_id)
    assert record["state"] == "succeeded"
    assert record["receipt"]["outcome"] == "complete"
    assert record["receipt"]["bytes"] == found.size
    assert database.exporting() == 0


@pytest.mark.parametrize(
    ("path", "said"),
    [("/v1/rows/gated.csv", b'"code":"draining"'), ("/readyz", b'"draining":"draining"')],
)
def test_open_connections_take_nothing_new(
    database_url: str, database: Session, tmp_path: Path, path: str, said: bytes
) -> None:
    database.close_gate()
    with (
        without_worker(tmp_path, database_url, config=CONFIG, limits__drain_timeout=LONG) as served,
        connected(served.base) as idle,
        connected(served.base) as busy,
    ):
        busy.ask("/v1/rows/gated.csv")
        busy.read_at_least(ARRIVED)
        busy.ask(path)
        # Once this is answered, what was sent before it has been read.
        idle.ask("/livez")
        idle.read_head()
        assert idle.read_at_least(len(LIVE)) == LIVE
        served.process.send_signal(signal.SIGTERM)
        assert idle.read_all() == b""
        database.open_gate()
        rest, answer = busy.read_all().split(b"HTTP/1.1 ")
        assert rest.endswith(b"\r\n0\r\n\r\n")
        assert answer.startswith(b"503")
        assert said in answer
        assert served.process.wait(EXIT_SECONDS) == 0


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_what_cannot_end_in_time_is_broken(
    database_url: str, database: Session, tmp_path: Path, compression: str
) -> None:
    database.close_gate()
    path = f"/v1/rows/gated.csv?compression={compression}"
    with (
        without_worker(tmp_path, database_url, config=CONFIG, limits__drain_timeout="1s") as served,
        downloading(f"{served.base}{path}", tmp_path) as found,
    ):
        wait_until(lambda: found.size, within=30, what="rows arrive")
        served.process.send_signal(signal.SIGTERM)
        assert found.exit_code() == CUT_SHORT
        assert served.process.wait(EXIT_SECONDS) == 0
    record = stored(database_url, found.export_id)
    assert record["state"] == "failed"
    assert record["error"]["code"] == "draining"
    assert record["receipt"]["outcome"] == "truncated"
    wait_until(lambda: not database.exporting(), within=10, what="no backend is left")


def test_a_client_that_does_not_read_holds_nobody_up(
    database_url: str, database: Session, tmp_path: Path
) -> None:
    """Be its stream unfinished, or finished but for what lies in the buffers."""
    with (
        without_worker(
            tmp_path,
            database_url,
            config=CONFIG,
            limits__drain_timeout="1s",
            limits__stall_timeout=LONG,
        ) as served,
        ExitStack() as peers,
    ):
        exports = []
        # However much the kernel takes, some of these end between that and our own buffer.
        for size in range(1_000_000, 7_000_000, 400_000):
            peer = peers.enter_context(connected(served.base, receive_buffer=4096))
            peer.ask(f"/v1/rows/endless.csv?limit={size // ROW_BYTES}")
            exports.append(export_id(peer.read_head()))

        def states() -> Counter[str]:
            return Counter(served.get(f"/v1/exports/{export}")["state"] for export in exports)

        wait_until(lambda: states()["succeeded"] > 1, within=30, what="some streams end")
        assert states()["running"] > 1
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(EXIT_SECONDS) == 0
    wait_until(lambda: not database.exporting(), within=10, what="no backend is left")


def test_a_killed_service_is_told_by_the_next_one(
    database_url: str, database: Session, tmp_path: Path
) -> None:
    database.close_gate()
    with (
        # The database itself waits as long for the gate.
        without_worker(
            tmp_path / "first", database_url, config=CONFIG, limits__prime_timeout=LONG
        ) as served,
        downloading(f"{served.base}/v1/rows/gated.csv", tmp_path) as found,
    ):
        wait_until(lambda: found.size > ARRIVED, within=30, what="rows arrive")
        export = found.export_id
        wait_until(
            lambda: fetch(database_url, EXPORT, export), within=30, what="the record is written"
        )
        assert served.stop(signal.SIGKILL) == -signal.SIGKILL
        assert found.exit_code() == CUT_SHORT
    # The gate is still closed: only the server's own look at its connection ends this query.
    wait_until(lambda: not database.exporting(), within=20, what="no backend is left")
    with without_worker(tmp_path / "second", database_url, config=CONFIG) as served:
        # The process may be another one that lives: its heartbeat is fresh.
        assert served.get(f"/v1/exports/{export}")["state"] == "running"
        assert asyncio.run(end_lost(database_url)) == 1
        record = served.get(f"/v1/exports/{export}")
        assert record["state"] == "failed"
        assert record["error"]["code"] == "process_lost"
        assert record["finished_at"] is not None
        assert not fetch(database_url, EXPORT, export)[0]["receipt"]
        database.open_gate()
        with downloading(f"{served.base}/v1/rows/gated.csv", tmp_path) as found:
            assert found.exit_code() == 0


def test_the_next_start_looks_for_what_was_lost(
    database_url: str, database: Session, tmp_path: Path
) -> None:
    database.close_gate()
    with (
        without_worker(tmp_path / "first", database_url, config=CONFIG) as served,
        downloading(f"{served.base}/v1/rows/gated.csv", tmp_path) as found,
    ):
        wait_until(lambda: found.size > ARRIVED, within=30, what="rows arrive")
        export = found.export_id
        wait_until(
            lambda: fetch(database_url, EXPORT, export), within=30, what="the record is written"
        )
        served.stop(signal.SIGKILL)
    database.execute("UPDATE tailrace.exports SET heartbeat_at = now() - interval '61 s'")
    with without_worker(tmp_path / "second", database_url, config=CONFIG) as served:
        wait_until(
            lambda: served.get(f"/v1/exports/{export}")["state"] == "failed",
            within=10,
            what="the lost export is ended",
        )
        assert served.get(f"/v1/exports/{export}")["error"]["code"] == "process_lost"


async def end_lost(url: str) -> int:
    """What every process does from time to time, without the minute's patience."""
    engine = service_engine(url)
    try:
        return await Recorder(engine, ignored).end_lost(timedelta(0))
    finally:
        await engine.dispose()
