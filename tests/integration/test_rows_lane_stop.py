"""PostgreSQL's rows lane: stopped anywhere, from one snapshot, in batches bounded by bytes."""

from __future__ import annotations

import asyncio
import os
import time

import asyncpg
import pytest

from service.databases.postgresql.source import PostgresSource
from service.databases.stopping import SETTLE_TIMEOUT
from service.errors import SourceError
from service.export.cells import TextOptions
from service.export.encode import Rows
from service.export.lane import Lane, Sink
from service.export.lanes import open_lane
from service.grammar.query import parse_query
from service.settings import DatasetSettings
from tests.attacks import ATTACKS
from tests.exporting import SECONDS, carried, catalog_of, open_source, records
from tests.postgres import libpq_url, run_sql

STEP = 1 if os.environ.get("TAILRACE_FAULTS") == "full" else 4
TABLES = {"small": 3, "medium": 1_500, "large": 300_000}
CHANGING = 20_000
WITHIN = SETTLE_TIMEOUT + 2.0  # seconds, and SECONDS is what an export may last by itself
ACTIVE = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND state <> 'idle'"


@pytest.fixture(scope="module")
def url(module_database_url: str) -> str:
    for name, rows in {**TABLES, "changing": CHANGING}.items():
        run_sql(
            module_database_url,
            f"CREATE TABLE {name} AS SELECT i AS id, repeat('x', 100) AS text "
            f"FROM generate_series(1, {rows}) i",
        )
    run_sql(
        module_database_url,
        'CREATE TABLE canary AS SELECT 1 AS id; CREATE TABLE "costs $1" (id int, "a$1" text)',
    )
    asyncio.run(_attack(module_database_url))
    return module_database_url


async def _attack(url: str) -> None:
    connection = await asyncpg.connect(libpq_url(url))
    await connection.executemany('INSERT INTO "costs $1" VALUES ($1, $2)', list(enumerate(ATTACKS)))
    await connection.close()


async def lane_of(source: PostgresSource, name: str, rows: Rows = Rows.CSV) -> Lane:
    dataset = await catalog_of(source).dataset(name)
    return open_lane(source, dataset, parse_query(dataset, []), TextOptions(rows))


async def stopped(lane: Lane, sink: Sink) -> int:
    """Run an export that does not come to its end; gives the process that ran it."""
    pid = 0
    try:
        async with lane.reading(max_seconds=SECONDS, lock_seconds=SECONDS) as reading:
            pid = reading.snapshot.pid  # type: ignore[union-attr]  # it is PostgreSQL's
            await reading.carry(sink)
    except (asyncio.CancelledError, OverflowError):
        return pid
    raise AssertionError("the export came to its end")


async def pid_of(source: PostgresSource) -> int:
    """The process of the pool's one connection, which is free and good."""
    sql = "SELECT pg_backend_pid() AS pid"
    dataset = await catalog_of(source, {"it": DatasetSettings(sql=sql)}).dataset("it")
    (record,) = records(await carried(source, dataset))
    return int(record["pid"])


@pytest.mark.parametrize("table", TABLES)
async def test_a_cancelled_export_frees_its_connection(url: str, table: str) -> None:
    began = asyncio.Event()

    async def sink(data: bytes) -> None:
        began.set()
        await asyncio.sleep(SECONDS)

    async with open_source(url, connections=1, lane="rows") as source:
        lane = await lane_of(source, table)
        assert lane.name == "rows"
        task = asyncio.create_task(stopped(lane, sink))
        await began.wait()
        cancelled_at = time.monotonic()
        task.cancel()
        pid = await task
        assert time.monotonic() - cancelled_at < WITHIN
        assert await pid_of(source) == pid
        connection = await asyncpg.connect(libpq_url(url))
        assert await connection.fetchval(ACTIVE, pid) == 0
        await connection.close()


async def test_a_query_that_computes_is_stopped_in_the_database(url: str) -> None:
    sql = "SELECT 1 AS id, pg_sleep(3600)::text AS word"
    async with open_source(url, connections=1, lane="rows") as source:
        dataset = await catalog_of(source, {"it": DatasetSettings(sql=sql)}).dataset("it")
        lane = open_lane(source, dataset, parse_query(dataset, []), TextOptions(Rows.CSV))

        async def sink(data: bytes) -> None:
            raise AssertionError("there is no row")

        task = asyncio.create_task(stopped(lane, sink))
        connection = await asyncpg.connect(libpq_url(url))
        running = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        async with asyncio.timeout(10):
            while not await connection.fetchval(running):  # noqa: ASYNC110 - the server is looked at
                await asyncio.sleep(0.02)
        cancelled_at = time.monotonic()
        task.cancel()
        pid = await task
        assert time.monotonic() - cancelled_at < WITHIN
        assert await connection.fetchval(running) == 0
        assert await connection.fetchval(ACTIVE, pid) == 0
        assert await pid_of(source)
        await connection.close()


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("rows", Rows)
async def test_a_sink_that_fails_ends_the_export_with_its_own_error(
    url: str, table: str, rows: Rows
) -> None:
    async def sink(data: bytes) -> None:
        raise OverflowError

    async with open_source(url, connections=1, lane="rows") as source:
        begun = time.monotonic()
        pid = await stopped(await lane_of(source, table, rows), sink)
        assert time.monotonic() - begun < WITHIN
        assert await pid_of(source) == pid


async def test_an_error_of_the_server_leaves_the_connection_in_the_pool(url: str) -> None:
    sql = "SELECT 1 / (i - 50000) AS a FROM generate_series(1, 60000) i"
    async with open_source(url, connections=1, lane="rows") as source:
        before = await pid_of(source)
        dataset = await catalog_of(source, {"it": DatasetSettings(sql=sql)}).dataset("it")
        with pytest.raises(SourceError, match="division by zero"):
            await carried(source, dataset)
        assert await pid_of(source) == before


async def test_what_is_committed_while_it_runs_is_not_seen(url: str) -> None:
    """Every batch is of the state that the first one was of."""
    async with open_source(url, lane="rows") as source:
        dataset = await catalog_of(source).dataset("changing")
        before = await carried(source, dataset)
        lane = await lane_of(source, "changing", Rows.NDJSON)
        connection = await asyncpg.connect(libpq_url(url))
        pieces: list[bytes] = []

        async def sink(data: bytes) -> None:
            if len(pieces) in (0, 5):
                await connection.execute(
                    "UPDATE changing SET text = 'other' WHERE id > 10000;"
                    "DELETE FROM changing WHERE id % 2 = 0; INSERT INTO changing VALUES (-1, '')"
                )
            pieces.append(data)

        async with lane.reading(max_seconds=SECONDS, lock_seconds=SECONDS) as reading:
            assert await reading.carry(sink) == CHANGING
        await connection.close()
        assert len(pieces) > 5
        assert b"".join(pieces) == before
        assert await carried(source, dataset) != before


async def test_large_rows_come_one_by_one(url: str) -> None:
    """A batch is never more than about as large as the rows before let expect."""
    sql = "SELECT repeat('x', 1000000) AS word FROM generate_series(1, 20) i"
    async with open_source(url, lane="rows") as source:
        dataset = await catalog_of(source, {"it": DatasetSettings(sql=sql)}).dataset("it")
        lane = open_lane(source, dataset, parse_query(dataset, []), TextOptions(Rows.NDJSON))
        sizes: list[int] = []

        async def sink(data: bytes) -> None:
            sizes.append(len(data))

        async with lane.reading(max_seconds=SECONDS, lock_seconds=SECONDS) as reading:
            assert await reading.carry(sink) == 20
    assert max(sizes) < 1_100_000


@pytest.mark.parametrize("rows", Rows)
async def test_hostile_values_stay_values(url: str, rows: Rows) -> None:
    async with open_source(url, lane="rows") as source:
        dataset = await catalog_of(source).dataset("costs $1")
        for number, attack in list(enumerate(ATTACKS))[::STEP]:
            pairs = [("a$1", f"eq.{attack}"), ("select", "id,a$1")]
            if rows is Rows.NDJSON:
                found = records(await carried(source, dataset, *pairs))
                assert found == [{"id": number, "a$1": attack}]
            else:
                data = (await carried(source, dataset, *pairs, rows=rows)).decode()
                quoted = attack.replace('"', '""')
                body = data.removeprefix("id,a$1\n")
                assert body in (f"{number},{attack}\n", f'{number},"{quoted}"\n')
        canary = await catalog_of(source).dataset("canary")
        assert records(await carried(source, canary)) == [{"id": 1}]


async def test_hostile_configured_sql_and_labels(url: str) -> None:
    sql = "SELECT 'costs $1 each :x %s %(a)s' AS \"price$1\", ':name' AS \"%s\", 1 AS id"
    async with open_source(url, lane="rows") as source:
        dataset = await catalog_of(source, {"it": DatasetSettings(sql=sql)}).dataset("it")
        pairs = [("price$1", "neq. || current_user || "), ("select", '"price$1","%s","$1":id')]
        (record,) = records(await carried(source, dataset, *pairs))
    assert record == {"price$1": "costs $1 each :x %s %(a)s", "%s": ":name", "$1": 1}
