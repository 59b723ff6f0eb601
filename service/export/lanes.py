"""Which lane an export takes: the fastest one that its source has, unless "rows" is set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from service.databases.mysql.cells import Line as MysqlLine
from service.databases.mysql.cells import cell as mysql_cell
from service.databases.mysql.cells import fits as mysql_fits
from service.databases.postgresql.cells import cell as postgres_cell
from service.databases.postgresql.source import PostgresSource
from service.databases.source import Source
from service.databases.sqlite.cells import Line as SqliteLine
from service.databases.sqlite.cells import cell as sqlite_cell
from service.databases.sqlite.cells import values as sqlite_values
from service.dataset import Dataset
from service.dialect import Expression
from service.export.batch import encoder, lines
from service.export.cells import CellOf, LineOf, TextOptions, in_place, over
from service.export.copy import CopyLane
from service.export.lane import Lane
from service.export.rows import Projection, RowsLane
from service.grammar.query import RowsQuery, build_select
from service.texts import text_values

# A whole line is one expression, and what a database takes as one statement has an end
# (SQLite: a million bytes).
MAX_LINE_COLUMNS = 500

ValuesOf = Callable[[Dataset, RowsQuery], tuple[sa.Select[Any], tuple[Expression, ...]]]


def values_in_place(
    dataset: Dataset, query: RowsQuery
) -> tuple[sa.Select[Any], tuple[Expression, ...]]:
    """The SELECT that ``query`` means, and its columns to be replaced by texts of them."""
    statement = build_select(dataset, query)
    return statement, in_place(statement)


@dataclass(frozen=True, slots=True)
class Texts:
    """How a kind of database makes texts: of single cells, of whole lines, and of which values.

    ``fits`` tells whether whole lines are safe to make.
    """

    cell: CellOf
    line: LineOf
    values: ValuesOf = values_in_place
    fits: Callable[[Dataset, RowsQuery], bool] = lambda *_: True


TEXTS = {
    "mysql": Texts(mysql_cell, MysqlLine, fits=mysql_fits),
    "sqlite": Texts(sqlite_cell, SqliteLine, sqlite_values),
}


def open_lane(source: Source, dataset: Dataset, query: RowsQuery, options: TextOptions) -> Lane:
    """The lane for ``query``; nothing has been asked of the source yet."""
    if isinstance(source, PostgresSource):
        if source.lane != "rows":
            return CopyLane(source, dataset, query, options)
        return RowsLane(source, query, _postgres_rows(dataset, query, options), "rows")
    texts = TEXTS[source.kind]
    fits = len(query.select) <= MAX_LINE_COLUMNS and texts.fits(dataset, query)
    if source.lane == "rows" or not fits:
        return RowsLane(source, query, _rows(dataset, query, options, texts), "rows")
    return RowsLane(source, query, _lines(dataset, query, options, texts), "lines")


def _postgres_rows(dataset: Dataset, query: RowsQuery, options: TextOptions) -> Projection:
    inner, values = over(build_select(dataset, query))
    cells = list(map(postgres_cell, query.columns, values, [options] * len(values)))
    statement = sa.select(*(cell.expression for cell in cells)).select_from(inner)
    encode = encoder(options.rows, query.labels, [cell.form for cell in cells], options.delimiter)
    return Projection(statement, encode, tuple(text_values(statement)))


def _rows(dataset: Dataset, query: RowsQuery, options: TextOptions, texts: Texts) -> Projection:
    statement, values = texts.values(dataset, query)
    cells = list(map(texts.cell, query.columns, values, [options] * len(query.select)))
    projected = statement.with_only_columns(
        *(cell.expression.label(f"c{place}") for place, cell in enumerate(cells))
    )
    forms = [cell.form for cell in cells]
    return Projection(projected, encoder(options.rows, query.labels, forms, options.delimiter))


def _lines(dataset: Dataset, query: RowsQuery, options: TextOptions, texts: Texts) -> Projection:
    statement, values = texts.values(dataset, query)
    line = texts.line(query, values, options)
    return Projection(statement.with_only_columns(line.label("line")), lines)
