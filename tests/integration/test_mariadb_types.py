"""Every type of MariaDB: its bytes as files define them, alike whoever makes the text."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.databases.mysql.source import MysqlSource
from service.dataset import Dataset
from service.export.encode import Rows
from tests.exporting import carried
from tests.mariadb import catalog, connected, fetch, open_source, run_sql

GOLDEN = Path(__file__).parent.parent / "golden" / "mariadb"
LANES = ("auto", "rows")
GROUPS = ("numbers", "texts", "times", "others")
ZEROS_AND_YEARS = "SET SESSION sql_mode = ''"  # as they were allowed when the data was made


@pytest.fixture(scope="module")
def url(module_mariadb_url: str) -> str:
    for group in GROUPS:
        script = (GOLDEN / f"{group}.sql").read_text()
        create, insert = script.rstrip().removesuffix(";").split(";\nINSERT", 1)
        run_sql(module_mariadb_url, ZEROS_AND_YEARS, create, f"INSERT{insert}")
    return module_mariadb_url


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("rows", Rows)
@pytest.mark.parametrize("group", GROUPS)
async def test_bytes_are_the_golden_ones(url: str, group: str, rows: Rows, lane: str) -> None:
    async with open_source(url, lane=lane) as source:
        dataset = await catalog(source).dataset(group)
        data = await carried(source, dataset, ("order", "id"), rows=rows)
    assert data.decode() == (GOLDEN / f"{group}.{rows.value}").read_bytes().decode()


@pytest.mark.parametrize("lane", LANES)
async def test_formulas_are_made_harmless(url: str, lane: str) -> None:
    async with open_source(url, lane=lane) as source:
        for group in GROUPS:
            dataset = await catalog(source).dataset(group)
            data = await carried(source, dataset, ("order", "id"), rows=Rows.CSV, excel=True)
            golden = (GOLDEN / f"{group}.csv").read_text()
            plain = list(csv.reader(io.StringIO(golden, newline="")))
            guarded = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
            assert guarded == [[harmless(name, cell) for name, cell in zip(plain[0], row, strict=True)] for row in plain]


NUMBERS = {"tiny", "medium", "big", "price", "exact", "single", "ratio", "fixed", "flag"}


def harmless(column: str, cell: str) -> str:
    formula = cell[:1] in set("=+-@\t\r\n\uff1d") and cell != ""
    number = column in NUMBERS and cell.replace(".", "").lstrip("-").isalnum()
    return "'" + cell if formula and not number else cell


TEXTS = st.text(
    st.characters(codec="utf-8") | st.sampled_from("\"\\,;\t\n\r\x00\x0b\x1b\x1f '=+-@.N"),
    max_size=8,
)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
VALUES: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
    "flag": ("BOOLEAN", st.integers(-128, 127)),
    "number": ("BIGINT", st.integers(-(2**63), 2**63 - 1)),
    "count": ("BIGINT UNSIGNED", st.integers(0, 2**64 - 1)),
    "price": ("DECIMAL(30,10)", st.decimals(-(10**19), 10**19, places=10)),
    "single": ("FLOAT", st.floats(width=32, allow_nan=False, allow_infinity=False)),
    "ratio": ("DOUBLE", st.floats(allow_nan=False, allow_infinity=False)),
    "word": ("VARCHAR(20) CHARACTER SET utf8mb4", TEXTS),
    "body": ("TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci", TEXTS),
    "wide": ("TEXT CHARACTER SET utf16", TEXTS),
    "raw": ("BLOB", st.binary(max_size=9)),
    "moment": ("DATETIME(6)", st.datetimes().map(str)),
    "clock": ("TIME(3)", st.timedeltas(max_value=__import__("datetime").timedelta(days=30), min_value=-__import__("datetime").timedelta(days=30))),
    "document": ("JSON", DOCUMENTS.map(lambda value: json.dumps(value, indent=1, ensure_ascii=False))),
}
TABLE = ", ".join(f"{name} {kind}" for name, (kind, _) in VALUES.items())
ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | values for name, (_, values) in VALUES.items()}),
    max_size=4,
)
