"""Reading SQLite's schema: tables and views, their columns and keys.

Source: SQLite's manual, "The Schema Table", "PRAGMA Statements", and "Datatypes In SQLite",
section 3.1, for what a declared type means.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from service.column import Column, Kind
from service.databases.relation import Relation
from service.errors import SourceError

SCHEMA = "main"
# Tables that belong to a virtual table, and SQLite's own, are nobody's data.
RELATIONS = sa.text("""
    SELECT t.name, t.type, t.wr AS without_rowid,
           (SELECT CAST(substr(s.stat, 1, instr(s.stat || ' ', ' ') - 1) AS INTEGER)
            FROM statistics s WHERE s.tbl = t.name) AS estimated_rows
    FROM pragma_table_list t
    WHERE t.schema = 'main' AND t.type IN ('table', 'view', 'virtual')
      AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
    ORDER BY t.name
""")
WITH_STATISTICS = (
    "WITH statistics AS (SELECT tbl, max(stat) AS stat FROM sqlite_stat1 GROUP BY tbl)"
)
WITHOUT_STATISTICS = "WITH statistics AS (SELECT NULL AS tbl, NULL AS stat)"
HAS_STATISTICS = sa.text("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_stat1'")
COLUMNS = sa.text("""
    SELECT name, type, "notnull" AS not_null, pk, hidden FROM pragma_table_xinfo(:relation, :schema)
""")
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
    # On its own first: so its parentheses and quotes are its own, and there is one statement.
    await connection.exec_driver_sql(f"EXPLAIN {sql}")
    await connection.exec_driver_sql("PRAGMA query_only = 0")
    try:
        await connection.exec_driver_sql(f"CREATE TEMP VIEW {VIEW} AS {sql}")
        columns, _ = await _columns(connection, VIEW, "temp", without_rowid=False)
        await connection.exec_driver_sql(f"DROP VIEW temp.{VIEW}")
    finally:
        await connection.exec_driver_sql("PRAGMA query_only = 1")
    if not columns:
        raise SourceError("it gives no columns.")
    return columns


async def _relation(connection: AsyncConnection, row: sa.Row[tuple[object, ...]]) -> Relation:
    columns, key = await _columns(
        connection, row.name, SCHEMA, without_rowid=bool(row.without_rowid)
    )
    return Relation(
        schema=SCHEMA,
        name=row.name,
        columns=columns,
        key=key,
        description=None,
        estimated_rows=row.estimated_rows,
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
    keyed = sorted((row for row in rows if row.pk), key=lambda row: row.pk)
    rowid = len(keyed) == 1 and keyed[0].type.upper() == "INTEGER" and not without_rowid
    filled = {row.name for row in rows if row.not_null}
    if rowid or without_rowid:
        filled |= {row.name for row in keyed}
    columns = tuple(_column(row.name, row.type, nullable=row.name not in filled) for row in rows)
    key = tuple(row.name for row in keyed)
    return columns, key if filled.issuperset(key) else ()


def _column(name: str, declared: str, *, nullable: bool) -> Column:
    words = declared.upper()
    kind = next((kind for word, kind in WORDS if word in words), Kind.OTHER)
    bits = 64 if kind is Kind.INTEGER else None
    return Column(name=name, type=declared.lower(), kind=kind, nullable=nullable, bits=bits)
