"""The rows lane's encoders: the same bytes as COPY's writer and as json, however rows are batched."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.export.batch import encoder, json_text, lines, plain_text
from service.export.cells import Form
from service.export.encode import Rows

TEXTS = st.text(alphabet='a",;\n\r\t\x00\x1f\x7f\\. é%s{}\U0001f600', max_size=6)
ROWS = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.lists(st.none() | TEXTS, min_size=width, max_size=width), min_size=1, max_size=6
    )
)
VALUES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXTS
LABELS = ("a", 'say "hi"', "100%", "é\n")


def copied(cells: Sequence[str | None], delimiter: str) -> str:
    """As CopyAttributeOutCSV in PostgreSQL's copyto.c writes a row."""
    return delimiter.join(_cell(cell, delimiter, alone=len(cells) == 1) for cell in cells) + "\n"


def _cell(cell: str | None, delimiter: str, *, alone: bool) -> str:
    if cell is None:
        return ""
    special = cell == "" or (alone and cell == "\\.") or set(cell) & {delimiter, '"', "\n", "\r"}
    return '"' + cell.replace('"', '""') + '"' if special else cell


@given(ROWS, st.sampled_from(",;\t.|^-"))
@example([["\\."]], ",")
@example([["\\."], [""], [None]], ",")
@example([["plain", "plain"], ["", None]], ",")
def test_csv_is_what_copy_writes(rows: list[list[str | None]], delimiter: str) -> None:
    encode = encoder(Rows.CSV, LABELS, [Form.TEXT] * len(rows[0]), delimiter)
    assert encode(rows).decode() == "".join(copied(row, delimiter) for row in rows)


@given(ROWS)
def test_json_lines_are_what_json_writes(rows: list[list[str | None]]) -> None:
    labels = LABELS[: len(rows[0])]
    encode = encoder(Rows.NDJSON, labels, [Form.TEXT] * len(labels), ",")
    expected = [
        json.dumps(dict(zip(labels, row, strict=True)), ensure_ascii=False, separators=(",", ":"))
        for row in rows
    ]
    assert encode(rows).decode() == "".join(f"{line}\n" for line in expected)


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=5))
def test_values_of_any_type_read_back_the_same(rows: list[tuple[object, ...]]) -> None:
    encode = encoder(Rows.NDJSON, ("a", "b"), [Form.ANY, Form.ANY], ",")
    infinite = {"Infinity": float("inf"), "-Infinity": float("-inf")}
    for line, row in zip(encode(rows).decode().split("\n"), rows, strict=False):
        read = tuple(json.loads(line).values())
        assert (
            tuple(
                infinite.get(str(cell), cell) if isinstance(value, float) else cell
                for cell, value in zip(read, row, strict=True)
            )
            == row
        )


def test_raw_cells_stay_as_they_are() -> None:
    encode = encoder(Rows.NDJSON, ("a", "b"), [Form.RAW, Form.TEXT], ",")
    rows = [('{"x": 1.50}', "x"), (None, None), ("12345678901234567890", "")]
    assert encode(rows) == (
        b'{"a":{"x": 1.50},"b":"x"}\n{"a":null,"b":null}\n{"a":12345678901234567890,"b":""}\n'
    )


def test_lines_of_the_database_get_their_ends() -> None:
    assert lines([("a,b",), ("",), ("é",)]) == "a,b\n\né\n".encode()


@pytest.mark.parametrize(
    ("value", "plain", "in_json"),
    [
        (None, None, "null"),
        (5, "5", "5"),
        (-0.0, "-0.0", "-0.0"),
        (1e16, "1e+16", "1e+16"),
        (0.1, "0.1", "0.1"),
        (float("inf"), "Infinity", '"Infinity"'),
        (float("-inf"), "-Infinity", '"-Infinity"'),
        (b"\xde\xad", "\\xdead", '"\\\\xdead"'),
        ("Infinity", "Infinity", '"Infinity"'),
    ],
)
def test_the_text_of_a_value(value: object, plain: str | None, in_json: str) -> None:
    assert plain_text(value) == plain
    assert json_text(value) == in_json
