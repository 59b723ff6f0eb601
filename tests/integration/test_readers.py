"""Other people's readers see in every cell the text that the table holds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from service.export.encode import Rows
from tests.column_types import BUILT_IN, SETUP, ColumnType
from tests.postgres import run_sql
from tests.readers import CSV_READERS, NDJSON_READERS, Cells, ndjson_of_jq
from tests.type_values import BITING, characters
from tests.typed_exports import Workshop, workshop
from tests.typed_tables import TypedTable, create, load, tables, texts

FULL = os.environ.get("TAILRACE_FAULTS") == "full"
EXAMPLES = 300 if FULL else 15
SECONDS = 3_600 if FULL else 120
LONG = 1_000_000  # characters
TEXT = ColumnType("text", characters())


@pytest.fixture(scope="module")
def shop(module_database_url: str) -> Iterator[Workshop]:
    run_sql(module_database_url, SETUP)
    with workshop(module_database_url) as found:
        yield found


async def held(shop: Workshop, name: str) -> Cells:
    return [tuple(row) for row in await shop.connection.fetch(f"SELECT * FROM {name} ORDER BY id")]


def told(reader: str, rows: Cells) -> Cells:
    """What ``reader`` can tell apart: for Python's csv module NULL is the empty string."""
    if reader != "csv":
        return rows
    return [tuple(cell or "" for cell in row) for row in rows]


async def read_by_all(shop: Workshop, name: str, names: tuple[str, ...]) -> None:
    """Each reader finds in the exports of a table of texts what the table holds."""
    rows = await held(shop, name)
    file = await shop.exported(name, Rows.CSV)
    for reader, read in CSV_READERS.items():
        assert read(file) == told(reader, [names, *rows]), reader
    await shop.connection.execute(f"DROP TABLE IF EXISTS back; CREATE TABLE back (LIKE {name})")
    await load(shop.connection, "back", file)
    assert sorted(await held(shop, "back")) == sorted(rows)
    file = await shop.exported(name, Rows.NDJSON)
    for reader, read_lines in NDJSON_READERS.items():
        # Some take a file without a line for a mistake.
        assert not rows or read_lines(file, names) == rows, reader


@pytest.mark.timeout(SECONDS)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(table=tables(BUILT_IN))
def test_every_reader_sees_every_text(shop: Workshop, table: TypedTable) -> None:
    async def compared() -> None:
        name = await create(shop.connection, table)
        await read_by_all(shop, await texts(shop.connection, name, table), ("id", *table.names))
        # Values of all types leave as CSV in the very same texts.
        assert await shop.exported(name, Rows.CSV) == await shop.exported(f"{name}_texts", Rows.CSV)

    shop.run(compared())


def plane(number: int) -> str:
    """Every seventh character of a plane of Unicode, without NUL and surrogates."""
    codes = range(number * 0x10000 + 1, (number + 1) * 0x10000, 7)
    return "".join(chr(code) for code in codes if not 0xD800 <= code <= 0xDFFF)


BITTEN = tuple(f"{character}x{character}" for character in BITING)
# Names that must be quoted, though a look at their letters does not tell.
ENDING = (
    "d",
    "d\n",
    "d\r",
    "d ",
    "lateral",
    "system_user",
    "concurrently",
    "select",
    "null",
    "_end",
)
SHAPES = {
    "many columns": TypedTable(
        tuple(f"c{place}" for place in range(200)),
        (TEXT,) * 200,
        tuple(tuple(str(n) if n % 3 else None for n in range(k, k + 200)) for k in range(4)),
    ),
    "long cells": TypedTable(
        ("a", "b"), (TEXT, TEXT), (('"\n,é' * (LONG // 4), "x" * LONG), (None, "\r" * LONG))
    ),
    "odd names": TypedTable(BITTEN, (TEXT,) * len(BITTEN), (BITTEN, (None,) * len(BITTEN))),
    "names that end": TypedTable(ENDING, (TEXT,) * len(ENDING), (ENDING,)),
    "no rows": TypedTable(("a",), (TEXT,), ()),
    "every plane": TypedTable(("a",), (TEXT,), tuple((plane(number),) for number in range(17))),
    "words for nothing": TypedTable(
        ("a", "b"),
        (TEXT, TEXT),
        tuple(
            (word, None)
            for word in ("", " ", "NULL", "null", "\\N", "\\.", "NaN", "N/A", "-", "#x", "//", "''")
        ),
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_reader_sees_every_shape(shop: Workshop, shape: str) -> None:
    table = SHAPES[shape]

    async def compared() -> None:
        name = await create(shop.connection, table)
        await read_by_all(shop, await texts(shop.connection, name, table), ("id", *table.names))

    shop.run(compared())


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
@pytest.mark.parametrize("shape", SHAPES)
def test_jq_sees_every_shape(shop: Workshop, shape: str) -> None:
    table = SHAPES[shape]

    async def compared() -> None:
        name = await texts(shop.connection, await create(shop.connection, table), table)
        file = await shop.exported(name, Rows.NDJSON)
        assert ndjson_of_jq(file, ("id", *table.names)) == await held(shop, name)

    shop.run(compared())
