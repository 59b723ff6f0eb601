r"""The text of each value, as SQLite makes it. Pure.

A column may hold values of any type, so every text begins by asking which. What leaves is
decimal for integers, the shortest spelling that reads back the same for reals, ``\x`` and
hexadecimal digits for blobs, ``true`` and ``false`` for 0 and 1 in a column that is declared
BOOLEAN, and JSON in one that is declared JSON, if it is valid.
"""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from service.column import Column, Kind
from service.dialect import Expression
from service.export.cells import Cell, Form, TextOptions
from service.export.encode import FORMULA, HARMLESS, Rows
from service.export.template import Template, joined
from service.query import RowsQuery
from service.texts import TextHolder, placed

REAL_FUNCTION = "tailrace_real"  # SQLite itself writes 15 digits, which lose some
NUMERIC = "0123456789+-.eInfity"  # what stands in numbers: a delimiter may be one of them

REAL = (
    "CASE WHEN {cell} = CAST({cell} AS INTEGER) AND abs({cell}) < 1e15 AND {cell} <> 0 "
    f"THEN CAST(CAST({{cell}} AS INTEGER) AS TEXT) || '.0' ELSE {REAL_FUNCTION}({{cell}}) END"
)
BRANCHES = {
    "text": "WHEN 'text' THEN {text}",
    "integer": "WHEN 'integer' THEN CAST({cell} AS TEXT)",
    "real": "WHEN 'real' THEN {real}",
    "blob": "WHEN 'blob' THEN {blob}",
}
TEXT_FIRST = ("text", "integer", "real", "blob")
NUMBER_FIRST = ("integer", "real", "text", "blob")
HEXADECIMAL = r"'\x' || lower(hex({cell}))"
JSON_REAL = f"CASE WHEN abs({{cell}}) = 9e999 THEN '\"' || {REAL} || '\"' ELSE {REAL} END"
JSON_BLOB = r"""'"\\x' || lower(hex({cell})) || '"'"""
FLAG = (
    "CASE WHEN typeof({{cell}}) = 'integer' AND {{cell}} IN (0, 1) "
    "THEN CASE {{cell}} WHEN 1 THEN 'true' ELSE 'false' END ELSE {otherwise} END"
)
DOCUMENT = (
    "CASE WHEN typeof({{cell}}) = 'text' AND json_valid({{cell}}) AND NOT instr({{cell}}, char(0)) "
    "THEN replace(replace({{cell}}, char(10), ' '), char(13), ' ') ELSE {otherwise} END"
)
GUARDED = (
    "CASE WHEN typeof({{cell}}) = 'text' AND substr({{cell}}, 1, 1) IN ({formula}) "
    "THEN {{harmless}} || {{cell}} "
    "WHEN typeof({{cell}}) = 'real' AND {{cell}} = -9e999 "
    "THEN {{harmless}} || '-Infinity' ELSE {otherwise} END"
)


def cell(column: Column, value: Expression, options: TextOptions) -> Cell:
    """The value for the rows lane: as it is, unless its text depends on the declared type."""
    if options.rows is Rows.CSV:
        if options.guarded or column.kind is Kind.BOOLEAN:
            return Cell(Template(_csv(column, options), value, **_texts(options)), Form.TEXT)
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
        csv = options.rows is Rows.CSV
        self.members = [] if csv else _members(query.labels)
        super().__init__((*self.members, *_texts(options).values()))


@compiles(Line)
def _line(element: Line, compiler: SQLCompiler, **options: Any) -> str:
    inner = {key: value for key, value in options.items() if key == "literal_binds"}
    texts = {name: placed(text, compiler, inner) for name, text in _texts(element.options).items()}
    parts: list[str] = []
    for place, (column, value) in enumerate(
        zip(element.query.columns, element.values_of, strict=True)
    ):
        filled = {"cell": compiler.process(value, **inner), **texts}
        if element.options.rows is Rows.CSV:
            parts += [texts["delimiter"]] if place else []
            alone = len(element.values_of) == 1
            parts.append(_quoted(column, element.options, alone=alone).format(**filled))
        else:
            parts.append(placed(element.members[place], compiler, inner))
            parts.append(_json(column).format(**filled))
    return joined(parts if element.options.rows is Rows.CSV else [*parts, "'}'"])


def _members(labels: tuple[str, ...]) -> list[str]:
    names = (orjson.dumps(label).decode() for label in labels)
    return [("," if place else "{") + f"{name}:" for place, name in enumerate(names)]


def _texts(options: TextOptions) -> dict[str, str]:
    marks = {f"mark{n}": mark for n, mark in enumerate(FORMULA)} if options.guarded else {}
    return {"delimiter": options.delimiter, "harmless": HARMLESS, **marks}


def _of_any_type(column: Column, **branches: str) -> str:
    first = NUMBER_FIRST if column.kind in (Kind.INTEGER, Kind.NUMBER) else TEXT_FIRST
    cases = " ".join(BRANCHES[name] for name in first)
    for name, sql in branches.items():
        cases = cases.replace(f"{{{name}}}", sql)
    return f"CASE typeof({{cell}}) {cases}"


def _csv(column: Column, options: TextOptions) -> str:
    """The text before quoting; NULL where the value is."""
    plain = _of_any_type(column, text="{cell}", real=REAL, blob=HEXADECIMAL) + " END"
    if column.kind is Kind.BOOLEAN:
        plain = FLAG.format(otherwise=plain)
    if options.guarded:
        marks = ", ".join(f"{{mark{n}}}" for n in range(len(FORMULA)))
        plain = GUARDED.format(formula=marks, otherwise=plain)
    return plain


def _quoted(column: Column, options: TextOptions, *, alone: bool) -> str:
    text = _csv(column, options)
    needs = [f"instr({text}, {mark})" for mark in ("'\"'", "{delimiter}", "char(10)", "char(13)")]
    needs.append(f"({text}) = '' COLLATE BINARY")
    if alone:
        needs.append(rf"({text}) = '\.' COLLATE BINARY")
    quoted = f"""'"' || replace({text}, '"', '""') || '"'"""
    whole = f"CASE WHEN {{cell}} IS NULL THEN '' WHEN {' OR '.join(needs)} THEN {quoted} ELSE {text} END"
    if options.guarded or options.delimiter in NUMERIC or column.kind is Kind.BOOLEAN:
        return whole
    simple = whole.replace(text, "{cell}")
    by_type = _of_any_type(column, text=simple, real=REAL, blob=HEXADECIMAL)
    return f"{by_type} ELSE '' END"


def _json(column: Column) -> str:
    by_type = _of_any_type(column, text="json_quote({cell})", real=JSON_REAL, blob=JSON_BLOB)
    text = f"{by_type} ELSE 'null' END"
    if column.kind is Kind.BOOLEAN:
        return FLAG.format(otherwise=text)
    return DOCUMENT.format(otherwise=text) if column.kind is Kind.JSON else text
