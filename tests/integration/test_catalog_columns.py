"""Columns as the database describes them: type, kind, width, and whether NULL may come."""

from __future__ import annotations

import asyncpg
import pytest

from service.column import Column, Kind
from service.errors import SourceError
from service.export.encode import Rows
from service.settings import DatasetSettings
from tests.exporting import carried, catalog_of, open_source, records
from tests.postgres import libpq_url, run_sql

SETUP = """
    CREATE TYPE mood AS ENUM ('calm', 'wild');
    CREATE TYPE pair AS (a int, b text);
    CREATE DOMAIN small_number AS smallint CHECK (VALUE > 0);
    CREATE DOMAIN smaller_number AS small_number;
    CREATE DOMAIN label AS varchar(20) NOT NULL;
    CREATE DOMAIN document AS jsonb;
    CREATE DOMAIN texts AS text[];
"""

# type in SQL → type as it is shown, kind, bits
TYPES: dict[str, tuple[str, Kind, int | None]] = {
    "smallint": ("smallint", Kind.INTEGER, 16),
    "int": ("integer", Kind.INTEGER, 32),
    "bigint": ("bigint", Kind.INTEGER, 64),
    "serial": ("integer", Kind.INTEGER, 32),
    "oid": ("oid", Kind.INTEGER, None),
    "real": ("real", Kind.NUMBER, None),
    "float": ("double precision", Kind.NUMBER, None),
    "numeric(10,2)": ("numeric(10,2)", Kind.NUMBER, None),
    "numeric": ("numeric", Kind.NUMBER, None),
    "bool": ("boolean", Kind.BOOLEAN, None),
    "text": ("text", Kind.TEXT, None),
    "varchar(5)": ("character varying(5)", Kind.TEXT, None),
    "char(5)": ("character(5)", Kind.TEXT, None),
    '"char"': ('"char"', Kind.OTHER, None),
    "name": ("name", Kind.TEXT, None),
    "uuid": ("uuid", Kind.UUID, None),
    "date": ("date", Kind.TEMPORAL, None),
    "time": ("time without time zone", Kind.TEMPORAL, None),
    "timetz": ("time with time zone", Kind.TEMPORAL, None),
    "timestamp(3)": ("timestamp(3) without time zone", Kind.TEMPORAL, None),
    "timestamptz": ("timestamp with time zone", Kind.TEMPORAL, None),
    "interval": ("interval", Kind.TEMPORAL, None),
    "json": ("json", Kind.JSON, None),
    "jsonb": ("jsonb", Kind.JSONB, None),
    "bytea": ("bytea", Kind.OTHER, None),
    "inet": ("inet", Kind.OTHER, None),
    "money": ("money", Kind.OTHER, None),
    "bit(3)": ("bit(3)", Kind.OTHER, None),
    "point": ("point", Kind.OTHER, None),
    "int4range": ("int4range", Kind.OTHER, None),
    "tsvector": ("tsvector", Kind.OTHER, None),
    "int[]": ("integer[]", Kind.OTHER, None),
    "json[]": ("json[]", Kind.OTHER, None),
    "mood": ("mood", Kind.OTHER, None),
    "pair": ("pair", Kind.OTHER, None),
    "small_number": ("small_number", Kind.INTEGER, 16),
    "smaller_number": ("smaller_number", Kind.INTEGER, 16),
    "label": ("label", Kind.TEXT, None),
    "document": ("document", Kind.JSONB, None),
    "texts": ("texts", Kind.OTHER, None),
}


@pytest.fixture(scope="module")
def url(module_database_url: str) -> str:
    columns = ", ".join(f"c{n} {spelled}" for n, spelled in enumerate(TYPES))
    run_sql(module_database_url, f"{SETUP} CREATE TABLE kinds ({columns})")
    return module_database_url


async def test_every_type_has_its_kind(url: str) -> None:
    async with open_source(url) as source:
        dataset = await catalog_of(source).dataset("kinds")
    not_null = {"serial"}
    assert dataset.columns == tuple(
        Column(f"c{n}", shown, kind, nullable=spelled not in not_null, bits=bits)
        for n, (spelled, (shown, kind, bits)) in enumerate(TYPES.items())
    )


async def test_configured_sql_has_the_same_kinds_and_may_always_be_null(url: str) -> None:
    """Two differences: the server describes a domain by what is below it, and no modifiers."""
    async with open_source(url) as source:
        configured = {"it": DatasetSettings(sql="select * from kinds")}
        catalog = catalog_of(source, configured)
        of_sql = (await catalog.dataset("it")).columns
        of_table = (await catalog.dataset("kinds")).columns
    assert [(c.name, c.kind, c.bits, True) for c in of_table] == [
        (c.name, c.kind, c.bits, c.nullable) for c in of_sql
    ]


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(libpq_url(url))
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_not_null_of_a_parent_is_no_promise_of_its_children(url: str) -> None:
    no_inherit = (
        "CREATE TABLE parent (id int, name text)",
        "CREATE TABLE child () INHERITS (parent)",
        # Before version 18 this is how a parent alone is told; from then on NO INHERIT is.
        "ALTER TABLE ONLY parent ALTER name SET NOT NULL",
    )
    from_18 = (*no_inherit[:2], "ALTER TABLE parent ADD CONSTRAINT n NOT NULL name NO INHERIT")
    version = int(await value(url, "SHOW server_version_num"))
    await execute(url, *(from_18 if version >= 180_000 else no_inherit))
    await execute(url, "INSERT INTO parent VALUES (1, 'x')", "INSERT INTO child VALUES (2, NULL)")
    async with open_source(url) as source:
        dataset = await catalog_of(source).dataset("parent")
        assert dataset.columns[1].nullable
        found = records(await carried(source, dataset, ("order", "id")))
    assert found == [{"id": 1, "name": "x"}, {"id": 2, "name": None}]


async def test_not_null_of_a_foreign_table_is_no_promise(url: str) -> None:
    await execute(
        url,
        "CREATE FOREIGN DATA WRAPPER elsewhere",
        "CREATE SERVER far FOREIGN DATA WRAPPER elsewhere",
        "CREATE FOREIGN TABLE foreign_rows (id int NOT NULL) SERVER far",
    )
    async with open_source(url) as source:
        assert (await catalog_of(source).dataset("foreign_rows")).columns[0].nullable


async def test_not_null_that_is_not_valid_yet_is_no_promise(url: str) -> None:
    if int(await value(url, "SHOW server_version_num")) < 180_000:
        pytest.skip("NOT NULL … NOT VALID came with version 18")
    await execute(
        url,
        "CREATE TABLE unchecked AS SELECT 1 AS id, NULL::text AS name",
        "ALTER TABLE unchecked ADD CONSTRAINT n NOT NULL name NOT VALID",
    )
    async with open_source(url) as source:
        dataset = await catalog_of(source).dataset("unchecked")
        assert dataset.columns[1].nullable
        assert records(await carried(source, dataset)) == [{"id": 1, "name": None}]


async def test_a_null_where_the_catalogue_saw_none_breaks_the_export(url: str) -> None:
    await execute(url, "CREATE TABLE changing (id int NOT NULL); INSERT INTO changing VALUES (1)")
    async with open_source(url) as source:
        catalog = catalog_of(source)
        dataset = await catalog.dataset("changing")
        assert not dataset.columns[0].nullable
        await execute(
            url,
            "ALTER TABLE changing ALTER id DROP NOT NULL",
            "INSERT INTO changing SELECT nullif(i, 50000) FROM generate_series(2, 100000) i",
        )
        with pytest.raises(SourceError, match="holds a NULL: the dataset has changed"):
            await carried(source, dataset)
        assert (await carried(source, dataset, rows=Rows.CSV)).count(b"\n\n") == 1
        await catalog.refresh()
        found = records(await carried(source, await catalog.dataset("changing")))
        assert (found[0], found[49_999], len(found)) == ({"id": 1}, {"id": None}, 100_000)
        # The connection of the broken export is as good as any other.
        assert (await carried(source, dataset, ("id", "eq.7"))) == b'{"id":7}\n'


async def value(url: str, query: str) -> str:
    connection = await asyncpg.connect(libpq_url(url))
    try:
        return str(await connection.fetchval(query))
    finally:
        await connection.close()
