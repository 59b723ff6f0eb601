"""One state of the data in one order, whoever connects and whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest

from service.databases.postgresql.source import PostgresSource
from service.dataset import Dataset
from service.export.cells import TextOptions
from service.export.copy import CopyLane
from service.export.encode import Rows
from service.grammar.query import parse_query
from service.settings import DatasetSettings
from tests.exporting import (
    SECONDS,
    as_role,
    carried,
    catalog_of,
    login_role,
    open_source,
    records,
)
from tests.postgres import Databases, fetch, libpq_url, run_sql

BIG_ROWS = 120_000
SETUP = f"""
    CREATE TABLE spelled AS SELECT 1 AS id, '2026-07-04 12:00+02'::timestamptz AS at,
        '2026-07-04'::date AS d, '1 year 2 mons -3 days 04:05:06'::interval AS i,
        '\\x005c27ff'::bytea AS raw, 0.1::float4 AS f4, 0.1::float8 + 0.2 AS f8,
        'back\\slash '' quote' AS text, ARRAY['2026-07-04 12:00+02'::timestamptz] AS many,
        point(0.1, 0.2) AS p, '1234.5'::numeric AS n;
    CREATE TABLE groups (id int PRIMARY KEY, grp int);
    INSERT INTO groups SELECT i, nullif(i % 7, 0) FROM generate_series(0, 4999) i;
    CREATE TABLE big (id int, name text, {", ".join(f"n{n} int" for n in range(30))});
    INSERT INTO big SELECT i, repeat(md5(i::text), 6), {", ".join(f"i + {n}" for n in range(30))}
        FROM generate_series(1, {BIG_ROWS}) i;
    ALTER TABLE big SET (parallel_workers = 2);
    ANALYZE big;
"""
ODD_SETTINGS = {
    "DateStyle": "SQL, DMY",
    "TimeZone": "Asia/Tokyo",
    "IntervalStyle": "iso_8601",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "xmloption": "document",
    "standard_conforming_strings": "off",
    "escape_string_warning": "off",
    "client_encoding": "LATIN1",
    "synchronize_seqscans": "on",
    "search_path": "",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    # Left to the planner by the service; here so that a scan's own order can be compared.
    "max_parallel_workers_per_gather": "0",
}


@pytest.fixture(scope="module")
def url(module_database_url: str) -> str:
    run_sql(module_database_url, SETUP)
    return module_database_url


@pytest.fixture(scope="module")
def odd_url(databases: Databases, url: str) -> Iterator[str]:
    """The same database through a role whose sessions begin with other settings."""
    with login_role(databases.server_url) as role:
        for name, value in ODD_SETTINGS.items():
            run_sql(url, f"ALTER ROLE {role} SET {name} = '{value}'")
        run_sql(url, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        yield as_role(url, role)
        run_sql(url, f"DROP OWNED BY {role}")


async def dataset_of(source: PostgresSource, name: str) -> Dataset:
    return await catalog_of(source).dataset(name)


@pytest.mark.parametrize("rows", Rows)
async def test_the_bytes_do_not_depend_on_the_roles_defaults(
    url: str, odd_url: str, rows: Rows
) -> None:
    text = r"back\slash ' quote"
    async with open_source(url) as plain, open_source(odd_url) as odd:
        one, other = await dataset_of(plain, "spelled"), await dataset_of(odd, "spelled")
        assert one == other
        for pairs in ([], [("text", f"eq.{text}")], [("at", "eq.2026-07-04 10:00")]):
            file = await carried(plain, one, *pairs, rows=rows)
            assert file.count(b"\n") == (2 if rows is Rows.CSV else 1)
            assert b"2026-07-04" in file
            assert rb"\x005c27ff" in file.replace(rb"\\", b"\\")
            assert await carried(odd, other, *pairs, rows=rows) == file


async def test_literals_of_configured_sql_do_not_depend_on_the_roles_defaults(odd_url: str) -> None:
    configured = {"it": DatasetSettings(sql=r"SELECT 'a\nb' AS text")}
    async with open_source(odd_url) as source:
        dataset = await catalog_of(source, configured).dataset("it")
        assert records(await carried(source, dataset)) == [{"text": r"a\nb"}]


def test_the_odd_role_is_odd(odd_url: str) -> None:
    """Else the test above proves nothing."""
    for name, value in ODD_SETTINGS.items():
        if name != "client_encoding":  # which the driver sets when it connects
            (row,) = fetch(odd_url, "SELECT current_setting($1)", name)
            assert row[0].strip('"').lower() in (value.lower(), "0", "(0)") or name == "search_path"


async def test_every_export_reads_only_from_one_snapshot(url: str) -> None:
    sql = """
        SELECT current_setting('transaction_read_only') AS read_only,
               current_setting('transaction_isolation') AS isolation
    """
    async with open_source(url) as source:
        dataset = await catalog_of(source, {"it": DatasetSettings(sql=sql)}).dataset("it")
        (record,) = records(await carried(source, dataset))
    assert record == {"read_only": "on", "isolation": "repeatable read"}


async def write(url: str, table: str) -> None:
    """Commit a change of every sort."""
    connection = await asyncpg.connect(libpq_url(url))
    try:
        await connection.execute(
            f"INSERT INTO {table} (id) SELECT i FROM generate_series(1000001, 1000100) i;"
            f"UPDATE {table} SET id = -id WHERE id > 100000; DELETE FROM {table} WHERE id = 5"
        )
    finally:
        await connection.close()


@pytest.fixture
def copy_of_big(url: str) -> Iterator[str]:
    run_sql(url, "CREATE TABLE changing AS SELECT id, name FROM big")
    yield "changing"
    run_sql(url, "DROP TABLE changing")


@pytest.mark.parametrize("when", ["before the copy", "during the copy"])
async def test_what_is_committed_after_the_snapshot_is_not_seen(
    url: str, copy_of_big: str, when: str
) -> None:
    async with open_source(url) as source:
        dataset = await dataset_of(source, copy_of_big)
        before = await carried(source, dataset)
        lane = CopyLane(source, dataset, parse_query(dataset, []), TextOptions(Rows.NDJSON))
        pieces: list[bytes] = []

        async def sink(data: bytes) -> None:
            if not pieces and when == "during the copy":
                await write(url, copy_of_big)
            pieces.append(data)

        async with source.snapshot(
            texts=lane.texts, max_seconds=SECONDS, lock_seconds=SECONDS
        ) as snapshot:
            if when == "before the copy":
                await write(url, copy_of_big)
            assert await lane.run(snapshot, sink) == BIG_ROWS
        assert len(pieces) > 1
        assert b"".join(pieces) == before
        assert await carried(source, dataset) != before


def in_order(
    rows: list[dict[str, int | None]], *, descending: bool, nulls_first: bool
) -> list[dict[str, int | None]]:
    """As the manual defines ORDER BY grp, id."""

    def key(row: dict[str, int | None]) -> tuple[bool, int, int]:
        grp = row["grp"] or 0
        return (row["grp"] is None) != nulls_first, -grp if descending else grp, row["id"] or 0

    return sorted(rows, key=key)


@pytest.mark.parametrize(
    ("order", "descending", "nulls_first"),
    [
        ("grp", False, False),
        ("grp.desc", True, True),
        ("grp.asc.nullsfirst", False, True),
        ("grp.desc.nullslast", True, False),
    ],
)
async def test_an_order_is_total_because_the_key_ends_it(
    url: str, *, order: str, descending: bool, nulls_first: bool
) -> None:
    known: list[dict[str, int | None]] = [{"id": i, "grp": i % 7 or None} for i in range(5000)]
    expected = in_order(known, descending=descending, nulls_first=nulls_first)
    async with open_source(url) as source:
        dataset = await dataset_of(source, "groups")
        assert records(await carried(source, dataset, ("order", order))) == expected
        pages = []
        for start in range(0, 5000, 900):
            page = [("order", order), ("limit", "900"), ("offset", str(start))]
            pages += records(await carried(source, dataset, *page))
        assert pages == expected


async def test_a_limit_alone_takes_the_first_by_the_key(url: str) -> None:
    async with open_source(url) as source:
        dataset = await dataset_of(source, "groups")
        found = records(await carried(source, dataset, ("limit", "3"), ("offset", "2")))
    assert [record["id"] for record in found] == [2, 3, 4]


@pytest.mark.parametrize("pairs", [[], [("n0", "gt.100")]], ids=["whole", "filtered"])
async def test_two_runs_without_an_order_give_the_same_rows(
    url: str, pairs: list[tuple[str, str]]
) -> None:
    """Whoever reads them: the planner may take parallel workers, which come as they come."""
    async with open_source(url) as source:
        dataset = await dataset_of(source, "big")
        for rows in Rows:
            first = sorted((await carried(source, dataset, *pairs, rows=rows)).splitlines())
            again = sorted((await carried(source, dataset, *pairs, rows=rows)).splitlines())
            assert again == first


async def test_a_run_beside_another_one_begins_at_the_beginning(odd_url: str) -> None:
    """A scan of a table larger than a quarter of the cache may join another in its middle."""
    async with open_source(odd_url) as source:
        dataset = await dataset_of(source, "big")
        alone = await carried(source, dataset, ("n0", "is.not_null"))
        lane = CopyLane(source, dataset, parse_query(dataset, []), TextOptions(Rows.CSV))
        halfway, released = asyncio.Event(), asyncio.Event()
        passed = 0

        async def sink(data: bytes) -> None:
            nonlocal passed
            passed += len(data)
            if passed > len(alone) // 4:
                halfway.set()
                await released.wait()

        async def other() -> None:
            async with source.snapshot(
                texts=lane.texts, max_seconds=SECONDS, lock_seconds=SECONDS
            ) as snapshot:
                await lane.run(snapshot, sink)

        running = asyncio.create_task(other())
        await halfway.wait()
        assert await carried(source, dataset, ("n0", "is.not_null")) == alone
        released.set()
        await running
