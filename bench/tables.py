"""The tables of the benchmark in PostgreSQL: loaded once, and kept."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from service.database import service_engine
from service.demo import load
from service.demo_progress import ConsoleProgress
from service.schema import migrate

TIMES = 3  # flights is taken three times
FLIGHTS, FLIGHTS3 = 336_776, 1_010_328
FLIGHT_BYTES = 85  # of CSV, at least; JSON has more
WIDE, WIDE_COLUMNS = 20_000, 200
LONG = 100  # rows with a cell of a million characters

FLIGHTS_COLUMNS = (
    "year, month, day, dep_time, sched_dep_time, dep_delay, arr_time, sched_arr_time, arr_delay, "
    "carrier, flight, tailnum, origin, dest, air_time, distance, hour, minute, time_hour"
)
# A column of each takes its turn; every seventh value is NULL.
KINDS = (
    "i * {n}",
    "'text ' || i * {n}",
    "(i * {n}) / 8.0",
    "(i + {n}) % 2 = 0",
    "timestamptz '2013-01-01 00:00Z' + i * interval '{n} seconds'",
    "date '2013-01-01' + (i + {n}) % 365",
    "(i / ({n} + 0.5))::float8",
    "md5((i + {n})::text)::uuid",
)


async def prepare(url: str) -> None:
    """Make what is missing: the service's own tables, the demo's, and the benchmark's."""
    await own_tables(url)
    engine = service_engine(url)
    try:
        with ConsoleProgress() as progress:
            await load(engine, progress)
        for name, sql in (("flights3", _flights3()), ("wide", _wide()), ("long", _long())):
            await _make(engine, name, sql)
    finally:
        await engine.dispose()


async def own_tables(url: str) -> None:
    """Make the tables in which the service keeps its records."""
    engine = service_engine(url)
    try:
        await migrate(engine)
    finally:
        await engine.dispose()


async def _make(engine: AsyncEngine, name: str, sql: str) -> None:
    async with engine.begin() as connection:
        if await connection.scalar(sa.text(f"SELECT to_regclass('public.{name}')")):
            return
        await connection.execute(sa.text(f"CREATE TABLE {name} AS {sql}"))
        await connection.execute(sa.text(f"ALTER TABLE {name} ADD PRIMARY KEY (id)"))
    async with engine.connect() as plain:
        connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(sa.text(f"VACUUM (FREEZE, ANALYZE) {name}"))


def _flights3() -> str:
    """The real flights three times over, with a key of its own."""
    return (
        f"SELECT row_number() OVER ()::int AS id, {FLIGHTS_COLUMNS} "
        f"FROM flights, generate_series(1, {TIMES}) ORDER BY id"
    )


def _wide() -> str:
    """Two hundred columns of eight types."""
    columns = (
        f"CASE WHEN (i + {n}) % 7 > 0 THEN {KINDS[n % len(KINDS)].format(n=n)} END AS c{n}"
        for n in range(1, WIDE_COLUMNS)
    )
    return f"SELECT i AS id, {', '.join(columns)} FROM generate_series(1, {WIDE}) AS i"


def _long() -> str:
    """A million characters in a cell, which hold quotes and line breaks here and there."""
    cell = "repeat(md5(i::text) || '\"a, b\"' || chr(10), 25642)"
    return f"SELECT i AS id, left({cell}, 1000000) AS body FROM generate_series(1, {LONG}) AS i"
