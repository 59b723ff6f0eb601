"""The table flights3 as a SQLite file: loaded from PostgreSQL once, and kept."""

from __future__ import annotations

import csv
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from bench.service_under_test import Bench
from bench.tables import FLIGHTS3, FLIGHTS_COLUMNS

TEXTS = frozenset({"carrier", "tailnum", "origin", "dest", "time_hour"})
NULL = r"\N"


def sqlite_flights(bench: Bench) -> Path:
    """The file, which appears under its name when it is whole."""
    file, draft = bench.folder / "flights.sqlite", bench.folder / "flights.draft"
    if not file.exists():
        draft.unlink(missing_ok=True)
        with closing(sqlite3.connect(draft)) as connection:
            _load(bench, connection)
        draft.replace(file)
    return file


def _load(bench: Bench, connection: sqlite3.Connection) -> None:
    names = FLIGHTS_COLUMNS.split(", ")
    columns = ", ".join(f"{name} {'TEXT' if name in TEXTS else 'INTEGER'}" for name in names)
    connection.execute(f"CREATE TABLE flights3 (id INTEGER PRIMARY KEY, {columns})")
    marks = ", ".join("?" * (len(names) + 1))
    connection.executemany(f"INSERT INTO flights3 VALUES ({marks})", _records(bench))
    connection.commit()
    assert connection.execute("SELECT count(*) FROM flights3").fetchone() == (FLIGHTS3,)


def _records(bench: Bench) -> Iterator[list[str | None]]:
    ask = f"COPY flights3 (id, {FLIGHTS_COLUMNS}) TO STDOUT (FORMAT csv, NULL '{NULL}')"
    arguments = [str(bench.psql), bench.dsn, "-qc", ask]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for record in csv.reader(process.stdout):
            yield [None if cell == NULL else cell for cell in record]
    assert process.returncode == 0
