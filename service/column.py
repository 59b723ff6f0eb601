"""Columns: their names, their database types, and the few kinds that matter to an export. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How a column's values are checked and written; every database type is one of these."""

    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TEXT = "text"
    UUID = "uuid"
    TEMPORAL = "temporal"
    JSON = "json"
    JSONB = "jsonb"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: ``type`` is the database's own spelling; ``bits`` the width of an integer."""

    name: str
    type: str
    kind: Kind = Kind.OTHER
    nullable: bool = True
    description: str | None = None
    bits: int | None = None
