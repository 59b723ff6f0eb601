"""A real ``tailrace serve`` over an embedded PostgreSQL, with the data of the benchmark.

The start of the service is that of the tests: both want the real command on a free port, and
``tests.serving`` needs nothing of pytest.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import make_url

from bench.tables import prepare
from bench.timing import Run, command
from service.embedded import EmbeddedPostgres
from tests.serving import Served, serving

POWERS = (5, 6, 7)
# One series streams: generate_series in FROM would be stored as a whole before its first row.
SERIES = """
[datasets.{name}]
source = "{source}"
sql = '''SELECT i AS id, 'name ' || i AS name, i % 1000 / 10.0 AS score
         FROM (SELECT generate_series(1, {rows}) AS i) AS s'''
"""
CONFIG = """
[sources.main]
expose = ["public.*"]
[sources.rows]
lane = "rows"
expose = ["public.*"]
""" + "".join(
    SERIES.format(name=f"{prefix}ten_to_{power}", source=source, rows=10**power)
    for prefix, source in (("", "main"), ("rows_", "rows"))
    for power in POWERS
)


@dataclass(frozen=True, slots=True)
class Bench:
    """Where everything is: ``psql`` and ``dsn`` for the baselines, ``base`` for Tailrace.

    ``rows.`` before a table's name and ``rows_`` before a series' name choose the rows lane.
    """

    psql: Path
    url: str
    base: str
    pid: int
    folder: Path

    @property
    def dsn(self) -> str:
        """The database as libpq spells it."""
        made = make_url(self.url).set(drivername="postgresql")
        return made.render_as_string(hide_password=False)

    def rows(self, path: str) -> str:
        """The address of a dataset's rows."""
        return f"{self.base}/v1/rows/{path}"

    def statement(self, sql: str) -> Run:
        """A run of psql that throws its output away."""
        return command(self.psql, self.dsn, "-qc", sql)

    def columns(self, table: str) -> str:
        """The columns of ``table`` as a SELECT lists them."""
        ask = (
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute "
            f"WHERE attrelid = '{table}'::regclass AND attnum > 0"
        )
        return self.value(ask)

    def value(self, sql: str) -> str:
        """The one value that ``sql`` gives."""
        arguments = [str(self.psql), self.dsn, "-Atc", sql]
        found = subprocess.run(arguments, check=True, capture_output=True, text=True)
        return found.stdout.strip()


@contextmanager
def running(folder: Path) -> Iterator[Bench]:
    """Start PostgreSQL and Tailrace in ``folder``; the data is loaded once and kept."""
    folder.mkdir(parents=True, exist_ok=True)
    with EmbeddedPostgres(folder / "data") as embedded:
        asyncio.run(prepare(embedded.url))
        with serve(folder / "service", embedded.url, CONFIG) as served:
            yield Bench(embedded.psql, embedded.url, served.base, served.process.pid, folder)


@contextmanager
def serve(
    folder: Path, database_url: str, config: str, *arguments: str, **settings: str
) -> Iterator[Served]:
    """One more service, which logs warnings only."""
    given = {"log__level": "warning", **settings}
    with serving(folder, database_url, config=config, arguments=arguments, **given) as served:
        yield served
