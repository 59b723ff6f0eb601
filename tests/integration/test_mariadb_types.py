"""Every type of MariaDB: its bytes as files define them, alike whoever makes the text."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from itertools import starmap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.databases.mysql.source import MysqlSource
from service.errors import SourceError
from service.export.cells import TextOptions
from service.export.encode import Rows
from service.export.lanes import open_lane
from service.grammar.query import parse_query
from tests.exporting import carried, records
from tests.mariadb import PACKET, catalog, connected, open_source, run, run_sql

GOLDEN = Path(__file__).parent.parent / "golden" / "mariadb"
LANES = ("auto", "rows")
GROUPS = ("numbers", "texts", "times", "others")
ZEROS = "SET SESSION sql_mode = ''"  # zero dates as they were allowed once
NUMBERS = {"tiny", "medium", "big", "price", "exact", "ratio", "single", "places", "flag"}


@pytest.fixture(scope="module")
def url(module_mariadb_url: str) -> str:
    for group in GROUPS:
        script = (GOLDEN / f"{group}.sql").read_text().rstrip().removesuffix(";")
        create, rows = script.split(";\nINSERT", 1)
        run_sql(module_mariadb_url, ZEROS, create, f"INSERT{rows}")
    return module_mariadb_url


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("rows", Rows)
@pytest.mark.parametrize("group", GROUPS)
async def test_bytes_are_the_golden_ones(url: str, group: str, rows: Rows, lane: str) -> None:
    async with open_source(url, lane=lane) as source:
        dataset = await catalog(source).dataset(group)
        opened = open_lane(source, dataset, parse_query(dataset, []), TextOptions(rows))
        assert opened.name == {"auto": "lines", "rows": "rows"}[lane]
        data = await carried(source, dataset, ("order", "id"), rows=rows)
    assert data.decode() == (GOLDEN / f"{group}.{rows.value}").read_bytes().decode()


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("group", GROUPS)
async def test_formulas_are_made_harmless(url: str, group: str, lane: str) -> None:
    async with open_source(url, lane=lane) as source:
        dataset = await catalog(source).dataset(group)
        data = await carried(source, dataset, ("order", "id"), rows=Rows.CSV, excel=True)
    names, *plain = cells(GOLDEN.joinpath(f"{group}.csv").read_bytes())
    expected = [list(starmap(harmless, zip(names, row, strict=True))) for row in plain]
    assert cells(data)[1:] == expected


def cells(file: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(file.decode("utf-8-sig"), newline="")))


def harmless(column: str, cell: str) -> str:
    formula = cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"))
    return f"'{cell}" if formula and column not in NUMBERS else cell


TEXTS = st.text(
    st.characters(codec="utf-8") | st.sampled_from("\"\\,;\t\n\r\x00\x0b\x1b\x1f '=+-@.N"),
    max_size=8,
)
SPAN = timedelta(days=30)
# MariaDB takes no document that is nested more than 32 deep, and none of its numbers is read.
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
).map(lambda value: json.dumps(value, indent=1, ensure_ascii=False))
COLUMNS: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
    "flag": ("BOOLEAN", st.integers(-128, 127)),
    "number": ("BIGINT", st.integers(-(2**63), 2**63 - 1)),
    "count": ("BIGINT UNSIGNED", st.integers(0, 2**64 - 1)),
    "price": ("DECIMAL(30,10)", st.decimals(-(10**19), 10**19, places=10)),
    "single": ("FLOAT", st.floats(width=32, allow_nan=False, allow_infinity=False)),
    "ratio": ("DOUBLE", st.floats(allow_nan=False, allow_infinity=False)),
    "word": ("VARCHAR(20)", TEXTS),
    "body": ("TEXT COLLATE utf8mb4_unicode_ci", TEXTS),
    "wide": ("TEXT CHARACTER SET utf16", TEXTS),
    "raw": ("BLOB", st.binary(max_size=9).map(bytes.hex)),
    "moment": ("DATETIME(6)", st.datetimes().map(str)),
    "clock": ("TIME(6)", st.timedeltas(-SPAN, SPAN)),
    "document": ("JSON", DOCUMENTS),
}
ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | values for name, (_, values) in COLUMNS.items()}),
    max_size=4,
)
SLOW = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Workshop:
    """A table whose rows are replaced, and every way to export it."""

    runner: asyncio.Runner
    connection: Any
    sources: tuple[MysqlSource, ...]

    async def fill(self, table: str, rows: list[dict[str, Any]]) -> None:
        marks = ", ".join("UNHEX(%s)" if name == "raw" else "%s" for name in COLUMNS)
        async with self.connection.cursor() as cursor:
            await cursor.execute(f"DELETE FROM {table}")
            for place, row in enumerate(rows):
                insert = f"INSERT INTO {table} VALUES ({place}, {marks})"
                await cursor.execute(insert, [row[name] for name in COLUMNS])

    async def exported(self, table: str, rows: Rows, **options: Any) -> bytes:
        files = []
        for source in self.sources:
            dataset = await catalog(source).dataset(table)
            files.append(await carried(source, dataset, ("order", "id"), rows=rows, **options))
        assert files[0] == files[1]
        return files[0]


@pytest.fixture(scope="module")
def workshop(module_mariadb_url: str) -> Iterator[Workshop]:
    url = module_mariadb_url
    columns = ", ".join(f"{name} {kind}" for name, (kind, _) in COLUMNS.items())
    tables = [f"CREATE TABLE {name} (id INT PRIMARY KEY, {columns})" for name in ("drawn", "twin")]
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def opened() -> Workshop:
            await run(url, *tables)
            connection = await stack.enter_async_context(connected(url))
            sources = [await stack.enter_async_context(open_source(url, 2, lane)) for lane in LANES]
            return Workshop(runner, connection, tuple(sources))

        yield runner.run(opened())
        runner.run(stack.aclose())


def read_back(record: dict[str, Any]) -> dict[str, Any]:
    """The values of an NDJSON line, to be inserted again."""
    raw, document = record["raw"], record["document"]
    reals = {name: record[name] for name in ("single", "ratio") if record[name] is not None}
    return {
        **record,
        **{name: float(real) for name, real in reals.items()},
        "flag": None if record["flag"] is None else int(record["flag"]),
        "raw": None if raw is None else raw.removeprefix("\\x"),
        "document": None if document is None else json.dumps(document, ensure_ascii=False),
    }


@SLOW
@given(rows=ROWS)
def test_ndjson_reads_back_as_the_same_rows(workshop: Workshop, rows: list[dict[str, Any]]) -> None:
    async def both() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        await workshop.fill("drawn", rows)
        first = numbers_kept(await workshop.exported("drawn", Rows.NDJSON))
        await workshop.fill("twin", list(map(read_back, first)))
        return first, numbers_kept(await workshop.exported("twin", Rows.NDJSON))

    first, second = workshop.runner.run(both())
    assert second == first
    for row, record in zip(rows, first, strict=True):
        for name in ("word", "body", "wide", "number", "count", "price"):
            assert record[name] == row[name]
        for name in ("single", "ratio"):
            assert (None if record[name] is None else float(record[name])) == row[name]
        assert record["document"] == json.loads(row["document"] or "null")


def numbers_kept(file: bytes) -> list[dict[str, Any]]:
    return [json.loads(line, parse_float=Decimal) for line in file.decode().split("\n")[:-1]]


@SLOW
@given(rows=ROWS, delimiter=st.sampled_from(",;\t .:-+|"), excel=st.booleans())
def test_csv_reads_back_as_the_same_texts(
    workshop: Workshop, rows: list[dict[str, Any]], delimiter: str, *, excel: bool
) -> None:
    async def file() -> bytes:
        await workshop.fill("drawn", rows)
        return await workshop.exported("drawn", Rows.CSV, delimiter=delimiter, excel=excel)

    text = workshop.runner.run(file()).decode("utf-8-sig")
    found = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    for row, record in zip(rows, found, strict=True):
        for name in ("word", "body", "wide", "document"):
            plain = row[name] or ""
            assert record[name] in ((f"'{plain}", plain) if excel else (plain,))
        assert record["number"] == ("" if row["number"] is None else str(row["number"]))
        assert record["raw"] == ("" if row["raw"] is None else "\\x" + row["raw"])


@pytest.mark.parametrize("rows", Rows)
async def test_one_column_tells_null_from_the_empty_text(mariadb_url: str, rows: Rows) -> None:
    await run(
        mariadb_url,
        "CREATE TABLE one (id INT PRIMARY KEY, t VARCHAR(9))",
        r"INSERT INTO one VALUES (1, NULL), (2, ''), (3, '\\.'), (4, '\\. '), (5, ' ')",
    )
    for lane in LANES:
        async with open_source(mariadb_url, lane=lane) as source:
            dataset = await catalog(source).dataset("one")
            pairs = [("select", "t"), ("order", "id")]
            data = await carried(source, dataset, *pairs, rows=rows)
            if rows is Rows.CSV:
                assert data == b't\n\n""\n"\\."\n\\. \n \n'
            else:
                assert [record["t"] for record in records(data)] == [None, "", "\\.", "\\. ", " "]


async def test_a_line_that_is_longer_than_a_packet_is_never_lost(mariadb_url: str) -> None:
    """Two texts of ten megabytes each: the server makes NULL of both together."""
    columns = ", ".join(f"c{place} TEXT" for place in range(300))
    names = ", ".join(f"c{place}" for place in range(300))
    values = ", ".join(["REPEAT('x', 65000)"] * 300)
    await run(
        mariadb_url,
        f"CREATE TABLE broad (id INT PRIMARY KEY, {columns})",
        f"INSERT INTO broad (id, {names}) VALUES (1, {values})",
    )
    async with open_source(mariadb_url) as source:
        dataset = await catalog(source).dataset("broad")
        with pytest.raises(SourceError, match=r'set lane = "rows"'):
            await carried(source, dataset)
    async with open_source(mariadb_url, lane="rows") as source:
        assert len(await carried(source, dataset)) > 300 * 65_000 > PACKET


@pytest.mark.parametrize("rows", Rows)
async def test_long_values_take_the_lane_without_a_limit(mariadb_url: str, rows: Rows) -> None:
    await run(
        mariadb_url,
        "CREATE TABLE long_ones (id INT PRIMARY KEY, t LONGTEXT, b LONGBLOB)",
        "INSERT INTO long_ones VALUES (1, REPEAT('\"', 9000000), REPEAT('x', 9000000))",
    )
    async with open_source(mariadb_url) as source:
        dataset = await catalog(source).dataset("long_ones")
        assert len(await carried(source, dataset, rows=rows)) > 36_000_000 > 2 * PACKET


async def test_a_cell_that_cannot_be_made_ends_the_export(mariadb_url: str) -> None:
    """A formula as long as a packet, and a character more makes it harmless."""
    await run(
        mariadb_url,
        "CREATE TABLE formulas (id INT PRIMARY KEY, t LONGTEXT)",
        f"INSERT INTO formulas VALUES (1, NULL), (2, REPEAT('=', {PACKET}))",
    )
    async with open_source(mariadb_url, lane="rows") as source:
        dataset = await catalog(source).dataset("formulas")
        with pytest.raises(SourceError, match=r"max_allowed_packet"):
            await carried(source, dataset, rows=Rows.CSV, excel=True)
        assert len(await carried(source, dataset, rows=Rows.CSV)) > PACKET
