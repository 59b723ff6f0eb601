"""docs/formats.md tells of every type what leaves: its tables are made true here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import asyncpg
import pytest
from hypothesis import strategies as st

from service.export.encode import Rows
from tests.column_types import ColumnType
from tests.optional_types import OPTIONAL
from tests.postgres import run_sql
from tests.typed_exports import Workshop, workshop
from tests.typed_tables import TypedTable, create

DOCUMENT = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
TYPES = DOCUMENT.partition("## Types\n")[2].partition("\n## ")[0]
SETUP = TYPES.partition("```sql\n")[2].partition("```")[0]
CELL = r"(?:`([^`]*)`)?"
EXAMPLES = re.findall(rf"^\| {CELL} \|(?: {CELL})? \| {CELL} \| {CELL} \|$", TYPES, re.MULTILINE)
OF_EXTENSIONS = re.findall(
    rf"^\| (\(?\w+\)?) \| {CELL} \| {CELL} \| {CELL} \| {CELL} \|$", TYPES, re.MULTILINE
)
Example = tuple[str, str, str, str]


@pytest.fixture(scope="module")
def shop(module_database_url: str) -> Iterator[Workshop]:
    run_sql(module_database_url, SETUP)
    with workshop(module_database_url) as found:
        yield found


async def assert_true(shop: Workshop, examples: Sequence[Example]) -> None:
    """One table with a column for each example leaves as documented, cell by cell."""
    names = tuple(f"c{number}" for number in range(len(examples)))
    types = tuple(ColumnType(spelled, st.nothing()) for spelled, _, _, _ in examples)
    row = tuple(value for _, value, _, _ in examples)
    name = await create(shop.connection, TypedTable(names, types, (row,)))
    header, _, cells = (await shop.exported(name, Rows.CSV)).decode().partition("\n")
    assert header == ",".join(["id", *names])
    assert cells == ",".join(["0", *(csv for _, _, csv, _ in examples)]) + "\n"
    members = [f'"{name}":{json}' for name, (_, _, _, json) in zip(names, examples, strict=True)]
    line = (await shop.exported(name, Rows.NDJSON)).decode()
    assert line == "{" + ",".join(['"id":0', *members]) + "}\n"


def test_every_example_is_what_leaves(shop: Workshop) -> None:
    assert len(EXAMPLES) > 80
    shop.run(assert_true(shop, EXAMPLES))


@pytest.mark.parametrize("extension", sorted({name for name, *_ in OF_EXTENSIONS}))
def test_every_example_of_an_extension_is_what_leaves(shop: Workshop, extension: str) -> None:
    name = "xml" if extension == "(libxml)" else extension
    try:
        shop.run(shop.connection.execute(OPTIONAL[name].setup))
    except asyncpg.PostgresError as error:
        pytest.skip(f"this server has no {name}: {error}")
    examples = [tuple(cells) for found, *cells in OF_EXTENSIONS if found == extension]
    shop.run(assert_true(shop, examples))


# A value, and what json_populate_record makes of it where that is not the value.
CHANGED = [
    ("json", "null", "null", None),
    ("jsonb", "null", "null", None),
    ("json", '"\\u0041"', '"\\u0041"', '"A"'),
    ("json", '{\n"a":1}', '{ "a":1}', '{ "a":1}'),
    ("integer[]", "[0:1]={1,2}", "[1,2]", "{1,2}"),
    ("jsonb[]", '{"[1]","[2]"}', "[[1],[2]]", "{{1},{2}}"),
]
REFUSED = [
    ("json", '{"a":"\\u0000"}', asyncpg.UntranslatableCharacterError),
    ("json", '"\\ud800"', asyncpg.InvalidTextRepresentationError),
    ("jsonb[]", '{"[]","0"}', asyncpg.InvalidTextRepresentationError),
]


async def line_and_name(shop: Workshop, spelled: str, value: str) -> tuple[str, str]:
    table = TypedTable(("v",), (ColumnType(spelled, st.nothing()),), ((value,),))
    name = await create(shop.connection, table)
    return (await shop.exported(name, Rows.NDJSON)).decode(), name


async def filled(shop: Workshop, name: str, line: str) -> str | None:
    """The text of what json_populate_record puts into the column ``v``."""
    query = f"SELECT (json_populate_record(NULL::{name}, $1::text::json)).v AS v"
    found: str | None = await shop.connection.fetchval(
        f"SELECT CASE WHEN v IS NOT NULL THEN format('%s', v) END FROM ({query}) AS read", line
    )
    return found


@pytest.mark.parametrize(("spelled", "value", "json", "back"), CHANGED)
def test_what_changes_on_its_way_back(
    shop: Workshop, spelled: str, value: str, json: str, back: str | None
) -> None:
    async def there_and_back() -> None:
        line, name = await line_and_name(shop, spelled, value)
        assert line == f'{{"id":0,"v":{json}}}\n'
        assert await filled(shop, name, line) == back

    shop.run(there_and_back())


@pytest.mark.parametrize(("spelled", "value", "error"), REFUSED)
def test_what_cannot_be_read_back(
    shop: Workshop, spelled: str, value: str, error: type[Exception]
) -> None:
    async def there_and_back() -> None:
        line, name = await line_and_name(shop, spelled, value)
        with pytest.raises(error):
            await filled(shop, name, line)

    shop.run(there_and_back())
