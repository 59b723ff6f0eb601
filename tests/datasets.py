"""Datasets for tests that need no database: columns of every kind, and names that bite."""

from __future__ import annotations

import sqlalchemy as sa

from service.column import Column, Kind
from service.databases.postgresql.dialect import POSTGRESQL
from service.dataset import Dataset

ID = Column("id", "integer", Kind.INTEGER, nullable=False, bits=32)
SMALL = Column("small", "smallint", Kind.INTEGER, bits=16)
BIG = Column("big", "bigint", Kind.INTEGER, bits=64)
OID = Column("oid_", "oid", Kind.INTEGER)
NAME = Column("name", "text", Kind.TEXT)
PRICE = Column("price", "numeric", Kind.NUMBER)
PAID = Column("paid", "boolean", Kind.BOOLEAN)
TOKEN = Column("token", "uuid", Kind.UUID)
AT = Column("at", "timestamp with time zone", Kind.TEMPORAL)
DOC = Column("doc", "json", Kind.JSON)
TAGS = Column("tags", "text[]", Kind.OTHER)
KINDS = (ID, SMALL, BIG, OID, NAME, PRICE, PAID, TOKEN, AT, DOC, TAGS)

HOSTILE_NAMES = (
    "a b",
    'a"b',
    "a.b,c:d(e)",
    "price$1",
    "$1",
    "%s",
    "%(name)s",
    ":name",
    "back\\slash",
    "Größe",
    "select",
    "' || current_user || '",
    '"; drop table canary; --',
)
HOSTILE = tuple(Column(name, "text", Kind.TEXT) for name in HOSTILE_NAMES)


def dataset(
    *columns: Column, key: tuple[str, ...] = (), table: str = "orders", schema: str = "public"
) -> Dataset:
    """A dataset over ``schema.table``, which nothing has to know."""
    relation = sa.table(table, *(sa.column(column.name) for column in columns), schema=schema)
    return Dataset("orders", "main", columns, relation, POSTGRESQL, key)


ORDERS = dataset(*KINDS, *HOSTILE, key=("id",))
