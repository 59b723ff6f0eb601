"""What a look at a database finds: tables and views with their columns. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from service.column import Column


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or view that may be read; ``key`` is its primary key, in order.

    ``computed``: its columns may be expressions, which a query that names one twice may compute
    twice.
    """

    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    description: str | None
    estimated_rows: int | None
    computed: bool = False
