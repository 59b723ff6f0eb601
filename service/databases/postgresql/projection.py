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

from service.column import Column
from service.databases.postgresql.cells import BLANKS, JSON_TEXT, LINE_BREAKS, copied, guarded
from service.export.cells import TextOptions, over
from service.export.encode import Rows
from service.export.template import joined
from service.grammar.query import RowsQuery
from service.texts import TextHolder, placed


def project(statement: sa.Select[Any], query: RowsQuery, options: TextOptions) -> sa.Select[Any]:
    """``statement`` wrapped so that its result is the text of its rows, for COPY to carry."""
    inner, values = over(statement)
    if options.rows is Rows.NDJSON:
        line = JsonLine(query.columns, query.labels, values)
        return sa.select(line).select_from(inner)
    csv = guarded if options.guarded else copied
    return sa.select(*map(csv, query.columns, values)).select_from(inner)


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
    return joined([*parts, text("}")])
