"""SQLite files for tests: made by the standard library, read through the source."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from service.catalog import Catalog
from service.databases.opening import open_source
from service.databases.source import Source
from service.settings import DatasetSettings, SourceSettings
from service.values import source_url
from tests.exporting import catalog_of
from tests.waiting import eventually

EXPOSED = SourceSettings(expose=("main.*",))
LANES = ("auto", "rows")


@contextmanager
def written(path: Path, script: str = "") -> Iterator[sqlite3.Connection]:
    """The file ``path`` after ``script``, open for writing; each statement commits by itself."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(script)
        yield connection


def insert(connection: sqlite3.Connection, table: str, rows: Sequence[Sequence[Any]]) -> None:
    """Add ``rows`` to ``table`` (which is SQL) in one transaction."""
    if rows:
        places = ",".join("?" * len(rows[0]))
        connection.execute("BEGIN")
        connection.executemany(f"INSERT INTO {table} VALUES ({places})", rows)
        connection.execute("COMMIT")


@asynccontextmanager
async def open_file(path: Path, lane: str = "auto", connections: int = 2) -> AsyncIterator[Source]:
    """The source "main" at ``path``, closed afterwards with all its threads."""
    url = source_url(f"sqlite:///{quote(str(path))}")
    source = open_source("main", url, max_connections=connections, slot_timeout=5.0, lane=lane)
    before = set(threading.enumerate())
    try:
        yield source
    finally:
        await source.close()

        async def ended() -> bool:
            return set(threading.enumerate()) <= before

        await eventually(ended, within=10, what="every thread of a connection has ended")


def catalog(source: Source, **configured: DatasetSettings) -> Catalog:
    """Every table and view of the file, and ``configured``."""
    return catalog_of(source, configured, EXPOSED)


def queries(**sql: str) -> Mapping[str, DatasetSettings]:
    """Configured datasets, each of one SELECT."""
    return {name: DatasetSettings(sql=text) for name, text in sql.items()}


def quoted(name: str) -> str:
    """``name`` as an identifier."""
    return '"' + name.replace('"', '""') + '"'


def folder_of(path: Path) -> list[Path]:
    """The files beside ``path``, itself included."""
    return list(path.parent.iterdir())
