"""A real ``tailrace serve`` over an embedded PostgreSQL, with the data of the benchmark."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from service.database import service_engine
from service.demo import load
from service.demo_progress import ConsoleProgress
from service.embedded import EmbeddedPostgres
from service.schema import migrate

TIMES = 3  # flights is taken three times: 1,010,328 rows
START_SECONDS = 60
GREETING = re.compile(r"Tailrace serves on (http://\S+?)/ ")
CONFIG = """
[sources.main]
expose = ["public.*"]
[datasets.ten_million]
sql = '''select i as id, 'name ' || i as name, i % 1000 / 10.0 as score
         from generate_series(1, 10000000) as i'''
"""


@dataclass(frozen=True, slots=True)
class Bench:
    """Where everything is: ``psql`` and ``dsn`` for the baselines, ``base`` for Tailrace."""

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


@contextmanager
def running(folder: Path) -> Iterator[Bench]:
    """Start PostgreSQL and Tailrace in ``folder``; the data is loaded once and kept."""
    folder.mkdir(parents=True, exist_ok=True)
    with EmbeddedPostgres(folder / "data") as embedded:
        asyncio.run(_prepare(embedded.url))
        with serving(folder, embedded.url) as (base, pid):
            yield Bench(embedded.psql, embedded.url, base, pid, folder)


@contextmanager
def serving(folder: Path, url: str) -> Iterator[tuple[str, int]]:
    """``tailrace serve`` on a free port: its address and process id."""
    config, output = folder / "tailrace.toml", folder / "output"
    config.write_text(CONFIG)
    options = ["--config", str(config), "--port", "0"]
    environment = {**os.environ, "TAILRACE_DATABASE__URL": url, "TAILRACE_LOG__LEVEL": "warning"}
    with output.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve", *options], stdout=out, env=environment
        )
    try:
        yield _ready(process, output), process.pid
    finally:
        process.terminate()
        process.wait()


def _ready(process: subprocess.Popen[bytes], output: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "the service ended"
        found = GREETING.search(output.read_text())
        try:
            if found and urlopen(f"{found[1]}/readyz", timeout=5).status == 200:
                return found[1]
        except (URLError, ConnectionError):
            pass
        time.sleep(0.05)
    raise AssertionError("the service did not become ready")


async def _prepare(url: str) -> None:
    engine = service_engine(url)
    try:
        await migrate(engine)
        with ConsoleProgress() as progress:
            await load(engine, progress)
        await _triple(engine)
    finally:
        await engine.dispose()


async def _triple(engine: AsyncEngine) -> None:
    """``flights3``: the real flights three times over, with a key of its own."""
    async with engine.begin() as connection:
        if await connection.scalar(sa.text("SELECT to_regclass('public.flights3')")):
            return
        columns = "year, month, day, dep_time, sched_dep_time, dep_delay, arr_time, "
        columns += "sched_arr_time, arr_delay, carrier, flight, tailnum, origin, dest, air_time, "
        columns += "distance, hour, minute, time_hour"
        await connection.execute(
            sa.text(
                f"CREATE TABLE flights3 AS SELECT row_number() OVER ()::int AS id, {columns} "
                f"FROM flights, generate_series(1, {TIMES}) ORDER BY id"
            )
        )
        await connection.execute(sa.text("ALTER TABLE flights3 ADD PRIMARY KEY (id)"))
    async with engine.connect() as plain:
        connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(sa.text("VACUUM (FREEZE, ANALYZE) flights3"))
