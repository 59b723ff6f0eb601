"""Conditions on columns: ``operator.value`` → a clause. Pure.

OPERATORS is the table that grows: an operator is one function from the rest of the
parameter's text to an operand, and one from column and operand to SQL.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from service.column import Column, Kind
from service.dataset import Dataset
from service.dialect import Clause
from service.errors import InvalidParameter, Unsupported
from service.scanner import Scanner
from service.texts import TextList, bound

Operand = tuple[str, ...]

MAX_VALUES = 10_000  # in one list: each of them costs the event loop some microseconds

KNOWN_LATER = frozenset(
    {"like", "ilike", "match", "imatch", "isdistinct", "fts", "plfts", "phfts", "wfts"}
    | {"cs", "cd", "ov", "sl", "sr", "nxr", "nxl", "adj"}
)
IS_VALUES: dict[str, Callable[[sa.ColumnElement[Any]], Clause]] = {
    "null": lambda column: column.is_(sa.null()),
    "not_null": lambda column: column.is_not(sa.null()),
    "true": lambda column: column.is_(sa.true()),
    "false": lambda column: column.is_(sa.false()),
    "unknown": lambda column: column.op("IS", is_comparison=True)(sa.literal_column("UNKNOWN")),
}
SPELLINGS = {
    Kind.INTEGER: re.compile(r"[+-]?\d+", re.ASCII),
    Kind.NUMBER: re.compile(
        r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|nan|inf(?:inity)?)", re.ASCII | re.IGNORECASE
    ),
    Kind.BOOLEAN: re.compile(r"true|false|t|f|yes|no|y|n|on|off|1|0", re.IGNORECASE),
    Kind.UUID: re.compile(r"\{?(?:[0-9a-f]{4}-?){7}[0-9a-f]{4}\}?", re.IGNORECASE),
}


@dataclass(frozen=True, slots=True)
class Operator:
    read: Callable[[Column, Scanner], Operand]
    clause: Callable[[sa.ColumnElement[Any], Operand], Clause]


@dataclass(frozen=True, slots=True)
class Condition:
    """``column operator operand``, perhaps negated."""

    column: Column
    operator: str
    operand: Operand
    negated: bool = False

    def clause(self, dataset: Dataset) -> Clause:
        """The condition as SQL over the dataset's reflected column."""
        made = OPERATORS[self.operator].clause(dataset.expression(self.column), self.operand)
        return sa.not_(made) if self.negated else made


def parse_condition(column: Column, scanner: Scanner) -> Condition:
    """Read ``[not.]operator.value`` to the end of the parameter."""
    negated = scanner.take("not.")
    place = scanner.at
    name = scanner.until(".(")
    if name not in OPERATORS:
        scanner.at = place
        if name in KNOWN_LATER:
            raise Unsupported(scanner.parameter, f"{scanner.parameter}: {name} is not offered.")
        known = ", ".join(OPERATORS)
        raise scanner.mistake(f"{name!r} is not an operator; there are {known}; expected one")
    scanner.expect(".")
    operand = OPERATORS[name].read(column, scanner)
    if not scanner.done:
        raise scanner.mistake(f"unexpected {scanner.peek()!r}")
    return Condition(column, name, operand, negated)


def check_value(column: Column, value: str, parameter: str) -> str:
    """``value`` if it can be one of ``column``; what has no rule here the database decides."""
    spelling = SPELLINGS.get(column.kind)
    fits = spelling is None or spelling.fullmatch(value) is not None
    if fits and column.kind is Kind.INTEGER and column.bits:
        bound = 2 ** (column.bits - 1)
        fits = len(value) <= 40 and -bound <= int(value) < bound  # noqa: PLR2004 - int() is quadratic
    if not fits:
        raise InvalidParameter(
            parameter, f"{parameter}: {value!r} is not a value of type {column.type}.", value=value
        )
    return value


def _read_rest(column: Column, scanner: Scanner) -> Operand:
    rest = scanner.text[scanner.at :]
    scanner.at = len(scanner.text)
    return (check_value(column, rest, scanner.parameter),)


def _read_list(column: Column, scanner: Scanner) -> Operand:
    scanner.expect("(")
    if scanner.take(")"):
        return ()
    values: list[str] = []
    while True:
        if len(values) == MAX_VALUES:
            raise scanner.mistake(f"in takes at most {MAX_VALUES} values; there are more")
        values.append(check_value(column, scanner.word(",)"), scanner.parameter))
        if scanner.take(")"):
            return tuple(values)
        scanner.expect(",")


def _read_is(column: Column, scanner: Scanner) -> Operand:
    place = scanner.at
    word = scanner.until("").lower()
    boolean = word in ("true", "false", "unknown")
    if word not in IS_VALUES or (boolean and column.kind is not Kind.BOOLEAN):
        scanner.at = place
        offered = "null, not_null" + (
            ", true, false, unknown" if column.kind is Kind.BOOLEAN else ""
        )
        raise scanner.mistake(f"is takes {offered}, not {word!r},")
    return (word,)


def _compare(
    compare: Callable[[Any, Any], Any],
) -> Callable[[sa.ColumnElement[Any], Operand], Clause]:
    def clause(column: sa.ColumnElement[Any], operand: Operand) -> Clause:
        made: Clause = compare(column, bound(operand[0]))
        return made

    return clause


def _within(column: sa.ColumnElement[Any], operand: Operand) -> Clause:
    return column.op("IN", is_comparison=True)(TextList(operand)) if operand else sa.false()


OPERATORS: dict[str, Operator] = {
    "eq": Operator(_read_rest, _compare(operator.eq)),
    "neq": Operator(_read_rest, _compare(operator.ne)),
    "gt": Operator(_read_rest, _compare(operator.gt)),
    "gte": Operator(_read_rest, _compare(operator.ge)),
    "lt": Operator(_read_rest, _compare(operator.lt)),
    "lte": Operator(_read_rest, _compare(operator.le)),
    "in": Operator(_read_list, _within),
    "is": Operator(_read_is, lambda column, operand: IS_VALUES[operand[0]](column)),
}
