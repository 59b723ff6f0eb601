"""MariaDB: pages that cursors join are the whole result, whatever the order is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.databases.mysql.source import MysqlSource
from service.dataset import Dataset
from service.grammar.cursor import Cursor
from service.grammar.query import build_last, parse_query
from service.settings import DatasetSettings
from tests.exporting import CURSORS, SECONDS, carried
from tests.mariadb import catalog, connected, open_source, run

COLUMNS: dict[str, tuple[str, list[Any]]] = {
    "small": ("SMALLINT", [-1, 0, 32767]),
    "count": ("BIGINT UNSIGNED ZEROFILL", [0, 2**64 - 1, 2**64 - 2]),
    "t": ("TEXT COLLATE utf8mb4_unicode_ci", ["", "a", "A", "ä", "b ", "'", "\\", 'é,"\n', "%s"]),
    "latin": ("VARCHAR(9) CHARACTER SET latin1", ["", "é", "e", "z"]),
    "price": ("DECIMAL(40,20)", ["0", "-1.50", f"{10**18}.{1:020d}", f"{10**18}.{2:020d}"]),
    "ratio": ("DOUBLE", [0.1, 0.0, 0.1 + 0.2, 5e-324, 1.7e308]),
    "single": ("FLOAT", [0.1, 0.3, 16777216.0, 1e-45]),
    "mood": ("ENUM('sad', 'ok', 'glad')", ["sad", "ok", "glad"]),
    "several": ("SET('y', 'x')", ["", "x", "y", "y,x"]),
    "paid": ("BOOLEAN", [0, 1, 7]),
    "day": ("DATE", [date(2024, 2, 29), date(1, 1, 1)]),
    "moment": ("DATETIME(6)", [datetime(2024, 1, 1), datetime(2024, 1, 1, 0, 0, 0, 1)]),  # noqa: DTZ001 - it has none
    "instant": ("TIMESTAMP(3) NULL", ["2024-01-01 00:00:00", "2024-01-01 00:00:00.001"]),
    "clock": ("TIME(6)", [timedelta(0), timedelta(hours=-1), timedelta(days=30)]),
    "year": ("YEAR", [2024, 1999]),
    "bits": ("BIT(40)", [0, 1, 2**40 - 1]),
    "raw": ("BLOB", ["", "00275C", "FF"]),
    "document": ("JSON", ["{}", "[1.50]", '"x"']),
    "uid": ("UUID", ["00000000-0000-0000-0000-000000000001", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
}  # fmt: skip
NULLABLE = st.fixed_dictionaries(
    {name: st.none() | st.sampled_from(values) for name, (_, values) in COLUMNS.items()}
)
KEYS = st.tuples(st.sampled_from(["", "a", "b", "é'"]), st.integers(-2, 2))
ROWS = st.dictionaries(KEYS, NULLABLE, max_size=8)
ORDERS = st.lists(
    st.tuples(
        st.sampled_from([*COLUMNS, "k", "m"]),
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
    source: MysqlSource
    connection: Any
    dataset: Dataset

    async def fill(self, rows: dict[tuple[str, int], dict[str, Any]]) -> None:
        marks = ", ".join("UNHEX(%s)" if name == "raw" else "%s" for name in COLUMNS)
        async with self.connection.cursor() as cursor:
            await cursor.execute("DELETE FROM pages")
            for key, values in rows.items():
                given = (*key, *(values[name] for name in COLUMNS))
                await cursor.execute(f"INSERT INTO pages VALUES (%s, %s, {marks})", given)

    async def lines(self, *pairs: tuple[str, str], dataset: Dataset | None = None) -> list[bytes]:
        data = await carried(self.source, dataset or self.dataset, *pairs)
        return data.splitlines(keepends=True)

    async def cursor(self, pairs: Pairs, rows: int, dataset: Dataset | None = None) -> str:
        found = dataset or self.dataset
        query = parse_query(found, pairs, cursors=CURSORS)
        opening = self.source.snapshot(query=query, max_seconds=SECONDS, lock_seconds=SECONDS)
        async with opening as snapshot:
            (values,) = await snapshot.fetch(build_last(found, query, rows))
        text = CURSORS.sign(Cursor(found.name, query.digest, tuple(values)))
        assert text is not None
        return text

    async def joined(
        self, pairs: Pairs, sizes: Iterator[int | None], dataset: Dataset | None = None
    ) -> list[bytes]:
        """Everything, page by page; a size of None is the rest."""
        found: list[bytes] = []
        after: Pairs = []
        while True:
            size = next(sizes)
            page = [*pairs, *after, *([("limit", str(size))] if size is not None else [])]
            lines = await self.lines(*page, dataset=dataset)
            found += lines
            if not lines:
                return found
            after = [("after", await self.cursor(page, len(lines), dataset))]


@pytest.fixture(scope="module")
def pages(module_mariadb_url: str) -> Iterator[Pages]:
    url = module_mariadb_url
    columns = ", ".join(f"{name} {kind}" for name, (kind, _) in COLUMNS.items())
    table = f"CREATE TABLE pages (k VARCHAR(9), m INT, {columns}, PRIMARY KEY (k, m))"
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def opened() -> Pages:
            await run(url, table)
            source = await stack.enter_async_context(open_source(url))
            connection = await stack.enter_async_context(connected(url))
            return Pages(runner, source, connection, await catalog(source).dataset("pages"))

        yield runner.run(opened())
        runner.run(stack.aclose())


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(rows=ROWS, order=ORDERS, data=st.data())
def test_pages_join_to_the_whole(
    pages: Pages,
    rows: dict[tuple[str, int], dict[str, Any]],
    order: list[tuple[str, str, str | None]],
    data: st.DataObject,
) -> None:
    spelt = ",".join(".".join(filter(None, item)) for item in order)
    pairs: Pairs = [*([("order", spelt)] if spelt else []), ("offset", "0")]
    sizes = iter(lambda: data.draw(st.integers(1, 5) | st.none()), 0)

    async def both() -> tuple[list[bytes], list[bytes]]:
        await pages.fill(rows)
        return await pages.lines(*pairs), await pages.joined(pairs, sizes)

    whole, joined = pages.runner.run(both())
    assert len(set(whole)) == len(whole) == len(rows)
    assert joined == whole


def test_long_texts_are_sorted_by_all_that_a_cursor_holds(pages: Pages) -> None:
    """The server sorts by the beginning of a text alone: 1,024 bytes, if nobody says more."""
    stem = "x" * 5_000
    texts = [f"{stem}{letter}" for letter in "edcba"]
    empty = dict.fromkeys(COLUMNS)
    rows = {("k", place): {**empty, "t": text} for place, text in enumerate(texts)}

    async def both() -> tuple[list[bytes], list[bytes]]:
        await pages.fill(rows)
        pairs: Pairs = [("order", "t"), ("select", "m")]
        return await pages.lines(*pairs), await pages.joined(pairs, iter(lambda: 1, 0))

    whole, joined = pages.runner.run(both())
    assert whole == [b'{"m":%d}\n' % place for place in (4, 3, 2, 1, 0)]
    assert joined == whole


def test_a_number_alone_may_be_the_order(pages: Pages) -> None:
    configured = {
        "few": DatasetSettings(source="main", sql="SELECT seq AS n FROM seq_1_to_5", key=("n",))
    }

    async def both() -> tuple[list[bytes], list[bytes]]:
        few = await catalog(pages.source, configured).dataset("few")
        pairs: Pairs = [("order", "n.desc")]
        whole = await pages.lines(*pairs, dataset=few)
        return whole, await pages.joined(pairs, iter(lambda: 2, 0), few)

    whole, joined = pages.runner.run(both())
    assert whole == joined == [b'{"n":%d}\n' % place for place in (5, 4, 3, 2, 1)]


def test_a_key_of_a_configured_query_may_hold_nulls(pages: Pages) -> None:
    sql = "VALUES (1, 'b'), (1, NULL), (NULL, 'a'), (NULL, NULL), (2, 'a')"
    configured = {
        "few": DatasetSettings(
            source="main", sql=f"WITH v (n, t) AS ({sql}) SELECT * FROM v", key=("n", "t")
        )
    }

    async def both(order: str) -> tuple[list[bytes], list[bytes]]:
        few = await catalog(pages.source, configured).dataset("few")
        pairs: Pairs = [("order", order)]
        whole = await pages.lines(*pairs, dataset=few)
        return whole, await pages.joined(pairs, iter(lambda: 1, 0), few)

    for order in ("n", "n.desc", "n.nullsfirst,t.desc", "t.desc.nullslast"):
        whole, joined = pages.runner.run(both(order))
        assert joined == whole
        assert len(whole) == 5
