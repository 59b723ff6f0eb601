"""How a database says what the read grammar means: one implementation for each database. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import sqlalchemy as sa

from service.column import Column

Expression = sa.ColumnElement[Any]
Clause = sa.ColumnElement[bool]
Scalar = str | int | float  # what a cursor keeps of a value that is not NULL


class Dialect(Protocol):
    """What differs between databases in comparisons and orders.

    Values are the texts of the request, checked already where their column's kind has a rule.
    A method raises Unsupported, without a parameter, for what the database cannot do, and
    InvalidParameter for a text that is no value of its column.
    """

    name: str

    def value(self, column: Column, text: str) -> Expression:
        """``text`` bound so that the database compares it as a value of ``column``."""
        ...

    def within(self, column: Column, expression: Expression, texts: tuple[str, ...]) -> Clause:
        """``expression IN (…)``; ``texts`` are not empty and may be many."""
        ...

    def distinct(self, column: Column, expression: Expression, text: str) -> Clause:
        """``expression IS DISTINCT FROM text``."""
        ...

    def like(self, expression: Expression, pattern: str, *, insensitive: bool) -> Clause:
        """SQL's LIKE with ``%``, ``_`` and the backslash; case counts unless ``insensitive``."""
        ...

    def matches(self, expression: Expression, pattern: str, *, insensitive: bool) -> Clause:
        """The database's own regular expressions."""
        ...

    def order(
        self, expression: Expression, *, nullable: bool, descending: bool, nulls_first: bool | None
    ) -> Sequence[Expression]:
        """The elements of ORDER BY; without a word NULL counts as the largest value."""
        ...

    def cursor_value(self, column: Column, expression: Expression) -> Expression:
        """What a cursor keeps of ``expression``: exact, a Scalar as JSON has them, or NULL."""
        ...

    def cursor_bound(self, column: Column, value: Scalar) -> Expression:
        """A value that ``cursor_value`` gave, bound so that it compares as the one it was."""
        ...
