"""Texts that try to leave their place, through the whole lane: values, names and labels."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from service.databases.postgresql.source import PostgresSource
from service.dataset import Dataset
from service.errors import InvalidParameter
from service.export.encode import Rows
from service.grammar.query import GRAMMAR
from service.settings import SourceSettings
from tests.attacks import ATTACKS, LONG, NAMES, WITH_NUL, identifier, in_grammar
from tests.exporting import as_role, carried, catalog_of, login_role, open_source, records
from tests.postgres import Databases, fetch, libpq_url, run_sql

COLUMNS = tuple(name for name in NAMES if name != "ctid")  # which every table has already
CELL = "it's $1 here"

TABLE = """
    CREATE TYPE calm AS ENUM ('calm', 'wild');
    CREATE TABLE attacked (
        id int PRIMARY KEY, t text COLLATE "C" NOT NULL, v varchar, mood mood,
        doc jsonb, tags text[], n int, b bigint, p numeric, k boolean, u uuid, e calm,
        at timestamptz, d date, i interval, a inet, r int4range, j json
    );
"""
INSERT = """
    INSERT INTO attacked
    VALUES ($1, $2::text, $2::text, $2::text::mood, to_jsonb($2::text), ARRAY[$2::text], 1, 2, 3, true,
            '6f1b2c3d-0000-4000-8000-00000000abcd', 'calm', 'epoch', 'epoch', '1 day', '::1',
            '[1,2)', '{}')
"""


@dataclass(frozen=True)
class Attacked:
    """A database whose tables a role owns that would lose them, and its name, to a hole."""

    url: str
    role: str

    async def export(
        self,
        source: PostgresSource,
        dataset: Dataset,
        *pairs: tuple[str, str],
        rows: Rows = Rows.NDJSON,
    ) -> bytes:
        data = await carried(source, dataset, *pairs, rows=rows)
        assert self.role.encode() not in data
        return data


@pytest.fixture(scope="module")
def role(databases: Databases) -> Iterator[str]:
    with login_role(databases.server_url) as name:
        yield name


@pytest.fixture(scope="module")
def attacked(role: str, module_database_url: str) -> Attacked:
    run_sql(
        module_database_url,
        f"GRANT CREATE ON SCHEMA public TO {role}; CREATE SCHEMA named AUTHORIZATION {role}",
    )
    found = Attacked(as_role(module_database_url, role), role)
    asyncio.run(_fill(found.url))
    return found


async def _fill(url: str) -> None:
    connection = await asyncpg.connect(libpq_url(url))
    try:
        await connection.execute("CREATE TABLE canary AS SELECT 1 AS id")
        labels = "SELECT string_agg(quote_literal(label), ',') FROM unnest($1::text[]) AS label"
        await connection.execute(
            f"CREATE TYPE mood AS ENUM ({await connection.fetchval(labels, NAMES)})"
        )
        await connection.execute(TABLE)
        await connection.executemany(INSERT, list(enumerate(ATTACKS)))
        for name in NAMES:
            column = identifier(name if name in COLUMNS else "c")
            await connection.execute(
                f"CREATE TABLE named.{identifier(name)} AS SELECT 1 AS {column}"
            )
        columns = ", ".join(f"{identifier(name)} text" for name in COLUMNS)
        await connection.execute(f"CREATE TABLE hostile ({columns})")
        marks = ", ".join(f"${n}" for n in range(1, len(COLUMNS) + 1))
        for row in (CELL, "other"):
            cells = [f"{row} {n}" for n in range(len(COLUMNS))]
            await connection.execute(f"INSERT INTO hostile VALUES ({marks})", *cells)
    finally:
        await connection.close()


@pytest.fixture(autouse=True)
def canary(attacked: Attacked) -> Iterator[None]:
    """Whatever a test does, what the role could destroy is there afterwards."""
    yield
    query = "SELECT (SELECT count(*) FROM canary), (SELECT count(*) FROM attacked)"
    assert tuple(fetch(attacked.url, query)[0]) == (1, len(ATTACKS))


async def dataset_of(source: PostgresSource, name: str) -> Dataset:
    return await catalog_of(source).dataset(name)


def ids(data: bytes) -> list[int]:
    return [record["id"] for record in records(data)]


def cells(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


async def test_a_filter_finds_the_text_itself_as_json(attacked: Attacked) -> None:
    async with open_source(attacked.url) as source:
        dataset = await dataset_of(source, "attacked")
        for number, attack in enumerate(ATTACKS):
            data = await attacked.export(source, dataset, ("t", f"eq.{attack}"), ("select", "id,t"))
            assert records(data) == [{"id": number, "t": attack}]


async def test_a_filter_finds_the_text_itself_as_csv(attacked: Attacked) -> None:
    async with open_source(attacked.url) as source:
        dataset = await dataset_of(source, "attacked")
        for number, attack in enumerate(ATTACKS):
            pairs = [("t", f"eq.{attack}"), ("select", "id,t")]
            data = await attacked.export(source, dataset, *pairs, rows=Rows.CSV)
            assert cells(data) == [["id", "t"], [str(number), attack]]


async def test_every_comparison_is_that_of_the_texts(attacked: Attacked) -> None:
    order = {attack: attack.encode() for attack in ATTACKS}  # what COLLATE "C" compares
    compare: dict[str, Callable[[bytes, bytes], bool]] = {
        "neq": lambda one, other: one != other,
        "gt": lambda one, other: one > other,
        "lte": lambda one, other: one <= other,
        "not.lt": lambda one, other: one >= other,
    }
    async with open_source(attacked.url) as source:
        dataset = await dataset_of(source, "attacked")
        for attack in ATTACKS[::4]:
            for operator, keeps in compare.items():
                expected = [n for n, t in enumerate(ATTACKS) if keeps(order[t], order[attack])]
                pairs = [("t", f"{operator}.{attack}"), ("order", "id"), ("select", "id")]
                assert ids(await attacked.export(source, dataset, *pairs)) == expected


@pytest.mark.parametrize("step", [1, 2, 7])
async def test_a_list_of_texts_finds_them_all(attacked: Attacked, step: int) -> None:
    listed = ",".join(in_grammar(attack) for attack in ATTACKS[::step])
    async with open_source(attacked.url) as source:
        dataset = await dataset_of(source, "attacked")
        for negation in ("", "not."):
            pairs = [("t", f"{negation}in.({listed})"), ("order", "id"), ("select", "id")]
            found = ids(await attacked.export(source, dataset, *pairs))
            assert found == [n for n in range(len(ATTACKS)) if (n % step == 0) != bool(negation)]


def array_literal(element: str) -> str:
    return '{"' + element.replace("\\", "\\\\").replace('"', '\\"') + '"}'


@pytest.mark.parametrize(
    ("column", "spelled"),
    [
        ("mood", str),
        ("doc", lambda text: json.dumps(text, ensure_ascii=False)),
        ("tags", array_literal),
    ],
    ids=["enum", "jsonb", "array"],
)
async def test_the_text_is_found_in_columns_of_other_types(
    attacked: Attacked, column: str, spelled: Any
) -> None:
    async with open_source(attacked.url) as source:
        dataset = await dataset_of(source, "attacked")
        for number, attack in enumerate(ATTACKS):
            pairs = [(column, f"eq.{spelled(attack)}"), ("select", f"id,{column}")]
            (record,) = records(await attacked.export(source, dataset, *pairs))
            expected = [attack] if column == "tags" else attack
            assert record == {"id": number, column: expected}


TYPES = {
    "n": "int", "b": "bigint", "p": "numeric", "k": "boolean", "u": "uuid", "e": "calm",
    "at": "timestamptz", "doc": "jsonb", "tags": "text[]",
    "d": "date", "i": "interval", "a": "inet", "r": "int4range",
}  # fmt: skip
CHECKED_HERE = frozenset("nbpku")  # some spellings that the database takes are refused before it
SAMPLED = frozenset("diar")


@pytest.mark.parametrize("column", TYPES)
async def test_a_text_is_compared_as_the_database_reads_it_or_is_the_callers_mistake(
    attacked: Attacked, column: str
) -> None:
    oracle = await asyncpg.connect(libpq_url(attacked.url))
    try:
        async with open_source(attacked.url) as source:
            dataset = await dataset_of(source, "attacked")
            for attack in ATTACKS[:: 8 if column in SAMPLED else 1]:
                pairs = [(column, f"eq.{attack}"), ("order", "id"), ("select", "id")]
                found = await ids_or_mistake(attacked.export(source, dataset, *pairs))
                expected = await answer(oracle, column, attack)
                if column not in CHECKED_HERE or isinstance(found, list):
                    assert found == expected
    finally:
        await oracle.close()


Answer = list[int] | dict[str, Any]  # the rows, or what the mistake names


async def ids_or_mistake(exporting: Awaitable[bytes]) -> Answer:
    try:
        return ids(await exporting)
    except InvalidParameter as error:
        return error.members


async def answer(oracle: asyncpg.Connection, column: str, text: str) -> Answer:
    """What the database finds for ``text`` as a bound parameter, which cannot become SQL."""
    query = (
        f"SELECT id FROM attacked WHERE {column} = CAST($1::text AS {TYPES[column]}) ORDER BY id"
    )
    try:
        return [row["id"] for row in await oracle.fetch(query, text)]
    except asyncpg.DataError:
        return {"parameter": column, "character": len("eq.") + 1, "value": text}


async def test_a_column_without_equality_is_the_callers_mistake(attacked: Attacked) -> None:
    async with open_source(attacked.url) as source:
        dataset = await dataset_of(source, "attacked")
        for attack in ATTACKS[::10]:
            with pytest.raises(InvalidParameter) as caught:
                await attacked.export(source, dataset, ("j", f"eq.{attack}"))
            assert caught.value.members["parameter"] == "j"
        with pytest.raises(InvalidParameter) as caught:
            await attacked.export(source, dataset, ("order", "j"))
        assert caught.value.members["parameter"] == "order"


@pytest.mark.parametrize("text", LONG, ids=range(len(LONG)))
async def test_a_very_long_value_is_compared_whole(attacked: Attacked, text: str) -> None:
    async with open_source(attacked.url) as source:
        dataset = await dataset_of(source, "attacked")
        pairs = [("select", "id,t"), ("order", "id")]
        assert ids(await attacked.export(source, dataset, ("t", f"eq.{text}"), *pairs)) == []
        neq = await attacked.export(source, dataset, ("t", f"neq.{text}"), *pairs)
        assert ids(neq) == list(range(len(ATTACKS)))


@pytest.mark.parametrize("text", WITH_NUL, ids=range(len(WITH_NUL)))
@pytest.mark.parametrize("column", ["t", "doc", "e", "at"])
async def test_nul_is_refused_before_the_database(
    attacked: Attacked, column: str, text: str
) -> None:
    async with open_source(attacked.url) as source:
        dataset = await dataset_of(source, "attacked")
        for pair in ((column, f"eq.{text}"), (column, f"in.({in_grammar(text)})")):
            with pytest.raises(InvalidParameter) as caught:
                await attacked.export(source, dataset, pair)
            assert caught.value.members["parameter"] == column


async def test_columns_of_any_name_leave_under_that_name(attacked: Attacked) -> None:
    async with open_source(attacked.url) as source:
        dataset = await dataset_of(source, "hostile")
        assert tuple(column.name for column in dataset.columns) == COLUMNS
        first, second = records(await attacked.export(source, dataset))
        assert list(first.items()) == [(name, f"{CELL} {n}") for n, name in enumerate(COLUMNS)]
        assert list(second.items()) == [(name, f"other {n}") for n, name in enumerate(COLUMNS)]
        header, *rows = cells(await attacked.export(source, dataset, rows=Rows.CSV))
        assert header == list(COLUMNS)
        assert rows == [list(first.values()), list(second.values())]


async def test_columns_of_any_name_are_selected_filtered_and_ordered_by(
    attacked: Attacked,
) -> None:
    async with open_source(attacked.url) as source:
        dataset = await dataset_of(source, "hostile")
        for number, name in enumerate(COLUMNS):
            quoted, value = in_grammar(name), f"{CELL} {number}"
            pairs = [("select", f"{quoted},again:{quoted}"), ("order", f"{quoted}.desc")]
            expected = [f"other {number}", value]
            if name not in GRAMMAR:
                pairs.append((name, f"eq.{value}"))
                expected = [value]
            found = records(await attacked.export(source, dataset, *pairs))
            assert found == [{name: cell, "again": cell} for cell in expected]


async def test_tables_of_any_name_are_datasets_of_that_name(attacked: Attacked) -> None:
    async with open_source(attacked.url) as source:
        catalog = catalog_of(source, exposed=SourceSettings(expose=("named.*",)))
        datasets = await catalog.datasets()
        assert datasets.keys() == set(NAMES)
        for dataset in datasets.values():
            (column,) = dataset.columns
            (record,) = records(await attacked.export(source, dataset, ("limit", "5")))
            assert record == {column.name: 1}


@pytest.mark.parametrize("rows", Rows)
async def test_labels_of_any_text_are_the_names_of_the_export(
    attacked: Attacked, rows: Rows
) -> None:
    labels = [*ATTACKS, *LONG, *(f"{'x' * 63}{n}" for n in range(3))]
    select = ",".join(f"{in_grammar(label)}:id" for label in labels)
    async with open_source(attacked.url) as source:
        dataset = await dataset_of(source, "attacked")
        pairs = [("select", select), ("id", "in.(0,1)"), ("order", "id")]
        data = await attacked.export(source, dataset, *pairs, rows=rows)
    if rows is Rows.CSV:
        csv.field_size_limit(2**24)
        assert cells(data) == [labels, ["0"] * len(labels), ["1"] * len(labels)]
    else:
        assert [list(record.items()) for record in records(data)] == [
            [(label, number) for label in labels] for number in (0, 1)
        ]
