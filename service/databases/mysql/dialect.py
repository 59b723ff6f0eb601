"""How MariaDB and MySQL say what the read grammar means. Pure.

Values are bound with a type: a number beside a text would be compared as two doubles, which
lose digits. Equality and order of texts are those of the column's collation; patterns and
regular expressions heed every letter. Source: MariaDB's manual, "Type Conversion"; MySQL's
reference manual, "Type Conversion in Expression Evaluation".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from service.column import Column
from service.databases.mysql.family import Family, family
from service.dialect import Clause, Expression, Scalar
from service.errors import InvalidParameter, Unsupported
from service.export.template import Template
from service.texts import TextHolder

Value = str | int | float | Decimal

TRUE = frozenset({"true", "t", "yes", "y", "on", "1"})
HEX = re.compile(r"\\x((?:[0-9a-f]{2})*)", re.IGNORECASE)
BINARY_DIGITS = re.compile(r"[01]{1,64}")
MOMENT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6})\d*)?)?"
    r"(Z|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII | re.IGNORECASE,
)
CLOCK = re.compile(r"-?\d{1,3}:[0-5]\d(?::[0-5]\d(?:\.\d{1,6})?)?", re.ASCII)
LARGEST, SMALLEST = 2**64, -(2**63) - 1  # just outside of every integer type
EXACT = 60  # digits before and behind the point that a literal keeps
EXPONENT = 5  # digits; what has more is infinite or zero to a double
CASED = "CONVERT({cell} USING utf8mb4) COLLATE utf8mb4_bin"
SMALL = "LOWER(CONVERT({cell} USING utf8mb4)) COLLATE utf8mb4_bin"
INDEXED = frozenset({Family.CHOICE, Family.BIT, Family.INTEGER, Family.YEAR, Family.BOOLEAN})
BYTES = frozenset({Family.BINARY, Family.GEOMETRY})
REAL = frozenset({Family.FLOAT, Family.DOUBLE})
MOMENTS = frozenset({Family.DATE, Family.DATETIME, Family.TIMESTAMP})


class Literals(TextHolder):
    """The right side of IN: a parameter for each value would cost the event loop a second.

    Nothing of a text is SQL: it stands there as hexadecimal digits. ``binary`` says that the
    texts are such digits already.
    """

    inherit_cache = False

    def __init__(self, items: Sequence[Value], *, binary: bool) -> None:
        super().__init__(())
        self.items = items
        self.binary = binary


@compiles(Literals)
def _literals(element: Literals, compiler: SQLCompiler, **_: Any) -> str:
    del compiler
    return f"({', '.join([_literal(item, binary=element.binary) for item in element.items])})"


def _literal(item: Value, *, binary: bool) -> str:
    match item:
        case str() if binary:
            return f"X'{item}'"
        case str():
            return f"_utf8mb4 X'{item.encode().hex()}'"
        case float():
            return f"{item!r}" if "e" in f"{item!r}" else f"{item!r}e0"
        case _:
            return f"{item:f}" if isinstance(item, Decimal) else f"{item:d}"


class MysqlDialect:
    name = "mysql"

    def value(self, column: Column, text: str) -> Expression:
        return _bound(column, _typed(column, text))

    def within(self, column: Column, expression: Expression, texts: tuple[str, ...]) -> Clause:
        values = [_typed(column, text) for text in texts]
        if column.type == "json":
            return expression.in_([_bound(column, value) for value in values])
        listed = Literals(values, binary=family(column) in BYTES)
        return expression.op("IN", is_comparison=True)(listed)

    def distinct(self, column: Column, expression: Expression, text: str) -> Clause:
        return expression.is_distinct_from(self.value(column, text))

    def like(self, expression: Expression, pattern: str, *, insensitive: bool) -> Clause:
        text = SMALL if insensitive else CASED
        return Template(text, expression).op("LIKE", is_comparison=True)(
            Template(text, sa.literal(pattern))
        )

    def matches(self, expression: Expression, pattern: str, *, insensitive: bool) -> Clause:
        asked = f"(?i){pattern}" if insensitive else pattern
        return Template(CASED, expression).op("REGEXP", is_comparison=True)(sa.literal(asked))

    def order(
        self, expression: Expression, *, nullable: bool, descending: bool, nulls_first: bool | None
    ) -> Sequence[Expression]:
        clause: sa.UnaryExpression[object] = expression.desc() if descending else expression.asc()
        first = descending if nulls_first is None else nulls_first
        if not nullable or first is not descending:  # NULL is their smallest value
            return [clause]
        null = expression.is_(sa.null())
        return [null.desc() if first else null.asc(), clause]

    def cursor_value(self, column: Column, expression: Expression) -> Expression:
        """Text; of an ENUM and a SET the number, by which they are ordered."""
        found = family(column)
        if found in REAL or found in INDEXED:
            return expression.op("+")(sa.literal_column("0e0" if found in REAL else "0"))
        return sa.func.hex(expression) if found in BYTES else expression

    def cursor_bound(self, column: Column, value: Scalar) -> Expression:
        found, text = family(column), str(value)
        if found in INDEXED:
            return sa.literal(int(text))
        if found in REAL:
            return sa.literal(float(text))
        if found is Family.DECIMAL:
            return sa.literal(Decimal(text), sa.types.NullType())
        return _bound(column, text)


def _bound(column: Column, value: Value) -> Expression:
    if family(column) in BYTES:
        return sa.func.unhex(sa.literal(value))
    if column.type == "json":
        return Template("CAST({cell} AS JSON)", sa.literal(value))
    # NullType: the value goes to the driver as it is.
    return sa.literal(value, sa.types.NullType())


def _typed(column: Column, text: str) -> Value:
    """What the driver is given; hexadecimal digits for bytes."""
    read = READERS.get(family(column))
    return read(column, text) if read else text


def _bits(column: Column, text: str) -> int:
    return int(_fitting(BINARY_DIGITS, column, text)[0], 2)


def _clock(column: Column, text: str) -> str:
    return _fitting(CLOCK, column, text)[0]


def _flag(column: Column, text: str) -> int:
    del column
    return int(text.lower() in TRUE)


def _hexadecimal(column: Column, text: str) -> str:
    del column
    given = HEX.fullmatch(text)
    return given[1].upper() if given else text.encode().hex().upper()


def _integer(column: Column, text: str) -> int:
    del column
    digits = text.lstrip("+-").lstrip("0") or "0"
    negative = text.startswith("-")
    if len(digits) > len(str(LARGEST)):
        return SMALLEST if negative else LARGEST
    return -int(digits) if negative else int(digits)


def _number(column: Column, text: str) -> float | Decimal:
    real = float(text)
    if not math.isfinite(real):
        message = "there is no such number in MariaDB and MySQL"
        raise Unsupported("", f"{text[:40]!r}: {message}.")
    if family(column) in REAL or len(text.lower().partition("e")[2]) > EXPONENT:
        return real
    exact = Decimal(text)
    if exact and not -EXACT < exact.adjusted() < EXACT:
        return real
    return exact


def _moment(column: Column, text: str) -> str:
    """A date or a time as the server writes it, in UTC."""
    found = _fitting(MOMENT, column, text)
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    date = f"{year}-{month}-{day}"
    if hour is None:
        return date
    told = f"{date} {hour}:{minute}:{second or '00'}" + (f".{fraction}" if fraction else "")
    if zone is None or family(column) is not Family.TIMESTAMP or "00" in (month, day):
        return told
    try:
        there = datetime.fromisoformat(told.ljust(26, "0") if fraction else told)
        moved = there.replace(tzinfo=UTC) - _offset(zone)
    except (ValueError, OverflowError):
        raise _refused(column, text) from None
    return moved.replace(tzinfo=None).isoformat(" ")


def _offset(zone: str) -> timedelta:
    if zone in "Zz":
        return timedelta(0)
    sign = -1 if zone[0] == "-" else 1
    return sign * timedelta(hours=int(zone[1:3]), minutes=int(zone[3:].lstrip(":") or 0))


def _fitting(pattern: re.Pattern[str], column: Column, text: str) -> re.Match[str]:
    found = pattern.fullmatch(text)
    if found is None:
        raise _refused(column, text)
    return found


def _refused(column: Column, text: str) -> InvalidParameter:
    return InvalidParameter("", f"{text[:100]!r} is not a value of type {column.type}.")


READERS: dict[Family, Callable[[Column, str], Value]] = {
    **dict.fromkeys(BYTES, _hexadecimal),
    **dict.fromkeys(MOMENTS, _moment),
    **dict.fromkeys((Family.INTEGER, Family.YEAR), _integer),
    **dict.fromkeys((*REAL, Family.DECIMAL), _number),
    Family.BIT: _bits,
    Family.TIME: _clock,
    Family.BOOLEAN: _flag,
}
MYSQL = MysqlDialect()
