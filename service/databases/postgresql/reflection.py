"""Reading PostgreSQL's catalogues: which relations there are, their columns, keys and comments.

Source: PostgreSQL's manual, "System Catalogs": pg_class, pg_attribute, pg_type, pg_index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from service.column import Column, Kind
from service.databases.relation import Relation
from service.errors import SourceError

# The fixed object identifiers of the built-in types (src/include/catalog/pg_type.dat).
KINDS: dict[int, Kind] = {
    16: Kind.BOOLEAN,
    **dict.fromkeys((20, 21, 23, 26), Kind.INTEGER),
    **dict.fromkeys((700, 701, 1700), Kind.NUMBER),
    **dict.fromkeys((19, 25, 1042, 1043), Kind.TEXT),
    2950: Kind.UUID,
    **dict.fromkeys((1082, 1083, 1114, 1184, 1186, 1266), Kind.TEMPORAL),
    114: Kind.JSON,
    3802: Kind.JSONB,
}
BITS = {20: 64, 21: 16, 23: 32}

RELATIONS = sa.text("""
    SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind AS kind,
           CASE WHEN c.relkind IN ('r', 'm', 'p') AND c.reltuples >= 0
                THEN c.reltuples::bigint END AS estimated_rows,
           obj_description(c.oid, 'pg_class') AS description,
           ARRAY(SELECT a.attname::text
                 FROM pg_index i
                 CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, place)
                 JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
                 WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY k.place) AS key
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
      AND n.nspname = ANY(CAST(:schemas AS text[]))
      AND has_schema_privilege(n.oid, 'USAGE') AND has_any_column_privilege(c.oid, 'SELECT')
    ORDER BY n.nspname, c.relname
""")
# NOT NULL is no promise for a foreign table, the rows of inheriting tables, or (from version 18)
# a constraint that is not valid yet.
COLUMNS = sa.text("""
    SELECT a.attrelid AS relation, a.attname AS name, a.atttypid AS type_oid,
           format_type(a.atttypid, a.atttypmod) AS type,
           a.attnotnull AND NOT c.relkind = 'f' AND NOT (c.relkind = 'r' AND c.relhassubclass)
           AND NOT EXISTS (SELECT FROM pg_constraint k
                           WHERE k.conrelid = a.attrelid AND k.contype = 'n'
                             AND a.attnum = ANY(k.conkey) AND NOT k.convalidated) AS not_null,
           col_description(a.attrelid, a.attnum) AS description
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE a.attrelid = ANY(CAST(:oids AS oid[])) AND a.attnum > 0 AND NOT a.attisdropped
      AND has_column_privilege(a.attrelid, a.attnum, 'SELECT')
    ORDER BY a.attrelid, a.attnum
""")
DOMAINS = sa.text("SELECT oid, typbasetype FROM pg_type WHERE typtype = 'd'")
TYPE_NAMES = sa.text("""
    SELECT t.oid, format_type(t.oid, NULL) AS type
    FROM unnest(CAST(:oids AS oid[])) AS t(oid)
""")


async def relations(connection: AsyncConnection, schemas: Sequence[str]) -> list[Relation]:
    """Every readable relation of ``schemas``; partitions stand behind their parent."""
    found = list(await connection.execute(RELATIONS, {"schemas": list(schemas)}))
    domains = await _domains(connection)
    columns: dict[int, list[Column]] = {row.oid: [] for row in found}
    for row in await connection.execute(COLUMNS, {"oids": list(columns)}):
        nullable = not row.not_null
        columns[row.relation].append(
            column(
                row.name,
                row.type,
                row.type_oid,
                domains,
                nullable=nullable,
                description=row.description,
            )
        )
    return [
        Relation(
            schema=row.schema,
            name=row.name,
            columns=tuple(columns[row.oid]),
            key=tuple(row.key),
            description=row.description,
            estimated_rows=row.estimated_rows,
        )
        for row in found
    ]


async def query_columns(connection: AsyncConnection, sql: str) -> tuple[Column, ...]:
    """The columns of a configured query, as the server describes them without running it.

    Raises asyncpg's PostgresError when ``sql`` is not exactly one statement that gives rows, and
    SourceError when it has parameters.
    """
    raw = await connection.get_raw_connection()
    driver: Any = raw.driver_connection
    # On its own first: so its parentheses and quotes are its own, and there is one statement.
    await driver.prepare(sql)
    wrapped = f"SELECT * FROM ({sql}\n) AS configured"  # noqa: S608 - the operator's own
    described = await driver.prepare(wrapped)
    if described.get_parameters():
        raise SourceError("it has parameters such as $1, which nothing would fill.")
    attributes: Sequence[asyncpg.Attribute] = described.get_attributes()
    oids = [attribute.type.oid for attribute in attributes]
    names = {row.oid: row.type for row in await connection.execute(TYPE_NAMES, {"oids": oids})}
    domains = await _domains(connection)
    return tuple(
        column(a.name, names[a.type.oid], a.type.oid, domains, nullable=True) for a in attributes
    )


async def _domains(connection: AsyncConnection) -> dict[int, int]:
    return {row.oid: row.typbasetype for row in await connection.execute(DOMAINS)}


def column(
    name: str,
    type_name: str,
    oid: int,
    domains: Mapping[int, int],
    *,
    nullable: bool = True,
    description: str | None = None,
) -> Column:
    """A column as the catalogue describes it; a domain is written as the type below it."""
    while oid in domains:
        oid = domains[oid]
    return Column(
        name=name,
        type=type_name,
        kind=KINDS.get(oid, Kind.OTHER),
        nullable=nullable,
        description=description,
        bits=BITS.get(oid),
    )
