r"""The text of each value, as SQLite makes it. Pure.

A column may hold values of any type, so every text begins by asking which. What leaves is
decimal for integers, the shortest spelling that reads back the same for reals, ``\x`` and
hexadecimal digits for blobs, ``true`` and ``false`` for 0 and 1 in a column that is declared
BOOLEAN, and JSON in one that is declared JSON, if it is valid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from service.column import Column, Kind
from service.dataset import Dataset
from service.dialect import Expression
from service.export.cells import Cell, Form, TextOptions, in_place, over
from service.export.encode import FORMULA, HARMLESS, Rows
from service.export.template import Template, joined
from service.grammar.query import RowsQuery, build_select
from service.texts import TextHolder, placed

REAL_FUNCTION = "tailrace_real"  # SQLite itself writes 15 digits, which lose some
UNLIMITED = -1
NUMERIC = "0123456789+-.eInfity"  # what stands in numbers: a delimiter may be one of them

REAL = (
    "CASE WHEN {cell} = CAST({cell} AS INTEGER) AND abs({cell}) < 1e15 AND {cell} <> 0 "
    f"THEN CAST(CAST({{cell}} AS INTEGER) AS TEXT) || '.0' ELSE {REAL_FUNCTION}({{cell}}) END"
)
INTEGER = "CAST({cell} AS TEXT)"
HEXADECIMAL = r"'\x' || lower(hex({cell}))"
NUMBER_KINDS = frozenset({Kind.INTEGER, Kind.NUMBER})
JSON_REAL = f"CASE WHEN abs({{cell}}) = 9e999 THEN '\"' || {REAL} || '\"' ELSE {REAL} END"
JSON_BLOB = r"""'"\\x' || lower(hex({cell})) || '"'"""
FLAG = (
    "CASE WHEN typeof({{cell}}) = 'integer' AND {{cell}} IN (0, 1) "
    "THEN CASE {{cell}} WHEN 1 THEN 'true' ELSE 'false' END ELSE {otherwise} END"
)
# To json_valid a NUL is the end of the text, whatever stands behind it.
DOCUMENT = (
    "CASE WHEN typeof({{cell}}) = 'text' AND json_valid({{cell}}) AND NOT instr({{cell}}, char(0)) "
    "THEN replace(replace({{cell}}, char(10), ' '), char(13), ' ') ELSE {otherwise} END"
)
# Characters of SQL's own making: a bound parameter for each of them in each column would be
# more than SQLite takes.
MARKS = ", ".join(f"char({ord(mark)})" for mark in FORMULA)
HARMLESS_CELL = f"(char({ord(HARMLESS)}) || {{cell}})"
HARMLESS_INFINITY = f"char({ord(HARMLESS)}) || '-Infinity'"
GUARDED_TEXT = (
    f"CASE WHEN substr({{{{cell}}}}, 1, 1) IN ({MARKS}) THEN {{harmless}} ELSE {{text}} END"
)
GUARDED_REAL = "CASE {{cell}} WHEN -9e999 THEN {harmless} ELSE {real} END"


def values(dataset: Dataset, query: RowsQuery) -> tuple[sa.Select[Any], tuple[Expression, ...]]:
    """A SELECT of the rows of ``query``, and its values to be made texts of.

    SQLite puts an expression of a view into every place that names it and computes it in each:
    what asks for the type first would meet another value of ``random()``.
    """
    if not dataset.computed:
        statement = build_select(dataset, query)
        return statement, in_place(statement)
    # A subquery with a limit below a condition stays one (SQLite's manual, "The SQLite Query
    # Optimizer Overview", section 11), and gives each value once.
    limit = UNLIMITED if query.limit is None else query.limit
    inner, columns = over(build_select(dataset, replace(query, limit=limit)))
    return sa.select().select_from(inner).where(sa.func.typeof(columns[0]) != ""), columns


def cell(column: Column, value: Expression, options: TextOptions) -> Cell:
    """The value for the rows lane: as it is, unless its text depends on the declared type."""
    if options.rows is Rows.CSV:
        if options.guarded or column.kind is Kind.BOOLEAN:
            return Cell(Template(_csv(column, options), value), Form.TEXT)
    elif column.kind in (Kind.BOOLEAN, Kind.JSON):
        return Cell(Template(_json(column), value), Form.RAW)
    return Cell(value, Form.ANY)


class Line(TextHolder):
    """A row as one text in the format of ``options``."""

    inherit_cache = False

    def __init__(
        self, query: RowsQuery, values: tuple[Expression, ...], options: TextOptions
    ) -> None:
        self.query = query
        self.values_of = values
        self.options = options
        self.members = [] if options.rows is Rows.CSV else _members(query.labels)
        super().__init__(tuple(self.members))


@compiles(Line)
def _line(element: Line, compiler: SQLCompiler, **options: Any) -> str:
    inner = {key: value for key, value in options.items() if key == "literal_binds"}
    cells = [compiler.process(value, **inner) for value in element.values_of]
    columns = zip(element.query.columns, cells, strict=True)
    if element.options.rows is Rows.CSV:
        return joined(list(_record(columns, element.options, alone=len(cells) == 1)))
    members = [placed(member, compiler, inner) for member in element.members]
    texts = (_json(column).format(cell=cell) for column, cell in columns)
    pairs = zip(members, texts, strict=True)
    return joined([*(part for pair in pairs for part in pair), "'}'"])


def _record(
    columns: Iterable[tuple[Column, str]], options: TextOptions, *, alone: bool
) -> Iterator[str]:
    for place, (column, cell) in enumerate(columns):
        if place:
            yield _character(options.delimiter)
        yield _quoted(column, options, alone=alone).format(cell=cell)


def _members(labels: tuple[str, ...]) -> list[str]:
    names = (orjson.dumps(label).decode() for label in labels)
    return [("," if place else "{") + f"{name}:" for place, name in enumerate(names)]


def _character(character: str) -> str:
    return f"char({ord(character)})"


def _of_any_type(
    column: Column, *, text: str, integer: str = INTEGER, real: str = REAL, blob: str = HEXADECIMAL
) -> str:
    """A CASE that its caller ends; the likeliest type is asked for first."""
    number = f"WHEN 'integer' THEN {integer} WHEN 'real' THEN {real}"
    texts = f"WHEN 'text' THEN {text}"
    first, second = (number, texts) if column.kind in NUMBER_KINDS else (texts, number)
    return f"CASE typeof({{cell}}) {first} {second} WHEN 'blob' THEN {blob}"


def _csv(column: Column, options: TextOptions) -> str:
    """The text before quoting; NULL where the value is."""
    text, real = "{cell}", REAL
    if options.guarded:
        text = GUARDED_TEXT.format(harmless=HARMLESS_CELL, text=text)
        real = GUARDED_REAL.format(harmless=HARMLESS_INFINITY, real=real)
    plain = _of_any_type(column, text=text, real=real) + " END"
    return FLAG.format(otherwise=plain) if column.kind is Kind.BOOLEAN else plain


def _quoted(column: Column, options: TextOptions, *, alone: bool) -> str:
    """The cell as it stands in a record; each type is quoted only as far as it may need it."""
    text = _quoted_text("{cell}", options, alone=alone)
    real = _quoted_number(REAL, options)
    if options.guarded:
        harmless = _quoted_text(HARMLESS_CELL, options, alone=False)
        text = GUARDED_TEXT.format(harmless=harmless, text=text)
        infinity = _quoted_number(HARMLESS_INFINITY, options)
        real = GUARDED_REAL.format(harmless=infinity, real=real)
    integer = _quoted_number(INTEGER, options)
    by_type = _of_any_type(column, text=text, integer=integer, real=real) + " ELSE '' END"
    return FLAG.format(otherwise=by_type) if column.kind is Kind.BOOLEAN else by_type


def _quoted_text(text: str, options: TextOptions, *, alone: bool) -> str:
    marks = map(_character, ('"', options.delimiter, "\n", "\r"))
    needs = [f"instr({text}, {mark})" for mark in marks]
    needs.append(f"{text} = '' COLLATE BINARY")
    if alone:
        needs.append(rf"{text} = '\.' COLLATE BINARY")
    quoted = f"""'"' || replace({text}, '"', '""') || '"'"""
    return f"CASE WHEN {' OR '.join(needs)} THEN {quoted} ELSE {text} END"


def _quoted_number(text: str, options: TextOptions) -> str:
    if options.delimiter not in NUMERIC:
        return text
    delimiter = _character(options.delimiter)
    return f"CASE WHEN instr({text}, {delimiter}) THEN '\"' || {text} || '\"' ELSE {text} END"


def _json(column: Column) -> str:
    by_type = _of_any_type(column, text="json_quote({cell})", real=JSON_REAL, blob=JSON_BLOB)
    text = f"{by_type} ELSE 'null' END"
    if column.kind is Kind.BOOLEAN:
        return FLAG.format(otherwise=text)
    return DOCUMENT.format(otherwise=text) if column.kind is Kind.JSON else text
