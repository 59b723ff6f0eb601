"""The COPY lane byte for byte: CSV as COPY writes it, JSON as row_to_json sees it."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import asyncpg
import orjson
import pytest

from service.export.encode import FORMATS, FrameOptions, Rows
from service.representation import DELIMITERS
from service.settings import DatasetSettings
from tests.exporting import carried, catalog_of, open_source, records
from tests.postgres import libpq_url, run_sql

# What a session must have for the plain COPY to be the one that is compared with.
SESSION = {
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
}
DIGITS = "1234567890" * 100
HUGE = re.compile(rb"\b(?<!\.)\d{309,}\b|\b1e400\b")
RAW_JSON = '{"a" :\n\t[1,\r\n2 ] , "b":"\\n\\u0000\\ud83d\\ude00","a":1.50, "c":{ }}'

# type → SQL expressions; NULL is added to each.
VALUES: dict[str, list[str]] = {
    "int2": ["0", "-32768", "32767"],
    "int4": ["-2147483648", "2147483647"],
    "int8": ["-9223372036854775808", "9223372036854775807"],
    "oid": ["0", "4294967295"],
    "float4": ["0.1", "-0.0", "3.4028235e38", "1e-45", "1e10", "'NaN'", "'inf'", "'-inf'", "16777217"],
    "float8": ["0.1", "0.1+0.2::float8", "1e300", "5e-324", "1e15", "1e16", "'NaN'", "'inf'", "'-inf'"],
    "numeric": ["0", "-1.50", "1e-30", "'NaN'", "'inf'", "'-inf'", DIGITS, f"-0.{DIGITS}"],
    "numeric(12,3)": ["1", "-1.2345", "'NaN'"],
    "bool": ["true", "false"],
    "uuid": ["'6F1B2C3D-0000-4000-8000-00000000ABCD'"],
    "date": ["'2026-02-28'", "'infinity'", "'-infinity'", "'0044-03-15 BC'", "'12345-01-01'"],
    "time": ["'12:30:00.5'", "'24:00'", "'00:00:00.000001'"],
    "timetz": ["'12:30:00.5+05:30'"],
    "timestamp": ["'2026-02-28 12:00'", "'0044-03-15 01:02:03.456789 BC'", "'infinity'", "'294276-12-31'"],
    "timestamptz": ["'2026-07-01 12:00+02'", "'epoch'", "'-infinity'", "'1900-01-01 00:00:00.1 Europe/Paris'"],
    "interval": ["'1 mon 3 days'", "'-1 year 2 mons -3 days 04:05:06.789'", "'0'", "'178000000 years'"],
    "json": [f"$q${RAW_JSON}$q$", "'null'", "E' [\\n]\\r\\n'", "'1e400'", f"'[{DIGITS}]'"],
    "jsonb": ["""'{"b":1.50,"a":[null,true,"\\n"]}'""", "'null'", """'"é"'""", f"'{DIGITS}'"],
    "bytea": [r"'\x'", r"'\x00ff5c27220a'", "decode(repeat('5c', 300), 'hex')"],
    "inet": ["'192.168.0.1/24'", "'::1'"],
    "cidr": ["'10.0.0.0/8'"],
    "macaddr": ["'08:00:2b:01:02:03'"],
    "mood": ["'calm'", "'it''s \"wild\", really'"],
    "nested": ["'5'"],
    "label": ["'x'", "''"],
    "int[]": ["'{}'", "'{1,NULL,3}'", "'{{1,2},{3,4}}'", "'[2:3]={1,2}'"],
    "text[]": ["ARRAY['', 'a,b', 'NULL', NULL, E'\\\"\\n']", "'{}'"],
    "json[]": ["ARRAY[E'{\"a\":\\n1}', '[1,\r\n2]']::json[]"],
    "timestamptz[]": ["ARRAY['2026-07-01 12:00+02', 'infinity']::timestamptz[]"],
    "pair": ["ROW(1, 'a\"b')::pair", "ROW(NULL, E'\\n')::pair"],
    "int4range": ["'[1,5)'", "'empty'", "'(,)'"],
    "point": ["'(1.5,-2)'"],
    "bit(3)": ["B'101'"],
    "money": ["'1234.5'"],
    "tsvector": ["'a:1 ''b c'':2'::tsvector"],
    "varchar(5)": ["'a,b'", "''"],
    "char(4)": ["'ab'", "''"],
    '"char"': ["'a'"],
    "name": ["'a b'"],
}  # fmt: skip

SETUP = """
    CREATE TYPE mood AS ENUM ('calm', 'it''s "wild", really');
    CREATE TYPE pair AS (a int, b text);
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE DOMAIN nested AS positive;
    CREATE DOMAIN label AS text;
"""


def tables() -> str:
    statements = []
    for n, (spelled, values) in enumerate(VALUES.items()):
        rows = ", ".join(
            f"({i}, ({value})::{spelled})" for i, value in enumerate([*values, "NULL"])
        )
        strict = ", ".join(f"({i}, ({value})::{spelled})" for i, value in enumerate(values))
        statements += [
            f"CREATE TABLE t{n} (id int PRIMARY KEY, v {spelled}); INSERT INTO t{n} VALUES {rows}",
            f"CREATE TABLE s{n} (id int PRIMARY KEY, v {spelled} NOT NULL)",
            f"INSERT INTO s{n} VALUES {strict}",
        ]
    return SETUP + "; ".join(statements)


TEXTS = [
    "",
    " ",
    "\\.",
    "\\N",
    "NULL",
    '"',
    '""',
    ",",
    "\n",
    "\r",
    "\r\n",
    "a\n\\.\nb",
    *map(chr, range(1, 0x20)),
    "\x7f",
    *map(chr, range(0x80, 0xA1)),
    "".join(map(chr, range(1, 0x900))),
    "\u2028\u2029\ufeff\ufffe\uffff",
    "\U0001f600\U0010ffff\U00010000",
    "\ud7ff\ue000",
    "<script>/\\/\\u0041",
    "x" * 100_000 + "\n",
]


@pytest.fixture(scope="module")
def url(module_database_url: str) -> str:
    run_sql(module_database_url, tables())
    asyncio.run(_fill(module_database_url))
    return module_database_url


async def _fill(url: str) -> None:
    async with session(url) as plain:
        await plain.execute("CREATE TABLE texts (id int PRIMARY KEY, v text)")
        rows = [*enumerate(TEXTS), (len(TEXTS), None)]
        await plain.executemany("INSERT INTO texts VALUES ($1, $2)", rows)
        await plain.execute("CREATE TABLE one (v text); CREATE TABLE empty (id int, v text)")
        await plain.execute("INSERT INTO one VALUES (''), (NULL), ('\\.'), ('a'), (E'\\\\.\\n')")


@asynccontextmanager
async def session(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A plain connection with the settings that every export has."""
    connection = await asyncpg.connect(libpq_url(url), server_settings=SESSION)
    try:
        yield connection
    finally:
        await connection.close()


async def copied(plain: asyncpg.Connection, query: str, delimiter: str = ",") -> bytes:
    """The file that COPY itself writes."""
    file = io.BytesIO()
    await plain.copy_from_query(query, output=file, format="csv", header=True, delimiter=delimiter)
    return file.getvalue()


def exact(text: str | bytes) -> Any:
    """JSON with every digit of its numbers and every member of its objects."""
    return json.loads(text, parse_float=Decimal, parse_int=int, object_pairs_hook=list)


async def as_rows(plain: asyncpg.Connection, table: str) -> list[Any]:
    query = f"SELECT row_to_json(t)::text FROM (SELECT * FROM {table} ORDER BY id) t"
    return [exact(row[0]) for row in await plain.fetch(query)]


@pytest.mark.parametrize("number", range(len(VALUES)), ids=[*VALUES])
@pytest.mark.parametrize("prefix", ["t", "s"], ids=["nullable", "not null"])
async def test_every_type_as_csv_and_as_json(url: str, prefix: str, number: int) -> None:
    table, spelled = f"{prefix}{number}", [*VALUES][number]
    # The one difference on purpose: true and false instead of COPY's t and f.
    shown = "v::text" if spelled == "bool" else "v"
    async with open_source(url) as source, session(url) as plain:
        dataset = await catalog_of(source).dataset(table)
        assert dataset.columns[1].nullable == (prefix == "t")
        file = await carried(source, dataset, ("order", "id"), rows=Rows.CSV)
        assert file == await copied(plain, f"SELECT id, {shown} FROM {table} ORDER BY id")
        lines = (await carried(source, dataset, ("order", "id"))).splitlines(keepends=True)
        if spelled != "oid":  # which row_to_json writes as a string
            assert [exact(line) for line in lines] == await as_rows(plain, table)
        # Readers that take numbers for doubles, such as orjson, refuse those beyond their range.
        read = [orjson.loads(HUGE.sub(b"0", line))["id"] for line in lines]
        assert read == list(range(len(lines)))
        assert all(line.endswith(b"}\n") and b"\r" not in line for line in lines)


async def test_every_character_survives(url: str) -> None:
    async with open_source(url) as source, session(url) as plain:
        dataset = await catalog_of(source).dataset("texts")
        file = await carried(source, dataset, ("order", "id"), rows=Rows.CSV)
        assert file == await copied(plain, "SELECT * FROM texts ORDER BY id")
        _, *rows = csv.reader(io.StringIO(file.decode(), newline=""))
        assert [cells[1] for cells in rows] == [*TEXTS, ""]
        lines = await carried(source, dataset, ("order", "id"))
        assert [orjson.loads(line)["v"] for line in lines.splitlines()] == [*TEXTS, None]
        assert records(lines) == [{"id": n, "v": v} for n, v in enumerate([*TEXTS, None])]
        assert [exact(line) for line in lines.splitlines()] == await as_rows(plain, "texts")


@pytest.mark.parametrize("delimiter", sorted(DELIMITERS), ids=ord)
async def test_every_delimiter_quotes_what_copy_quotes(url: str, delimiter: str) -> None:
    async with open_source(url) as source, session(url) as plain:
        dataset = await catalog_of(source).dataset("texts")
        pairs = [("order", "id"), ("id", "lt.100")]
        file = await carried(source, dataset, *pairs, rows=Rows.CSV, delimiter=delimiter)
        query = "SELECT * FROM texts WHERE id < 100 ORDER BY id"
        assert file == await copied(plain, query, delimiter)


async def test_one_column_of_empty_null_and_the_end_of_copy(url: str) -> None:
    async with open_source(url) as source, session(url) as plain:
        dataset = await catalog_of(source).dataset("one")
        file = await carried(source, dataset, rows=Rows.CSV)
        assert file == b'v\n""\n\n"\\."\na\n"\\.\n"\n'
        assert file == await copied(plain, "SELECT * FROM one")
        values = [record["v"] for record in records(await carried(source, dataset))]
        assert values == ["", None, "\\.", "a", "\\.\n"]


@pytest.mark.parametrize(("rows", "file"), [(Rows.CSV, b"id,v\n"), (Rows.NDJSON, b"")])
async def test_no_rows(url: str, rows: Rows, file: bytes) -> None:
    async with open_source(url) as source:
        datasets = await catalog_of(source).datasets()
        assert await carried(source, datasets["empty"], rows=rows) == file
        none = (("id", "lt.0"), ("order", "id"))
        assert await carried(source, datasets["texts"], *none, rows=rows) == file
        assert await carried(source, datasets["texts"], ("limit", "0"), rows=rows) == file
    frame = FORMATS["json"].frame(FrameOptions(("id", "v")))
    assert frame.feed(b"") + frame.finish() == b"[]\n"


async def test_a_thousand_columns(url: str) -> None:
    columns = ", ".join(f"{n} AS c{n}, nullif({n} % 3, 0) AS d{n}" for n in range(500))
    async with open_source(url) as source:
        configured = {"wide": DatasetSettings(sql=f"SELECT {columns}")}
        dataset = await catalog_of(source, configured).dataset("wide")
        (record,) = records(await carried(source, dataset))
        header, row = (await carried(source, dataset, rows=Rows.CSV)).decode().splitlines()
    assert record == {
        name: cell for n in range(500) for name, cell in ((f"c{n}", n), (f"d{n}", n % 3 or None))
    }
    assert header.split(",") == [*record]
    assert row.split(",") == ["" if cell is None else str(cell) for cell in record.values()]


def test_the_bytes_are_those_of_psql(url: str) -> None:
    psql = shutil.which("psql")
    if psql is None:
        pytest.skip("psql is not installed")
    number = [*VALUES].index("timestamptz")
    options = " ".join(
        f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in SESSION.items()
    )
    query = f"COPY (SELECT * FROM t{number} ORDER BY id) TO STDOUT (FORMAT csv, HEADER)"
    asked = subprocess.run(
        [psql, "-XqAt", libpq_url(url), "-c", query],
        env={**os.environ, "PGOPTIONS": options, "PGCLIENTENCODING": "UTF8"},
        capture_output=True,
        check=True,
    )

    async def exported() -> bytes:
        async with open_source(url) as source:
            dataset = await catalog_of(source).dataset(f"t{number}")
            return await carried(source, dataset, ("order", "id"), rows=Rows.CSV)

    assert asyncio.run(exported()) == asked.stdout
