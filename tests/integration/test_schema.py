"""Tailrace's own tables: brought to head once, whoever asks, and checked against the code."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import CheckConstraint, Connection, insert, inspect, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from service import schema
from service.errors import ConfigurationError
from service.jobs.tables import SCHEMA, exports, metadata
from tests.postgres import Databases, run_sql

MIGRATE = """
import asyncio, sys
from service.schema import migrate
from sqlalchemy.ext.asyncio import create_async_engine

async def main():
    engine = create_async_engine(sys.argv[1])
    sys.stdin.readline()
    await migrate(engine)
    await engine.dispose()

print("ready", flush=True)
asyncio.run(main())
"""

REPLICAS = 3


@pytest.fixture
def empty_url(databases: Databases) -> Iterator[str]:
    name = f"tailrace_empty_{uuid4().hex[:12]}"
    run_sql(databases.server_url, f"CREATE DATABASE {name}")
    yield databases.url(name)
    run_sql(databases.server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def engine(empty_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(empty_url, poolclass=NullPool)
    yield engine
    await engine.dispose()


async def test_migrate_takes_an_empty_database_to_head(engine: AsyncEngine) -> None:
    assert not await schema.at_head(engine)
    with pytest.raises(ConfigurationError, match="run `tailrace migrate`"):
        await schema.require_head(engine)
    await schema.migrate(engine)
    assert await schema.at_head(engine)
    await schema.require_head(engine)


async def test_migrate_at_head_changes_nothing(engine: AsyncEngine) -> None:
    await schema.migrate(engine)
    before = await _catalogue(engine)
    await schema.migrate(engine)
    assert await _catalogue(engine) == before


async def _catalogue(engine: AsyncEngine) -> list[Any]:
    query = "select oid, xmin, relname from pg_class where relnamespace = 'tailrace'::regnamespace"
    async with engine.connect() as connection:
        return list((await connection.execute(text(f"{query} order by oid"))).all())


async def test_replicas_in_one_process_take_turns(engine: AsyncEngine) -> None:
    await asyncio.gather(*(schema.migrate(engine) for _ in range(REPLICAS)))
    assert await schema.at_head(engine)


async def test_replicas_in_processes_of_their_own_take_turns(
    engine: AsyncEngine, empty_url: str
) -> None:
    pipe = asyncio.subprocess.PIPE
    replicas = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", MIGRATE, empty_url, stdin=pipe, stdout=pipe, stderr=pipe
        )
        for _ in range(REPLICAS)
    ]
    for replica in replicas:
        assert replica.stdout is not None
        assert await replica.stdout.readline() == b"ready\n"
    said = await asyncio.gather(*(replica.communicate(b"go\n") for replica in replicas))
    assert [replica.returncode for replica in replicas] == [0] * REPLICAS, said
    assert await schema.at_head(engine)


async def test_nothing_of_a_failed_migration_stays(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        # in the way of the first migration
        await connection.execute(text("create schema tailrace"))
        await connection.execute(text("create table tailrace.exports (id int)"))
    with pytest.raises(Exception, match="already exists"):
        await schema.migrate(engine)
    async with engine.connect() as connection:
        tables = await connection.run_sync(lambda c: inspect(c).get_table_names(SCHEMA))
    assert tables == ["exports"]


async def test_database_of_a_newer_version_is_left_alone(engine: AsyncEngine) -> None:
    await schema.migrate(engine)
    async with engine.begin() as connection:
        await connection.execute(text("update tailrace.alembic_version set version_num = '9999'"))
    assert not await schema.at_head(engine)
    with pytest.raises(ConfigurationError, match="made by a newer Tailrace"):
        await schema.migrate(engine)


async def test_tables_in_code_are_those_of_the_migrations(engine: AsyncEngine) -> None:
    await schema.migrate(engine)
    async with engine.connect() as connection:
        assert await connection.run_sync(_differences) == []
        found = await connection.run_sync(
            lambda c: inspect(c).get_check_constraints("exports", SCHEMA)
        )
    declared = {c.name for c in exports.constraints if isinstance(c, CheckConstraint)}
    assert {check["name"] for check in found} == declared


def _is_the_queues(table: str | None) -> bool:
    """A table that the queue's library makes and describes itself."""
    return str(table).startswith("queue")


def _differences(connection: Connection) -> list[Any]:
    options = {
        "version_table_schema": SCHEMA,
        "include_schemas": True,
        "include_name": lambda name, kind, _: kind != "schema" or name == SCHEMA,
        "include_object": lambda _, name, kind, *__: kind != "table" or not _is_the_queues(name),
        "compare_server_default": True,
    }
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


async def test_table_and_every_column_are_described(engine: AsyncEngine) -> None:
    await schema.migrate(engine)
    async with engine.connect() as connection:
        inspected = await connection.run_sync(
            lambda c: (
                inspect(c).get_table_comment("exports", SCHEMA),
                inspect(c).get_columns("exports", SCHEMA),
            )
        )
    about, columns = inspected
    assert about["text"]
    assert [column["name"] for column in columns if not column["comment"]] == []


def _export(**values: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    given = {"id": uuid4(), "kind": "stream", "owner": "anonymous", "request": {}}
    return {**given, "state": "running", "created_at": now, "heartbeat_at": now, **values}


async def test_missing_error_is_null_and_not_the_json_null(engine: AsyncEngine) -> None:
    await schema.migrate(engine)
    async with engine.begin() as connection:
        await connection.execute(insert(exports).values(_export(error=None, receipt=None)))
        nulls = select(exports.c.attempt).where(
            exports.c.error.is_(None), exports.c.receipt.is_(None)
        )
        assert (await connection.scalars(nulls)).all() == [1]


@pytest.mark.parametrize(
    ("column", "value"),
    [("kind", "other"), ("state", "lost"), ("total_kind", "guess"), ("attempt", 0)],
)
async def test_values_outside_the_vocabulary_are_refused(
    engine: AsyncEngine, column: str, value: object
) -> None:
    await schema.migrate(engine)
    async with engine.connect() as connection:
        with pytest.raises(IntegrityError, match=f"exports_{column}_check"):
            await connection.execute(insert(exports).values(_export(**{column: value})))


async def test_exports_of_the_version_before_downloads_stay(engine: AsyncEngine) -> None:
    old = _export(dataset="numbers", rows=7)
    async with engine.begin() as connection:
        await connection.run_sync(_to, command.upgrade, "0002")
        await connection.execute(insert(exports).values(old))
    await schema.migrate(engine)
    async with engine.connect() as connection:
        (row,) = (await connection.execute(select(exports))).all()
    assert (row.id, row.dataset, row.rows, row.total_bytes) == (old["id"], "numbers", 7, None)
    async with engine.begin() as connection:
        await connection.run_sync(_to, command.downgrade, "0002")
        kept = await connection.run_sync(lambda c: inspect(c).get_columns("exports", SCHEMA))
    assert {column.name for column in exports.columns} - {column["name"] for column in kept} == {
        "total_bytes"
    }


def _to(connection: Connection, move: Callable[[Config, str], None], version: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.migrations_folder()))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    move(config, version)


async def test_logging_is_left_as_it_is(engine: AsyncEngine) -> None:
    before = (logging.root.level, list(logging.root.handlers), logging.root.manager.disable)
    existing = logging.getLogger("tailrace.before")
    await schema.migrate(engine)
    after = (logging.root.level, list(logging.root.handlers), logging.root.manager.disable)
    assert after == before
    assert not existing.disabled


def test_migrations_are_found_in_an_installed_package(tmp_path: Path) -> None:
    repository = Path(schema.__file__).parents[1]
    ignored = shutil.ignore_patterns("__pycache__", "_migrations")
    shutil.copytree(repository / "service", tmp_path / "service", ignore=ignored)
    shutil.copytree(schema.migrations_folder(), tmp_path / "service" / "_migrations")
    done = subprocess.run(
        [sys.executable, "-c", "from service.schema import *; print(migrations_folder())"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert Path(done.stdout.strip()) == (tmp_path / "service" / "_migrations").resolve()
