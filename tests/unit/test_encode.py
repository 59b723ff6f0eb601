"""The formats: exact bytes around the rows, and a count of rows, however the blocks are cut."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.export.encode import (
    FORMATS,
    CsvFrame,
    FrameOptions,
    JsonFrame,
    NdjsonFrame,
    csv_record,
)
from tests.splitting import CUTS, Cuts, passed

Cells = Sequence[str | None]
LABELS = ("id", "name")
LETTERS = st.text(alphabet='a",;\n\r\\.é ', max_size=8)
TABLES = st.integers(1, 3).flatmap(
    lambda width: st.lists(
        st.lists(st.none() | LETTERS, min_size=width, max_size=width), max_size=8
    )
)


def copied(rows: Sequence[Cells], delimiter: str = ",") -> bytes:
    """As CopyAttributeOutCSV in PostgreSQL's copyto.c writes rows."""
    return "".join(
        delimiter.join(_cell(cell, delimiter, alone=len(row) == 1) for cell in row) + "\n"
        for row in rows
    ).encode()


def _cell(cell: str | None, delimiter: str, *, alone: bool) -> str:
    if cell is None:
        return ""
    special = cell == "" or (alone and cell == "\\.") or set(cell) & {delimiter, '"', "\n", "\r"}
    return '"' + cell.replace('"', '""') + '"' if special else cell


def read_csv(data: bytes, delimiter: str = ",") -> list[list[str]]:
    text = io.StringIO(data.decode(), newline="")
    # The reader takes an empty line for a record without cells; COPY writes a lone NULL so.
    return [cells or [""] for cells in csv.reader(text, delimiter=delimiter)]


@pytest.mark.parametrize(
    ("cells", "delimiter", "record"),
    [
        (["a", "b"], ",", "a,b\n"),
        (["a", "b"], ";", "a;b\n"),
        (["a,b", "c"], ",", '"a,b",c\n'),
        (["a,b", "c"], ";", "a,b;c\n"),
        (["a\tb"], "\t", '"a\tb"\n'),
        (['say "x"'], ",", '"say ""x"""\n'),
        (["line\nbreak", "cr\rhere"], ",", '"line\nbreak","cr\rhere"\n'),
        ([""], ",", '""\n'),
        (["", ""], ",", '"",""\n'),
        (["\\."], ",", '"\\."\n'),
        (["\\.", "a"], ",", "\\.,a\n"),
        ([" a "], ",", " a \n"),
        (["größe", "日本"], ",", "größe,日本\n"),
    ],
)
def test_a_record_is_written_as_copy_writes_it(
    cells: list[str], delimiter: str, record: str
) -> None:
    assert csv_record(cells, delimiter) == record
    assert copied([cells], delimiter) == record.encode()


@given(st.lists(st.text(), min_size=1, max_size=4), st.sampled_from(",;\t|. -"))
def test_any_record_reads_back(cells: list[str], delimiter: str) -> None:
    assert csv_record(cells, delimiter).encode() == copied([cells], delimiter)
    written = csv_record([cell.replace("\x00", "") for cell in cells], delimiter).encode()
    assert read_csv(written, delimiter) == [[cell.replace("\x00", "") for cell in cells]]


CSV_FILES: list[tuple[bytes, bytes, int]] = [
    (b"", b"id,name\n", 0),
    (b"1,a\n", b"id,name\n1,a\n", 1),
    (b"1,a\n2,b\n", b"id,name\n1,a\n2,b\n", 2),
    (b",\n", b"id,name\n,\n", 1),
    (b'1,"a\nb"\n', b'id,name\n1,"a\nb"\n', 1),
    (b'1,""\n2,"\n"\n', b'id,name\n1,""\n2,"\n"\n', 2),
    (b'1,"a""b"\n2,"""\n"""\n', b'id,name\n1,"a""b"\n2,"""\n"""\n', 2),
    (b'"""","\r\n"\n', b'id,name\n"""","\r\n"\n', 1),
]


@pytest.mark.parametrize(("rows", "file", "count"), CSV_FILES)
def test_csv_in_every_split(rows: bytes, file: bytes, count: int) -> None:
    for first in range(len(rows) + 1):
        for second in range(first, len(rows) + 1):
            frame = CsvFrame(FrameOptions(LABELS))
            assert passed(frame, rows, [(first, False), (second, True)]) == file
            assert frame.rows == count


@given(rows=TABLES, cuts=CUTS, delimiter=st.sampled_from(",;\t"), header=st.booleans())
@example(rows=[[None]], cuts=[(0, True)], delimiter=",", header=True)
@example(rows=[['"'], ["\n"]], cuts=[(n, False) for n in range(9)], delimiter=",", header=False)
def test_csv_counts_what_pythons_reader_counts(
    *, rows: list[Cells], cuts: Cuts, delimiter: str, header: bool
) -> None:
    data = copied(rows, delimiter)
    options = FrameOptions(("a",), delimiter, header)
    frame = CsvFrame(options)
    made = passed(frame, data, cuts)
    assert made == (b"a\n" if header else b"") + data
    assert frame.rows == len(rows) == len(read_csv(data, delimiter))
    assert read_csv(data, delimiter) == [[cell or "" for cell in row] for row in rows]


def test_the_header_quotes_its_labels() -> None:
    options = FrameOptions(('a"b', "c;d", "e\nf", ""), ";")
    assert passed(CsvFrame(options), b"", []) == b'"a""b";"c;d";"e\nf";""\n'


def test_a_sync_sends_the_header_before_the_first_row() -> None:
    frame = CsvFrame(FrameOptions(LABELS))
    assert frame.sync() == b"id,name\n"
    assert frame.sync() == b""
    assert frame.feed(b"1,a\n") == b"1,a\n"
    assert frame.finish() == b""


JSON_FILES: list[tuple[bytes, bytes, int]] = [
    (b"", b"[]\n", 0),
    (b"{}\n", b"[{}]\n", 1),
    (b'{"a":1}\n{"a":2}\n', b'[{"a":1},\n{"a":2}]\n', 2),
    (b'{"a":"\\n"}\n{"a":"],["}\n{}\n', b'[{"a":"\\n"},\n{"a":"],["},\n{}]\n', 3),
]


@pytest.mark.parametrize(("rows", "file", "count"), JSON_FILES)
def test_json_in_every_split(rows: bytes, file: bytes, count: int) -> None:
    for first in range(len(rows) + 1):
        for second in range(first, len(rows) + 1):
            frame = JsonFrame(FrameOptions(LABELS))
            assert passed(frame, rows, [(first, True), (second, True)]) == file
            assert frame.rows == count


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)
RECORDS = st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=2), max_size=6)


@given(RECORDS, CUTS)
def test_json_is_the_array_of_the_rows(records: list[dict[str, object]], cuts: Cuts) -> None:
    lines = [orjson.dumps(record) for record in records]
    frame = JsonFrame(FrameOptions(LABELS))
    made = passed(frame, b"".join(line + b"\n" for line in lines), cuts)
    assert made == b"[" + b",\n".join(lines) + b"]\n"
    assert json.loads(made) == records
    assert frame.rows == len(records)


@given(RECORDS, CUTS)
def test_ndjson_is_the_rows_themselves(records: list[dict[str, object]], cuts: Cuts) -> None:
    rows = b"".join(orjson.dumps(record) + b"\n" for record in records)
    frame = NdjsonFrame(FrameOptions(LABELS))
    assert passed(frame, rows, cuts) == rows
    assert [orjson.loads(line) for line in rows.splitlines()] == records
    assert frame.rows == len(records)


def test_a_json_sync_opens_the_array_and_holds_the_comma_until_a_row_needs_it() -> None:
    frame = JsonFrame(FrameOptions(LABELS))
    assert frame.sync() == b"["
    assert frame.feed(b"{}\n") == b"{}"
    assert frame.sync() == b""
    assert frame.feed(b"{}\n") == b",\n{}"
    assert frame.finish() == b"]\n"


@pytest.mark.parametrize("name", [*FORMATS])
def test_every_format_is_entered_under_its_own_name_and_frames_no_rows(name: str) -> None:
    chosen = FORMATS[name]
    assert chosen.name == name
    frame = chosen.frame(FrameOptions(("a",)))
    empty = {"csv": b"a\n", "ndjson": b"", "json": b"[]\n"}
    assert (passed(frame, b"", []), frame.rows) == (empty[name], 0)


EXCEL = FrameOptions(LABELS, excel=True)


@given(TABLES, CUTS)
def test_a_spreadsheets_records_end_in_crlf_outside_of_quotes_alone(
    rows: list[list[str | None]], cuts: Cuts
) -> None:
    machine, excel = copied(rows), b""
    for row in rows:
        excel += copied([row])[:-1] + b"\r\n"
    frame = CsvFrame(EXCEL)
    assert passed(frame, machine, cuts) == b"\xef\xbb\xbfid,name\r\n" + excel
    assert frame.rows == len(rows)


def test_a_spreadsheets_labels_are_no_formulas() -> None:
    labels = ("=1+1", "@x", "-1", "plain", "\uff1d1")
    frame = CsvFrame(FrameOptions(labels, excel=True))
    assert frame.finish().decode("utf-8-sig") == "'=1+1,'@x,'-1,plain,'\uff1d1\r\n"


def test_without_a_header_a_spreadsheet_still_gets_its_mark() -> None:
    assert CsvFrame(FrameOptions(LABELS, header=False, excel=True)).finish() == b"\xef\xbb\xbf"
