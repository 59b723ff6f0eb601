"""A COPY that is stopped at any point lets go of its connection at once."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from service.databases.postgresql.source import PostgresSource
from service.errors import SourceError
from service.export.cells import TextOptions
from service.export.copy import SETTLE_TIMEOUT, CopyLane
from service.export.encode import Rows
from service.export.lane import Sink
from service.grammar.query import parse_query
from service.settings import DatasetSettings
from tests.exporting import SECONDS, carried, catalog_of, open_source, records
from tests.postgres import libpq_url, run_sql

# Rows whose whole COPY arrives before the first block is taken, and that outlast many blocks.
TABLES = {"small": 3, "medium": 1500, "large": 300_000}
WITHIN = SETTLE_TIMEOUT + 2.0  # seconds, and SECONDS is what an export may last by itself
RUNNING = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND query LIKE 'COPY%' AND state = 'active'"


@pytest.fixture(scope="module")
def url(module_database_url: str) -> str:
    for name, rows in TABLES.items():
        run_sql(
            module_database_url,
            f"CREATE TABLE {name} AS SELECT i AS id, repeat('x', 100) AS text "
            f"FROM generate_series(1, {rows}) i",
        )
    return module_database_url


async def stopped(source: PostgresSource, table: str, sink: Sink, rows: Rows = Rows.CSV) -> int:
    """Run a COPY that does not come to its end; gives the process that ran it."""
    dataset = await catalog_of(source).dataset(table)
    lane = CopyLane(source, dataset, parse_query(dataset, []), TextOptions(rows))
    pid = 0
    try:
        async with source.snapshot(
            texts=lane.texts, max_seconds=SECONDS, lock_seconds=SECONDS
        ) as snapshot:
            pid = snapshot.pid
            await lane.run(snapshot, sink)
    except (asyncio.CancelledError, OverflowError):
        return pid
    raise AssertionError("the export came to its end")


async def is_usable(source: PostgresSource) -> int:
    """Whether the one connection of the pool is free and good; gives its process."""
    dataset = await catalog_of(
        source, {"it": DatasetSettings(sql="SELECT pg_backend_pid() AS pid")}
    ).dataset("it")
    (record,) = records(await carried(source, dataset))
    return int(record["pid"])


@pytest.mark.parametrize("table", TABLES)
async def test_a_cancelled_export_frees_its_connection(url: str, table: str) -> None:
    began = asyncio.Event()

    async def sink(data: bytes) -> None:
        began.set()
        await asyncio.sleep(SECONDS)

    async with open_source(url, connections=1) as source:
        task = asyncio.create_task(stopped(source, table, sink))
        await began.wait()
        await asyncio.sleep(0.1)  # what the server still sends arrives
        cancelled_at = time.monotonic()
        task.cancel()
        pid = await task
        assert time.monotonic() - cancelled_at < WITHIN
        again = await is_usable(source)
        assert again == pid or table != "large"
    connection = await asyncpg.connect(libpq_url(url))
    assert await connection.fetchval(RUNNING, pid) == 0
    await connection.close()


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("rows", Rows)
async def test_a_sink_that_fails_ends_the_export_with_its_own_error(
    url: str, table: str, rows: Rows
) -> None:
    async def sink(data: bytes) -> None:
        raise OverflowError

    async with open_source(url, connections=1) as source:
        begun = time.monotonic()
        await stopped(source, table, sink, rows)
        assert time.monotonic() - begun < WITHIN
        await is_usable(source)


async def test_an_error_of_the_server_leaves_the_connection_in_the_pool(url: str) -> None:
    sql = "SELECT 1 / (i - 200000) AS a FROM generate_series(1, 300000) i"
    async with open_source(url, connections=1) as source:
        before = await is_usable(source)
        dataset = await catalog_of(source, {"it": DatasetSettings(sql=sql)}).dataset("it")
        with pytest.raises(SourceError, match="division by zero"):
            await carried(source, dataset)
        assert await is_usable(source) == before
