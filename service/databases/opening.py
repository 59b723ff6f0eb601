"""From a URL to the source that reads what it names."""

from __future__ import annotations

from sqlalchemy.engine import make_url

from service.databases.mysql.source import MysqlSource
from service.databases.postgresql.source import PostgresSource
from service.databases.source import Source
from service.databases.sqlite.source import SqliteSource
from service.settings import Settings

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


def open_sources(settings: Settings, database_url: str) -> dict[str, Source]:
    """Every configured source; one without a URL is Tailrace's own database."""
    return {
        name: open_source(
            name,
            settings.source_url(name) or database_url,
            max_connections=source.max_connections,
            slot_timeout=settings.limits.slot_timeout,
            lane=source.lane,
        )
        for name, source in settings.sources.items()
    }
