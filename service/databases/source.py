"""A database to export from, whatever its kind, and the snapshot that an export reads."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Protocol

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from service.column import Column
from service.databases.relation import Relation
from service.dialect import Dialect
from service.errors import Busy, SourceError, TailraceError
from service.export.receipt import SnapshotMark
from service.grammar.query import RowsQuery
from service.slots import Slots

POOL_TIMEOUT = 5.0  # seconds


class Rows(Protocol):
    """What a running SELECT gives, as much at once as it is asked for."""

    async def fetchmany(self, size: int, /) -> Sequence[Sequence[Any]]:
        """The next rows, ``size`` at most; empty at the end."""
        ...


class Snapshot(Protocol):
    """A read-only transaction: everything read in it is one state of the data."""

    @property
    def mark(self) -> SnapshotMark | None: ...

    def text(self, statement: sa.Select[Any]) -> str:
        """The SQL that ``statement`` is run as, for its digest."""
        ...

    async def fetch(self, statement: sa.Select[Any]) -> Sequence[Sequence[Any]]:
        """The few rows of ``statement``."""
        ...

    async def estimate(self, statement: sa.Select[Any]) -> int | None:
        """The planner's guess at the rows of ``statement``; None where it has none."""
        ...

    def stream(self, statement: sa.Select[Any]) -> AbstractAsyncContextManager[Rows]:
        """The rows of ``statement``, fetched as they are asked for."""
        ...

    async def stop(self) -> None:
        """Make the database end the statement that runs; returns when it has been told."""
        ...

    def abort(self) -> None:
        """Drop the connection without another word."""
        ...

    async def gone(self) -> bool:
        """Whether no statement of this transaction runs in the database any more.

        Asked on another connection, after the snapshot has been closed or dropped.
        """
        ...


@dataclass(frozen=True, slots=True)
class Activity:
    """When the oldest of our snapshots was taken, and how many connections we hold there."""

    oldest: datetime | None = None
    backends: int | None = None


class Source(ABC):
    """One bounded engine, and a slot for each export at a time.

    ``lane`` is the configured choice: "auto", "copy" or "rows".
    """

    kind: ClassVar[str]
    dialect: ClassVar[Dialect]
    driver_errors: ClassVar[tuple[type[Exception], ...]]  # what the driver raises unwrapped
    default_schema: str

    def __init__(
        self,
        name: str,
        url: str,
        *,
        max_connections: int,
        slot_timeout: float,
        lane: str = "auto",
        **engine_options: Any,
    ) -> None:
        self.name = name
        self.lane = lane
        self.slots = Slots(f"source {name}", max_connections, slot_timeout)
        self.engine: AsyncEngine = create_async_engine(
            url,
            pool_size=max_connections,
            # Two more for readiness, the catalogue and stopping while every slot streams.
            max_overflow=2,
            pool_timeout=POOL_TIMEOUT,
            **engine_options,
        )

    @abstractmethod
    def snapshot(
        self,
        *,
        max_seconds: float,
        lock_seconds: float,
        texts: Sequence[str] = (),
        query: RowsQuery | None = None,
    ) -> AbstractAsyncContextManager[Snapshot]:
        """Open a transaction for one export; errors come out as SourceError.

        ``texts`` are the values of all statements that will run in it. An error that the
        database raises at a value of ``query`` comes out as InvalidParameter.
        """

    @abstractmethod
    async def relations(
        self, connection: AsyncConnection, schemas: Sequence[str]
    ) -> list[Relation]:
        """Every readable relation of ``schemas``."""

    @abstractmethod
    async def query_columns(self, connection: AsyncConnection, sql: str) -> tuple[Column, ...]:
        """The columns of a configured query; SourceError when it is not one that gives rows."""

    @abstractmethod
    def meaning(self, error: BaseException) -> SourceError:
        """What an error of the driver means for the one who asked."""

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Foreign errors become ours at this one boundary."""
        try:
            yield
        except (TailraceError, asyncio.CancelledError):
            raise
        except PoolTimeout as error:
            raise Busy("No connection to the source came free in time.") from error
        except DBAPIError as error:
            cause = error.orig.__cause__ if error.orig is not None else None
            raise self.meaning(cause or error.orig or error) from error
        except self.driver_errors as error:
            raise self.meaning(error) from error

    async def activity(self, connection: AsyncConnection) -> Activity:
        """What the database says of our exports."""
        del connection
        return Activity()

    async def ping(self) -> None:
        """Raise SourceUnavailable unless the database answers."""
        with self.translated():
            async with asyncio.timeout(POOL_TIMEOUT), self.engine.connect() as connection:
                await connection.execute(sa.text("SELECT 1"))

    async def close(self) -> None:
        await self.engine.dispose()
