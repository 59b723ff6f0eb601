"""Reading the data dictionary: which relations there are, their columns, keys and comments.

Source: MariaDB's manual and MySQL's reference manual, "INFORMATION_SCHEMA Tables".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from service.column import Column
from service.databases.mysql.describing import described
from service.databases.mysql.family import column_of
from service.databases.relation import Relation
from service.errors import SourceError

SYSTEM = frozenset({"information_schema", "mysql", "performance_schema", "sys"})
# Names are compared byte by byte, since two tables may differ in case alone. Which names a
# statement matches in another case is the server's (lower_case_table_names).
RELATIONS = sa.text("""
    SELECT t.table_schema AS `schema`, t.table_name AS name, t.table_type AS kind,
           t.table_rows AS estimated_rows, t.table_comment AS description
    FROM information_schema.tables t
    WHERE t.table_schema IN :schemas
      AND t.table_type IN ('BASE TABLE', 'VIEW', 'SYSTEM VERSIONED')
    ORDER BY t.table_schema, t.table_name
""").bindparams(sa.bindparam("schemas", expanding=True))
COLUMNS = sa.text("""
    SELECT c.table_schema AS `schema`, c.table_name AS relation, c.column_name AS name,
           c.column_type AS type, c.is_nullable AS nullable, c.column_comment AS description
    FROM information_schema.columns c
    WHERE c.table_schema IN :schemas
    ORDER BY c.table_schema, c.table_name, c.ordinal_position
""").bindparams(sa.bindparam("schemas", expanding=True))
KEYS = sa.text("""
    SELECT k.table_schema AS `schema`, k.table_name AS relation, k.column_name AS name
    FROM information_schema.statistics k
    WHERE k.table_schema IN :schemas AND k.index_name = 'PRIMARY'
    ORDER BY k.table_schema, k.table_name, k.seq_in_index
""").bindparams(sa.bindparam("schemas", expanding=True))
# MariaDB's JSON is a LONGTEXT with this constraint, which MySQL's dictionary has no table for
# of the same columns.
DOCUMENTS = sa.text("""
    SELECT k.constraint_schema AS `schema`, k.table_name AS relation, k.check_clause AS clause
    FROM information_schema.check_constraints k
    WHERE k.constraint_schema IN :schemas AND k.check_clause LIKE 'json\\_valid(`%'
""").bindparams(sa.bindparam("schemas", expanding=True))
Place = tuple[str, str]


async def relations(connection: AsyncConnection, schemas: Sequence[str]) -> list[Relation]:
    """Every readable table and view of ``schemas``, which are never the server's own."""
    bound = {"schemas": [name for name in schemas if name.lower() not in SYSTEM]}
    found = list(await connection.execute(RELATIONS, bound))
    documents = await _documents(connection, bound)
    columns: dict[Place, list[Column]] = {}
    for row in await connection.execute(COLUMNS, bound):
        columns.setdefault((row.schema, row.relation), []).append(_column(row, documents))
    keys: dict[Place, list[str]] = {}
    for row in await connection.execute(KEYS, bound):
        keys.setdefault((row.schema, row.relation), []).append(row.name)
    return [
        _relation(row, columns.get((row.schema, row.name), []), keys.get((row.schema, row.name)))
        for row in found
    ]


async def query_columns(connection: AsyncConnection, sql: str) -> tuple[Column, ...]:
    """The columns of a configured query, as the protocol describes those of its result.

    Raises what the driver raises when ``sql`` is not exactly one statement that gives rows,
    and SourceError when it has parameters.
    """
    raw = await connection.get_raw_connection()
    # On its own first: so its parentheses and quotes are its own, and there is one statement.
    alone = await described(raw.driver_connection, sql)
    if alone.parameters:
        raise SourceError("it has parameters such as ?, which nothing would fill.")
    if not alone.columns:
        raise SourceError("it gives no columns.")
    wrapped = f"SELECT * FROM ({sql}\n) AS configured"  # noqa: S608 - the operator's own
    return (await described(raw.driver_connection, wrapped)).columns


async def _documents(
    connection: AsyncConnection, bound: Mapping[str, Sequence[str]]
) -> set[tuple[str, str, str]]:
    """The columns that hold JSON by a constraint: schema, table, column."""
    if not connection.dialect.is_mariadb:  # type: ignore[attr-defined]  # of MySQL's dialects
        return set()
    return {
        (row.schema, row.relation, row.clause[len("json_valid(`") : -len("`)")].replace("``", "`"))
        for row in await connection.execute(DOCUMENTS, bound)
    }


def _column(row: sa.Row[Any], documents: set[tuple[str, str, str]]) -> Column:
    return column_of(
        row.name,
        row.type,
        nullable=row.nullable != "NO",
        document=(row.schema, row.relation, row.name) in documents,
        description=row.description,
    )


def _relation(row: sa.Row[Any], columns: Sequence[Column], key: Sequence[str] | None) -> Relation:
    view = row.kind == "VIEW"
    return Relation(
        schema=row.schema,
        name=row.name,
        columns=tuple(columns),
        key=tuple(key or ()),
        description=None if view else row.description or None,  # a view's says "VIEW"
        estimated_rows=None if row.estimated_rows is None else int(row.estimated_rows),
        computed=view,
    )
