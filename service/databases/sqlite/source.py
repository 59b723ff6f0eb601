"""SQLite as a source: a file that is only read, through aiosqlite's thread."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import aiosqlite
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncResult

from service.column import Column
from service.database import utcnow
from service.databases.relation import Relation
from service.databases.source import Source
from service.databases.sqlite.cells import REAL_FUNCTION
from service.databases.sqlite.dialect import SQLITE
from service.databases.sqlite.reflection import query_columns, relations
from service.databases.stopping import stoppable
from service.dialect import Dialect
from service.errors import SourceError, SourceUnavailable
from service.export.batch import plain_text
from service.export.receipt import SnapshotMark
from service.query import RowsQuery

BUSY_TIMEOUT = 5.0  # seconds to wait for a writer's lock
UNAVAILABLE = ("unable to open", "locked", "busy", "disk i/o", "not a database", "malformed")


@dataclass(frozen=True, slots=True)
class SqliteSnapshot:
    connection: AsyncConnection
    driver: aiosqlite.Connection
    mark: SnapshotMark

    def text(self, statement: sa.Select[Any]) -> str:
        compiled = statement.compile(dialect=self.connection.dialect)
        return f"{compiled} {compiled.params!r}"

    async def fetch(self, statement: sa.Select[Any]) -> Sequence[Sequence[Any]]:
        return list(await stoppable(self, self.connection.execute(statement)))

    async def estimate(self, statement: sa.Select[Any]) -> int | None:
        del statement
        return None  # its planner does not tell

    @asynccontextmanager
    async def stream(self, statement: sa.Select[Any]) -> AsyncIterator[AsyncResult[Any]]:
        result = await stoppable(self, self.connection.stream(statement))
        yield result
        await result.close()

    async def stop(self) -> None:
        await self.driver.interrupt()

    def abort(self) -> None:
        self.driver.stop()


class SqliteSource(Source):
    kind = "sqlite"
    dialect: ClassVar[Dialect] = SQLITE
    driver_errors = (sqlite3.Error, OSError, TimeoutError)
    default_schema = "main"

    def __init__(
        self, name: str, url: str, *, max_connections: int, slot_timeout: float, lane: str = "auto"
    ) -> None:
        super().__init__(
            name,
            url,
            max_connections=max_connections,
            slot_timeout=slot_timeout,
            lane=lane,
            connect_args={"timeout": BUSY_TIMEOUT},
        )
        sa.event.listen(self.engine.sync_engine, "connect", _prepare)

    @asynccontextmanager
    async def snapshot(
        self,
        *,
        max_seconds: float,
        lock_seconds: float,
        texts: Sequence[str] = (),
        query: RowsQuery | None = None,
    ) -> AsyncIterator[SqliteSnapshot]:
        """Begin a read transaction. The deadline is the reader's: SQLite has none of its own."""
        del max_seconds, lock_seconds, texts, query
        with self.translated():
            async with self.engine.connect() as connection:
                # The driver begins no transaction by itself for a SELECT, and SQLite fixes
                # the state at the first read.
                await connection.exec_driver_sql("BEGIN")
                await connection.exec_driver_sql("SELECT 1 FROM sqlite_schema LIMIT 1")
                raw = await connection.get_raw_connection()
                driver = cast(aiosqlite.Connection, raw.driver_connection)
                yield SqliteSnapshot(connection, driver, SnapshotMark(utcnow(), None))

    async def relations(
        self, connection: AsyncConnection, schemas: Sequence[str]
    ) -> list[Relation]:
        return await relations(connection) if self.default_schema in schemas else []

    async def query_columns(self, connection: AsyncConnection, sql: str) -> tuple[Column, ...]:
        with self.translated():
            return await query_columns(connection, sql)

    def meaning(self, error: BaseException) -> SourceError:
        told = str(error)
        if isinstance(error, asyncio.TimeoutError | OSError):
            return SourceUnavailable("The database cannot be reached.")
        if any(word in told.lower() for word in UNAVAILABLE):
            return SourceUnavailable("The database file cannot be read, or is locked.")
        return SourceError(f"{told[:200]}.")


def _prepare(connection: Any, _: object) -> None:
    connection.create_function(REAL_FUNCTION, 1, plain_text, deterministic=True)
    cursor = connection.cursor()
    cursor.execute("PRAGMA query_only = 1")
    cursor.close()
