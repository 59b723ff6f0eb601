r"""The text of each value, as MariaDB and MySQL make it. Pure.

``docs/formats.md`` tells the bytes of every type. Where a text would pass the server's
``max_allowed_packet``, its functions give NULL and a warning. So no text of ours turns a NULL
into anything unless the value itself is one: a line that is too long arrives as NULL, which a
line never is, and a single cell makes the server raise an error.
"""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from service.column import Column
from service.databases.mysql.family import Family, family, length, word, zerofill
from service.dataset import Dataset
from service.dialect import Expression
from service.export.cells import Cell, Form, TextOptions
from service.export.encode import FORMULA, HARMLESS, Rows
from service.export.template import Template
from service.grammar.query import RowsQuery
from service.texts import TextHolder, placed

# Bytes have no limit below that of a packet, so their lines cannot be promised to have one.
LONG = frozenset({"mediumtext", "longtext", "mediumblob", "longblob"})
IN_NUMBERS = "+-.: "  # the delimiters that numbers, dates and addresses may hold

PLAIN, NUMBER, TEXT = "{cell}", "({cell} + 0)", "CONVERT({cell} USING utf8mb4)"
WRITTEN = "CAST({cell} AS CHAR)"
DOUBLE = "({cell} + 0e0)"  # FLOAT's own text has six digits, which lose some
FLAG = "CASE {cell} WHEN 1 THEN 'true' WHEN 0 THEN 'false' ELSE {cell} END"
# A zero is no instant, and so has no zone.
INSTANT = "CONCAT({text}, IF({{cell}} = 0, '', '{zone}'))"
HEXADECIMAL = r"CONCAT('\\x', LOWER(HEX({cell})))"
WELL_KNOWN = "ST_AsWKB({cell})"  # its well-known text has ten digits
WITH_T = "REPLACE({cell}, ' ', 'T')"
JSON_HEXADECIMAL = r"""CONCAT('"\\\\x', LOWER(HEX({cell})), '"')"""
# Raw line breaks in a document are white space, since inside its strings they are escaped.
ONE_LINE = rf"REPLACE(REPLACE({TEXT}, '\n', ' '), '\r', ' ')"

CSV_TEXT: dict[Family, str] = {
    **dict.fromkeys(Family, PLAIN),
    **dict.fromkeys((Family.TEXT, Family.CHOICE, Family.DOCUMENT), TEXT),
    **dict.fromkeys((Family.UUID, Family.ADDRESS), WRITTEN),
    Family.BOOLEAN: FLAG,
    Family.FLOAT: DOUBLE,
    Family.TIMESTAMP: INSTANT.format(text=PLAIN, zone="+00"),
    Family.BINARY: HEXADECIMAL,
    Family.GEOMETRY: HEXADECIMAL.format(cell=WELL_KNOWN),
}
# The text of a JSON number or literal, or of a string before it is quoted.
JSON_TEXT: dict[Family, str] = {
    **CSV_TEXT,
    Family.YEAR: NUMBER,
    Family.DATETIME: WITH_T,
    Family.TIMESTAMP: INSTANT.format(text=WITH_T, zone="+00:00"),
}
NUMBERS = frozenset(
    {Family.INTEGER, Family.YEAR, Family.DECIMAL, Family.FLOAT, Family.DOUBLE, Family.BOOLEAN}
)
BYTES = frozenset({Family.BINARY, Family.GEOMETRY})
FREE = frozenset({Family.TEXT, Family.CHOICE, Family.DOCUMENT})  # any character may stand there
GUARDED = FREE | {Family.TIME}

# MariaDB's JSON_QUOTE writes these with capital letters, such as \u000B.
CAPITAL = r"'[\\x0b\\x0e\\x0f\\x1a-\\x1f]'"
ESCAPES = {
    "\\": r"\\\\",
    '"': r"\\\"",
    **{chr(code): rf"\\u{code:04x}" for code in range(32)},
    **dict(zip("\b\t\n\f\r", (r"\\b", r"\\t", r"\\n", r"\\f", r"\\r"), strict=True)),
}
SPELLED = {"\\": r"\\", "\0": r"\0"}  # a control character may stand in a literal as it is


def _escaped(text: str) -> str:
    for letter, escape in ESCAPES.items():
        text = f"REPLACE({text}, '{SPELLED.get(letter, letter)}', '{escape}')"
    return f"""CONCAT('"', {text}, '"')"""


STRING = f"IF({TEXT} REGEXP {CAPITAL}, {_escaped(TEXT)}, JSON_QUOTE({TEXT}))"
DOCUMENT = f"IF(JSON_VALID({PLAIN}), {ONE_LINE}, {STRING})"
# The error of a sum that is out of range: there is no other way to raise one in a SELECT.
OVERFLOW = (
    "COALESCE({text}, CASE WHEN {cell} IS NOT NULL "
    "THEN 18446744073709551615 + OCTET_LENGTH({cell}) END)"
)
GUARD = "IF(LEFT({text}, 1) IN ({marks}), CONCAT({harmless}, {text}), {text})"
MARKS = tuple(f"mark{number}" for number in range(len(FORMULA)))
CLOSING = "'}'"
NEEDS = ("'\"'", r"'\n'", r"'\r'", "{delimiter}")


def fits(dataset: Dataset, query: RowsQuery) -> bool:
    """Whether a line of ``query`` stays below the packet that the server makes texts in.

    MariaDB's JSON is a LONGTEXT, which is as long as documents are. What a view computes is
    computed at each place that names it: a line that asks whether a value has to be quoted
    might then write another one.
    """
    return not dataset.computed and not any(
        word(column.type) in LONG and family(column) is not Family.DOCUMENT
        for column in query.columns
    )


def cell(column: Column, value: Expression, options: TextOptions) -> Cell:
    """The value for the rows lane: as the server sends it, unless its text differs from that."""
    found = family(column)
    if found in BYTES:
        return Cell(Template(WELL_KNOWN, value) if found is Family.GEOMETRY else value, Form.ANY)
    if options.rows is Rows.NDJSON:
        return _json_cell(column, value)
    if options.guarded and found in GUARDED:
        text = OVERFLOW.replace("{text}", _csv(column, options))
        return Cell(Template(text, value, **_texts(options)), Form.TEXT)
    return Cell(_sent(_csv(column, options), value), Form.TEXT)


def _json_cell(column: Column, value: Expression) -> Cell:
    found = family(column)
    if found is Family.DOCUMENT:
        return Cell(Template(OVERFLOW.replace("{text}", _json(column)), value), Form.RAW)
    return Cell(_sent(_json_text(column), value), Form.RAW if found in NUMBERS else Form.TEXT)


def _sent(text: str, value: Expression) -> Expression:
    # The server converts what it sends, and nothing limits how long that is.
    return value if text in (PLAIN, TEXT, WRITTEN) else Template(text, value)


class Line(TextHolder):
    """A row as one text in the format of ``options``; NULL when it is longer than a packet."""

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
    csv = element.options.rows is Rows.CSV
    parts: list[str] = []
    for place, (column, value) in enumerate(
        zip(element.query.columns, element.values_of, strict=True)
    ):
        filled = {"cell": compiler.process(value, **inner), **texts}
        if csv:
            parts += [texts["delimiter"]] if place else []
            text = _quoted(column, element.options, alone=len(element.values_of) == 1)
        else:
            parts.append(placed(element.members[place], compiler, inner))
            text = _filled(column, _json(column), "null")
        parts.append(text.format(**filled))
    return f"CONCAT({', '.join(parts if csv else [*parts, CLOSING])})"


def _members(labels: tuple[str, ...]) -> list[str]:
    names = (orjson.dumps(label).decode() for label in labels)
    return [("," if place else "{") + f"{name}:" for place, name in enumerate(names)]


def _texts(options: TextOptions) -> dict[str, str]:
    marks = dict(zip(MARKS, FORMULA, strict=True)) if options.guarded else {}
    return {"delimiter": options.delimiter, "harmless": HARMLESS, **marks}


def _filled(column: Column, text: str, null: str) -> str:
    if not column.nullable:
        return text
    return f"CASE WHEN {{cell}} IS NULL THEN '{null}' ELSE {text} END"


def _csv(column: Column, options: TextOptions) -> str:
    """The text before quoting; NULL where the value is."""
    found = family(column)
    text = _special(column) or CSV_TEXT[found]
    if not options.guarded or found not in GUARDED:
        return text
    # No collation of a column's may find letters equal that are not.
    text = f"{TEXT if found in FREE else WRITTEN} COLLATE utf8mb4_bin"
    marks = ", ".join(f"{{{mark}}}" for mark in MARKS)
    return GUARD.replace("{text}", text).replace("{marks}", marks)


def _json_text(column: Column) -> str:
    return _special(column) or JSON_TEXT[family(column)]


def _special(column: Column) -> str | None:
    """The text of types that the family alone does not tell."""
    found = family(column)
    if found is Family.BIT:
        return f"LPAD(BIN({{cell}} + 0), {length(column.type)}, '0')"
    return NUMBER if found in NUMBERS and zerofill(column) else None


def _quoted(column: Column, options: TextOptions, *, alone: bool) -> str:
    """The cell of a CSV record."""
    text = _csv(column, options)
    found = family(column)
    if found not in FREE and options.delimiter not in IN_NUMBERS:
        return _filled(column, text, "")
    compared = f"CONVERT({text} USING utf8mb4) COLLATE utf8mb4_bin"
    needs = [f"LOCATE({mark}, {compared})" for mark in NEEDS]
    needs.append(f"OCTET_LENGTH({text}) = 0")
    if alone:
        needs.append(rf"({compared} = '\\.' AND OCTET_LENGTH({text}) = 2)")
    quoted = f"""CONCAT('"', REPLACE({text}, '"', '""'), '"')"""
    return _filled(column, f"IF({' OR '.join(needs)}, {quoted}, {text})", "")


def _json(column: Column) -> str:
    """The JSON text of a value that is not NULL (RFC 8259)."""
    found, text = family(column), _json_text(column)
    if found in NUMBERS:
        return text
    if found in BYTES:
        inner = WELL_KNOWN if found is Family.GEOMETRY else PLAIN
        return JSON_HEXADECIMAL.format(cell=inner)
    if found not in FREE:
        return f"""CONCAT('"', {text}, '"')"""
    return DOCUMENT if found is Family.DOCUMENT else STRING
