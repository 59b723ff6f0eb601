"""Random queries give the rows that the same query gives in Python."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.databases.postgresql.source import PostgresSource
from service.dataset import Dataset
from service.errors import InvalidParameter
from service.settings import DatasetSettings
from tests.exporting import carried, catalog_of, open_source, records
from tests.postgres import libpq_url
from tests.spelt_filters import FILTERS, VALUES, Spelt
from tests.three_valued import Ordered, Row, both, in_order

TABLE = """
    CREATE TABLE facts (
        id int PRIMARY KEY, n int, t text COLLATE "C", b boolean, f float8, d date,
        tags text[], doc jsonb, j json, mood char(3), "end" int NOT NULL, pair facts_pair
    )
"""


def facts() -> list[Row]:
    """Every value of a column beside many of the others, and rows that are equal but for the id."""
    columns = list(VALUES)
    pairs = list(product(VALUES["t"], VALUES["f"]))
    rest = [VALUES[name] for name in ("n", "b", "d")]
    found: list[Row] = []
    for place, (t, f) in enumerate(pairs + pairs[::5]):
        n, b, d = (values[place // (1 + step) % len(values)] for step, values in enumerate(rest))
        named = dict(zip(columns, (n, t, b, f, d), strict=True))
        found.append({"id": place, **named})
    return found


ROWS = facts()


@dataclass(frozen=True)
class Asked:
    """Exports of one table from tests without an event loop."""

    runner: asyncio.Runner
    source: PostgresSource
    dataset: Dataset

    def ids(self, *pairs: tuple[str, str]) -> list[int]:
        data = self.runner.run(carried(self.source, self.dataset, ("select", "id"), *pairs))
        return [record["id"] for record in records(data)]


@pytest.fixture(scope="module")
def asked(module_database_url: str) -> Iterator[Asked]:
    with asyncio.Runner() as runner:
        runner.run(_fill(module_database_url))
        opening = open_source(module_database_url)
        source = runner.run(opening.__aenter__())
        yield Asked(runner, source, runner.run(catalog_of(source).dataset("facts")))
        runner.run(opening.__aexit__(None, None, None))


async def _fill(url: str) -> None:
    connection = await asyncpg.connect(libpq_url(url))
    try:
        await connection.execute("CREATE TYPE facts_pair AS (a int, b int)")
        await connection.execute(TABLE)
        values = [[row[name] for name in ("id", *VALUES)] for row in ROWS]
        await connection.executemany(
            'INSERT INTO facts (id, n, t, b, f, d, "end") VALUES ($1, $2, $3, $4, $5, $6, $1 % 7)',
            values,
        )
        await connection.execute("""
            UPDATE facts SET tags = ARRAY['a', 'b,c'], doc = '{"a": 1, "b": [1, 2]}', mood = 'x'
            WHERE id = 3
        """)
    finally:
        await connection.close()


ORDERS = st.lists(
    st.tuples(
        st.sampled_from([*VALUES]),
        st.sampled_from(["asc", "desc"]),
        st.sampled_from([None, "nullsfirst", "nullslast"]),
    ),
    max_size=3,
    unique_by=lambda item: item[0],
)


COUNTS = st.none() | st.integers(0, len(ROWS) + 2)
SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def pairs_of(filters: list[Spelt]) -> list[tuple[str, str]]:
    return [(item.name, item.value) for item in filters]


@SLOW
@given(FILTERS)
def test_filters_keep_the_rows_that_python_keeps(asked: Asked, filters: list[Spelt]) -> None:
    expected = [row["id"] for row in ROWS if both(item.keeps(row) for item in filters)]
    assert sorted(asked.ids(*pairs_of(filters))) == expected


@SLOW
@given(FILTERS, ORDERS, COUNTS, COUNTS)
def test_order_limit_and_offset_are_those_of_python(
    asked: Asked, filters: list[Spelt], order: list[Ordered], limit: int | None, offset: int | None
) -> None:
    pairs = pairs_of(filters)
    pairs.append(("order", ",".join(".".join(filter(None, item)) for item in [*order, ("id",)])))
    pairs += [("limit", str(limit))] if limit is not None else []
    pairs += [("offset", str(offset))] if offset is not None else []
    kept = [row for row in ROWS if both(item.keeps(row) for item in filters)]
    first = offset or 0
    expected = in_order(kept, order)[first : None if limit is None else first + limit]
    assert asked.ids(*pairs) == [row["id"] for row in expected]


@pytest.mark.parametrize(
    ("pairs", "ids"),
    [
        ([("tags", 'eq.{a,"b,c"}')], [3]),
        ([("and", '(tags.eq.{a,"b,c"},id.lt.9)')], [3]),
        ([("tags", "gte.{a}")], [3]),
        ([("or", '(tags.in.("{a,\\"b,c\\"}",{z}),id.eq.5)')], [3, 5]),
        ([("doc", 'eq.{"b":[1,2],"a":1.0}')], [3]),
        ([("and", '(doc.eq.{"a":1,"b":[1,2]})')], [3]),
        ([("doc", 'isdistinct.{"a":1,"b":[1,2]}'), ("id", "in.(3,4)")], [4]),
        ([("mood", "eq.x")], [3]),
        ([("mood", "like.x*")], [3]),
        ([("and", "(end.eq.3)"), ("id", "lt.12")], [3, 10]),
        ([("not.or", "(end.neq.3,id.gte.12)")], [3, 10]),
        ([("and", "(id.gte.4,id.lte.6)"), ("and", "(id.gte.6)"), ("or", "(id.eq.6,b.is.true)")], [6]),
    ],
)  # fmt: skip
def test_values_of_many_types_compare_as_the_database_does(
    asked: Asked, pairs: list[tuple[str, str]], ids: list[int]
) -> None:
    assert asked.ids(*pairs, ("order", "id")) == ids


@pytest.mark.parametrize(
    ("pairs", "parameter", "character"),
    [
        ([("d", "eq.tomorrow-ish")], "d", 4),
        ([("d", "not.in.(2024-01-01,2024-02-30)")], "d", 20),
        ([("t", "eq.x"), ("d", "eq.x")], "d", 4),
        ([("or", "(t.eq.x,d.eq.x,t.eq.x)")], "or", 14),
        ([("or", '(t.eq.{},and(t.in.("x",y),tags.eq."x"))')], "or", 35),
        ([("tags", "eq.{a")], "tags", 4),
        ([("doc", "eq.{")], "doc", 4),
        ([("j", 'eq.{"a":1}')], "j", 1),
        ([("t", "eq.1"), ("or", '(id.eq.1,j.not.in.("1"))')], "or", 16),
        ([("pair", "eq.(1,2)"), ("pair", "eq.(1,x)")], "pair", 4),
        ([("id", "like.1*")], "id", 1),
        ([("and", "(t.like.x,n.not.ilike.x)")], "and", 17),
        ([("d", "match.1")], "d", 1),
        ([("t", "match.(")], "t", 7),
        ([("and", "(t.like.(,t.imatch.*)")], "and", 20),
        ([("t", "eq.x"), ("order", "t,j.desc")], "order", 3),
        ([("t", "eq.ORDER BY"), ("order", "j")], "order", 1),
    ],
)
def test_what_the_database_refuses_is_told_with_its_place(
    asked: Asked, pairs: list[tuple[str, str]], parameter: str, character: int
) -> None:
    with pytest.raises(InvalidParameter) as caught:
        asked.ids(*pairs)
    members = caught.value.members
    assert (members["parameter"], members["character"]) == (parameter, character)
    assert caught.value.detail.startswith(f"{parameter}: ")
    assert caught.value.detail.endswith(f" at character {character}.")


def test_of_several_patterns_the_database_does_not_say_which_is_wrong(asked: Asked) -> None:
    with pytest.raises(InvalidParameter, match=r"one of 2 patterns") as caught:
        asked.ids(("t", "match.a"), ("t", "match.("))
    assert caught.value.members["parameter"] == "t"


def test_an_anonymous_record_has_no_values(asked: Asked, module_database_url: str) -> None:
    configured = {
        "rows": DatasetSettings(source="main", sql="SELECT id, ROW(id, t) AS r FROM facts")
    }
    dataset = asked.runner.run(catalog_of(asked.source, configured).dataset("rows"))
    with pytest.raises(InvalidParameter, match="anonymous composite types") as caught:
        asked.runner.run(carried(asked.source, dataset, ("and", "(id.eq.1,r.eq.x)")))
    assert caught.value.members["character"] == len("(id.eq.1,r.eq.") + 1
