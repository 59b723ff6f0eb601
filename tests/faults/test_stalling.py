"""A client that stops reading, or a query that never ends, costs a bounded time and memory."""

from __future__ import annotations

import select
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.curl import CUT_SHORT, download, downloading
from tests.peer import Peer, connected
from tests.serving import Served, without_worker
from tests.session import Session, gated, session
from tests.waiting import wait_until

STALL = 1.0  # seconds
HEADER = 1.0  # seconds
CONFIG = f"""
[sources.main]
max_connections = {{connections}}
[datasets.large]
sql = '''
    select i as id, md5(i::text) as word
    from (select generate_series(1, 10000000) as i) s
'''
[datasets.asleep]
sql = "select i as id, pg_sleep(3600)::text as word from (select generate_series(1, 9) as i) s"
[datasets.gated]
sql = '''{gated(1_000, 10)}'''
"""
ARRIVED = 900_000  # bytes that are there while the gate is closed
LIMITED = 1_000  # rows
SMALL_BUFFER = 4096  # bytes; the kernel doubles it
MEMORY = 24 * 1024 * 1024  # bytes; the dataset has 400 MB
ROW_BYTES = 40


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        yield opened


def serve(
    url: str, folders: pytest.TempPathFactory, connections: int, **limits: str
) -> Iterator[Served]:
    settings: dict[str, Any] = {f"limits__{name}": value for name, value in limits.items()}
    config = CONFIG.format(connections=connections)
    with without_worker(folders.mktemp("served"), url, config=config, **settings) as found:
        assert found.get("/v1/datasets/large")
        yield found


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Impatient with clients that read nothing."""
    yield from serve(module_database_url, tmp_path_factory, 20, stall_timeout=f"{STALL}s")


@pytest.fixture(scope="module")
def brief(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Ends whatever takes longer than a second."""
    yield from serve(module_database_url, tmp_path_factory, 4, max_duration="1s")


@pytest.fixture(scope="module")
def narrow(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Has a single slot, and is impatient with requests that do not come."""
    yield from serve(
        module_database_url,
        tmp_path_factory,
        1,
        slot_timeout="200ms",
        header_timeout=f"{HEADER}s",
    )


def export_id(head: bytes) -> str:
    return head.decode().lower().split("x-export-id: ")[1].split("\r\n")[0]


def error_of(served: Served, export: str) -> str | None:
    """The code of the error in an export's record."""
    record = served.get(f"/v1/exports/{export}")
    return record["error"]["code"] if record["error"] else None


def assert_broken(served: Served, database: Session, export: str, code: str, outcome: str) -> None:
    wait_until(lambda: error_of(served, export), within=30, what="the stream is broken")
    assert error_of(served, export) == code
    assert database.exporting() == 0
    assert served.get("/v1/status")["sources"]["main"]["slots"]["taken"] == 0
    assert served.get(f"/v1/exports/{export}")["state"] == "failed"
    assert served.get(f"/v1/exports/{export}/receipt")["outcome"] == outcome


def resident(served: Served) -> int:
    return int(psutil.Process(served.process.pid).memory_info().rss)


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("form", ["csv", "json"])
def test_a_client_that_stops_reading_is_dropped(
    served: Served, database: Session, form: str, compression: str
) -> None:
    with connected(served.base, receive_buffer=SMALL_BUFFER) as peer:
        peer.ask(f"/v1/rows/large.{form}?compression={compression}")
        export = export_id(peer.read_head())
        assert_broken(served, database, export, "client_stalled", "truncated")
        # What had been sent arrives, and then the connection is seen to be broken.
        assert not peer.read_all().endswith(b"\r\n0\r\n\r\n")


def test_a_client_that_stops_in_the_middle_is_dropped(served: Served, database: Session) -> None:
    with connected(served.base) as peer:
        peer.ask("/v1/rows/large.ndjson")
        export = export_id(peer.read_head())
        peer.read_at_least(30_000_000)
        assert_broken(served, database, export, "client_stalled", "truncated")


def test_a_client_that_leaves_an_answer_unread_is_dropped(served: Served) -> None:
    """The stream is complete then, and only its last bytes wait in the buffers."""
    with ExitStack() as peers:
        exports, ours = [], set()
        # However much the kernel takes, some of these end between that and our own buffer.
        for size in range(1_000_000, 7_000_000, 400_000):
            peer = peers.enter_context(connected(served.base, receive_buffer=SMALL_BUFFER))
            peer.ask(f"/v1/rows/large.csv?limit={size // ROW_BYTES}")
            exports.append(export_id(peer.read_head()))
            ours.add(peer.socket.getsockname()[1])

        def states() -> Counter[str]:
            return Counter(served.get(f"/v1/exports/{export}")["state"] for export in exports)

        wait_until(lambda: not states()["running"], within=30, what="every stream ends")
        assert states()["succeeded"] > 1
        assert states()["failed"] > 1
        process = psutil.Process(served.process.pid)

        def open_here() -> set[int]:
            found = process.net_connections(kind="tcp4")
            taken = [one for one in found if one.status != psutil.CONN_LISTEN]
            return ours & {one.raddr.port for one in taken}

        wait_until(lambda: not open_here(), within=30, what="every connection is dropped")


def test_memory_stays_flat_while_a_client_stalls(served: Served) -> None:
    with connected(served.base) as peer:
        peer.ask("/v1/rows/large.ndjson")
        peer.read_at_least(20_000_000)
    before = resident(served)
    highest = 0
    with connected(served.base, receive_buffer=SMALL_BUFFER) as peer:
        peer.ask("/v1/rows/large.ndjson")
        export = export_id(peer.read_head())

        def broken() -> str | None:
            nonlocal highest
            highest = max(highest, resident(served))
            return error_of(served, export)

        wait_until(broken, within=30, what="the stream is broken")
    assert highest - before < MEMORY


@pytest.mark.parametrize("step", [512, 8192])
def test_a_slow_client_that_goes_on_reading_is_served(served: Served, step: int) -> None:
    """It takes some bytes again and again before the time-out, too few to empty a buffer."""
    with connected(served.base, receive_buffer=SMALL_BUFFER) as peer:
        peer.ask("/v1/rows/large.csv")
        export = export_id(peer.read_head())
        until = time.monotonic() + 5 * STALL
        while time.monotonic() < until:
            assert peer.read(step)
            time.sleep(STALL / 20)  # this is the load: nothing is waited for
        assert error_of(served, export) is None


def test_a_query_that_takes_too_long_is_broken_off(
    brief: Served, database: Session, tmp_path: Path
) -> None:
    database.close_gate()
    with downloading(f"{brief.base}/v1/rows/gated.csv", tmp_path) as found:
        assert found.exit_code() == CUT_SHORT
    assert found.size > ARRIVED
    assert_broken(brief, database, found.export_id, "deadline_exceeded", "failed")
    database.open_gate()


def test_a_reader_that_takes_too_long_is_broken_off(brief: Served, database: Session) -> None:
    with connected(brief.base, receive_buffer=SMALL_BUFFER) as peer:
        peer.ask("/v1/rows/large.csv")
        export = export_id(peer.read_head())

        def broken() -> str | None:
            assert peer.read(1024)
            return error_of(brief, export)

        wait_until(broken, within=30, what="the stream is broken")
        assert_broken(brief, database, export, "deadline_exceeded", "failed")
        assert not peer.read_all().endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("form", ["csv", "ndjson", "json"])
def test_too_long_without_a_first_row_is_a_504(
    brief: Served, database: Session, tmp_path: Path, form: str
) -> None:
    found = download(f"{brief.base}/v1/rows/asleep.{form}", tmp_path)
    assert found.status == 504
    assert found.headers["content-type"] == "application/problem+json"
    assert b'"code":"deadline_exceeded"' in found.body
    wait_until(lambda: not database.exporting(), within=10, what="the query is gone")
    assert brief.get("/v1/status")["sources"]["main"]["slots"]["taken"] == 0


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /livez HTTP/1.1\r\nHost: here\r\nX-"])
def test_a_request_that_does_not_come_is_not_waited_for(narrow: Served, sent: bytes) -> None:
    with connected(narrow.base) as peer:
        peer.socket.settimeout(30)
        peer.socket.sendall(sent)
        assert peer.read_all() == b""


def test_a_request_that_comes_in_drops_is_not_waited_for(narrow: Served) -> None:
    """The time is that of the whole head, not that between two bytes."""
    with connected(narrow.base) as peer:
        peer.socket.sendall(b"GET /livez HTTP/1.1\r\nX-Drops: ")

        def closed() -> bool:
            if _readable(peer, HEADER / 10):
                return True
            peer.socket.sendall(b".")
            return False

        wait_until(closed, within=30, what="the connection is closed")
        assert peer.read_all() == b""


def test_a_connection_may_rest_between_two_requests(narrow: Served) -> None:
    with connected(narrow.base) as peer:
        for _ in range(2):
            peer.ask("/livez")
            assert peer.read_head().startswith(b"HTTP/1.1 200")
            assert peer.read_at_least(15) == b'{"status":"ok"}'
            assert not _readable(peer, 2 * HEADER)
        # But the head of the next one has to come as fast as that of the first.
        peer.socket.sendall(b"GET /livez")
        peer.socket.settimeout(30)
        assert peer.read_all() == b""


def test_who_finds_no_slot_is_told_when_to_come_again(
    narrow: Served, database: Session, tmp_path: Path
) -> None:
    with connected(narrow.base, receive_buffer=SMALL_BUFFER) as peer:
        peer.ask("/v1/rows/large.csv")
        export = export_id(peer.read_head())
        found = download(f"{narrow.base}/v1/rows/large.csv", tmp_path)
        assert found.status == 503
        assert found.headers["content-type"] == "application/problem+json"
        assert int(found.headers["retry-after"]) > 0
        assert b'"code":"busy"' in found.body
        for path in ("/livez", "/readyz", "/metrics", "/v1/status", "/v1/datasets"):
            assert download(f"{narrow.base}{path}", tmp_path).status == 200
        assert error_of(narrow, export) is None
    # The slot is of use again as soon as its holder is gone.
    wait_until(
        lambda: (
            download(f"{narrow.base}/v1/rows/large.csv?limit={LIMITED}", tmp_path).status == 200
        ),
        within=10,
        what="the slot is free",
    )
    assert database.exporting() == 0


def _readable(peer: Peer, within: float) -> bool:
    """Whether something arrives, the end of the connection included."""
    return bool(select.select([peer.socket], [], [], within)[0])
