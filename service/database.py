"""Tailrace's own database: its engine, and what PostgreSQL's errors mean."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from service.errors import Busy, DeadlineExceeded, SourceError, SourceUnavailable, TailraceError

CONNECT_TIMEOUT = 10.0  # seconds
POOL_TIMEOUT = 5.0  # seconds
SERVICE_POOL_SIZE = 5  # connections for Tailrace's own tables


def service_engine(url: str, pool_size: int = SERVICE_POOL_SIZE) -> AsyncEngine:
    """The engine for Tailrace's own tables: apart, so that exports can never starve it."""
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT,
        pool_pre_ping=True,
        json_serializer=lambda value: orjson.dumps(value).decode(),
        json_deserializer=orjson.loads,
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
CHANGED = frozenset({"42P01", "42703", "42704", "3F000", "42S02", "42S22"})
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


def refused(error: StatementError) -> bool:
    """Whether it is the data that is wrong: class 22, 23 for a constraint, or not even sent."""
    if not isinstance(error, DBAPIError):
        return True
    return str(getattr(error.orig, "sqlstate", None) or "").startswith(("22", "23"))
