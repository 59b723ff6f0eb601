"""Tailrace's own tables brought to, and checked against, the version that this code needs."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from service.errors import ConfigurationError
from service.jobs.tables import SCHEMA

# pg_advisory_xact_lock takes any 64-bit number that nobody else takes
MIGRATION_LOCK = int.from_bytes(b"tailrace", "big")


async def migrate(engine: AsyncEngine) -> None:
    """Apply every pending migration in one transaction; replicas that do so at once take turns.

    Raises ConfigurationError when the database is of a newer Tailrace than this one.
    """
    async with engine.begin() as connection:
        # here and not in env.py: alembic.context is one for the process, so two runs of env.py
        # that wait for each other inside of it would mix their connections up
        await connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        await connection.run_sync(_upgrade)


async def at_head(engine: AsyncEngine) -> bool:
    """Whether the schema is exactly the one that this code was written for."""
    async with engine.connect() as connection:
        return await connection.run_sync(_is_at_head)


async def require_head(engine: AsyncEngine) -> None:
    """Raise ConfigurationError unless ``at_head``."""
    if not await at_head(engine):
        raise ConfigurationError(
            f"The database's schema {SCHEMA!r} is not the one that this version of Tailrace needs: "
            "run `tailrace migrate`."
        )


def migrations_folder() -> Path:
    """Where the migrations are: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "_migrations", package.parent / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    raise ConfigurationError("Tailrace's migrations are missing from its installation.")


def _config() -> Config:
    config = Config()
    # a Config interpolates like configparser
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _upgrade(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise ConfigurationError(
            f"The database's schema {SCHEMA!r} cannot be brought to this version ({error}): it was "
            "probably made by a newer Tailrace."
        ) from error


def _is_at_head(connection: Connection) -> bool:
    context = MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA})
    return set(context.get_current_heads()) == set(
        ScriptDirectory.from_config(_config()).get_heads()
    )
