"""Python's values as text, against tables and against other people's readers."""

from __future__ import annotations

import csv
import io
import json
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.export.encode import Rows
from service.export.items import values, whole_lines
from service.export.python_values import CSV_TEXTS, JSON_TEXTS


class Colour(str, Enum):  # noqa: UP042 - the older way, whose str() is another text
    RED = "red"


class Size(IntEnum):
    LARGE = 3


class Word(StrEnum):
    ONE = "one"


class Loud(float):
    """As numpy's: its repr() is no number."""

    def __repr__(self) -> str:
        return f"Loud({float(self)})"


UUID_TEXT = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
EAST = timezone(timedelta(hours=5, minutes=30))
TABLE: list[tuple[Any, str | None, str]] = [
    (None, None, "null"),
    (True, "true", "true"),
    (False, "false", "false"),
    (0, "0", "0"),
    (-(2**200), str(-(2**200)), str(-(2**200))),
    (Size.LARGE, "3", "3"),
    (0.1, "0.1", "0.1"),
    (-0.0, "-0.0", "-0.0"),
    (1e300, "1e+300", "1e+300"),
    (math.nan, "NaN", '"NaN"'),
    (math.inf, "Infinity", '"Infinity"'),
    (-math.inf, "-Infinity", '"-Infinity"'),
    (Loud(1.5), "1.5", "1.5"),
    (Decimal("1.5000"), "1.5000", "1.5000"),
    (Decimal("1E+5"), "1E+5", "1E+5"),
    (Decimal("-0"), "-0", "-0"),
    (Decimal("NaN"), "NaN", '"NaN"'),
    (Decimal("sNaN12"), "NaN", '"NaN"'),
    (Decimal("-Infinity"), "-Infinity", '"-Infinity"'),
    ("", "", '""'),
    ('a "b"\n\\é\x7f', 'a "b"\n\\é\x7f', '"a \\"b\\"\\n\\\\é\x7f"'),
    (Colour.RED, "red", '"red"'),
    (Word.ONE, "one", '"one"'),
    (b"", "\\x", '"\\\\x"'),
    (b"\xde\xad", "\\xdead", '"\\\\xdead"'),
    (bytearray(b"\x00"), "\\x00", '"\\\\x00"'),
    (memoryview(b"\xff"), "\\xff", '"\\\\xff"'),
    (date(2026, 2, 28), "2026-02-28", '"2026-02-28"'),
    (date(1, 1, 1), "0001-01-01", '"0001-01-01"'),
    (
        datetime(2026, 2, 28, 12, 30, tzinfo=UTC),
        "2026-02-28 12:30:00+00:00",
        '"2026-02-28T12:30:00+00:00"',
    ),
    (
        datetime(2026, 2, 28, 12, 30, 0, 5, tzinfo=EAST),
        "2026-02-28 12:30:00.000005+05:30",
        '"2026-02-28T12:30:00.000005+05:30"',
    ),
    (time(23, 59), "23:59:00", '"23:59:00"'),
    (UUID(UUID_TEXT), UUID_TEXT, f'"{UUID_TEXT}"'),
    ([], "[]", "[]"),
    ((1, None, "é"), '[1,null,"é"]', '[1,null,"é"]'),
    (
        {"a\n": {"b": [math.nan, True]}},
        '{"a\\n":{"b":["NaN",true]}}',
        '{"a\\n":{"b":["NaN",true]}}',
    ),
]


@pytest.mark.parametrize(
    ("value", "in_csv", "in_json"),
    TABLE,
    ids=lambda value: repr(bytes(value) if isinstance(value, memoryview) else value)[:40],
)
def test_every_kind_of_value(value: Any, in_csv: str | None, in_json: str) -> None:
    assert CSV_TEXTS[type(value)](value) == in_csv
    assert JSON_TEXTS[type(value)](value) == in_json
    json.loads(in_json)


@pytest.mark.parametrize("value", [object(), {1, 2}, timedelta(1), 1j, [object()], {"a": 1j}])
def test_what_has_no_text_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        JSON_TEXTS[type(value)](value)


@pytest.mark.parametrize("value", [{1: 2}, {None: 1}, {"a": {2: 3}}])
def test_keys_that_json_has_not_are_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        CSV_TEXTS[dict](value)


numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
plain = st.none() | st.booleans() | st.text() | numbers
nested = st.recursive(
    plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@settings(max_examples=40)
@given(st.lists(st.tuples(nested, nested), max_size=5))
def test_json_lines_read_back_as_the_values(rows: list[tuple[Any, Any]]) -> None:
    text = values(Rows.NDJSON, ("a", "b%s"))
    data = text.encode([text.cells(row) for row in rows]) if rows else b""
    lines = data.decode().split("\n")[:-1]
    assert [json.loads(line) for line in lines] == [{"a": a, "b%s": b} for a, b in rows]


@given(st.lists(st.tuples(st.text(), st.integers(), st.none() | st.text()), min_size=1))
def test_csv_reads_back_as_the_texts(rows: list[tuple[str, int, str | None]]) -> None:
    text = values(Rows.CSV, ("a", "b", "c"), ";")
    data = text.encode([text.cells(row) for row in rows])
    found = list(csv.reader(io.StringIO(data.decode(), newline=""), delimiter=";"))
    assert found == [[a, str(b), c or ""] for a, b, c in rows]


@pytest.mark.parametrize("rows", Rows)
def test_a_dict_is_a_row_in_the_order_of_the_labels(rows: Rows) -> None:
    text = values(rows, ("a", "b"))
    made = text.encode([text.cells({"b": 2, "a": 1})])
    assert made == (b"1,2\n" if rows is Rows.CSV else b'{"a":1,"b":2}\n')


@pytest.mark.parametrize("rows", Rows)
@pytest.mark.parametrize(
    "row",
    ["ab", b"ab", (1,), (1, 2, 3), {"a": 1}, {"a": 1, "b": 2, "c": 3}, {"a": 1, "c": 2}, 5, None],
    ids=repr,
)
def test_what_is_no_row_of_these_columns_is_refused(rows: Rows, row: Any) -> None:
    """A text of two letters least of all is a row of two cells."""
    with pytest.raises((TypeError, ValueError, KeyError)):
        values(rows, ("a", "b")).cells(row)


def test_whole_lines_leave_as_they_are() -> None:
    text = whole_lines()
    assert (
        text.encode([text.cells(line) for line in (b"a,b", b"", b'"\xff"')]) == b'a,b\n\n"\xff"\n'
    )
