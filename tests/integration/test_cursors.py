"""Pages that cursors join are the whole result: each row once, in order, whatever the order is."""

from __future__ import annotations

import asyncio
import json
import math
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.databases.postgresql.source import PostgresSource
from service.dataset import Dataset
from service.errors import InvalidParameter
from service.grammar.cursor import Cursor
from service.grammar.keyset import After
from service.grammar.query import build_last, build_select, parse_query
from service.settings import DatasetSettings
from service.texts import text_values
from tests.exporting import CURSORS, SECONDS, carried, catalog_of, open_source
from tests.postgres import libpq_url

TABLE = """
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad');
    CREATE TYPE place AS (x int, y text);
    CREATE TABLE pages (
        k text, m int, small smallint, t text, fixed char(3), at timestamptz,
        price numeric, ratio float8, single real, uid uuid, tags text[], mood mood, paid boolean,
        span interval, raw bytea, doc jsonb, pos place, NOT_NULL int NOT NULL,
        PRIMARY KEY (k, m)
    );
    CREATE TABLE other (id int PRIMARY KEY);
"""
EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
# Few values of each type, so that rows are equal in them, and those that are spelt oddly.
COLUMNS: dict[str, list[Any]] = {
    "small": [-1, 0, 32767],
    "t": ["", "a", "A", "b", "'", "\\", 'é,"\n', "%s"],
    "fixed": ["", "a", "ab "],
    "at": [EPOCH, EPOCH + timedelta(microseconds=1), EPOCH.replace(year=1)],
    "price": [Decimal(0), Decimal("-1.50"), Decimal("1.5"), Decimal("NaN"), Decimal(10) ** 40],
    "ratio": [0.1, -0.0, 0.0, 0.1 + 0.2, 5e-324, math.nan, math.inf, -math.inf],
    "single": [0.1, 16777216.0, math.nan],
    "uid": [uuid.UUID(int=1), uuid.UUID(int=2**127)],
    "tags": [[], ["a"], ["a", None], ['"', "{b,c}"], ["NULL"]],
    "mood": ["sad", "glad"],
    "paid": [True, False],
    "span": [timedelta(0), timedelta(days=30), timedelta(seconds=-1)],
    "raw": [b"", b"\x00\\'", b"\xff"],
    "doc": ["{}", '{"a": 1.50}', "[null]", '"x"'],
    "pos": [(None, None), (1, "a,b"), (1, None)],
}
NULLABLE = st.fixed_dictionaries(
    {name: st.none() | st.sampled_from(values) for name, values in COLUMNS.items()}
)
KEYS = st.tuples(st.sampled_from(["", "a", "b", "é'"]), st.integers(-2, 2))
ROWS = st.dictionaries(KEYS, st.tuples(NULLABLE, st.integers(0, 2)), max_size=12)
ORDERS = st.lists(
    st.tuples(
        st.sampled_from([*COLUMNS, "k", "m", "not_null"]),
        st.sampled_from(["asc", "desc"]),
        st.sampled_from([None, "nullsfirst", "nullslast"]),
    ),
    max_size=4,
    unique_by=lambda item: item[0],
)
Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Pages:
    """A table whose rows are replaced, and read page by page."""

    runner: asyncio.Runner
    source: PostgresSource
    connection: asyncpg.Connection
    dataset: Dataset

    def fill(self, rows: dict[tuple[str, int], tuple[dict[str, Any], int]]) -> None:
        records = [
            (*key, *(values[name] for name in COLUMNS), last)
            for key, (values, last) in rows.items()
        ]
        marks = ", ".join(f"${place}" for place in range(1, len(COLUMNS) + 4))

        async def replaced() -> None:
            await self.connection.execute("TRUNCATE pages")
            await self.connection.executemany(f"INSERT INTO pages VALUES ({marks})", records)

        self.runner.run(replaced())

    def lines(self, *pairs: tuple[str, str], dataset: Dataset | None = None) -> list[bytes]:
        data = self.runner.run(carried(self.source, dataset or self.dataset, *pairs))
        return data.splitlines(keepends=True)

    def cursor(self, pairs: Pairs, rows: int, dataset: Dataset | None = None) -> str:
        """The cursor behind the last of ``rows`` rows, read by a statement of its own."""
        found = dataset or self.dataset
        query = parse_query(found, pairs, cursors=CURSORS)
        assert query.continuable
        statement = build_last(found, query, rows)

        async def last() -> tuple[Any, ...]:
            async with self.source.snapshot(
                texts=text_values(statement), query=query, max_seconds=SECONDS, lock_seconds=SECONDS
            ) as snapshot:
                (values,) = await snapshot.fetch(statement)
                return tuple(values)

        text = CURSORS.sign(Cursor(found.name, query.digest, self.runner.run(last())))
        assert text is not None
        return text

    def joined(self, pairs: Pairs, sizes: Iterator[int | None]) -> list[bytes]:
        """Everything, page by page; a size of None is the rest."""
        found: list[bytes] = []
        after: Pairs = []
        while True:
            size = next(sizes)
            page = [*pairs, *after, *([("limit", str(size))] if size is not None else [])]
            lines = self.lines(*page)
            found += lines
            if not lines:
                return found
            after = [("after", self.cursor(page, len(lines)))]


@pytest.fixture(scope="module")
def pages(module_database_url: str) -> Iterator[Pages]:
    with asyncio.Runner() as runner:
        opening = opened(module_database_url, runner)
        yield runner.run(opening.__aenter__())
        runner.run(opening.__aexit__(None, None, None))


@asynccontextmanager
async def opened(url: str, runner: asyncio.Runner) -> AsyncIterator[Pages]:
    connection = await asyncpg.connect(libpq_url(url))
    try:
        await connection.execute(TABLE)
        async with open_source(url) as source:
            dataset = await catalog_of(source).dataset("pages")
            yield Pages(runner, source, connection, dataset)
    finally:
        await connection.close()


def spelt(order: list[tuple[str, str, str | None]]) -> Pairs:
    return [("order", ",".join(".".join(filter(None, item)) for item in order))] if order else []


SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SLOW
@given(rows=ROWS, order=ORDERS, data=st.data())
def test_pages_join_to_the_whole(
    pages: Pages,
    rows: dict[tuple[str, int], tuple[dict[str, Any], int]],
    order: list[tuple[str, str, str | None]],
    data: st.DataObject,
) -> None:
    pages.fill(rows)
    pairs = [*spelt(order), ("offset", "0")]
    whole = pages.lines(*pairs)
    assert len(set(whole)) == len(whole) == len(rows)
    sizes = iter(lambda: data.draw(st.integers(1, 5) | st.none()), 0)
    assert pages.joined(pairs, sizes) == whole


NULLS = dict.fromkeys(COLUMNS)
KEYED = {(letter, number): (NULLS, number % 2) for letter in "ab" for number in range(3)}


def keys(lines: list[bytes]) -> list[tuple[str, int]]:
    return [(row["k"], row["m"]) for row in map(json.loads, lines)]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("k.desc,m", [("b", 2), ("a", 0), ("a", 1), ("a", 2)]),
        ("k.desc,m.desc", [("b", 0), ("a", 2), ("a", 1), ("a", 0)]),
        ("not_null.desc", [("a", 0), ("a", 2), ("b", 0), ("b", 2)]),
        ("price,small.desc", [("a", 2), ("b", 0), ("b", 1), ("b", 2)]),
    ],
)
def test_limit_and_offset_count_from_the_cursor(
    pages: Pages, order: str, expected: list[tuple[str, int]]
) -> None:
    pages.fill(KEYED)
    pairs = [("order", order)]
    after = [*pairs, ("after", pages.cursor([*pairs, ("limit", "2")], 2))]
    assert keys(pages.lines(*after)) == expected
    assert keys(pages.lines(*after, ("offset", "1"), ("limit", "2"))) == expected[1:3]


def test_a_filter_goes_on_behind_the_cursor(pages: Pages) -> None:
    pages.fill(KEYED)
    pairs = [("or", "(k.eq.a,m.gte.1)"), ("not_null", "eq.0"), ("order", "k.desc")]
    whole = pages.lines(*pairs)
    assert keys(whole) == [("b", 2), ("a", 0), ("a", 2)]
    assert pages.joined(pairs, iter(lambda: 1, 0)) == whole


def test_the_row_of_a_cursor_may_be_gone(pages: Pages) -> None:
    pages.fill(KEYED)
    pairs = [("order", "m.desc")]
    after = ("after", pages.cursor([*pairs, ("limit", "3")], 3))
    assert keys(pages.lines(*pairs, after)) == [("b", 1), ("a", 0), ("b", 0)]
    pages.fill(
        {key: value for key, value in KEYED.items() if key != ("a", 1)} | {("z", 5): (NULLS, 0)}
    )
    assert keys(pages.lines(*pairs, after)) == [("b", 1), ("a", 0), ("b", 0)]


def test_a_key_of_a_configured_query_may_hold_nulls(pages: Pages) -> None:
    sql = "VALUES (1, 'b'), (1, NULL), (NULL, 'a'), (NULL, NULL), (2, 'a')"
    configured = {
        "few": DatasetSettings(
            source="main", sql=f"SELECT * FROM ({sql}) AS v (n, t)", key=("n", "t")
        )
    }
    found = pages.runner.run(catalog_of(pages.source, configured).dataset("few"))
    for order in ("n", "n.desc", "n.nullsfirst,t.desc", "t.desc.nullslast"):
        pairs: Pairs = [("order", order)]
        whole, joined = pages.lines(*pairs, dataset=found), list[bytes]()
        after: Pairs = []
        while lines := pages.lines(*pairs, *after, ("limit", "1"), dataset=found):
            joined += lines
            after = [("after", pages.cursor([*pairs, *after, ("limit", "1")], 1, found))]
        assert joined == whole
        assert len(whole) == 5


def test_a_cursor_whose_values_fit_no_more_is_refused(pages: Pages) -> None:
    pages.fill(KEYED)
    pairs: Pairs = [("k", "neq.seven"), ("order", "m")]
    query = parse_query(pages.dataset, pairs)
    text = CURSORS.sign(Cursor(pages.dataset.name, query.digest, ("seven", "a")))
    with pytest.raises(InvalidParameter, match="does not fit any more") as caught:
        pages.lines(*pairs, ("after", text or ""))
    assert caught.value.members == {"parameter": "after", "character": 1}


@pytest.mark.parametrize(
    ("order", "values", "condition"),
    [
        ("k,m", ("a", "1"), "(ROW(k, m) > ROW('a'::text, 1))"),
        ("k.desc,m.desc", ("a", "1"), "(ROW(k, m) < ROW('a'::text, 1))"),
        ("k,m.desc", ("a", "1"), "(k >= 'a'::text)"),
        ("k,price", ("a", None, "1"), "(k >= 'a'::text)"),
    ],
)
def test_an_index_leads_to_the_place(
    pages: Pages, order: str, values: tuple[str | None, ...], condition: str
) -> None:
    query = parse_query(pages.dataset, [("order", order)])
    statement = build_select(pages.dataset, replace(query, after=After(query.order, values)))

    async def plan() -> str:
        async with pages.source.snapshot(
            texts=text_values(statement), query=query, max_seconds=SECONDS, lock_seconds=SECONDS
        ) as snapshot:
            await snapshot.driver.execute("SET LOCAL enable_seqscan = off")
            await snapshot.driver.execute("SET LOCAL enable_bitmapscan = off")
            rows = await snapshot.driver.fetch("EXPLAIN " + snapshot.text(statement))
            return "\n".join(row[0] for row in rows)

    assert f"Index Cond: {condition}" in pages.runner.run(plan())
