"""A deadline, or a client that leaves, ends a query of SQLite: its thread computes no more."""

from __future__ import annotations

import asyncio
import http.client
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import aiosqlite
import psutil
import pytest

from service.databases.source import Source
from service.databases.stopping import stoppable
from tests.clients import ask
from tests.exporting import carried
from tests.peer import connected
from tests.serving import Served, without_worker
from tests.sqlite_files import LANES, catalog, insert, open_file, queries, written
from tests.waiting import wait_until

CONNECTIONS = 2
GONE_WITHIN = 1.0  # seconds from leaving to a thread that computes nothing
COUNT = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 1000000000)"
HEAVY = {
    "endless": f"{COUNT} SELECT i AS id, printf('%08d', i) AS word FROM c",
    "silent": f"{COUNT} SELECT count(*) AS n FROM c",
    "sorted": f"{COUNT} SELECT i AS id FROM c ORDER BY abs(i % 7) LIMIT 10",
    "filtered": f"{COUNT} SELECT i AS id FROM c WHERE i % 1000 = 1000",
}
SILENT = ("silent", "sorted", "filtered")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with written(tmp_path / "few.db", "CREATE TABLE few (a)") as connection:
        insert(connection, "few", [(1,), (2,)])
    return tmp_path / "few.db"


async def assert_usable(source: Source) -> None:
    """Every slot and every connection: the source has as many of both as run here."""
    dataset = await catalog(source).dataset("few")
    async with asyncio.timeout(GONE_WITHIN):
        found = await asyncio.gather(*(carried(source, dataset) for _ in range(CONNECTIONS)))
    assert found == [b'{"a":1}\n{"a":2}\n'] * CONNECTIONS


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("name", HEAVY)
async def test_a_task_that_is_cancelled_frees_its_thread(path: Path, lane: str, name: str) -> None:
    """At any moment: while the call still waits for the thread, too."""
    async with open_file(path, lane, CONNECTIONS) as source:
        dataset = await catalog(source, **queries(**HEAVY)).dataset(name)
        for delay in (0.0, 0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.02, 0.1):
            exporting = asyncio.create_task(carried(source, dataset))
            await asyncio.wait({exporting}, timeout=delay)
            exporting.cancel()
            done, _ = await asyncio.wait({exporting}, timeout=GONE_WITHIN)
            assert done
            assert exporting.cancelled()
            await assert_usable(source)


class Late:
    """A driver whose thread begins the next call only after it was told to stop once."""

    def __init__(self, driver: aiosqlite.Connection) -> None:
        self.driver = driver
        self.begins = threading.Event()
        self.aborted = False

    async def stop(self) -> None:
        await self.driver.interrupt()
        self.begins.set()

    def abort(self) -> None:
        self.aborted = True


async def test_a_call_that_waits_for_its_thread_is_stopped_when_it_begins() -> None:
    async with aiosqlite.connect(":memory:") as driver:
        late = Late(driver)
        await driver.create_function("wait", 0, late.begins.wait)
        before = asyncio.create_task(driver.execute_fetchall("SELECT wait()"))
        waiting = asyncio.create_task(stoppable(late, driver.execute_fetchall(HEAVY["silent"])))
        await asyncio.wait({before, waiting}, timeout=0.05)
        waiting.cancel()
        done, _ = await asyncio.wait({waiting}, timeout=GONE_WITHIN)
        assert done
        assert not late.aborted
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            await before


def config(path: Path) -> str:
    datasets = "".join(
        f"[datasets.{name}]\nsource = 'files'\nsql = '''{sql}'''\n" for name, sql in HEAVY.items()
    )
    return f"""
        [sources.files]
        url = "sqlite:///{path}"
        expose = ["main.*"]
        max_connections = {CONNECTIONS}
        {datasets}
    """


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with written(folder / "few.db", "CREATE TABLE few (a)") as connection:
        insert(connection, "few", [(1,), (2,)])
    text = config(folder / "few.db")
    with without_worker(
        folder, module_database_url, config=text, limits__prime_timeout="30s"
    ) as found:
        assert found.get("/v1/datasets/endless")
        yield found


@pytest.fixture(scope="module")
def hurried(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Lets no export take longer than a second."""
    folder = tmp_path_factory.mktemp("hurried")
    with written(folder / "few.db", "CREATE TABLE few (a)"):
        pass
    text = config(folder / "few.db")
    with without_worker(
        folder, module_database_url, config=text, limits__max_duration="1s"
    ) as found:
        assert found.get("/v1/datasets/endless")
        yield found


def busy(served: Served) -> bool:
    """Whether the process computes: a query that runs takes a whole processor, or what it gets."""
    return psutil.Process(served.process.pid).cpu_percent(interval=0.1) > 15


def assert_nothing_runs(served: Served) -> None:
    def idle() -> bool:
        status = served.get("/v1/status")
        source = status["sources"]["files"]
        return not (status["streams"] or source["slots"]["taken"] or source["pool"]["in_use"])

    wait_until(idle, within=2 * GONE_WITHIN, what="no stream, slot or connection is held")
    wait_until(lambda: not busy(served), within=10, what="no thread computes")
    with ExitStack() as peers:
        for _ in range(CONNECTIONS):
            peer = peers.enter_context(connected(served.base))
            peer.ask("/v1/rows/few.csv")
            assert peer.read_at_least(1).startswith(b"H")


@pytest.mark.parametrize("how", ["finish", "reset"])
@pytest.mark.parametrize("name", SILENT)
def test_a_client_leaves_while_the_first_row_is_computed(
    served: Served, name: str, how: str
) -> None:
    with ExitStack() as peers:
        leaving = [peers.enter_context(connected(served.base)) for _ in range(CONNECTIONS)]
        for peer in leaving:
            peer.ask(f"/v1/rows/{name}.csv")
        wait_until(
            lambda: served.get("/v1/status")["sources"]["files"]["slots"]["taken"] == CONNECTIONS,
            within=30,
            what="both queries run",
        )
        wait_until(lambda: busy(served), within=30, what="it computes")
        for peer in leaving:
            getattr(peer, how)()
    assert_nothing_runs(served)


@pytest.mark.parametrize("how", ["finish", "reset"])
@pytest.mark.parametrize("form", ["csv", "ndjson", "json"])
def test_a_client_leaves_in_the_middle(served: Served, form: str, how: str) -> None:
    with connected(served.base) as peer:
        peer.ask(f"/v1/rows/endless.{form}")
        assert len(peer.read_at_least(1_000_000)) >= 1_000_000
        getattr(peer, how)()
    assert_nothing_runs(served)


@pytest.mark.parametrize("name", SILENT)
def test_a_deadline_before_the_first_row_is_told(hurried: Served, name: str) -> None:
    answer = ask(hurried.base, f"/v1/rows/{name}.csv")
    assert (answer.status, answer.json()["code"]) == (504, "deadline_exceeded")
    assert_nothing_runs(hurried)


def test_a_deadline_in_the_middle_breaks_the_stream(hurried: Served) -> None:
    with pytest.raises(http.client.IncompleteRead):
        ask(hurried.base, "/v1/rows/endless.csv")
    assert_nothing_runs(hurried)


def test_a_count_ends_with_its_client(served: Served) -> None:
    with connected(served.base) as peer:
        peer.ask("/v1/rows/endless.csv?limit=1", "Prefer: count=exact")
        wait_until(lambda: busy(served), within=30, what="it counts")
        peer.reset()
    assert_nothing_runs(served)
