"""MariaDB: exports are stopped anywhere, are of one state, and hold little memory."""

from __future__ import annotations

import asyncio
import time
import tracemalloc

import pytest

from service.databases.mysql.source import MysqlSource
from service.databases.stopping import SETTLE_TIMEOUT
from service.errors import DeadlineExceeded, SourceError, SourceUnavailable
from service.export.cells import TextOptions
from service.export.encode import Rows
from service.export.lane import Lane, Sink
from service.export.lanes import open_lane
from service.grammar.query import parse_query
from service.settings import DatasetSettings
from tests.exporting import SECONDS, carried
from tests.mariadb import catalog, connected, open_source, rows, run, running_queries
from tests.waiting import eventually

TABLES = {"small": 3, "medium": 1_500, "large": 300_000}
CHANGING = 20_000
WITHIN = 1.0  # seconds until the server does nothing more for an export
CLOSED = SETTLE_TIMEOUT + 2.0  # seconds until an export has ended here
LANES = ("auto", "rows")


@pytest.fixture(scope="module")
def url(module_mariadb_url: str) -> str:
    async def fill() -> None:
        for name, count in {**TABLES, "changing": CHANGING}.items():
            await run(
                module_mariadb_url,
                f"CREATE TABLE {name} (id INT PRIMARY KEY, text VARCHAR(100))",
                f"INSERT INTO {name} SELECT seq, REPEAT('x', 100) FROM seq_1_to_{count}",
            )

    asyncio.run(fill())
    return module_mariadb_url


async def lane_of(source: MysqlSource, name: str, form: Rows = Rows.CSV) -> Lane:
    dataset = await catalog(source).dataset(name)
    return open_lane(source, dataset, parse_query(dataset, []), TextOptions(form))


async def stopped(lane: Lane, sink: Sink) -> None:
    """Run an export that does not come to its end."""
    try:
        async with lane.reading(max_seconds=SECONDS, lock_seconds=SECONDS) as reading:
            await reading.carry(sink)
    except (asyncio.CancelledError, OverflowError):
        return
    raise AssertionError("the export came to its end")


async def free_and_good(source: MysqlSource) -> bool:
    """Whether the pool has its connections back, and they answer."""
    configured = {"it": DatasetSettings(sql="SELECT 1 AS id")}
    dataset = await catalog(source, configured).dataset("it")
    return await carried(source, dataset) == b'{"id":1}\n'


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("table", TABLES)
async def test_a_cancelled_export_ends_in_the_server(url: str, table: str, lane: str) -> None:
    began = asyncio.Event()

    async def sink(data: bytes) -> None:
        began.set()
        await asyncio.sleep(SECONDS)

    async with open_source(url, connections=1, lane=lane) as source:
        task = asyncio.create_task(stopped(await lane_of(source, table), sink))
        await began.wait()
        cancelled_at = time.monotonic()
        task.cancel()
        await eventually(lambda: idle(url, f"`{table}`"), within=WITHIN, what="the server is idle")
        await task
        assert time.monotonic() - cancelled_at < CLOSED
        assert source.engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # of this pool
        assert await free_and_good(source)


async def idle(url: str, part: str) -> bool:
    return await running_queries(url, part) == 0


async def test_a_query_that_computes_is_stopped_in_the_server(url: str) -> None:
    sql = "SELECT 1 AS id, SLEEP(3600) AS word"
    async with open_source(url, connections=1) as source:
        # Its columns are told without running it.
        dataset = await catalog(source, {"it": DatasetSettings(sql=sql)}).dataset("it")
        lane = open_lane(source, dataset, parse_query(dataset, []), TextOptions(Rows.CSV))

        async def sink(data: bytes) -> None:
            raise AssertionError("there is no row")

        task = asyncio.create_task(stopped(lane, sink))
        await eventually(lambda: running_queries(url, "SLEEP(3600)"), within=10, what="it runs")
        task.cancel()
        await eventually(lambda: idle(url, "SLEEP(3600)"), within=WITHIN, what="it is stopped")
        await task
        assert await free_and_good(source)


@pytest.mark.parametrize("form", Rows)
async def test_a_sink_that_fails_ends_the_export_with_its_own_error(url: str, form: Rows) -> None:
    async def sink(data: bytes) -> None:
        raise OverflowError

    async with open_source(url, connections=1) as source:
        await stopped(await lane_of(source, "large", form), sink)
        await eventually(lambda: idle(url, "`large`"), within=WITHIN, what="the server is idle")
        assert await free_and_good(source)


async def aborted(lane: Lane) -> None:
    async with lane.reading(max_seconds=SECONDS, lock_seconds=SECONDS) as reading:

        async def sink(data: bytes) -> None:
            assert reading.snapshot is not None
            reading.snapshot.abort()

        await reading.carry(sink)


async def test_an_aborted_export_lets_go_of_its_connection(url: str) -> None:
    async with open_source(url, connections=1) as source:
        lane = await lane_of(source, "large")
        with pytest.raises(SourceUnavailable):
            await aborted(lane)
        await eventually(lambda: idle(url, "`large`"), within=WITHIN, what="the server is idle")
        assert await free_and_good(source)


async def test_the_server_keeps_the_deadline_itself(url: str) -> None:
    async with open_source(url) as source:
        sql = "SELECT COUNT(*) AS n FROM large a JOIN large b ON a.id <> b.id"
        dataset = await catalog(source, {"it": DatasetSettings(sql=sql)}).dataset("it")
        lane = open_lane(source, dataset, parse_query(dataset, []), TextOptions(Rows.CSV))

        async def sink(data: bytes) -> None:
            raise AssertionError("there is no row")

        with pytest.raises(DeadlineExceeded, match="max_statement_time"):
            async with lane.reading(max_seconds=0.2, lock_seconds=SECONDS) as reading:
                await reading.carry(sink)
        assert await idle(url, "large")


async def test_a_locked_table_is_waited_for_no_longer_than_said(url: str) -> None:
    async with connected(url) as other, other.cursor() as cursor:
        await cursor.execute("LOCK TABLES medium WRITE")
        async with open_source(url) as source:
            lane = await lane_of(source, "medium")
            with pytest.raises(SourceUnavailable, match="1205"):
                async with lane.reading(max_seconds=SECONDS, lock_seconds=1) as reading:
                    await reading.carry(_ignored)


async def _ignored(data: bytes) -> None:
    del data


async def test_what_is_committed_while_it_runs_is_not_seen(url: str) -> None:
    async with open_source(url) as source:
        dataset = await catalog(source).dataset("changing")
        before = await carried(source, dataset)
        lane = await lane_of(source, "changing", Rows.NDJSON)
        pieces: list[bytes] = []
        changes = (
            "UPDATE changing SET text = 'other' WHERE id > 10000",
            "DELETE FROM changing WHERE id % 2 = 0",
        )

        async def sink(data: bytes) -> None:
            if len(pieces) == 3:
                await run(url, *changes)
            pieces.append(data)

        async with lane.reading(max_seconds=SECONDS, lock_seconds=SECONDS) as reading:
            assert reading.snapshot is not None
            assert reading.snapshot.mark is not None
            assert await reading.carry(sink) == CHANGING
        assert b"".join(pieces) == before
        assert await carried(source, dataset) != before


async def test_nothing_can_be_written(url: str) -> None:
    async with open_source(url) as source:
        opening = source.snapshot(max_seconds=SECONDS, lock_seconds=SECONDS)
        with pytest.raises(SourceError, match="READ ONLY"):
            async with opening as snapshot:
                await snapshot.connection.exec_driver_sql("DELETE FROM small")
        assert (await rows(url, "SELECT COUNT(*) FROM small"))[0][0] == TABLES["small"]


@pytest.mark.parametrize("lane", LANES)
async def test_memory_is_that_of_a_batch(url: str, lane: str) -> None:
    """Megabytes of rows pass; what is held is a little at any time."""
    async with open_source(url, lane=lane) as source:
        dataset = await catalog(source).dataset("large")
        query = parse_query(dataset, [("limit", "60000")])
        opened = open_lane(source, dataset, query, TextOptions(Rows.CSV))
        sizes: list[int] = []

        async def sink(data: bytes) -> None:
            sizes.append(len(data))

        async with opened.reading(max_seconds=SECONDS, lock_seconds=SECONDS) as reading:
            tracemalloc.start()
            assert await reading.carry(sink) == 60_000
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert sum(sizes) > 6_000_000
    assert peak < 3_000_000


async def test_a_server_that_is_away_is_unavailable() -> None:
    async with open_source("mysql://root@127.0.0.1:1/nothing") as source:
        with pytest.raises(SourceUnavailable):
            await source.ping()


async def test_a_stranger_is_told_nothing(url: str) -> None:
    async with open_source(url.replace("root@", "nobody:secret@")) as source:
        with pytest.raises(SourceUnavailable, match=r"\(error 1045\)") as caught:
            await source.ping()
        assert "secret" not in str(caught.value)
