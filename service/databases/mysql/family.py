"""What the spelling of a type says of its values: one family for each way to write them. Pure.

Source: MariaDB's manual, "Data Types"; MySQL's reference manual, chapter "Data Types".
"""

from __future__ import annotations

import re
from enum import StrEnum

from service.column import Column, Kind

WORD = re.compile(r"[a-z0-9]+")
LENGTH = re.compile(r"\((\d+)\)")
FLAG = "tinyint(1)"  # what BOOLEAN is short for
BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}


class Family(StrEnum):
    INTEGER = "integer"
    YEAR = "year"
    BOOLEAN = "boolean"
    DECIMAL = "decimal"
    FLOAT = "float"
    DOUBLE = "double"
    TEXT = "text"
    CHOICE = "choice"
    UUID = "uuid"
    ADDRESS = "address"
    DATE = "date"
    DATETIME = "datetime"
    TIMESTAMP = "timestamp"
    TIME = "time"
    BIT = "bit"
    BINARY = "binary"
    GEOMETRY = "geometry"
    DOCUMENT = "document"


WORDS: dict[str, Family] = {
    **dict.fromkeys(BITS, Family.INTEGER),
    **{word: Family(word) for word in ("year", "decimal", "float", "double", "uuid", "bit")},
    **{word: Family(word) for word in ("date", "datetime", "timestamp", "time")},
    **dict.fromkeys(("char", "varchar", "tinytext", "text"), Family.TEXT),
    **dict.fromkeys(("mediumtext", "longtext"), Family.TEXT),
    **dict.fromkeys(("enum", "set"), Family.CHOICE),
    **dict.fromkeys(("inet4", "inet6"), Family.ADDRESS),
    **dict.fromkeys(("point", "linestring", "polygon", "multipoint"), Family.GEOMETRY),
    **dict.fromkeys(("multilinestring", "multipolygon"), Family.GEOMETRY),
    **dict.fromkeys(("geometry", "geometrycollection", "geomcollection"), Family.GEOMETRY),
    "json": Family.DOCUMENT,
}
KINDS: dict[Family, Kind] = {
    **dict.fromkeys((Family.INTEGER, Family.YEAR), Kind.INTEGER),
    **dict.fromkeys((Family.DECIMAL, Family.FLOAT, Family.DOUBLE), Kind.NUMBER),
    **dict.fromkeys((Family.TEXT, Family.CHOICE), Kind.TEXT),
    **dict.fromkeys((Family.DATE, Family.DATETIME), Kind.TEMPORAL),
    **dict.fromkeys((Family.TIMESTAMP, Family.TIME), Kind.TEMPORAL),
    Family.BOOLEAN: Kind.BOOLEAN,
    Family.UUID: Kind.UUID,
    Family.DOCUMENT: Kind.JSON,
}


def family(column: Column) -> Family:
    """The family of a column's values; what is not known is bytes."""
    if column.kind is Kind.JSON:  # MariaDB spells it longtext
        return Family.DOCUMENT
    return spelled(column.type)


def spelled(type_name: str) -> Family:
    """The family that a type's spelling alone tells."""
    if type_name == FLAG:
        return Family.BOOLEAN
    return WORDS.get(word(type_name), Family.BINARY)


def word(type_name: str) -> str:
    """The name of a type without length and attributes."""
    found = WORD.match(type_name)
    return found[0] if found else ""


def length(type_name: str) -> int:
    """The length of a type such as ``bit(8)``; one, if it says none."""
    found = LENGTH.search(type_name)
    return int(found[1]) if found else 1


def zerofill(column: Column) -> bool:
    """Whether the server writes zeros in front of the column's numbers."""
    return "zerofill" in column.type


def column_of(
    name: str,
    type_name: str,
    *,
    nullable: bool = True,
    document: bool = False,
    description: str | None = None,
) -> Column:
    """A column as the server describes it; ``document`` marks a text that holds JSON."""
    found = spelled(type_name)
    kind = Kind.JSON if document else KINDS.get(found, Kind.OTHER)
    signed = found is Family.INTEGER and "unsigned" not in type_name
    return Column(
        name=name,
        type=type_name,
        kind=kind,
        nullable=nullable,
        description=description or None,
        bits=BITS[word(type_name)] if signed else None,
    )
