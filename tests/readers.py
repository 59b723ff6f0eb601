"""Other people's readers of CSV and NDJSON: what each takes every cell for, as text."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import orjson
import polars as pl
import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types
import pyarrow.csv  # type: ignore[import-untyped]  # as above
import pyarrow.json  # type: ignore[import-untyped]  # as above

Cells = list[tuple[str | None, ...]]
LONGEST = 16 * 1024 * 1024  # bytes of a line; duckdb and pyarrow want to know


def csv_of_python(file: bytes) -> Cells:
    """It takes NULL for the empty string, and a line of a single NULL for no cell at all."""
    csv.field_size_limit(sys.maxsize)
    return [tuple(row) for row in csv.reader(io.StringIO(file.decode(), newline=""))]


def csv_of_polars(file: bytes) -> Cells:
    return pl.read_csv(io.BytesIO(file), has_header=False, infer_schema=False).rows()


def csv_of_pyarrow(file: bytes) -> Cells:
    names = [f"c{place}" for place in range(_width(file))]
    table = pyarrow.csv.read_csv(
        io.BytesIO(file),
        read_options=pyarrow.csv.ReadOptions(column_names=names, block_size=LONGEST),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def csv_of_duckdb(file: bytes) -> Cells:
    """It would guess the line break even from inside quotes."""
    columns = ", ".join(f"c{place}: 'VARCHAR'" for place in range(_width(file)))
    options = f"""
        columns = {{{columns}}}, auto_detect = false, header = false, delim = ',', quote = '"',
        escape = '"', new_line = '\\n', allow_quoted_nulls = false, max_line_size = {LONGEST},
        parallel = false
    """
    return _duckdb("read_csv", file, options)


def _width(file: bytes) -> int:
    return len(next(csv.reader(io.StringIO(file.decode(), newline=""))))


def _duckdb(function: str, file: bytes, options: str) -> Cells:
    with tempfile.NamedTemporaryFile() as stored, duckdb.connect() as connection:
        Path(stored.name).write_bytes(file)
        return connection.execute(
            f"SELECT * FROM {function}('{stored.name}', {options})"
        ).fetchall()


# PostgreSQL's own COPY is the fifth: tests.typed_tables.load.
CSV_READERS: Mapping[str, Callable[[bytes], Cells]] = {
    "csv": csv_of_python,
    "polars": csv_of_polars,
    "pyarrow": csv_of_pyarrow,
    "duckdb": csv_of_duckdb,
}


def _lines(decode: Callable[[bytes], Any], file: bytes, names: Sequence[str]) -> Cells:
    *lines, end = file.split(b"\n")
    assert end == b""
    return [tuple(decode(line)[name] for name in names) for line in lines]


def _values(rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> Cells:
    return [tuple(row[name] for name in names) for row in rows]


def ndjson_of_polars(file: bytes, names: Sequence[str]) -> Cells:
    schema = dict.fromkeys(names, pl.String)
    return _values(pl.read_ndjson(io.BytesIO(file), schema=schema).to_dicts(), names)


def ndjson_of_pyarrow(file: bytes, names: Sequence[str]) -> Cells:
    schema = pa.schema([(name, pa.string()) for name in names])
    table = pyarrow.json.read_json(
        io.BytesIO(file),
        read_options=pyarrow.json.ReadOptions(block_size=LONGEST),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=schema),
    )
    return _values(table.to_pylist(), names)


def ndjson_of_duckdb(file: bytes, names: Sequence[str]) -> Cells:
    quoted = ("'" + name.replace("'", "''") + "'" for name in names)
    columns = ", ".join(f"{name}: 'VARCHAR'" for name in quoted)
    options = f"""
        format = 'newline_delimited', columns = {{{columns}}}, maximum_object_size = {LONGEST}
    """
    return _duckdb("read_json", file, options)


def ndjson_of_jq(file: bytes, names: Sequence[str]) -> Cells:
    asked = subprocess.run(["jq", "-c", "."], input=file, capture_output=True, check=True)
    return _lines(json.loads, asked.stdout, names)


NDJSON_READERS: Mapping[str, Callable[[bytes, Sequence[str]], Cells]] = {
    "json": lambda file, names: _lines(json.loads, file, names),
    "orjson": lambda file, names: _lines(orjson.loads, file, names),
    "msgspec": lambda file, names: _lines(msgspec.json.decode, file, names),
    "polars": ndjson_of_polars,
    "pyarrow": ndjson_of_pyarrow,
    "duckdb": ndjson_of_duckdb,
}
