"""How PostgreSQL says what the read grammar means. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

from service.column import Column, Kind
from service.dialect import Clause, Expression, Scalar
from service.texts import TextList, bound


class PostgresDialect:
    """Values stay texts: an untyped literal takes the type of what it is compared with."""

    name = "postgresql"

    def value(self, column: Column, text: str) -> Expression:
        del column
        return bound(text)

    def within(self, column: Column, expression: Expression, texts: tuple[str, ...]) -> Clause:
        del column
        return expression.op("IN", is_comparison=True)(TextList(texts))

    def distinct(self, column: Column, expression: Expression, text: str) -> Clause:
        return expression.is_distinct_from(self.value(column, text))

    def like(self, expression: Expression, pattern: str, *, insensitive: bool) -> Clause:
        operator = "ILIKE" if insensitive else "LIKE"
        return expression.op(operator, is_comparison=True)(bound(pattern))

    def matches(self, expression: Expression, pattern: str, *, insensitive: bool) -> Clause:
        operator = "~*" if insensitive else "~"
        return expression.op(operator, is_comparison=True)(bound(pattern))

    def order(
        self, expression: Expression, *, nullable: bool, descending: bool, nulls_first: bool | None
    ) -> Sequence[Expression]:
        del nullable  # without a word PostgreSQL does what the grammar says
        clause: sa.UnaryExpression[object] = expression.desc() if descending else expression.asc()
        match nulls_first:
            case True:
                return [clause.nulls_first()]
            case False:
                return [clause.nulls_last()]
            case None:
                return [clause]

    def cursor_value(self, column: Column, expression: Expression) -> Expression:
        # format() calls the output function of any type, where a cast to text may be one that
        # somebody has defined. It makes NULL an empty text.
        del column
        text = sa.func.format(sa.literal_column("'%s'"), expression)
        return sa.case((expression.is_distinct_from(sa.null()), text))

    def cursor_bound(self, column: Column, value: Scalar) -> Expression:
        # An untyped literal beside a composite type is no value of it, and beside regclass an
        # oid. The type is the database's own spelling; of bit it may lack the length, and a cast
        # would cut to one.
        text = self.value(column, str(value))
        if column.kind is not Kind.OTHER or column.type.startswith("bit"):
            return text
        return Typed(text, column.type)


class Typed(sa.ColumnElement[Any]):
    """A text as a value of a type that only the database knows."""

    inherit_cache = False

    def __init__(self, text: Expression, type_name: str) -> None:
        self.text = text
        self.type_name = type_name

    def get_children(self, **_: Any) -> Iterable[ClauseElement]:
        return (self.text,)


@compiles(Typed)
def _typed(element: Typed, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST({compiler.process(element.text, **options)} AS {element.type_name})"


POSTGRESQL = PostgresDialect()
