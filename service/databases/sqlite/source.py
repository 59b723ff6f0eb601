"""SQLite as a source: a file that is only read, through aiosqlite's thread."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast
from urllib.parse import unquote

import aiosqlite
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, DisconnectionError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncResult
from sqlalchemy.pool import ConnectionPoolEntry

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
from service.grammar.query import RowsQuery

BUSY_TIMEOUT = 0.1  # seconds that SQLite itself waits for a lock, which nothing can interrupt
LOOK_TIMEOUT = 5.0  # seconds that the catalogue waits for one
FIRST_READ = "SELECT 1 FROM sqlite_schema LIMIT 1"
# No name may stand without quotes: SQLAlchemy does not know every word that SQLite reserves.
NO_NAME = re.compile(r"(?!)")
# Primary result codes of files that cannot be read (SQLite's manual, "Result and Error Codes").
LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
UNREADABLE = {
    **dict.fromkeys(LOCKED, "The database file is locked by a writer."),
    sqlite3.SQLITE_CANTOPEN: "The database file is missing, or cannot be opened.",
    sqlite3.SQLITE_PERM: "The database file may not be read.",
    sqlite3.SQLITE_IOERR: "The database file cannot be read.",
    sqlite3.SQLITE_PROTOCOL: "The database file is locked by too many.",
    sqlite3.SQLITE_CORRUPT: "The database file is damaged.",
    sqlite3.SQLITE_NOTADB: "The database file is damaged, or is no SQLite database.",
}
# The dataset is not what it was when it was looked at, as PostgreSQL's SQLSTATE has it.
CHANGED = {"no such table": "42P01", "no such column": "42703"}
IDENTITY = "file"  # where the pool remembers which file a connection reads
FILE = "file:"
MOST_TOLD = 200  # characters of an error
UNDECODABLE = "Could not decode to UTF-8"


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
        opening = asyncio.ensure_future(self.connection.stream(statement))
        try:
            yield await stoppable(self, opening)
        finally:
            # Else its read transaction stays open, and the next export would see its state.
            # It may be open although whoever waited for it was cancelled.
            if opening.done() and not opening.cancelled() and opening.exception() is None:
                with suppress(DBAPIError):
                    await opening.result().close()

    async def stop(self) -> None:
        await self.driver.interrupt()

    def abort(self) -> None:
        self.driver.stop()

    async def gone(self) -> bool:
        """It runs in a thread of ours, whose call has returned by the time one asks."""
        return True


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
        self.engine.dialect.identifier_preparer.legal_characters = NO_NAME
        self._path = Path(unquote((self.engine.url.database or "").removeprefix(FILE)))
        sa.event.listen(self.engine.sync_engine, "connect", self._prepare)
        sa.event.listen(self.engine.sync_engine, "checkout", self._recognise)

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
        del max_seconds, texts, query
        with self.translated():
            async with self.engine.connect() as connection:
                await _begin(connection, lock_seconds)
                raw = await connection.get_raw_connection()
                driver = cast(aiosqlite.Connection, raw.driver_connection)
                yield SqliteSnapshot(connection, driver, SnapshotMark(utcnow(), None))

    async def relations(
        self, connection: AsyncConnection, schemas: Sequence[str]
    ) -> list[Relation]:
        if self.default_schema not in schemas:
            return []
        await _begin(connection, LOOK_TIMEOUT)
        return await relations(connection)

    async def query_columns(self, connection: AsyncConnection, sql: str) -> tuple[Column, ...]:
        with self.translated():
            return await query_columns(connection, sql)

    def _prepare(self, connection: Any, record: ConnectionPoolEntry) -> None:
        connection.create_function(REAL_FUNCTION, 1, plain_text, deterministic=True)
        cursor = connection.cursor()
        cursor.execute("PRAGMA query_only = 1")
        cursor.close()
        record.info[IDENTITY] = self._identity()

    def _recognise(self, _: object, record: ConnectionPoolEntry, __: object) -> None:
        """A file that was put in place of another is another: the pool connects again."""
        if record.info.get(IDENTITY) != self._identity():
            raise DisconnectionError

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def meaning(self, error: BaseException) -> SourceError:
        told = str(error).removesuffix(".")
        if isinstance(error, asyncio.TimeoutError | OSError):
            return SourceUnavailable("The database cannot be reached.")
        if told.startswith(UNDECODABLE):  # and then quotes the text
            return SourceError("A text in the database is not UTF-8.")
        if unreadable := UNREADABLE.get(_code(error)):
            return SourceUnavailable(unreadable)
        sqlstate = CHANGED.get(told.partition(":")[0])
        members = {"sqlstate": sqlstate} if sqlstate else None
        return SourceError(f"{told[:MOST_TOLD]}.", members=members)


async def _begin(connection: AsyncConnection, within: float) -> None:
    """Fix the state that is read; a file that is locked is asked again for ``within`` seconds.

    The driver begins no transaction by itself for a SELECT, and SQLite fixes the state at the
    first read.
    """
    await connection.exec_driver_sql("BEGIN")
    until = time.monotonic() + within
    while True:
        try:
            await connection.exec_driver_sql(FIRST_READ)
        except OperationalError as error:
            if _code(error.orig) not in LOCKED or time.monotonic() > until:
                raise
        else:
            return


def _code(error: BaseException | None) -> int:
    """SQLite's primary result code; 0 where the error is none of SQLite's own."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
