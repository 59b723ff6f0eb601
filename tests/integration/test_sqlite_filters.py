"""Filters and orders on SQLite keep the rows that the same query keeps in Python."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.databases.source import Source
from service.databases.sqlite.dialect import glob_of
from service.dataset import Dataset
from service.errors import InvalidParameter, Unsupported
from tests.exporting import carried, records
from tests.spelt_filters import FILTERS, VALUES, Spelt
from tests.sqlite_files import catalog, insert, open_file, queries, written
from tests.three_valued import Ordered, Row, both, in_order

TABLES = """
    CREATE TABLE facts (id INTEGER PRIMARY KEY, n INT, t TEXT, b BOOLEAN, f DOUBLE, d DATE);
    CREATE TABLE mixed (id INTEGER PRIMARY KEY, x);
    CREATE TABLE typed (id INTEGER PRIMARY KEY, i INTEGER, r REAL, n NUMERIC, t TEXT, j JSON, s STRING);
"""
MIXED: list[Any] = [
    *(None, 0, 1, 5, 2**63 - 1, -(2**63), 2**53 + 1, 0.5, -0.0, 1e300, math.inf, -math.inf),
    *("", "5", "a", "abc", "A", "true", b"", b"a", b"5", b"\xff"),
]
PATTERNS = {
    "*": {"", "*", "**", "[a]", "?", "a?c", "abc", "[", "]", "^a", "%", "a_c", "\\", "x*y"},
    "[*": {"[a]", "["},
    "*]": {"[a]", "]"},
    "?": {"?"},
    "a?c": {"a?c"},
    "a_c": {"a?c", "abc", "a_c"},
    r"a\_c": {"a_c"},
    r"\%": {"%"},
    r"\*": {"%"},
    r"\\": {"\\"},
    "[a]": {"[a]"},
    "^*": {"^a"},
    "_": {"*", "?", "[", "]", "%", "\\"},
    "x%y": {"x*y"},
    "ABC": set(),
}
SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def facts() -> list[Row]:
    """Every value of a column beside many of the others; NaN is NULL to SQLite."""
    floats = [
        value for value in VALUES["f"] if not (isinstance(value, float) and math.isnan(value))
    ]
    found: list[Row] = []
    for place, (t, f) in enumerate(product(VALUES["t"], floats)):
        n, b, d = (
            VALUES[name][place // step % len(VALUES[name])]
            for name, step in (("n", 1), ("b", 2), ("d", 3))
        )
        found.append({"id": place, "n": n, "t": t, "b": b, "f": f, "d": d})
    return found


ROWS = facts()


@dataclass(frozen=True)
class Asked:
    """Exports of one file from tests without an event loop."""

    runner: asyncio.Runner
    source: Source
    datasets: dict[str, Dataset]

    def rows(self, name: str, *pairs: tuple[str, str]) -> list[dict[str, Any]]:
        return records(self.runner.run(carried(self.source, self.datasets[name], *pairs)))

    def ids(self, name: str, *pairs: tuple[str, str]) -> list[int]:
        return [row["id"] for row in self.rows(name, ("select", "id"), *pairs)]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    path = tmp_path_factory.mktemp("filters") / "facts.db"
    with written(path, TABLES) as connection:
        stored = [
            [str(value) if isinstance(value, date) else value for value in row.values()]
            for row in ROWS
        ]
        insert(connection, "facts", stored)
        insert(connection, "mixed", list(enumerate(MIXED)))
        words = [
            [place, *[word] * 6] for place, word in enumerate(["1", "1.5", "x", "1e3", "-0", 7])
        ]
        insert(connection, "typed", words)
        glob = "CREATE TABLE words (w TEXT)"
        connection.execute(glob)
        insert(connection, "words", [[word] for word in sorted(PATTERNS["*"])])
    computed = queries(
        computed="SELECT id, n + 0 AS n, t || '' AS t, f + 0.0 AS f, d || '' AS d FROM facts",
        renamed="SELECT id, x FROM mixed",
    )
    with asyncio.Runner() as runner:
        opening = open_file(path)
        source = runner.run(opening.__aenter__())
        yield Asked(runner, source, runner.run(catalog(source, **computed).datasets()))
        runner.run(opening.__aexit__(None, None, None))


def _known(filters: list[Spelt]) -> bool:
    return not any("match." in item.term for item in filters)


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


@SLOW
@given(FILTERS.filter(_known), ORDERS, COUNTS, COUNTS)
def test_filters_and_orders_are_those_of_python(
    asked: Asked, filters: list[Spelt], order: list[Ordered], limit: int | None, offset: int | None
) -> None:
    pairs = [(item.name, item.value) for item in filters]
    pairs.append(("order", ",".join(".".join(filter(None, item)) for item in [*order, ("id",)])))
    pairs += [("limit", str(limit))] if limit is not None else []
    pairs += [("offset", str(offset))] if offset is not None else []
    kept = [row for row in ROWS if both(item.keeps(row) for item in filters)]
    first = offset or 0
    expected = in_order(kept, order)[first : None if limit is None else first + limit]
    assert asked.ids("facts", *pairs) == [row["id"] for row in expected]


@pytest.mark.parametrize(
    "pairs",
    [
        [("n", "gte.1")],
        [("n", "in.(7,-2)")],
        [("n", "isdistinct.7")],
        [("t", "eq.a")],
        [("t", "not.in.(a,A)")],
        [("f", "gt.-1.5"), ("f", "lt.3")],
        [("f", "in.(2.25,0)")],
        [("d", "gt.2024-02-28")],
        [("d", "like.2024*")],
        [("or", "(n.eq.7,d.is.null)")],
    ],
)
def test_expressions_compare_like_the_columns_they_are_made_of(
    asked: Asked, pairs: list[tuple[str, str]]
) -> None:
    """They have no affinity, so a bound text would never equal a number."""
    found = asked.ids("computed", *pairs, ("order", "id"))
    assert found == asked.ids("facts", *pairs, ("order", "id"))
    assert 0 < len(found) < len(ROWS)


@pytest.mark.parametrize("name", ["mixed", "renamed"])
@pytest.mark.parametrize(
    ("condition", "values"),
    [
        ("eq.5", [5]),
        ("eq.5.0", [5]),
        ("eq.a", ["a"]),
        (r"eq.\x61", [b"a"]),
        (r"in.(\x61,\x)", [b"", b"a"]),
        (r"gt.\x61", [b"\xff"]),
        ("eq.9223372036854775807", [2**63 - 1]),
        ("eq.9007199254740993", [2**53 + 1]),
        ("gte.9223372036854775808", [1e300, math.inf, *MIXED[12:]]),
        ("lt.-1e300", [-math.inf]),
        ("eq.-9223372036854775808", [-(2**63)]),
        ("in.(1,0.5,a)", [1, 0.5, "a"]),
        ("in.(1,5,a)", [1, 5, "a"]),
        ("is.null", [None]),
        ("isdistinct.5", [value for value in MIXED if value != 5]),
        ("not.is.null", MIXED[1:]),
        ("like.a*", ["a", "abc"]),
        ("ilike.a*", ["a", "abc", "A"]),
        ("eq.true", ["true"]),
        ("eq.0", [0, -0.0]),
    ],
)
def test_values_of_every_storage_class(
    asked: Asked, name: str, condition: str, values: list[Any]
) -> None:
    found = [MIXED[place] for place in asked.ids(name, ("x", condition), ("order", "id"))]
    assert found == values


@pytest.mark.parametrize(
    ("pairs", "ids"),
    [
        ([("i", "eq.1")], [0]),
        ([("i", "gt.1")], [1, 2, 3, 5]),  # texts are greater than numbers
        ([("r", "eq.1000")], [3]),
        ([("r", "eq.inf")], []),
        ([("n", "eq.1.5")], [1]),
        ([("n", "lt.nan")], [0, 1, 3, 4, 5]),
        ([("t", "eq.1e3")], [3]),
        ([("t", "eq.1000")], []),
        ([("t", "eq.7")], [5]),
        ([("j", "eq.7")], [5]),
        ([("j", "eq.x")], [2]),
        ([("s", "eq.1000")], [3]),
        ([("s", "eq.x")], [2]),
    ],
)
def test_declared_types_decide_what_a_value_is(
    asked: Asked, pairs: list[tuple[str, str]], ids: list[int]
) -> None:
    assert asked.ids("typed", *pairs, ("order", "id")) == ids


@pytest.mark.parametrize(("pattern", "words"), PATTERNS.items())
def test_like_heeds_case_and_nothing_that_glob_finds_special(
    asked: Asked, pattern: str, words: set[str]
) -> None:
    spelt = pattern.replace("*", "%") if pattern in ("[*", "*]", "^*", "*") else pattern
    found = asked.rows("words", ("w", f"like.{spelt}"))
    assert {row["w"] for row in found} == words
    lower = asked.rows("words", ("w", f"ilike.{spelt}"))
    expected = {"abc"} if pattern == "ABC" else words
    assert {row["w"] for row in lower} == expected


def test_glob_of_every_character() -> None:
    assert glob_of(r"%_\%\_\\*?[]^-") == r"*?%_\[*][?][[]]^-"


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [("facts", "n", "{}"), ("facts", "f", "{}.25"), ("facts", "t", "{},a"), ("mixed", "x", "{}")],
)
def test_ten_thousand_values(asked: Asked, name: str, column: str, value: str) -> None:
    """Neither SQLite's number of variables nor its depth of expressions is in the way."""
    count = 5_000 if "," in value else 10_000
    values = ",".join(value.format(number) for number in range(count))
    found = asked.ids(name, (column, f"in.({values})"))
    assert found
    assert set(found).isdisjoint(asked.ids(name, (column, f"not.in.({values})")))


@pytest.mark.parametrize("condition", ["match.^a", "imatch.a"])
def test_regular_expressions_are_refused_by_name(asked: Asked, condition: str) -> None:
    with pytest.raises(Unsupported) as refused:
        asked.ids("facts", ("t", condition))
    assert refused.value.members["parameter"] == "t"
    assert "SQLite has no regular expressions" in refused.value.detail
    with pytest.raises(Unsupported) as refused:
        asked.ids("facts", ("or", f"(n.eq.1,t.{condition})"))
    assert refused.value.members["parameter"] == "or"


@pytest.mark.parametrize(
    "pair",
    [
        ("n", "eq.x"),
        ("n", "eq.9223372036854775808"),
        ("f", "eq.x"),
        ("b", "eq.2"),
        ("b", "is.maybe"),
    ],
)
def test_values_that_no_column_of_that_type_holds(asked: Asked, pair: tuple[str, str]) -> None:
    with pytest.raises(InvalidParameter) as refused:
        asked.ids("facts", pair)
    assert refused.value.members["parameter"] == pair[0]
