"""The queue of jobs: PgQueuer on Tailrace's own database, behind the few words that we use.

An entry is a hint that an export waits; the export's row is the truth. So an entry that is lost
is made again, one that is there twice does nothing, and none holds anything but an id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast
from uuid import uuid4

import asyncpg
import sqlalchemy as sa
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment, QueryQueueBuilder
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.domain.settings import DBSettings
from pgqueuer.domain.types import Channel, JobId, QueueEntrypoint, QueueManagerId
from pgqueuer.ports.repository import EntrypointExecutionParameter
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.jobs.tables import SCHEMA

CHANNEL = "tailrace_queue"
NAMES = DBSettings(
    prefix="",
    db_schema=SCHEMA,
    channel=Channel(CHANNEL),
    function="queue_changed",
    trigger="queue_changed",
    queue_table="queue",
    queue_table_log="queue_log",
    statistics_table="queue_statistics",
    schedules_table="queue_schedules",
    queue_status_type="queue_status",
)
REMOVE = sa.text(f"DELETE FROM {SCHEMA}.queue WHERE dedupe_key = ANY(:ids)")  # noqa: S608 - a constant
DONE = sa.text(
    f"DELETE FROM {SCHEMA}.queue WHERE id = :number AND queue_manager_id = :manager"  # noqa: S608
)
TIDY = sa.text(f"DELETE FROM {SCHEMA}.queue_log")  # noqa: S608
PREFER = sa.text(f"""
    UPDATE {SCHEMA}.queue SET priority = :to
    WHERE status = 'queued' AND priority < :to AND created < now() - CAST(:after AS interval)
""")  # noqa: S608
DEPTH = sa.text(f"SELECT count(*) FROM {SCHEMA}.queue WHERE status = 'queued'")  # noqa: S608


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry that this worker has taken."""

    number: int
    export_id: str


class Queue:
    """Entries are taken by priority, then by age; ``manager`` tells workers apart."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._manager = QueueManagerId(uuid4())
        self._builder = QueryQueueBuilder(settings=NAMES)

    async def put(
        self,
        connection: AsyncConnection,
        source: str,
        export_id: str,
        *,
        priority: int,
        delay: float = 0.0,
    ) -> None:
        """Enter an export in the transaction of ``connection``, to be taken in ``delay`` seconds.

        One that is entered already gets the higher priority of the two.
        """
        queries = self._queries(await _driver(connection))
        await queries.enqueue(
            source,
            export_id.encode(),
            priority,
            timedelta(seconds=delay),
            export_id,
            on_conflict="update_priority",
        )

    async def take(self, limits: Mapping[str, int], *, most: int, lease: float) -> list[Entry]:
        """Take up to ``most`` entries of the sources that ``limits`` names.

        No more of a source are out at once, over all workers, than its limit says. An entry
        whose worker has not said for ``lease`` seconds that it lives is taken from it.
        """
        async with self._engine.connect() as connection:
            jobs = await self._queries(await _driver(connection)).dequeue(
                batch_size=most,
                entrypoints={
                    QueueEntrypoint(name): EntrypointExecutionParameter(concurrency_limit=limit)
                    for name, limit in limits.items()
                },
                queue_manager_id=self._manager,
                global_concurrency_limit=None,
                heartbeat_timeout=timedelta(seconds=lease),
            )
        return [Entry(job.id, (job.payload or b"").decode()) for job in jobs]

    async def keep(self, entries: Iterable[Entry]) -> None:
        """Say that these are still worked on."""
        numbers = [JobId(entry.number) for entry in entries]
        if numbers:
            async with self._engine.connect() as connection:
                queries = self._queries(await _driver(connection))
                await queries.update_heartbeat(numbers)

    async def done(self, entry: Entry) -> None:
        """Remove an entry, whatever became of its export."""
        async with self._engine.begin() as connection:
            # Not one that another worker has taken over meanwhile.
            await connection.execute(DONE, {"number": entry.number, "manager": self._manager})

    async def remove(self, connection: AsyncConnection, export_ids: Iterable[str]) -> None:
        """Remove the entries of exports in the transaction of ``connection``."""
        await connection.execute(REMOVE, {"ids": list(export_ids)})

    async def depth(self) -> int:
        """How many entries wait."""
        async with self._engine.connect() as connection:
            return int((await connection.execute(DEPTH)).scalar_one())

    async def tidy(self, connection: AsyncConnection) -> None:
        """Forget the library's own log: the rows of exports tell more."""
        await connection.execute(TIDY)

    async def prefer_old(self, connection: AsyncConnection, after: timedelta, to: int) -> None:
        """Give what has waited ``after`` the priority ``to``, so that nothing waits for ever."""
        await connection.execute(PREFER, {"after": after, "to": to})

    def without_entry(self, export_id: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """SQL: whether no entry is there for an export."""
        entry = sa.table("queue", sa.column("dedupe_key"), schema=SCHEMA)
        same = entry.c.dedupe_key == sa.cast(export_id, sa.Text)
        return ~sa.exists(sa.select(entry.c.dedupe_key).where(same))

    def _queries(self, driver: asyncpg.Connection) -> Queries:
        environment = QueryBuilderEnvironment(settings=NAMES)
        return Queries(AsyncpgDriver(driver), qbe=environment, qbq=self._builder)


def install(connection: sa.Connection) -> None:
    """Make the queue's tables, durable ones, in the transaction of a migration."""
    _script(
        connection, QueryBuilderEnvironment(settings=NAMES).build_install_query(create_schema=False)
    )


def uninstall(connection: sa.Connection) -> None:
    """Drop the queue's tables."""
    _script(connection, QueryBuilderEnvironment(settings=NAMES).build_uninstall_query())


def _script(connection: sa.Connection, text: str) -> None:
    # A driver's connection takes several statements at once only without parameters.
    raw = cast(Any, connection.connection.dbapi_connection)
    raw.run_async(lambda driver: driver.execute(text))


async def _driver(connection: AsyncConnection) -> asyncpg.Connection:
    raw = await connection.get_raw_connection()
    return cast(asyncpg.Connection, raw.driver_connection)
