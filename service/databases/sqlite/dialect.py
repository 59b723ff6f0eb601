"""How SQLite says what the read grammar means. Pure.

Values are bound with a type: SQLite compares a number with a text as different things, unless
the column's affinity converts one of them, and expressions have no affinity. Source: SQLite's
manual, "Datatypes In SQLite", section 4.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import sqlalchemy as sa

from service.column import Column, Kind
from service.dialect import Clause, Expression, Scalar
from service.errors import Unsupported

WHOLE = re.compile(r"[+-]?\d{1,40}", re.ASCII)
REAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)
NUMBERS = frozenset({Kind.INTEGER, Kind.NUMBER, Kind.OTHER})
TRUE = frozenset({"true", "t", "yes", "y", "on", "1"})
BLOB = re.compile(r"\\x((?:[0-9a-f]{2})*)", re.IGNORECASE)
GLOB_SPECIAL = "*?["
HEX_MARK = "\\x"  # how a cursor tells a blob from a text
TEXT_MARK = "'"


class SqliteDialect:
    name = "sqlite"

    def value(self, column: Column, text: str) -> Expression:
        return sa.literal(_typed(column, text))

    def within(self, column: Column, expression: Expression, texts: tuple[str, ...]) -> Clause:
        values = [_typed(column, text) for text in texts]
        if any(isinstance(value, bytes | float) for value in values):
            return expression.in_(values)
        # One parameter however many values there are: a node for each would cost the event
        # loop a second.
        listed = sa.func.json_each(sa.literal(json.dumps(values))).table_valued("value")
        return expression.in_(sa.select(listed.c.value))

    def distinct(self, column: Column, expression: Expression, text: str) -> Clause:
        return expression.is_distinct_from(self.value(column, text))

    def like(self, expression: Expression, pattern: str, *, insensitive: bool) -> Clause:
        if insensitive:  # ASCII letters only, as SQLite has it
            return expression.like(sa.literal(pattern), escape="\\")
        return expression.op("GLOB", is_comparison=True)(sa.literal(glob_of(pattern)))

    def matches(self, expression: Expression, pattern: str, *, insensitive: bool) -> Clause:
        del expression, pattern, insensitive
        # Python's would do, but nothing could stop one that never ends.
        raise Unsupported("", "SQLite has no regular expressions.")

    def order(
        self, expression: Expression, *, nullable: bool, descending: bool, nulls_first: bool | None
    ) -> Sequence[Expression]:
        clause: sa.UnaryExpression[object] = expression.desc() if descending else expression.asc()
        if not nullable:
            return [clause]
        # SQLite's own choice is the other way round.
        first = descending if nulls_first is None else nulls_first
        return [clause.nulls_first() if first else clause.nulls_last()]

    def cursor_value(self, column: Column, expression: Expression) -> Expression:
        """Numbers as they are; texts and blobs with a mark, since a column may hold both."""
        del column
        return sa.case(
            (sa.func.typeof(expression) == "text", sa.literal(TEXT_MARK).concat(expression)),
            (
                sa.func.typeof(expression) == "blob",
                sa.literal(HEX_MARK).concat(sa.func.hex(expression)),
            ),
            else_=expression,
        )

    def cursor_bound(self, column: Column, value: Scalar) -> Expression:
        del column
        if isinstance(value, str):
            hexadecimal = BLOB.fullmatch(value)
            return sa.literal(bytes.fromhex(hexadecimal[1]) if hexadecimal else value[1:])
        return sa.literal(value)


def glob_of(pattern: str) -> str:
    """LIKE's ``pattern`` for GLOB, which heeds case: ``*`` and ``?`` for ``%`` and ``_``."""
    made: list[str] = []
    letters = iter(pattern)
    for letter in letters:
        plain = next(letters, letter) if letter == "\\" else None
        if plain is None and letter in "%_":
            made.append("*" if letter == "%" else "?")
        else:
            text = plain or letter
            made.append(f"[{text}]" if text in GLOB_SPECIAL else text)
    return "".join(made)


def _typed(column: Column, text: str) -> str | int | float | bytes:
    if column.kind is Kind.BOOLEAN:
        return int(text.lower() in TRUE)
    blob = BLOB.fullmatch(text) if column.kind is Kind.OTHER else None
    if blob:
        return bytes.fromhex(blob[1])
    return _number(column, text) if column.kind in NUMBERS else text


def _number(column: Column, text: str) -> str | int | float:
    """A text that is no number stays one: ``nan``, say, which SQLite does not have.

    To SQLite a text is greater than every number, as PostgreSQL's NaN is.
    """
    if WHOLE.fullmatch(text) and -(2**63) <= int(text) < 2**63:
        return int(text)
    if REAL.fullmatch(text) or (column.kind is Kind.NUMBER and INFINITE.fullmatch(text)):
        return float(text)
    return text


SQLITE = SqliteDialect()
