"""Exports through the lane alone, without a service around it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import uuid4

from sqlalchemy.engine import make_url

from service.catalog import Catalog
from service.databases.postgresql.source import PostgresSource
from service.databases.source import Source
from service.dataset import Dataset
from service.export.cells import TextOptions
from service.export.encode import FORMATS, FrameOptions, Rows
from service.export.lanes import open_lane
from service.grammar.cursor import Cursors
from service.grammar.query import parse_query
from service.observe import Event
from service.settings import DatasetSettings, SourceSettings
from tests.postgres import run_sql

PUBLIC = SourceSettings(expose=("public.*",))
SECONDS = 60.0
PASSWORD = "not a secret"
CURSORS = Cursors("a secret of the tests alone, long enough")


def ignored(event: Event) -> None:
    """An observer for tests that look at results alone."""
    del event


@asynccontextmanager
async def open_source(
    url: str, connections: int = 4, lane: str = "auto"
) -> AsyncIterator[PostgresSource]:
    """The source "main" at ``url``, closed afterwards."""
    source = PostgresSource("main", url, max_connections=connections, slot_timeout=5.0, lane=lane)
    try:
        yield source
    finally:
        await source.close()


def catalog_of(
    source: Source,
    configured: Mapping[str, DatasetSettings] | None = None,
    exposed: SourceSettings = PUBLIC,
) -> Catalog:
    """A catalogue of one source."""
    return Catalog({source.name: source}, {source.name: exposed}, configured or {}, ignored)


async def carried(
    source: Source,
    dataset: Dataset,
    *parameters: tuple[str, str],
    rows: Rows = Rows.NDJSON,
    delimiter: str = ",",
    excel: bool = False,
) -> bytes:
    """The file that ``parameters`` ask of ``dataset``; its rows are counted three ways."""
    query = parse_query(dataset, parameters, cursors=CURSORS)
    lane = open_lane(source, dataset, query, TextOptions(rows, delimiter, guarded=excel))
    frame = FORMATS[rows.value].frame(FrameOptions(query.labels, delimiter, excel=excel))
    pieces: list[bytes] = []

    async def sink(data: bytes) -> None:
        pieces.append(frame.feed(data))

    async with lane.reading(max_seconds=SECONDS, lock_seconds=SECONDS) as reading:
        counted = await reading.carry(sink)
    pieces.append(frame.finish())
    assert frame.rows == counted
    return b"".join(pieces)


def records(data: bytes) -> list[dict[str, Any]]:
    """The rows of an NDJSON file."""
    *lines, end = data.split(b"\n")
    assert end == b""
    return [json.loads(line) for line in lines]


@contextmanager
def login_role(server_url: str, options: str = "") -> Iterator[str]:
    """The name of a role that may connect; what it owns must be gone at the end."""
    name = f"tailrace_role_{uuid4().hex[:12]}"
    run_sql(server_url, f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' {options}")
    try:
        yield name
    finally:
        run_sql(server_url, f"DROP ROLE {name}")


def as_role(url: str, role: str) -> str:
    """``url`` with another user."""
    parsed = make_url(url).set(username=role, password=PASSWORD)
    return parsed.render_as_string(hide_password=False)
