"""The PostgreSQL of the tests: TEST_DATABASE_URL, else a container, else the embedded one."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
from sqlalchemy.engine import make_url

from service.database import service_engine
from service.embedded import EmbeddedPostgres
from service.schema import migrate

IMAGE = "postgres:18"
DOCKER_SECONDS = 5


@contextmanager
def running_postgres() -> Iterator[str]:
    """A URL (postgresql+asyncpg) whose role may create databases."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield _with_driver(given)
    elif _docker_answers():
        yield from _container()
    else:
        folder = Path(tempfile.mkdtemp(prefix="tailrace-test-"))
        try:
            with EmbeddedPostgres(folder) as embedded:
                # Thrown away at the end: nothing here has to survive a power failure.
                run_sql(embedded.url, "ALTER SYSTEM SET fsync = off")
                run_sql(embedded.url, "SELECT pg_reload_conf()")
                yield embedded.url
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _container() -> Iterator[str]:
    from testcontainers.community.postgres import PostgresContainer

    with PostgresContainer(IMAGE, driver="asyncpg") as container:
        yield container.get_connection_url()


def _docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        asked = subprocess.run(
            ["docker", "info"], capture_output=True, timeout=DOCKER_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0


def _with_driver(url: str) -> str:
    parsed = make_url(url).set(drivername="postgresql+asyncpg")
    return parsed.render_as_string(hide_password=False)


class Databases:
    """Makes databases on one server, cloned from a template that is migrated once."""

    def __init__(self, server_url: str) -> None:
        self.server_url = server_url
        self._template: str | None = None

    def url(self, name: str) -> str:
        """The URL of the database ``name`` on this server."""
        return make_url(self.server_url).set(database=name).render_as_string(hide_password=False)

    def template(self) -> str:
        """The name of a database with Tailrace's own tables at head."""
        if self._template is None:
            name = f"tailrace_template_{uuid4().hex[:12]}"
            run_sql(self.server_url, f"CREATE DATABASE {name}")
            asyncio.run(_migrate(self.url(name)))
            self._template = name
        return self._template

    @contextmanager
    def clone(self) -> Iterator[str]:
        """The URL of a database of the test's own, dropped afterwards."""
        name = f"tailrace_test_{uuid4().hex[:12]}"
        run_sql(self.server_url, f"CREATE DATABASE {name} TEMPLATE {self.template()}")
        try:
            yield self.url(name)
        finally:
            run_sql(self.server_url, f"DROP DATABASE {name} WITH (FORCE)")

    def close(self) -> None:
        if self._template is not None:
            run_sql(self.server_url, f"DROP DATABASE {self._template} WITH (FORCE)")


async def _migrate(url: str) -> None:
    engine = service_engine(url)
    try:
        await migrate(engine)
    finally:
        await engine.dispose()


def libpq_url(url: str) -> str:
    """``url`` as libpq and asyncpg spell it."""
    parsed = make_url(url).set(drivername="postgresql")
    return parsed.render_as_string(hide_password=False)


def run_sql(url: str, sql: str) -> None:
    """Run a script of statements, each committed as the script says."""
    asyncio.run(_run(url, sql))


async def _run(url: str, sql: str) -> None:
    connection = await asyncpg.connect(libpq_url(url))
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def fetch(url: str, sql: str, *arguments: object) -> list[asyncpg.Record]:
    """The rows of one query."""

    async def ask() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(libpq_url(url))
        try:
            rows: list[asyncpg.Record] = await connection.fetch(sql, *arguments)
            return rows
        finally:
            await connection.close()

    return asyncio.run(ask())


def exporting(url: str) -> int:
    """How many backends of this database run an export now."""
    query = """
        SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'tailrace export' AND state <> 'idle'
          AND datname = current_database()
    """
    return int(fetch(url, query)[0][0])
