"""From a URL to the source that reads what it names."""

from __future__ import annotations

from sqlalchemy.engine import make_url

from service.databases.mysql.source import MysqlSource
from service.databases.postgresql.source import PostgresSource
from service.databases.source import Source
from service.databases.sqlite.source import SqliteSource

SOURCES: dict[str, type[MysqlSource | PostgresSource | SqliteSource]] = {
    "mysql": MysqlSource,
    "postgresql": PostgresSource,
    "sqlite": SqliteSource,
}


def open_source(
    name: str, url: str, *, max_connections: int, slot_timeout: float, lane: str
) -> Source:
    """The source ``name``; nothing is connected yet."""
    kind = SOURCES[make_url(url).get_backend_name()]
    return kind(name, url, max_connections=max_connections, slot_timeout=slot_timeout, lane=lane)
