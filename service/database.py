"""Engines, the read-only snapshot that every export reads, and foreign errors translated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import asyncpg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from service.errors import Busy, DeadlineExceeded, SourceError, SourceUnavailable, TailraceError
from service.export.receipt import SnapshotMark
from service.slots import Slots

CONNECT_TIMEOUT = 10.0  # seconds
POOL_TIMEOUT = 5.0  # seconds
SERVICE_POOL_SIZE = 4  # connections for Tailrace's own tables
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
           clock_timestamp() AS at,
           (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                 ELSE pg_current_wal_lsn() END)::text AS lsn,
           ARRAY(SELECT quote_literal(v)
                 FROM unnest(CAST(:texts AS text[])) WITH ORDINALITY AS t(v, i) ORDER BY i) AS texts,
           ARRAY(SELECT set_config(n, v, true)
                 FROM unnest(CAST(:names AS text[]), CAST(:settings AS text[])) AS t(n, v)) AS pinned
""")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A read-only REPEATABLE READ transaction: everything read in it is one state of the data.

    ``rendered`` are the literals of the texts that were asked for, in their order.
    """

    connection: AsyncConnection
    driver: asyncpg.Connection
    mark: SnapshotMark
    pid: int
    rendered: tuple[str, ...]


class Source:
    """A database to export from: one bounded engine, and a slot for each export at a time."""

    def __init__(
        self, name: str, url: str, *, max_connections: int, slot_timeout: float, lane: str = "auto"
    ) -> None:
        self.name = name
        self.lane = lane
        self.slots = Slots(f"source {name}", max_connections, slot_timeout)
        self.engine = create_async_engine(
            url,
            pool_size=max_connections,
            # Two more for readiness and the catalogue while every slot streams.
            max_overflow=2,
            pool_timeout=POOL_TIMEOUT,
            pool_pre_ping=True,
            isolation_level="REPEATABLE READ",
            connect_args=connect_args("tailrace export"),
        )

    @asynccontextmanager
    async def snapshot(
        self, *, texts: Sequence[str] = (), max_seconds: float, lock_seconds: float
    ) -> AsyncIterator[Snapshot]:
        """Open a transaction for one export; errors come out as SourceError."""
        with translated():
            async with self.engine.connect() as plain:
                connection = await plain.execution_options(postgresql_readonly=True)
                settings = self._settings(max_seconds, lock_seconds)
                bound = {"texts": list(texts), "names": list(settings)}
                result = await connection.execute(
                    OPENING, {**bound, "settings": list(settings.values())}
                )
                row = result.one()
                raw = await connection.get_raw_connection()
                yield Snapshot(
                    connection=connection,
                    driver=cast(asyncpg.Connection, raw.driver_connection),
                    mark=SnapshotMark(row.at.astimezone(UTC), row.lsn),
                    pid=row.pid,
                    rendered=tuple(row.texts),
                )

    async def ping(self) -> None:
        """Raise SourceUnavailable unless the database answers."""
        with translated():
            async with asyncio.timeout(POOL_TIMEOUT), self.engine.connect() as connection:
                await connection.execute(sa.text("SELECT 1"))

    async def close(self) -> None:
        await self.engine.dispose()

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


def service_engine(url: str) -> AsyncEngine:
    """The engine for Tailrace's own tables: apart, so that exports can never starve it."""
    return create_async_engine(
        url,
        pool_size=SERVICE_POOL_SIZE,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT,
        pool_pre_ping=True,
        connect_args=connect_args("tailrace service"),
    )


def connect_args(application_name: str) -> dict[str, Any]:
    """How asyncpg connects; ``application_name`` is what pg_stat_activity shows."""
    return {
        "timeout": CONNECT_TIMEOUT,
        "server_settings": {"application_name": application_name},
    }


@contextmanager
def translated() -> Iterator[None]:
    """Foreign errors become ours at this one boundary."""
    try:
        yield
    except (TailraceError, asyncio.CancelledError):
        raise
    except PoolTimeout as error:
        raise Busy("No connection to the source came free in time.") from error
    except DBAPIError as error:
        cause = error.orig.__cause__ if error.orig is not None else None
        raise source_error(cause or error) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise source_error(error) from error


# Everything that a database which is away makes the layers between us and it raise.
AWAY = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
UNAVAILABLE = (
    "08",
    "53",
    "57P",
    "3D",
    "28",
    "55P03",
)  # SQLSTATE prefixes; PostgreSQL's manual, appendix A
# The dataset is not what it was when it was looked at: a table, a column or a type is gone.
CHANGED = frozenset({"42P01", "42703", "42704", "3F000"})
QUERY_CANCELED, TRANSACTION_TIMEOUT = "57014", "25P04"


def source_error(error: BaseException) -> SourceError:
    """What a driver's error means for the one who asked.

    The server's message is passed on with its SQLSTATE; its detail and hint are not, since
    they can quote rows.
    """
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        timed_out = state == QUERY_CANCELED and "timeout" in str(error.args[0])
        if timed_out or state == TRANSACTION_TIMEOUT:
            return DeadlineExceeded(f"The database ended the query: {error.args[0]}.")
        if state.startswith(UNAVAILABLE):
            return SourceUnavailable(f"The database is not available (SQLSTATE {state}).")
        return SourceError(f"{error.args[0]} (SQLSTATE {state}).", members={"sqlstate": state})
    if isinstance(error, (OSError, TimeoutError, asyncpg.InterfaceError)):
        return SourceUnavailable("The database cannot be reached, or the connection was lost.")
    return SourceError("The query failed.")


def utcnow() -> datetime:
    return datetime.now(UTC)


def _milliseconds(seconds: float) -> int:
    # PostgreSQL's time-outs are 32-bit, and zero would mean none at all.
    return max(1, min(round(seconds * 1000), 2**31 - 1))
