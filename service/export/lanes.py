"""Which lane an export takes: the fastest one that its source has, unless "rows" is set."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from service.databases.postgresql.cells import cell as postgres_cell
from service.databases.postgresql.source import PostgresSource
from service.databases.source import Source
from service.databases.sqlite.cells import Line as SqliteLine
from service.databases.sqlite.cells import cell as sqlite_cell
from service.dataset import Dataset
from service.export.batch import encoder, lines
from service.export.cells import CellOf, LineOf, TextOptions, in_place, over
from service.export.copy import CopyLane
from service.export.lane import Lane
from service.export.rows import Projection, RowsLane
from service.query import RowsQuery, build_select

# A whole line is one expression, and what a database takes as one statement has an end
# (SQLite: a million bytes).
MAX_LINE_COLUMNS = 500


@dataclass(frozen=True, slots=True)
class Texts:
    """How a kind of database makes texts: of single cells, and of whole lines."""

    cell: CellOf
    line: LineOf


TEXTS = {"sqlite": Texts(sqlite_cell, SqliteLine)}


def open_lane(source: Source, dataset: Dataset, query: RowsQuery, options: TextOptions) -> Lane:
    """The lane for ``query``; nothing has been asked of the source yet."""
    if isinstance(source, PostgresSource):
        if source.lane != "rows":
            return CopyLane(source, dataset, query, options)
        return RowsLane(source, query, _postgres_rows(dataset, query, options), "rows")
    texts = TEXTS[source.kind]
    if source.lane == "rows" or len(query.select) > MAX_LINE_COLUMNS:
        return RowsLane(source, query, _rows(dataset, query, options, texts.cell), "rows")
    return RowsLane(source, query, _lines(dataset, query, options, texts.line), "lines")


def _postgres_rows(dataset: Dataset, query: RowsQuery, options: TextOptions) -> Projection:
    inner, values = over(build_select(dataset, query))
    cells = list(map(postgres_cell, query.columns, values, [options] * len(values)))
    statement = sa.select(*(cell.expression for cell in cells)).select_from(inner)
    forms = [cell.form for cell in cells]
    return Projection(statement, encoder(options.rows, query.labels, forms, options.delimiter))


def _rows(dataset: Dataset, query: RowsQuery, options: TextOptions, cell_of: CellOf) -> Projection:
    statement = build_select(dataset, query)
    cells = list(map(cell_of, query.columns, in_place(statement), [options] * len(query.select)))
    projected = statement.with_only_columns(
        *(cell.expression.label(f"c{place}") for place, cell in enumerate(cells))
    )
    forms = [cell.form for cell in cells]
    return Projection(projected, encoder(options.rows, query.labels, forms, options.delimiter))


def _lines(dataset: Dataset, query: RowsQuery, options: TextOptions, line_of: LineOf) -> Projection:
    statement = build_select(dataset, query)
    line = line_of(query, in_place(statement), options)
    return Projection(statement.with_only_columns(line.label("line")), lines)
