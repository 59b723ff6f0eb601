"""Reading SQLite's schema: tables and views, their columns and keys.

Source: SQLite's manual, "The Schema Table", "PRAGMA Statements", and "Datatypes In SQLite",
section 3.1, for what a declared type means.
"""

from __future__ import annotations

import sqlite3

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from service.column import Column, Kind
from service.databases.relation import Relation

SCHEMA = "main"
# Tables that belong to a virtual table, and SQLite's own, are nobody's data.
RELATIONS = sa.text("""
    SELECT t.name, t.type, t.wr AS without_rowid,
           (SELECT s.estimated_rows FROM statistics s WHERE s.tbl = t.name) AS estimated_rows
    FROM pragma_table_list t
    WHERE t.schema = 'main' AND t.type IN ('table', 'view', 'virtual')
      AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
    ORDER BY t.name
""")
# Each begins with the number of entries in an index, which is fewer where the index is partial.
WITH_STATISTICS = """
    WITH statistics AS (
        SELECT tbl, max(CAST(stat AS INTEGER)) AS estimated_rows FROM sqlite_stat1 GROUP BY tbl
    )
"""
WITHOUT_STATISTICS = "WITH statistics AS (SELECT NULL AS tbl, NULL AS estimated_rows)"
HAS_STATISTICS = sa.text("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_stat1'")
COLUMNS = sa.text("""
    SELECT name, type, "notnull" AS not_null, pk, hidden FROM pragma_table_xinfo(:relation, :schema)
""")
KEY_INDEX = sa.text("SELECT 1 FROM pragma_index_list(:relation, :schema) WHERE origin = 'pk'")
HIDDEN = 1  # of a virtual table; 2 and 3 are generated columns, which are data
# What stands in a declared type, in the order in which it counts.
WORDS: tuple[tuple[str, Kind], ...] = (
    ("BOOL", Kind.BOOLEAN),
    ("JSON", Kind.JSON),
    ("DATE", Kind.TEMPORAL),
    ("TIME", Kind.TEMPORAL),
    ("INT", Kind.INTEGER),
    ("CHAR", Kind.TEXT),
    ("CLOB", Kind.TEXT),
    ("TEXT", Kind.TEXT),
    ("BLOB", Kind.OTHER),
    ("REAL", Kind.NUMBER),
    ("FLOA", Kind.NUMBER),
    ("DOUB", Kind.NUMBER),
    ("NUMERIC", Kind.NUMBER),
    ("DECIMAL", Kind.NUMBER),
)
VIEW = "tailrace_configured"


async def relations(connection: AsyncConnection) -> list[Relation]:
    """Every table and view of the file."""
    has = (await connection.execute(HAS_STATISTICS)).first() is not None
    statement = sa.text(f"{WITH_STATISTICS if has else WITHOUT_STATISTICS} {RELATIONS.text}")
    return [await _relation(connection, row) for row in await connection.execute(statement)]


async def query_columns(connection: AsyncConnection, sql: str) -> tuple[Column, ...]:
    """The columns of a configured query, as a view of it would have them.

    Raises what the driver raises when ``sql`` is not exactly one SELECT.
    """
    await connection.exec_driver_sql("PRAGMA query_only = 0")
    try:
        # Nothing but a SELECT can be a view, and nothing can stand behind it.
        await connection.exec_driver_sql(f"CREATE TEMP VIEW {VIEW} AS {sql}")
        # As it will be read: a comment without an end would take our parenthesis along.
        await connection.exec_driver_sql(f"EXPLAIN SELECT 1 FROM ({sql}\n)")  # noqa: S608 - the operator's
        columns, _ = await _columns(connection, VIEW, "temp", without_rowid=False)
    finally:
        await connection.exec_driver_sql(f"DROP VIEW IF EXISTS temp.{VIEW}")
        await connection.exec_driver_sql("PRAGMA query_only = 1")
    return columns


async def _relation(connection: AsyncConnection, row: sa.Row[tuple[object, ...]]) -> Relation:
    """The relation; without columns where SQLite cannot say which those are.

    A view may read what is gone, a virtual table need a module that is not here.
    """
    columns: tuple[Column, ...] = ()
    key: tuple[str, ...] = ()
    without_rowid = bool(row.without_rowid)
    try:
        columns, key = await _columns(connection, row.name, SCHEMA, without_rowid=without_rowid)
    except OperationalError as error:
        if getattr(error.orig, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR:
            raise
    return Relation(
        schema=SCHEMA,
        name=row.name,
        columns=columns,
        key=key,
        description=None,
        estimated_rows=row.estimated_rows,
        computed=row.type == "view",
    )


async def _columns(
    connection: AsyncConnection, relation: str, schema: str, *, without_rowid: bool
) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """The columns and the primary key: only one whose columns can hold no NULL.

    SQLite lets a primary key hold NULL, more than once, unless it is the rowid, the table has
    none, or the column says NOT NULL.
    """
    bound = {"relation": relation, "schema": schema}
    rows = [row for row in await connection.execute(COLUMNS, bound) if row.hidden != HIDDEN]
    key = tuple(row.name for row in sorted(rows, key=lambda row: row.pk) if row.pk)
    filled = {row.name for row in rows if row.not_null}
    # The rowid has no index of its own.
    if without_rowid or (key and (await connection.execute(KEY_INDEX, bound)).first() is None):
        filled.update(key)
    columns = tuple(_column(row.name, row.type, nullable=row.name not in filled) for row in rows)
    return columns, key if filled.issuperset(key) else ()


def _column(name: str, declared: str, *, nullable: bool) -> Column:
    words = declared.upper()
    kind = next((kind for word, kind in WORDS if word in words), Kind.OTHER)
    bits = 64 if kind is Kind.INTEGER else None
    return Column(name=name, type=declared.lower(), kind=kind, nullable=nullable, bits=bits)
