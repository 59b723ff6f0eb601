"""The SELECT that makes PostgreSQL itself build the bytes of a format. Pure.

CSV leaves to COPY's own writer. JSON lines are built column by column with ``||``, which
``make bench`` measures at about half the time of ``row_to_json``; ``json_build_object``,
``concat`` and ``format`` are slower, too. Concatenating pairwise, as a tree, copies each byte log2(columns) times
instead of once for each column to its right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.sql.elements import Grouping

from service.dataset import Column, Kind
from service.export.encode import Rows
from service.query import RowsQuery
from service.texts import bound

Text = sa.ColumnElement[str]


def project(statement: sa.Select[Any], query: RowsQuery, rows: Rows) -> sa.Select[Any]:
    """``statement`` wrapped so that its result is the text of ``rows``.

    The inner SELECT keeps sort and limit, so that the database sorts its own values and
    builds text only for the rows that leave; a subquery scan keeps the order of its input.
    """
    inner = statement.subquery("r")
    columns = list(zip(query.columns, inner.c, strict=True))
    if rows is Rows.CSV:
        return sa.select(*(_csv_value(column, cell) for column, cell in columns))
    return sa.select(_json_line(columns, query.labels))


def _csv_value(column: Column, cell: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    # COPY writes t and f; the text cast writes true and false.
    return _text(cell) if column.kind is Kind.BOOLEAN else cell


def _json_line(
    columns: Sequence[tuple[Column, sa.ColumnElement[Any]]], labels: Sequence[str]
) -> Text:
    parts: list[Text] = []
    for position, ((column, cell), label) in enumerate(zip(columns, labels, strict=True)):
        member = ("," if position else "{") + orjson.dumps(label).decode() + ":"
        filled = _joined(bound(member), JSON_TEXT[column.kind](cell))
        parts.append(
            sa.func.coalesce(filled, bound(f"{member}null")) if column.nullable else filled
        )
    return _tree([*parts, bound("}")])


def _tree(parts: Sequence[Text]) -> Text:
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return _joined(_tree(parts[:middle]), _tree(parts[middle:]))


def _joined(left: Text, right: Text) -> Text:
    # Grouping keeps the tree: SQLAlchemy would drop the parentheses of an associative operator.
    return Grouping(left.op("||", return_type=sa.Text())(right))


def _text(cell: sa.ColumnElement[Any]) -> Text:
    return sa.cast(cell, sa.Text())


def _json(cell: sa.ColumnElement[Any]) -> Text:
    return _text(sa.func.to_json(cell))


def _json_on_one_line(cell: sa.ColumnElement[Any]) -> Text:
    """json keeps its white space, and a raw CR or LF there would end the line.

    Inside strings they are escaped, so what is left of them is white space.
    """
    return sa.func.translate(_json(cell), bound("\n\r"), bound("  "))


JSON_TEXT: dict[Kind, Callable[[sa.ColumnElement[Any]], Text]] = {
    Kind.INTEGER: _text,
    Kind.BOOLEAN: _text,
    Kind.JSONB: _text,
    Kind.NUMBER: _json,  # quotes NaN and the infinities, which JSON has no numbers for
    Kind.TEXT: _json,
    Kind.UUID: _json,
    Kind.TEMPORAL: _json,
    Kind.JSON: _json_on_one_line,
    Kind.OTHER: _json_on_one_line,
}
