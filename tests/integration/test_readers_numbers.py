"""What other people's readers make of numbers that no double holds."""

from __future__ import annotations

import io
import json
import math
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import orjson
import polars as pl
import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types
import pyarrow.json  # type: ignore[import-untyped]  # as above
import pytest

from service.export.encode import Rows
from tests.exporting import carried, catalog_of, open_source
from tests.postgres import run_sql

Read = Callable[[bytes], Any]
LONG = 10**400 + 7
EXACT = "1234567890123456789.10"
HUGEST = "1" + "0" * 4999
SETUP = f"""
    CREATE TABLE precise AS SELECT {EXACT}::numeric AS v;
    CREATE TABLE long AS SELECT {LONG}::numeric AS v;
    CREATE TABLE longest AS SELECT {HUGEST}::numeric AS v;
    CREATE TABLE minus AS SELECT '-0'::float8 AS v;
"""


def of_polars(line: bytes) -> Any:
    return pl.read_ndjson(io.BytesIO(line)).item()


def of_pyarrow(line: bytes) -> Any:
    return pyarrow.json.read_json(io.BytesIO(line)).to_pylist()[0]["v"]


def of_duckdb(line: bytes, options: str = "") -> Any:
    with tempfile.NamedTemporaryFile() as stored, duckdb.connect() as connection:
        Path(stored.name).write_bytes(line)
        found = connection.execute(f"SELECT v FROM read_json('{stored.name}'{options})").fetchone()
    assert found is not None
    return found[0]


def duckdb_text(line: bytes) -> Any:
    return of_duckdb(line, ", columns = {v: 'VARCHAR'}")


def of_jq(line: bytes) -> Any:
    jq = shutil.which("jq")
    if jq is None:
        pytest.skip("jq is not installed")
    return subprocess.run([jq, "-c", ".v"], input=line, capture_output=True, check=True).stdout


def member(decode: Callable[[bytes], Any]) -> Read:
    return lambda line: decode(line)["v"]


PYTHON = member(json.loads)
ORJSON = member(orjson.loads)
MSGSPEC = member(msgspec.json.decode)
DECIMAL = member(lambda line: json.loads(line, parse_float=Decimal))
HOOKED = member(msgspec.json.Decoder(float_hook=Decimal).decode)


@pytest.fixture(scope="module")
def url(module_database_url: str) -> str:
    run_sql(module_database_url, SETUP)
    return module_database_url


async def line_of(url: str, table: str) -> bytes:
    async with open_source(url) as source:
        return await carried(source, await catalog_of(source).dataset(table), rows=Rows.NDJSON)


async def test_the_lines_hold_every_digit(url: str) -> None:
    assert await line_of(url, "precise") == f'{{"v":{EXACT}}}\n'.encode()
    assert await line_of(url, "long") == f'{{"v":{LONG}}}\n'.encode()
    assert await line_of(url, "longest") == f'{{"v":{HUGEST}}}\n'.encode()
    assert await line_of(url, "minus") == b'{"v":-0}\n'


@pytest.mark.parametrize(
    ("table", "read", "value"),
    [
        pytest.param("precise", DECIMAL, Decimal(EXACT), id="json with Decimal"),
        pytest.param("precise", HOOKED, Decimal(EXACT), id="msgspec with Decimal"),
        *(
            pytest.param("precise", read, float(EXACT), id=f"{name}: a double")
            for name, read in {
                "json": PYTHON,
                "orjson": ORJSON,
                "msgspec": MSGSPEC,
                "polars": of_polars,
                "pyarrow": of_pyarrow,
                "duckdb": of_duckdb,
            }.items()
        ),
        pytest.param("long", PYTHON, LONG, id="json: exact"),
        pytest.param("long", MSGSPEC, LONG, id="msgspec: exact"),
        pytest.param("long", duckdb_text, str(LONG), id="duckdb into text: exact"),
        pytest.param("long", of_duckdb, math.inf, id="duckdb: infinity"),
        pytest.param("long", of_pyarrow, math.inf, id="pyarrow: infinity"),
        pytest.param("long", of_jq, b"1.7976931348623157e+308\n", id="jq: the largest double"),
        pytest.param("minus", of_jq, b"-0\n", id="jq: minus zero"),
    ],
)
async def test_what_readers_make_of_it(url: str, table: str, read: Read, value: object) -> None:
    found = read(await line_of(url, table))
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "read",
    [PYTHON, ORJSON, MSGSPEC, of_polars, of_pyarrow, of_duckdb],
    ids=["python", "orjson", "msgspec", "polars", "pyarrow", "duckdb"],
)
async def test_minus_zero_is_taken_for_an_integer(url: str, read: Read) -> None:
    found = read(await line_of(url, "minus"))
    assert found == 0
    assert isinstance(found, int)


@pytest.mark.parametrize(
    ("table", "read", "error"),
    [
        pytest.param("long", ORJSON, orjson.JSONDecodeError, id="orjson"),
        pytest.param("long", of_polars, pl.exceptions.ComputeError, id="polars"),
        pytest.param("longest", PYTHON, ValueError, id="json above 4,300 digits"),
        pytest.param("longest", MSGSPEC, msgspec.ValidationError, id="msgspec above 4,300 digits"),
        pytest.param("longest", ORJSON, orjson.JSONDecodeError, id="orjson again"),
    ],
)
async def test_who_refuses_it(url: str, table: str, read: Read, error: type[Exception]) -> None:
    line = await line_of(url, table)
    with pytest.raises(error):
        read(line)


async def test_pyarrow_takes_no_number_for_a_string(url: str) -> None:
    schema = pa.schema([("v", pa.string())])
    options = pyarrow.json.ParseOptions(explicit_schema=schema)
    line = await line_of(url, "precise")
    with pytest.raises(pa.ArrowInvalid, match="changed from string to number"):
        pyarrow.json.read_json(io.BytesIO(line), parse_options=options)
