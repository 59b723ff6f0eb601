"""SQLite's two encoders give the same bytes, and these carry what the file holds."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import SourceError
from service.export.encode import Rows
from service.settings import DatasetSettings
from tests.exporting import carried, records
from tests.sqlite_files import LANES, catalog, insert, open_file, queries, quoted, written

Asked = dict[str, Any]
NDJSON: Asked = {"rows": Rows.NDJSON}
CSV: Asked = {"rows": Rows.CSV}
GOLDEN = Path(__file__).parent.parent / "golden" / "sqlite"
DECLARED = (
    *("", "INTEGER", "REAL", "NUMERIC", "TEXT", "BLOB", "BOOLEAN", "DATE", "JSON", "VARCHAR(5)"),
)
REALS = [
    *(0.0, -0.0, 0.1, 0.1 + 0.2, 1e15 - 1, 1e15, 1e15 + 1, 1e16, -1e16, 1e22, 123456789012345680.0),
    *(5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, math.inf, -math.inf, 1e-5, 2.0**63),
]
WHOLE = [0, 1, -1, 2, 2**63 - 1, -(2**63), 2**53 + 1, 10**15]
TEXTS = [
    *("", "a", '"', '""', ",", ";", "\r", "\n", "\r\n", "\t", "\\.", "\\N", "\0", "a\0b", "\0=1"),
    *(
        "".join(map(chr, range(33))),
        "\x7f\x80\x9f\xa0\u2028\u2029\ufeff",
        "é😀\U0010ffff\ue000\uffff",
    ),
    *(
        "=1+1",
        "+1",
        "-1",
        "@x",
        "\uff1d1",
        "\uff0b",
        "\uff0d",
        "\uff20",
        "'",
        "%s %(a)s {cell} :x ?",
    ),
    *(" 5 ", "1e5", "-0", "0x1F", "nan", "Infinity", "-Infinity", "true", "false", "null", "NULL"),
    *('{"a":\n[1,\r2.50]}', "[1]", '"x"', "[1,]", "{a:1}", "{}\0x", '"\x01"', "01", "{} {}", "'x'"),
]
BLOBS = [b"", b"\0", b"abc", b"\\x00", bytes(range(256))]
VALUES = st.one_of(
    st.none(),
    st.sampled_from(WHOLE) | st.integers(-(2**63), 2**63 - 1),
    st.sampled_from(REALS) | st.floats(allow_nan=False),
    st.sampled_from(TEXTS) | st.text(max_size=30),
    st.sampled_from(BLOBS) | st.binary(max_size=30),
)
# One of each sort: characters that stand in numbers, in times, in neither; and not printable.
DELIMITERS = (",", ";", "\t", " ", ".", "-", "+", "|", ":", "%", "?", "_")
FULL = os.environ.get("TAILRACE_FAULTS") == "full"
SETTINGS = settings(
    max_examples=1_000 if FULL else 12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
STRICT = {
    "INTEGER": st.none() | st.sampled_from(WHOLE),
    "REAL": st.none() | st.sampled_from(REALS),
    "TEXT": st.none() | st.sampled_from(TEXTS),
    "BLOB": st.none() | st.sampled_from(BLOBS),
    "ANY": VALUES,
}
RECORD_CELL = re.compile(r'("(?:[^"]|"")*"|[^",\n]*)([,\n])')


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as found:
        yield found


async def exported(path: Path, *asked: Asked) -> list[dict[str, bytes]]:
    """Each dataset of ``path`` in the bytes that both lanes agree on, for each of ``asked``."""
    found: list[dict[str, bytes]] = [{} for _ in asked]
    for lane in LANES:
        async with open_file(path, lane) as source:
            for name, dataset in (await catalog(source).datasets()).items():
                for options, files in zip(asked, found, strict=True):
                    data = await carried(source, dataset, **options)
                    assert files.setdefault(name, data) == data, (name, options)
    return found


def every_format(delimiter: str) -> list[Asked]:
    """NDJSON and CSV first, as they come without a word; then CSV with ``delimiter``."""
    return [
        NDJSON,
        CSV,
        {**CSV, "excel": True},
        {**CSV, "delimiter": delimiter},
        {**CSV, "delimiter": delimiter, "excel": True},
    ]


@SETTINGS
@given(
    rows=st.lists(st.lists(VALUES, min_size=len(DECLARED), max_size=len(DECLARED)), max_size=8),
    delimiter=st.sampled_from(DELIMITERS),
    alone=st.integers(0, len(DECLARED) - 1),
)
def test_both_encoders_give_the_same_bytes(
    tmp_path: Path, runner: asyncio.Runner, rows: list[list[Any]], delimiter: str, alone: int
) -> None:
    columns = ", ".join(f"c{place} {declared}" for place, declared in enumerate(DECLARED))
    path = tmp_path / "any.db"
    path.unlink(missing_ok=True)
    with written(path, f"CREATE TABLE t ({columns})") as connection:
        insert(connection, "t", rows)
        connection.execute(f"CREATE TABLE single (x {DECLARED[alone]})")
        insert(connection, "single", [[row[alone]] for row in rows])
        stored = connection.execute("SELECT * FROM t").fetchall()
    ndjson, csv, *_ = runner.run(exported(path, *every_format(delimiter)))
    from_ndjson(ndjson["t"], stored)
    from_csv(csv["t"], stored)


@SETTINGS
@given(
    rows=st.lists(st.tuples(*STRICT.values()), max_size=8),
    keys=st.lists(VALUES.filter(lambda value: value is not None), max_size=5),
    delimiter=st.sampled_from(DELIMITERS),
)
def test_strict_tables_and_those_without_rowid(
    tmp_path: Path,
    runner: asyncio.Runner,
    rows: list[tuple[Any, ...]],
    keys: list[Any],
    delimiter: str,
) -> None:
    columns = ", ".join(f"c{place} {declared}" for place, declared in enumerate(STRICT))
    path = tmp_path / "strict.db"
    path.unlink(missing_ok=True)
    script = f"CREATE TABLE t ({columns}) STRICT; CREATE TABLE w (k PRIMARY KEY) WITHOUT ROWID"
    with written(path, script) as connection:
        insert(connection, "t", rows)
        for key in keys:
            connection.execute("INSERT OR IGNORE INTO w VALUES (?)", [key])
    runner.run(exported(path, *every_format(delimiter)))


def from_ndjson(data: bytes, stored: list[tuple[Any, ...]]) -> None:
    read = [tuple(record.values()) for record in records(data)]
    assert [tuple(map(_exact, row)) for row in read] == [
        tuple(map(_same, row, DECLARED)) for row in stored
    ]


def from_csv(data: bytes, stored: list[tuple[Any, ...]]) -> None:
    header = ",".join(f"c{place}" for place in range(len(DECLARED))) + "\n"
    csv = data.decode()
    assert csv.startswith(header)
    cells = _cells(csv.removeprefix(header))
    held = [pair for row in stored for pair in zip(row, DECLARED, strict=True)]
    with closing(sqlite3.connect(":memory:")) as connection:
        for (value, declared), cell in zip(held, cells, strict=True):
            _check_cell(connection, value, declared, cell)


def _same(value: Any, declared: str) -> Any:
    """What NDJSON is to carry of ``value``; the exceptions that docs/formats.md names."""
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, float) and math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if declared == "BOOLEAN" and isinstance(value, int) and value in (0, 1):
        return bool(value)
    if declared == "JSON" and isinstance(value, str):
        return _document(value)
    return _exact(value)


def _exact(value: Any) -> Any:
    """Doubles as their bits: -0.0 is not 0.0, and 1.0 is not 1."""
    return struct.pack(">d", value) if isinstance(value, float) else _listed(value)


def _listed(value: Any) -> Any:
    # Documents may hold anything; their text tells 1 from 1.0 and from true.
    return json.dumps(value) if isinstance(value, list | dict) else value


def _document(text: str) -> Any:
    with closing(sqlite3.connect(":memory:")) as connection:
        (valid,) = connection.execute("SELECT json_valid(?)", [text]).fetchone()
    return _exact(json.loads(text)) if valid and "\0" not in text else text


def _cells(csv: str) -> list[str | None]:
    """Every cell; None for an empty one without quotes."""
    found = [match[1] for match in RECORD_CELL.finditer(csv)]
    assert "".join(match[0] for match in RECORD_CELL.finditer(csv)) == csv
    return [
        cell[1:-1].replace('""', '"') if cell.startswith('"') else (cell or None) for cell in found
    ]


def _check_cell(
    connection: sqlite3.Connection, value: Any, declared: str, cell: str | None
) -> None:
    """Texts and whole numbers through SQLite itself, whose own reading of reals is not exact."""
    match value:
        case None:
            assert cell is None
        case bytes():
            assert cell == f"\\x{value.hex()}"
        case float():
            assert cell == repr(value).replace("inf", "Infinity")
            assert _exact(float(cell)) == _exact(value)
        case int() if declared == "BOOLEAN" and value in (0, 1):
            assert cell == ("true" if value else "false")
        case int():
            back = connection.execute("SELECT CAST(? AS INTEGER)", [cell]).fetchone()
            assert back == (value,)
        case _:
            assert connection.execute("SELECT ?", [cell]).fetchone() == (value,)


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
async def test_the_encoding_of_the_file_does_not_matter(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "encoded.db"
    # SQLite itself reads U+FFFF in UTF-16 as U+FFFD.
    texts = [text for text in TEXTS if encoding == "UTF-8" or "\uffff" not in text]
    script = f"PRAGMA encoding = '{encoding}'; CREATE TABLE t (a, b TEXT, c JSON)"
    with written(path, script) as connection:
        insert(connection, "t", [(text, text, text) for text in texts] + [(b"\0\xff", 1.5, 1)])
    found, *_ = await exported(path, *every_format(";"))
    assert [record["b"] for record in records(found["t"])] == [*texts, "1.5"]


GOLDEN_FILES: dict[str, Asked] = {
    "csv": CSV,
    "minus.csv": {**CSV, "delimiter": "-"},
    "excel.csv": {**CSV, "delimiter": ";", "excel": True},
    "ndjson": NDJSON,
}


def _golden_rows() -> Iterator[list[Any]]:
    """A row a value; reals only where no version of SQLite turns them into something else."""
    for value in (None, *WHOLE, *TEXTS, *BLOBS):
        yield [value] * len(DECLARED)
    for real in REALS:
        yield [real if declared in ("", "REAL", "BLOB") else None for declared in DECLARED]


async def test_golden_files(tmp_path: Path) -> None:
    path = tmp_path / "golden.db"
    columns = ", ".join(f"{quoted(declared or 'none')} {declared}" for declared in DECLARED)
    with written(path, f"CREATE TABLE storage ({columns})") as connection:
        insert(connection, "storage", list(_golden_rows()))
    found = await exported(path, *GOLDEN_FILES.values())
    for suffix, files in zip(GOLDEN_FILES, found, strict=True):
        assert files["storage"] == (GOLDEN / f"storage.{suffix}").read_bytes()


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("rows", Rows)
async def test_a_text_that_is_not_utf_8_breaks_the_stream(
    tmp_path: Path, lane: str, rows: Rows
) -> None:
    path = tmp_path / "invalid.db"
    script = """
        CREATE TABLE t (x TEXT, y JSON);
        INSERT INTO t VALUES ('fine', '1'), (CAST(x'6c6f636b6564c3' AS TEXT), '"x"')
    """
    with written(path, script):
        pass
    async with open_file(path, lane) as source:
        dataset = await catalog(source).dataset("t")
        for excel in {False, rows is Rows.CSV}:
            with pytest.raises(SourceError, match=r"^A text in the database is not UTF-8\.$"):
                await carried(source, dataset, rows=rows, excel=excel)


@pytest.mark.parametrize("lane", LANES)
async def test_an_expression_has_one_value_in_a_row(tmp_path: Path, lane: str) -> None:
    """SQLite would compute it again wherever it is named, and a line could lose its end."""
    path = tmp_path / "random.db"
    value = "CASE abs(random()) % 4 WHEN 0 THEN '=\"q' WHEN 1 THEN 5 WHEN 2 THEN 1.5 END"
    chosen = f"SELECT i.value AS i, {value} AS x FROM json_each('[{'1,' * 999}1]') AS i"
    flag = "SELECT CAST(abs(random()) % 2 AS BOOLEAN) AS x"
    script = f"CREATE VIEW v AS {chosen}; CREATE TABLE f (x BOOLEAN, y JSON)"
    with written(path, script):
        pass
    async with open_file(path, lane) as source:
        datasets = await catalog(source, **queries(q=chosen, f=flag)).datasets()
        for name in ("v", "q"):
            for filters in ((), (("limit", "500"), ("order", "i.desc"))):
                found = records(await carried(source, datasets[name], *filters))
                assert len(found) == (500 if filters else 1000)
                assert {record["x"] for record in found} == {'="q', 5, 1.5, None}
                csv = await carried(source, datasets[name], *filters, rows=Rows.CSV, excel=True)
                cells = set(csv.decode().removeprefix("\ufeff").split("\r\n")[1:-1])
                assert {cell.partition(",")[2] for cell in cells} == {'"\'=""q"', "5", "1.5", ""}
        assert await carried(source, datasets["f"], rows=Rows.CSV) in (b"x\n0\n", b"x\n1\n")


async def test_json_of_a_function_is_the_text_that_a_table_would_hold(tmp_path: Path) -> None:
    path = tmp_path / "json.db"
    with written(
        path, "CREATE VIEW v AS SELECT json_object('a', json('[1]')) AS x, json('[2]') AS y"
    ):
        pass
    assert await exported(path, NDJSON) == [{"v": b'{"x":"{\\"a\\":[1]}","y":"[2]"}\n'}]


@pytest.mark.parametrize(
    ("declared", "count"),
    [("TEXT", 500), ("REAL", 500), ("BOOLEAN", 500), ("JSON", 500), ("BOOLEAN", 1600)],
)
async def test_wide_tables(tmp_path: Path, declared: str, count: int) -> None:
    """Half a thousand columns are one line to SQLite; more are left to Python."""
    path = tmp_path / "wide.db"
    columns = ", ".join(f"{quoted(f'column number {n}')} {declared}" for n in range(count))
    values = [None, 1, '=a"-b', 1.5, b"x"]
    rows = [[values[(n + row) % 5] for n in range(count)] for row in range(3)]
    with written(path, f"CREATE TABLE w ({columns})") as connection:
        insert(connection, "w", rows)
    found = await exported(path, NDJSON, {**CSV, "delimiter": "-", "excel": True})
    assert [files["w"].count(b"\n") for files in found] == [3, 4]


@pytest.mark.parametrize("lane", LANES)
async def test_two_thousand_columns_can_be_picked_from(tmp_path: Path, lane: str) -> None:
    path = tmp_path / "widest.db"
    with written(path, f"CREATE TABLE w ({', '.join(f'c{n}' for n in range(2000))})") as connection:
        insert(connection, "w", [list(range(2000))])
    async with open_file(path, lane) as source:
        dataset = await catalog(source).dataset("w")
        found = await carried(source, dataset, ("select", "c1999,c0"), ("and", "(c1500.eq.1500)"))
        assert found == b'{"c1999":1999,"c0":0}\n'


async def test_the_digest_tells_queries_apart(tmp_path: Path) -> None:
    """Values are bound, so the text alone would not."""
    path = tmp_path / "few.db"
    with written(path, "CREATE TABLE t (x); INSERT INTO t VALUES (1), (2)"):
        pass
    settings_ = DatasetSettings(sql="SELECT x FROM t")
    async with open_file(path) as source:
        dataset = await catalog(source, q=settings_).dataset("q")
        assert await carried(source, dataset, ("x", "eq.2"), ("select", "y:x")) == b'{"y":2}\n'
