"""The SELECT that makes PostgreSQL itself build the bytes of a format. Pure.

CSV leaves to COPY's own writer. JSON lines are built column by column with ``||``, which
``make bench`` measures at about half the time of ``row_to_json``; ``json_build_object``,
``concat`` and ``format`` are slower, too. Concatenating pairwise, as a tree, copies each byte
log2(columns) times instead of once for each column to its right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from service.column import Column, Kind
from service.export.encode import Rows
from service.query import RowsQuery
from service.texts import TextHolder, placed

LINE_BREAKS, BLANKS = "\n\r", "  "
TEXT = "CAST({cell} AS TEXT)"
JSON = "CAST(to_json({cell}) AS TEXT)"
# json keeps its white space, and a raw CR or LF there would end the line. Inside strings they
# are escaped, so what is left of them is white space.
JSON_ON_ONE_LINE = f"translate({JSON}, {{breaks}}, {{blanks}})"

JSON_TEXT: dict[Kind, str] = {
    Kind.INTEGER: TEXT,
    Kind.BOOLEAN: TEXT,
    Kind.JSONB: TEXT,
    Kind.NUMBER: JSON,  # quotes NaN and the infinities, which JSON has no numbers for
    Kind.TEXT: JSON,
    Kind.UUID: JSON,
    Kind.TEMPORAL: JSON,
    Kind.JSON: JSON_ON_ONE_LINE,
    Kind.OTHER: JSON_ON_ONE_LINE,
}


def project(statement: sa.Select[Any], query: RowsQuery, rows: Rows) -> sa.Select[Any]:
    """``statement`` wrapped so that its result is the text of ``rows``.

    The inner SELECT keeps sort and limit, so that the database sorts its own values and
    builds text only for the rows that leave; a subquery scan keeps the order of its input.
    """
    inner = statement.subquery("r")
    cells = tuple(inner.c)
    if rows is Rows.NDJSON:
        return sa.select(JsonLine(query.columns, query.labels, cells)).select_from(inner)
    return sa.select(*map(_csv_value, query.columns, cells))


def _csv_value(column: Column, cell: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    # COPY writes t and f; the text cast writes true and false.
    return sa.cast(cell, sa.Text()) if column.kind is Kind.BOOLEAN else cell


class JsonLine(TextHolder):
    """A row as the text of a JSON object: one element, however many columns there are.

    A node for each operator would cost the event loop seconds for the widest rows.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        labels: Sequence[str],
        cells: Sequence[sa.ColumnElement[Any]],
    ) -> None:
        members = (f"{orjson.dumps(label).decode()}:" for label in labels)
        self.members = [("," if place else "{") + member for place, member in enumerate(members)]
        self.columns = columns
        self.cells = cells
        nulls = (f"{member}null" for member in self.members)
        super().__init__((*self.members, *nulls, "}", LINE_BREAKS, BLANKS))


@compiles(JsonLine)
def _json_line(element: JsonLine, compiler: SQLCompiler, **options: Any) -> str:
    def text(value: str) -> str:
        return placed(value, compiler, options)

    shared = {"breaks": text(LINE_BREAKS), "blanks": text(BLANKS)}
    parts: list[str] = []
    for column, member, cell in zip(element.columns, element.members, element.cells, strict=True):
        value = JSON_TEXT[column.kind].format(cell=compiler.process(cell, **options), **shared)
        filled = f"{text(member)} || {value}"
        null = text(f"{member}null")
        parts.append(f"coalesce({filled}, {null})" if column.nullable else filled)
    return _tree([*parts, text("}")])


def _tree(parts: Sequence[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return f"({_tree(parts[:middle])} || {_tree(parts[middle:])})"
