"""The text of each value, as PostgreSQL makes it. Pure.

A cast to text is not always what the type's output function writes, and so not what COPY does:
``char(n)`` loses its blanks, ``inet`` gains a mask, ``xml`` its declaration. ``format`` uses the
output function.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from service.column import Column, Kind
from service.dialect import Expression
from service.export.cells import Cell, Form, TextOptions
from service.export.encode import FORMULA, HARMLESS, Rows
from service.export.template import Template

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

# IS NOT NULL would be false for a composite of which a single member is NULL.
OUTPUT = "CASE WHEN {cell} IS DISTINCT FROM NULL THEN format({output}, {cell}) END"
CSV_TEXT: dict[Kind, str] = {**dict.fromkeys(Kind, TEXT), Kind.TEXT: OUTPUT, Kind.OTHER: OUTPUT}
GUARDED = "CASE WHEN left({text}, 1) IN ({formula}) THEN {harmless} || {text} ELSE {text} END"
GUARDED_NUMBER = "CASE {text} WHEN {minus} THEN {harmless} || {minus} ELSE {text} END"
UNGUARDED = frozenset({Kind.INTEGER, Kind.BOOLEAN, Kind.UUID})


def cell(column: Column, value: Expression, options: TextOptions) -> Cell:
    """The value for the rows lane: text as it is, everything else as PostgreSQL's own text."""
    if options.guarded:
        return Cell(guarded(column, value), Form.TEXT)
    if column.kind is Kind.TEXT:
        return Cell(value, Form.TEXT)
    if options.rows is Rows.CSV:
        return Cell(Template(CSV_TEXT[column.kind], value, output="%s"), Form.TEXT)
    texts = {"breaks": LINE_BREAKS, "blanks": BLANKS}
    return Cell(Template(JSON_TEXT[column.kind], value, **texts), Form.RAW)


def copied(column: Column, value: Expression) -> Expression:
    """The value for COPY's own CSV writer, which writes t and f; the cast, true and false."""
    return sa.cast(value, sa.Text()) if column.kind is Kind.BOOLEAN else value


def guarded(column: Column, value: Expression) -> Expression:
    """The value's text in CSV, made harmless where a spreadsheet would take it for a formula."""
    text = CSV_TEXT[column.kind]
    if column.kind in UNGUARDED:
        return Template(text, value, output="%s")
    # A number that begins with a minus sign is a number, but "-Infinity" is none to a spreadsheet.
    pattern = GUARDED_NUMBER if column.kind is Kind.NUMBER else GUARDED
    marks: dict[str, Any] = {f"mark{n}": mark for n, mark in enumerate(FORMULA)}
    sql = pattern.format(
        text=text,
        formula=", ".join(f"{{{name}}}" for name in marks),
        harmless="{harmless}",
        minus="{minus}",
    )
    return Template(sql, value, output="%s", harmless=HARMLESS, minus="-Infinity", **marks)
