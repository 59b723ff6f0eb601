"""What may be exported: datasets and their columns, as the catalogue found them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.selectable import FromClause, TableClause

from service.column import Column
from service.dialect import Dialect


class ConfiguredQuery(TableClause):
    """A FROM element that is the operator's own SELECT, placed verbatim and never parsed.

    ``text()`` would read ``:name`` and ``%`` inside its literals as placeholders.
    """

    inherit_cache = False

    def __init__(self, sql: str, *columns: sa.ColumnClause[Any]) -> None:
        super().__init__("configured", *columns)
        self.sql = sql


@compiles(ConfiguredQuery)
def _configured_query(element: ConfiguredQuery, compiler: SQLCompiler, **_: Any) -> str:
    # The line break ends a trailing "--" comment before our parenthesis.
    return f"({element.sql}\n) AS {compiler.preparer.quote(element.name)}"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A table, view or configured query that may leave, with the columns that may leave.

    ``relation`` is what a SELECT reads from, ``dialect`` how its database compares; ``key`` the columns that make an order total,
    empty when there are none; ``estimated_rows`` the planner's figure, None when unknown.
    ``computed`` is true of what is no table: its columns may be expressions.
    """

    name: str
    source: str
    columns: tuple[Column, ...]
    relation: FromClause = field(repr=False, compare=False)
    dialect: Dialect = field(repr=False, compare=False)
    key: tuple[str, ...] = ()
    title: str | None = None
    description: str | None = None
    estimated_rows: int | None = None
    owner: str | None = None
    computed: bool = False

    def column(self, name: str) -> Column | None:
        """The column of that name, or None."""
        return next((column for column in self.columns if column.name == name), None)

    def expression(self, column: Column) -> sa.ColumnElement[Any]:
        """The reflected column to put into a SELECT: names reach SQL in no other way."""
        return self.relation.c[column.name]
