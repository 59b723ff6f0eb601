"""MariaDB and MySQL as sources: the pinned, read-only snapshot that an export reads, unbuffered."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

import aiomysql  # type: ignore[import-untyped]  # it has no types
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncResult
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from service.column import Column
from service.database import CONNECT_TIMEOUT
from service.databases.mysql.blame import blamed, source_error
from service.databases.mysql.dialect import MYSQL
from service.databases.mysql.reflection import query_columns, relations
from service.databases.relation import Relation
from service.databases.source import Source
from service.databases.stopping import SETTLE_TIMEOUT, stoppable
from service.dataset import ConfiguredQuery
from service.dialect import Dialect
from service.errors import SourceError, TailraceError
from service.export.receipt import SnapshotMark
from service.grammar.query import RowsQuery

# The bytes of an export must not depend on how a server happens to be configured. Backslashes
# escape and double quotes are texts, as the driver and the configured SQL take it; zero dates
# may be asked for. Sorting heeds the beginning of a text alone: of as much as a cursor can hold.
PINNED = (
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', "
    "time_zone = '+00:00', lc_time_names = 'en_US', div_precision_increment = 4, "
    "group_concat_max_len = 16777216, max_sort_length = 65536, "
    "sort_buffer_size = GREATEST(@@sort_buffer_size, 4194304), sql_select_limit = DEFAULT"
    "/*M! , default_regex_flags = '', idle_transaction_timeout = 0, "
    "idle_readonly_transaction_timeout = 0 */"
)
ISOLATION = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ"
BEGIN = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
OPENING = "SELECT CONNECTION_ID() AS id, UTC_TIMESTAMP(6) AS at"
LONGEST_WAIT = 31_536_000  # seconds; the largest value of the server's time-outs
SSL = ("ssl", "ssl_ca", "ssl_cert", "ssl_key")


class EveryWord(set[str]):
    """No name stands without quotes: SQLAlchemy does not know every word that is reserved."""

    def __contains__(self, word: object) -> bool:
        del word
        return True


@compiles(ConfiguredQuery, "mysql", "mariadb")
def _configured_query(element: ConfiguredQuery, compiler: SQLCompiler, **_: Any) -> str:
    # The driver fills a statement in with "%", which the operator's own may hold.
    sql = element.sql.replace("%", "%%")
    return f"({sql}\n) AS {compiler.preparer.quote(element.name)}"


RUNNING = sa.text(
    "SELECT count(*) FROM information_schema.processlist WHERE id = :id AND command = 'Query'"
)


@dataclass(slots=True)
class MysqlSnapshot:
    """``reading`` says that rows are still to come, which would stand before any other answer."""

    source: MysqlSource
    connection: AsyncConnection
    driver: Any
    mark: SnapshotMark
    id: int
    query: RowsQuery | None
    reading: bool = False

    def text(self, statement: sa.Select[Any]) -> str:
        compiled = statement.compile(dialect=self.connection.dialect)
        return f"{compiled} {compiled.params!r}"

    async def fetch(self, statement: sa.Select[Any]) -> Sequence[Sequence[Any]]:
        return list(await stoppable(self, self.connection.execute(statement)))

    async def estimate(self, statement: sa.Select[Any]) -> int | None:
        """None: what EXPLAIN tells is a guess at each table's rows, not at the result's."""
        del statement
        return None

    @asynccontextmanager
    async def stream(self, statement: sa.Select[Any]) -> AsyncIterator[AsyncResult[Any]]:
        self.reading = True
        result = await stoppable(self, self.connection.stream(statement))
        yield result
        await result.close()
        self.reading = False

    async def stop(self) -> None:
        with self.source.translated():
            async with self.source.engine.connect() as other:
                await other.exec_driver_sql(f"KILL QUERY {self.id:d}")

    def abort(self) -> None:
        # Its close() takes the reader away from whoever is waiting at it.
        writer = self.driver._writer  # noqa: SLF001 - nothing public leads to the socket
        if writer is not None:
            writer.transport.abort()

    async def gone(self) -> bool:
        with self.source.translated():
            async with self.source.engine.connect() as other:
                return not (await other.execute(RUNNING, {"id": self.id})).scalar_one()

    async def cut(self) -> None:
        """Give the connection up: the driver would read all the rows that are still to come.

        The server notices that nobody listens only when it writes, so it is told first.
        """
        with contextlib.suppress(TimeoutError, TailraceError):
            async with asyncio.timeout(SETTLE_TIMEOUT):
                await self.stop()
        self.abort()
        await self.connection.invalidate()


class MysqlSource(Source):
    kind = "mysql"
    dialect: ClassVar[Dialect] = MYSQL
    driver_errors = (aiomysql.Error, OSError, EOFError, TimeoutError)

    def __init__(
        self, name: str, url: str, *, max_connections: int, slot_timeout: float, lane: str = "auto"
    ) -> None:
        given = make_url(url)
        self.default_schema = given.database or ""
        encrypted = {key: str(given.query[key]) for key in SSL if key in given.query}
        super().__init__(
            name,
            given.difference_update_query(SSL).render_as_string(hide_password=False),
            max_connections=max_connections,
            slot_timeout=slot_timeout,
            lane=lane,
            pool_pre_ping=True,
            connect_args={
                "charset": "utf8mb4",
                "connect_timeout": CONNECT_TIMEOUT,
                "init_command": PINNED,
                "program_name": "tailrace export",
                "conv": {},  # texts as the server writes them
                **({"ssl": _encryption(encrypted)} if encrypted else {}),
            },
        )
        sa.event.listen(self.engine.sync_engine, "connect", self._quote_all)
        if encrypted:
            sa.event.listen(self.engine.sync_engine, "connect", _refuse_plain)

    @asynccontextmanager
    async def snapshot(
        self,
        *,
        max_seconds: float,
        lock_seconds: float,
        texts: Sequence[str] = (),
        query: RowsQuery | None = None,
    ) -> AsyncIterator[MysqlSnapshot]:
        del texts
        with self.translated(), self._blaming(query):
            async with self.engine.connect() as connection:
                snapshot = await self._opened(connection, query, max_seconds, lock_seconds)
                try:
                    yield snapshot
                finally:
                    if snapshot.reading:
                        await snapshot.cut()

    async def _opened(
        self,
        connection: AsyncConnection,
        query: RowsQuery | None,
        max_seconds: float,
        lock_seconds: float,
    ) -> MysqlSnapshot:
        settings = self._settings(max_seconds, lock_seconds)
        pinned = ", ".join(f"{name} = {value}" for name, value in settings.items())
        for statement in (f"SET SESSION {pinned}", ISOLATION, BEGIN):
            await connection.exec_driver_sql(statement)
        row = (await connection.exec_driver_sql(OPENING)).one()
        raw = await connection.get_raw_connection()
        return MysqlSnapshot(
            source=self,
            connection=connection,
            driver=raw.driver_connection,
            mark=SnapshotMark(datetime.fromisoformat(row.at).replace(tzinfo=UTC), None),
            id=int(row.id),
            query=query,
        )

    async def relations(
        self, connection: AsyncConnection, schemas: Sequence[str]
    ) -> list[Relation]:
        return await relations(connection, schemas)

    async def query_columns(self, connection: AsyncConnection, sql: str) -> tuple[Column, ...]:
        with self.translated():
            return await query_columns(connection, sql)

    def meaning(self, error: BaseException) -> SourceError:
        return source_error(error)

    @contextlib.contextmanager
    def _blaming(self, query: RowsQuery | None) -> Any:
        """Errors that are about a filter's value become the caller's."""
        try:
            yield
        except (DBAPIError, aiomysql.Error) as error:
            cause = getattr(error, "orig", None) or error
            mistake = blamed(cause, query) if query is not None else None
            if mistake is None:
                raise
            raise mistake from error

    def _quote_all(self, *_: object) -> None:
        # The first connection has chosen the preparer, by what the server is.
        self.engine.dialect.identifier_preparer.reserved_words = EveryWord()

    def _settings(self, max_seconds: float, lock_seconds: float) -> Mapping[str, object]:
        seconds = _bounded(max_seconds)
        waits = _bounded(lock_seconds)
        settings: dict[str, object] = {
            # A reader may stall for as long as the export may take.
            "net_write_timeout": seconds,
            "wait_timeout": seconds,
            "lock_wait_timeout": waits,
            "innodb_lock_wait_timeout": waits,
        }
        if self.engine.dialect.is_mariadb:  # type: ignore[attr-defined]  # of MySQL's dialects
            return {**settings, "max_statement_time": f"{max(max_seconds, 0.001):.3f}"}
        return {**settings, "max_execution_time": max(1, min(round(max_seconds * 1000), 2**32 - 1))}


def _bounded(seconds: float) -> int:
    return max(1, min(round(seconds), LONGEST_WAIT))


def _encryption(given: Mapping[str, str]) -> ssl.SSLContext:
    """A certificate is asked for; its name and issuer are checked where ``ssl_ca`` is given."""
    context = ssl.create_default_context(cafile=given.get("ssl_ca"))
    if "ssl_ca" not in given:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if "ssl_cert" in given:
        context.load_cert_chain(given["ssl_cert"], given.get("ssl_key"))
    return context


def _refuse_plain(connection: Any, _: object) -> None:
    # The driver goes on without encryption when the server offers none.
    cursor = connection.cursor()
    try:
        cursor.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
        row = cursor.fetchone()
    finally:
        cursor.close()
    if not row or not row[1]:
        raise aiomysql.OperationalError(2026, "the server offers no encryption")
