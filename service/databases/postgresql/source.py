"""PostgreSQL as a source: the pinned, read-only REPEATABLE READ snapshot that an export reads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, cast

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from service.column import Column
from service.database import connect_args, source_error
from service.databases.postgresql.blame import blaming
from service.databases.postgresql.dialect import POSTGRESQL
from service.databases.postgresql.reflection import query_columns, relations
from service.databases.relation import Relation
from service.databases.source import Activity, Source
from service.dialect import Dialect
from service.errors import SourceError
from service.export.literals import checked, render
from service.export.receipt import SnapshotMark
from service.grammar.query import RowsQuery

PG14, PG17 = (14,), (17,)

# The bytes of an export must not depend on how a role or database happens to be configured;
# synchronized scans would start an unordered export in the middle of the table. Parallel workers
# are left to the planner on purpose: who wants an order asks for one.
PINNED = {
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmloption": "content",
    "lc_monetary": "C",
    "standard_conforming_strings": "on",
    "synchronize_seqscans": "off",
    # Compiling the projection of a wide table costs more than the first rows may take.
    "jit": "off",
}
# One round trip that starts the transaction, pins its settings, takes the snapshot and
# renders the request's values as literals.
OPENING = sa.text("""
    SELECT pg_backend_pid() AS pid,
           (SELECT backend_start FROM pg_stat_get_activity(pg_backend_pid())) AS started,
           now() AS began,
           clock_timestamp() AS at,
           (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                 ELSE pg_current_wal_lsn() END)::text AS lsn,
           ARRAY(SELECT quote_literal(v)
                 FROM unnest(CAST(:texts AS text[])) WITH ORDINALITY AS t(v, i) ORDER BY i) AS texts,
           ARRAY(SELECT set_config(n, v, true)
                 FROM unnest(CAST(:names AS text[]), CAST(:settings AS text[])) AS t(n, v)) AS pinned
""")


OLDEST = sa.text("""
    SELECT min(xact_start) AS oldest, count(*) AS backends FROM pg_stat_activity
    WHERE application_name = 'tailrace export' AND state <> 'idle'
      AND datname = current_database() AND pid <> pg_backend_pid()
""")
# The same connection may run something else by now, and the same number may be another process.
RUNNING = sa.text("""
    SELECT count(*) FROM pg_stat_activity
    WHERE pid = :pid AND backend_start = :started AND xact_start = :began AND state <> 'idle'
""")
ESTIMATE = "EXPLAIN (FORMAT JSON) "


@dataclass(frozen=True, slots=True)
class Portal:
    """A SELECT that runs; the server closes it with the transaction."""

    cursor: asyncpg.cursor.Cursor

    async def fetchmany(self, size: int) -> Sequence[Sequence[Any]]:
        return cast(Sequence[Sequence[Any]], await self.cursor.fetch(size))


@dataclass(frozen=True, slots=True)
class PostgresSnapshot:
    """``literals`` are the values of the statements that will run, as the server renders them."""

    source: PostgresSource
    connection: AsyncConnection
    driver: asyncpg.Connection
    mark: SnapshotMark
    pid: int
    started: datetime
    began: datetime
    literals: Mapping[str, str]
    query: RowsQuery | None

    def text(self, statement: sa.Select[Any]) -> str:
        return render(statement, self.literals)

    async def fetch(self, statement: sa.Select[Any]) -> Sequence[Sequence[Any]]:
        text = self.text(statement)
        with blaming(self.query, text, self.literals):
            return [tuple(record) for record in await self.driver.fetch(text)]

    async def estimate(self, statement: sa.Select[Any]) -> int | None:
        text = ESTIMATE + self.text(statement)
        with blaming(self.query, text, self.literals):
            plan = await self.driver.fetchval(text)  # SQLAlchemy made the driver read JSON
        return int(plan[0]["Plan"]["Plan Rows"])

    @asynccontextmanager
    async def stream(self, statement: sa.Select[Any]) -> AsyncIterator[Portal]:
        text = self.text(statement)
        with blaming(self.query, text, self.literals):
            prepared = await self.driver.prepare(text)
            # The driver's own cursor: SQLAlchemy's takes 50 rows at once however large they are.
            yield Portal(await prepared.cursor())

    async def stop(self) -> None:
        with self.source.translated():
            async with self.source.engine.connect() as other:
                await other.execute(sa.text("SELECT pg_cancel_backend(:pid)"), {"pid": self.pid})

    def abort(self) -> None:
        self.driver.terminate()

    async def gone(self) -> bool:
        told = {"pid": self.pid, "started": self.started, "began": self.began}
        with self.source.translated():
            async with self.source.engine.connect() as other:
                return not (await other.execute(RUNNING, told)).scalar_one()


class PostgresSource(Source):
    kind = "postgresql"
    dialect: ClassVar[Dialect] = POSTGRESQL
    driver_errors = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
    default_schema = "public"

    def __init__(
        self, name: str, url: str, *, max_connections: int, slot_timeout: float, lane: str = "auto"
    ) -> None:
        super().__init__(
            name,
            url,
            max_connections=max_connections,
            slot_timeout=slot_timeout,
            lane=lane,
            pool_pre_ping=True,
            isolation_level="REPEATABLE READ",
            connect_args=connect_args("tailrace export"),
        )

    @asynccontextmanager
    async def snapshot(
        self,
        *,
        max_seconds: float,
        lock_seconds: float,
        texts: Sequence[str] = (),
        query: RowsQuery | None = None,
    ) -> AsyncIterator[PostgresSnapshot]:
        """Open a transaction with pinned settings; one round trip renders ``texts``, too."""
        with self.translated():
            async with self.engine.connect() as plain:
                connection = await plain.execution_options(postgresql_readonly=True)
                settings = self._settings(max_seconds, lock_seconds)
                bound = {"texts": list(texts), "names": list(settings)}
                result = await connection.execute(
                    OPENING, {**bound, "settings": list(settings.values())}
                )
                row = result.one()
                raw = await connection.get_raw_connection()
                yield PostgresSnapshot(
                    source=self,
                    connection=connection,
                    driver=cast(asyncpg.Connection, raw.driver_connection),
                    mark=SnapshotMark(row.at.astimezone(UTC), row.lsn),
                    pid=row.pid,
                    started=row.started,
                    began=row.began,
                    literals=checked(texts, tuple(row.texts)),
                    query=query,
                )

    async def relations(
        self, connection: AsyncConnection, schemas: Sequence[str]
    ) -> list[Relation]:
        return await relations(connection, schemas)

    async def query_columns(self, connection: AsyncConnection, sql: str) -> tuple[Column, ...]:
        try:
            async with connection.begin_nested():
                return await query_columns(connection, sql)
        except asyncpg.PostgresError as error:
            raise SourceError(source_error(error).detail) from error

    async def activity(self, connection: AsyncConnection) -> Activity:
        row = (await connection.execute(OLDEST)).one()
        return Activity(row.oldest, row.backends)

    def meaning(self, error: BaseException) -> SourceError:
        return source_error(error)

    def _settings(self, max_seconds: float, lock_seconds: float) -> Mapping[str, str]:
        version = self.engine.dialect.server_version_info or ()
        settings = {
            **PINNED,
            "statement_timeout": f"{_milliseconds(max_seconds)}ms",
            "lock_timeout": f"{_milliseconds(lock_seconds)}ms",
        }
        if version >= PG14:
            # The second net under cancellation: the server itself sees that we are gone.
            settings["client_connection_check_interval"] = "1s"
        if version >= PG17:
            settings["transaction_timeout"] = f"{_milliseconds(max_seconds)}ms"
        return settings


def _milliseconds(seconds: float) -> int:
    # PostgreSQL's time-outs are 32-bit, and zero would mean none at all.
    return max(1, min(round(seconds * 1000), 2**31 - 1))
