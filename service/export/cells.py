"""How a column's values leave a SELECT: natively, or as text that the database has made. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa

from service.column import Column
from service.dialect import Expression
from service.export.encode import Rows
from service.grammar.query import RowsQuery


class Form(StrEnum):
    """What a cell is when it arrives.

    RAW is the final text of the format (for CSV before quoting), TEXT a text to be quoted,
    ANY a value of whatever type, as SQLite has them.
    """

    RAW = "raw"
    TEXT = "text"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Cell:
    expression: Expression
    form: Form


@dataclass(frozen=True, slots=True)
class TextOptions:
    """As which text rows are to leave; ``guarded`` makes formulas harmless."""

    rows: Rows
    delimiter: str = ","
    guarded: bool = False


CellOf = Callable[[Column, Expression, TextOptions], Cell]
LineOf = Callable[[RowsQuery, tuple[Expression, ...], TextOptions], Expression]


def over(statement: sa.Select[object]) -> tuple[sa.Subquery, tuple[Expression, ...]]:
    """``statement`` as a subquery, and its columns.

    It keeps sort and limit inside, so that the database sorts its own values and builds text
    only for the rows that leave. For databases whose subqueries keep their order.
    """
    inner = statement.subquery("r")
    return inner, tuple(inner.c)


def in_place(statement: sa.Select[object]) -> tuple[Expression, ...]:
    """The columns of ``statement`` without their labels, to be replaced by texts of them."""
    return tuple(
        column.element if isinstance(column, sa.Label) else column
        for column in statement.selected_columns
    )
