"""Pages that cursors join are the whole result, whatever one column of SQLite holds."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.databases.source import Source
from service.dataset import Dataset
from service.export.cells import TextOptions
from service.export.encode import Rows
from service.export.lanes import open_lane
from service.export.survey import Survey
from service.grammar.query import parse_query
from tests.exporting import CURSORS, SECONDS, carried
from tests.sqlite_files import catalog, insert, open_file, queries, written

TABLE = """
    CREATE TABLE pages (
        k TEXT NOT NULL, m INT NOT NULL, x, n NUMERIC, t TEXT COLLATE NOCASE, r REAL, b BLOB NOT NULL,
        PRIMARY KEY (k, m)
    ) WITHOUT ROWID;
"""
MIXED: list[Any] = [
    *(
        None,
        0,
        1,
        -1,
        2**63 - 1,
        -(2**63),
        2**53 + 1,
        0.1,
        -0.0,
        1.0,
        5e-324,
        1e16,
        math.inf,
        -math.inf,
    ),
    *("", "a", "A", "1", "'", "\\x61", "'\\x61", "a\0b", "é😀", b"", b"a", b"\\x61", b"\0\xff"),
]
CELLS = st.sampled_from(MIXED)
ROWS = st.dictionaries(
    st.tuples(st.sampled_from(["", "a", "A", "\\x", "'"]), st.integers(-2, 2)),
    st.tuples(CELLS, CELLS, CELLS, CELLS, CELLS.filter(lambda cell: cell is not None)),
    max_size=14,
)
ORDERS = st.lists(
    st.tuples(
        st.sampled_from(["x", "n", "t", "r", "b", "k", "m"]),
        st.sampled_from(["asc", "desc"]),
        st.sampled_from(["", ".nullsfirst", ".nullslast"]),
    ),
    max_size=4,
    unique_by=lambda item: item[0],
)
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Pages:
    """A table whose rows are replaced, and read page by page."""

    runner: asyncio.Runner
    path: Path
    source: Source
    datasets: dict[str, Dataset]

    def fill(self, rows: dict[tuple[str, int], tuple[Any, ...]]) -> None:
        with written(self.path, "DELETE FROM pages") as connection:
            insert(connection, "pages", [(*key, *values) for key, values in rows.items()])

    def whole(self, name: str, *pairs: tuple[str, str]) -> bytes:
        return self.runner.run(carried(self.source, self.datasets[name], *pairs))

    def page(self, name: str, *pairs: tuple[str, str]) -> tuple[bytes, str | None]:
        return self.runner.run(self._page(self.datasets[name], pairs))

    async def _page(self, dataset: Dataset, pairs: Pairs) -> tuple[bytes, str | None]:
        query = parse_query(dataset, pairs, cursors=CURSORS)
        lane = open_lane(self.source, dataset, query, TextOptions(Rows.NDJSON))
        survey = Survey(dataset, query, cursors=CURSORS)
        pieces: list[bytes] = []

        async def sink(data: bytes) -> None:
            pieces.append(data)

        async with lane.reading(max_seconds=SECONDS, lock_seconds=SECONDS) as reading:
            rows = await reading.carry(sink)
            assert reading.snapshot is not None
            await survey.after(reading.snapshot, rows)
        return b"".join(pieces), survey.next_cursor


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    path = tmp_path_factory.mktemp("cursors") / "pages.db"
    with written(path, TABLE):
        pass
    computed = queries(computed="SELECT k || '' AS k, m + 0 AS m, x, +n AS n, t, r, b FROM pages")
    keyed = {name: item.model_copy(update={"key": ("k", "m")}) for name, item in computed.items()}
    with asyncio.Runner() as runner:
        opening = open_file(path)
        source = runner.run(opening.__aenter__())
        yield Pages(runner, path, source, runner.run(catalog(source, **keyed).datasets()))
        runner.run(opening.__aexit__(None, None, None))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=ROWS,
    order=ORDERS,
    size=st.integers(1, 5),
    name=st.sampled_from(["pages", "computed"]),
    filtered=st.booleans(),
)
def test_pages_join_to_the_whole(
    pages: Pages,
    rows: dict[tuple[str, int], tuple[Any, ...]],
    order: list[tuple[str, str, str]],
    size: int,
    name: str,
    filtered: bool,  # noqa: FBT001 - hypothesis draws it
) -> None:
    pages.fill(rows)
    spelt = ",".join(f"{column}.{direction}{nulls}" for column, direction, nulls in order)
    pairs = [("order", spelt)] if order else [("limit", "100")]
    pairs += [("m", "gte.0")] if filtered else []
    whole = pages.whole(name, *pairs)
    limited = [pair for pair in pairs if pair[0] != "limit"] + [("limit", str(size))]
    found, cursor = pages.page(name, *limited)
    joined = found
    while found:
        assert cursor is not None
        found, cursor = pages.page(name, *limited, ("after", cursor))
        joined += found
    assert joined == whole
    count = sum(1 for _, m in rows if not filtered or m >= 0)
    assert whole.count(b"\n") == count
