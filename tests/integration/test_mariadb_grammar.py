"""MariaDB: random queries give the rows that the same query gives in Python; what it refuses."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.sql import visitors

from service.databases.mysql.source import MysqlSource
from service.dataset import Dataset
from service.errors import InvalidParameter, Unsupported
from service.grammar.filters import MAX_VALUES
from service.grammar.query import build_select, parse_query
from tests.exporting import carried, records
from tests.mariadb import catalog, connected, open_source, run
from tests.spelt_filters import FILTERS, VALUES, Spelt
from tests.three_valued import Ordered, Row, Value, both, in_order

FACTS = """
    CREATE TABLE facts (
        id INT PRIMARY KEY, n INT, t VARCHAR(50) COLLATE utf8mb4_bin, b BOOLEAN, f DOUBLE, d DATE
    )
"""
KINDS = """
    CREATE TABLE kinds (
        id INT PRIMARY KEY, count BIGINT UNSIGNED, price DECIMAL(40,20), single FLOAT,
        word VARCHAR(20) COLLATE utf8mb4_general_ci, latin VARCHAR(20) CHARACTER SET latin1,
        mood ENUM('sad', 'glad'), moment DATETIME(3), instant TIMESTAMP NULL, clock TIME, year YEAR,
        bits BIT(4), raw BLOB, document JSON, uid UUID, place POINT
    )
"""
FINITE: dict[str, list[Value]] = {**VALUES, "f": [None, -1.5, 0.0, 2.25]}
INFINITE = re.compile("nan|inf")  # which MariaDB does not have
SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def facts() -> list[Row]:
    """Every value of a column beside many of the others, and rows that are equal but for the id."""
    pairs = list(product(FINITE["t"], FINITE["f"]))
    rest = [FINITE[name] for name in ("n", "b", "d")]
    found: list[Row] = []
    for place, (t, f) in enumerate(pairs + pairs[::5]):
        n, b, d = (values[place // (1 + step) % len(values)] for step, values in enumerate(rest))
        found.append({"id": place, "n": n, "t": t, "b": b, "f": f, "d": d})
    return found


ROWS = facts()


@dataclass(frozen=True)
class Asked:
    """Exports of a table from tests without an event loop."""

    runner: asyncio.Runner
    source: MysqlSource
    dataset: Dataset
    kinds: Dataset

    def ids(self, *pairs: tuple[str, str], dataset: Dataset | None = None) -> list[int]:
        asked = (("select", "id"), *pairs)
        data = self.runner.run(carried(self.source, dataset or self.dataset, *asked))
        return [record["id"] for record in records(data)]


@pytest.fixture(scope="module")
def asked(module_mariadb_url: str) -> Iterator[Asked]:
    with asyncio.Runner() as runner:
        runner.run(_fill(module_mariadb_url))
        opening = open_source(module_mariadb_url)
        source = runner.run(opening.__aenter__())
        found = runner.run(catalog(source).datasets())
        yield Asked(runner, source, found["facts"], found["kinds"])
        runner.run(opening.__aexit__(None, None, None))


async def _fill(url: str) -> None:
    await run(url, FACTS, KINDS)
    async with connected(url) as connection, connection.cursor() as cursor:
        rows = [tuple(row.values()) for row in ROWS]
        await cursor.executemany("INSERT INTO facts VALUES (%s, %s, %s, %s, %s, %s)", rows)
        await cursor.execute(r"""
            INSERT INTO kinds VALUES
            (1, 18446744073709551615, 12345678901234567890.12345678901234567890, 0.1, 'Straße',
             'é', 'sad', '2026-02-28 12:30:00.5', '2026-02-28 12:30:00', '-01:00:00', 2026,
             b'101', X'00FF27', '{"a": 1}', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', POINT(1, 2)),
            (2, 18446744073709551614, 12345678901234567890.12345678901234567891, 0.5, 'word',
             'e', 'glad', '2026-02-28 12:30:00', '2026-02-28 13:30:00', '25:00:00', 0,
             b'0', '', 'null', '00000000-0000-0000-0000-000000000000', POINT(2, 1)),
            (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
             NULL)
        """)


FINITE_FILTERS = FILTERS.filter(lambda items: not any(INFINITE.search(i.value) for i in items))
ORDERS = st.lists(
    st.tuples(
        st.sampled_from([*FINITE]),
        st.sampled_from(["asc", "desc"]),
        st.sampled_from([None, "nullsfirst", "nullslast"]),
    ),
    max_size=3,
    unique_by=lambda item: item[0],
)
COUNTS = st.none() | st.integers(0, len(ROWS) + 2)


@SLOW
@given(FINITE_FILTERS)
def test_filters_keep_the_rows_that_python_keeps(asked: Asked, filters: list[Spelt]) -> None:
    expected = [row["id"] for row in ROWS if both(item.keeps(row) for item in filters)]
    pairs = [(item.name, item.value) for item in filters]
    assert sorted(asked.ids(*pairs)) == expected


@SLOW
@given(FINITE_FILTERS, ORDERS, COUNTS, COUNTS)
def test_order_limit_and_offset_are_those_of_python(
    asked: Asked, filters: list[Spelt], order: list[Ordered], limit: int | None, offset: int | None
) -> None:
    pairs = [(item.name, item.value) for item in filters]
    pairs.append(("order", ",".join(".".join(filter(None, item)) for item in [*order, ("id",)])))
    pairs += [("limit", str(limit))] if limit is not None else []
    pairs += [("offset", str(offset))] if offset is not None else []
    kept = [row for row in ROWS if both(item.keeps(row) for item in filters)]
    first = offset or 0
    expected = in_order(kept, order)[first : None if limit is None else first + limit]
    assert asked.ids(*pairs) == [row["id"] for row in expected]


@pytest.mark.parametrize(
    ("name", "value", "ids"),
    [
        ("count", "eq.18446744073709551615", [1]),
        ("count", "lt.18446744073709551615", [2]),
        ("count", "lt.99999999999999999999999999999", [1, 2]),
        ("count", f"gt.-{'9' * 5000}", [1, 2]),
        ("count", "in.(18446744073709551615,1)", [1]),
        ("price", "eq.12345678901234567890.12345678901234567890", [1]),
        ("price", "gt.12345678901234567890.12345678901234567890", [2]),
        ("price", "in.(12345678901234567890.12345678901234567891)", [2]),
        ("price", "lt.1e300", [1, 2]),
        ("price", "gt.1e-300", [1, 2]),
        ("price", "gt.1.5e1", [1, 2]),
        ("single", "eq.0.10000000149011612", [1]),
        ("single", "in.(0.10000000149011612,0.25)", [1]),
        ("single", "gte.0.5", [2]),
        ("word", "eq.STRAßE", [1]),
        ("word", "like.STRA*", []),
        ("word", "like.Stra*", [1]),
        ("word", "ilike.sTRA_E", [1]),
        ("word", "match.^[[:upper:]]", [1]),
        ("word", "imatch.^WORD$", [2]),
        ("word", "in.(WORD,x)", [2]),
        ("latin", "in.(é)", [1, 2]),  # as its collation has it
        ("latin", "like.é", [1]),
        ("mood", "eq.glad", [2]),
        ("moment", "eq.2026-02-28T12:30:00.5", [1]),
        ("moment", "eq.2026-02-28 12:30:00", [2]),
        ("moment", "gte.2026-02-28", [1, 2]),
        ("instant", "eq.2026-02-28T12:30:00+00:00", [1]),
        ("instant", "eq.2026-02-28 14:30:00+02", [1]),
        ("instant", "eq.2026-02-28T08:00:00-0530", [2]),
        ("instant", "in.(2026-02-28T12:30:00Z)", [1]),
        ("clock", "lt.00:00", [1]),
        ("clock", "eq.25:00:00", [2]),
        ("year", "eq.2026", [1]),
        ("bits", "eq.0101", [1]),
        ("bits", "in.(0000,1)", [2]),
        ("raw", r"eq.\x00ff27", [1]),
        ("raw", r"in.(\x00ff27,x)", [1]),
        ("raw", "eq.", [2]),
        ("raw", r"isdistinct.\x", [1, 3]),
        ("document", 'eq.{"a": 1}', [1]),
        ("uid", "eq.A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", [1]),
        ("uid", "in.(00000000-0000-0000-0000-000000000000)", [2]),
        ("document", "is.null", [3]),
    ],
)
def test_values_of_many_types_compare_exactly(
    asked: Asked, name: str, value: str, ids: list[int]
) -> None:
    assert asked.ids((name, value), ("order", "id"), dataset=asked.kinds) == ids


@pytest.mark.parametrize(
    ("pairs", "parameter", "character"),
    [
        ([("d", "eq.tomorrow-ish")], "d", 4),
        ([("t", "eq.x"), ("d", "eq.x")], "d", 4),
        ([("or", "(t.eq.x,d.eq.x,t.eq.x)")], "or", 14),
        ([("t", "match.(")], "t", 7),
        ([("and", "(t.like.(,t.imatch.*)")], "and", 20),
        ([("t", "match.a"), ("t", "match.(")], "t", 7),
    ],
)
def test_a_wrong_value_is_told_with_its_place(
    asked: Asked, pairs: list[tuple[str, str]], parameter: str, character: int
) -> None:
    with pytest.raises(InvalidParameter) as caught:
        asked.ids(*pairs)
    members = caught.value.members
    assert (members["parameter"], members["character"]) == (parameter, character)
    assert caught.value.detail.endswith(f" at character {character}.")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("moment", "eq.2026-02-28T12"),
        ("instant", "eq.2026-02-31 12:30:00+02"),
        ("clock", "eq.noon"),
        ("bits", "eq.2"),
        ("latin", "eq.漢"),
    ],
)
def test_a_value_that_no_column_holds_is_refused(asked: Asked, name: str, value: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        asked.ids((name, value), dataset=asked.kinds)
    assert caught.value.members["parameter"] == name
    assert not isinstance(caught.value, Unsupported)


@pytest.mark.parametrize("value", ["nan", "-Infinity", "1e400"])
def test_there_are_no_infinite_numbers(asked: Asked, value: str) -> None:
    with pytest.raises(Unsupported):
        asked.ids(("f", f"eq.{value}"))


def test_the_longest_list_is_one_piece_of_the_statement(asked: Asked) -> None:
    """A node for each value would hold the event loop for a second."""
    listed = ",".join(f"é{place}" for place in range(MAX_VALUES - 2))
    pairs = [("t", f'in.(ab,{listed},"b%")'), ("order", "id")]
    statement = build_select(asked.dataset, parse_query(asked.dataset, pairs))
    assert len(list(visitors.iterate(statement))) < 100
    assert asked.ids(*pairs) == [row["id"] for row in ROWS if row["t"] in ("ab", "b%")]
