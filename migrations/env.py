"""Alembic's entry: runs the migrations on the connection that ``service.schema`` hands in.

The connection is in a transaction and holds the lock of all migrations, so either every
pending migration is applied or none is.
"""

from __future__ import annotations

from typing import cast

from alembic import context
from sqlalchemy import Connection, func, select
from sqlalchemy.schema import CreateSchema

from service.jobs.tables import SCHEMA

connection = cast(Connection, context.config.attributes["connection"])
# Not IF NOT EXISTS: that asks for the right to create even where there is nothing to do.
if connection.scalar(select(func.to_regnamespace(SCHEMA))) is None:
    connection.execute(CreateSchema(SCHEMA))
context.configure(connection=connection, version_table_schema=SCHEMA)
with context.begin_transaction():
    context.run_migrations()
