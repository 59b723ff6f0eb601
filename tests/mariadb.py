"""The MariaDB of the tests: TEST_MYSQL_URL, else a private server of this machine's mariadbd."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiomysql  # type: ignore[import-untyped]  # it has no types
import pytest
from sqlalchemy.engine import make_url

from service.catalog import Catalog
from service.databases.mysql.source import MysqlSource
from service.settings import DatasetSettings, SourceSettings
from service.values import mysql_url
from tests.exporting import catalog_of
from tests.waiting import wait_until

START_SECONDS = 30
STOP_SECONDS = 30
PATHS = ("/usr/sbin", "/usr/local/sbin")
PACKET = 16 * 1024 * 1024  # bytes: max_allowed_packet
MISSING = "no mariadbd here, and TEST_MYSQL_URL is not set"


@contextmanager
def running_mariadb() -> Iterator[str]:
    """The URL of a server on which databases may be made; a skip where there is none."""
    if url := os.environ.get("TEST_MYSQL_URL"):
        yield url
        return
    program = found("mariadbd")
    if program is None or found("mariadb-install-db") is None:
        pytest.skip(MISSING)
    with running(program) as url:
        yield url


def found(program: str) -> str | None:
    """The path of a server's program, which need not be on an ordinary user's."""
    return shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", ""), *PATHS)))


@contextmanager
def running(program: str, *options: str) -> Iterator[str]:
    """A server of our own: its data, its socket and its port are nobody else's."""
    folder = Path(tempfile.mkdtemp(prefix="tailrace-mariadb-"))
    try:
        _install(folder)
        port = _free_port()
        placed = (
            "--no-defaults",
            f"--datadir={folder / 'data'}",
            f"--socket={folder / 'socket'}",
            f"--pid-file={folder / 'pid'}",
            f"--port={port}",
            "--bind-address=127.0.0.1",
            f"--max-allowed-packet={PACKET}",
            "--innodb-flush-log-at-trx-commit=0",
            "--skip-name-resolve",
        )
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [program, *placed, *options, *_as_user()], stdout=log, stderr=log
            )
        try:
            url = f"mysql://root@127.0.0.1:{port}/mysql"
            wait_until(lambda: _answers(process, url, folder), within=START_SECONDS, what="ready")
            yield url
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def database(server_url: str, options: str = "CHARACTER SET utf8mb4") -> Iterator[str]:
    """The URL of a database with a name of its own, dropped afterwards."""
    name = f"tailrace_test_{uuid4().hex[:12]}"
    run_sql(server_url, f"CREATE DATABASE {name} {options}")
    try:
        yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
    finally:
        run_sql(server_url, f"DROP DATABASE {name}")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """A plain connection of the driver, in UTC and in the server's own manners otherwise."""
    parsed = make_url(url)
    connection = await aiomysql.connect(
        host=parsed.host or "127.0.0.1",
        port=parsed.port or 3306,
        user=parsed.username,
        password=parsed.password or "",
        db=parsed.database,
        charset="utf8mb4",
        autocommit=True,
        init_command="SET time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES'",
    )
    try:
        yield connection
    finally:
        connection.close()


async def run(url: str, *statements: str) -> None:
    """Run each statement, committed."""
    async with connected(url) as connection, connection.cursor() as cursor:
        for statement in statements:
            await cursor.execute(statement)


async def rows(url: str, sql: str, arguments: tuple[object, ...] | None = None) -> list[Any]:
    """The rows of one query."""
    async with connected(url) as connection, connection.cursor() as cursor:
        await cursor.execute(sql, arguments)
        return list(await cursor.fetchall())


def run_sql(url: str, *statements: str) -> None:
    asyncio.run(run(url, *statements))


def fetch(url: str, sql: str, arguments: tuple[object, ...] | None = None) -> list[Any]:
    return asyncio.run(rows(url, sql, arguments))


async def running_queries(url: str, part: str) -> int:
    """How many statements with ``part`` in them the server runs now, this question not counted."""
    sql = (
        "SELECT COUNT(*) FROM information_schema.processlist "
        "WHERE command <> 'Sleep' AND id <> CONNECTION_ID() AND INSTR(info, %s) > 0"
    )
    return int((await rows(url, sql, (part,)))[0][0])


@asynccontextmanager
async def open_source(
    url: str, connections: int = 4, lane: str = "auto"
) -> AsyncIterator[MysqlSource]:
    """The source "main" at ``url``, closed afterwards."""
    source = MysqlSource(
        "main", mysql_url(url), max_connections=connections, slot_timeout=5.0, lane=lane
    )
    try:
        yield source
    finally:
        await source.close()


def catalog(source: MysqlSource, configured: dict[str, DatasetSettings] | None = None) -> Catalog:
    """A catalogue of everything in the source's own database."""
    everything = SourceSettings(expose=(f"{source.default_schema}.*",))
    return catalog_of(source, configured, everything)


def _install(folder: Path) -> None:
    folder.chmod(0o755)
    if os.geteuid() == 0:
        shutil.chown(folder, "mysql", "mysql")
    program = found("mariadb-install-db")
    assert program is not None
    subprocess.run(
        [
            program,
            "--no-defaults",
            f"--datadir={folder / 'data'}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            *_as_user(),
        ],
        check=True,
        capture_output=True,
    )


def _as_user() -> tuple[str, ...]:
    # It refuses to run as root.
    return ("--user=mysql",) if os.geteuid() == 0 else ()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _answers(process: subprocess.Popen[bytes], url: str, folder: Path) -> bool:
    if process.poll() is not None:
        raise AssertionError(f"mariadbd ended: {(folder / 'log').read_text()[-3000:]}")
    try:
        return bool(fetch(url, "SELECT 1"))
    except aiomysql.Error:
        return False
