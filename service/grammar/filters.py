"""Conditions on columns: ``operator.value`` → a clause. Pure.

OPERATORS is the table that grows: an operator is one function from the parameter's text to an
operand, and one from a column and an operand to SQL, in the words of the dataset's dialect.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from service.column import Column, Kind
from service.dataset import Dataset
from service.dialect import Clause, Dialect, Expression
from service.errors import InvalidParameter, Unsupported
from service.grammar.scanner import Scanner, Word, mistake

Operand = tuple[str, ...]

MAX_VALUES = 10_000  # in one list: each of them costs the event loop some microseconds

FULL_TEXT = frozenset({"fts", "plfts", "phfts", "wfts"})
UNSUPPORTED = FULL_TEXT | {"cs", "cd", "ov", "sl", "sr", "nxr", "nxl", "adj"}
# Said so that nothing beside it is folded away: the database is to see every value.
NEVER: Clause = sa.literal_column("(1 = 0)", sa.Boolean())
QUANTIFIER = re.compile(r"\((any|all)\)")
IS_VALUES: dict[str, Callable[[Expression], Clause]] = {
    "null": lambda column: column.is_(sa.null()),
    "not_null": lambda column: column.is_not(sa.null()),
    "true": lambda column: column.is_(sa.true()),
    "false": lambda column: column.is_(sa.false()),
    "unknown": lambda column: column.is_(sa.null()),  # what UNKNOWN is; not every database has it
}
SPELLINGS = {
    Kind.INTEGER: re.compile(r"[+-]?\d+", re.ASCII),
    Kind.NUMBER: re.compile(
        r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|nan|inf(?:inity)?)", re.ASCII | re.IGNORECASE
    ),
    Kind.BOOLEAN: re.compile(r"true|false|t|f|yes|no|y|n|on|off|1|0", re.IGNORECASE),
    Kind.UUID: re.compile(r"\{?(?:[0-9a-f]{4}-?){7}[0-9a-f]{4}\}?", re.IGNORECASE),
}
MAX_INTEGER_TEXT = 40  # characters: int() is quadratic, and zeros may stand in front
ODD_BACKSLASHES = re.compile(r"(?<!\\)(?:\\\\)*\\\Z")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a condition stands: its operator and its values, as characters (from 1)."""

    parameter: str = ""
    operator: int = 1
    values: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Operator:
    read: Callable[[Column, Scanner], list[Word]]
    clause: Callable[[Dialect, Column, Expression, Operand], Clause]


@dataclass(frozen=True, slots=True)
class Condition:
    """``column operator operand``, perhaps negated."""

    column: Column
    operator: str
    operand: Operand
    negated: bool = False
    place: Place = field(default=Place(), compare=False)

    def clause(self, dataset: Dataset) -> Clause:
        """The condition as SQL over the dataset's reflected column.

        Raises Unsupported where the dataset's database has nothing for it, and InvalidParameter
        for a text that is no value of the column.
        """
        make, expression = OPERATORS[self.operator].clause, dataset.expression(self.column)
        try:
            made = make(dataset.dialect, self.column, expression, self.operand)
        except InvalidParameter as error:
            message, kind = error.detail.removesuffix("."), type(error)
            place = self.place
            at = place.operator if kind is Unsupported else place.values[0]
            raise mistake(place.parameter, message, at, kind=kind) from error
        return sa.not_(made) if self.negated else made


def parse_condition(column: Column, scanner: Scanner) -> Condition:
    """Read ``[not.]operator.value``, to the end of the parameter or of its place in a group."""
    negated = scanner.take("not.")
    place = scanner.at
    name = _operator(scanner)
    scanner.expect(".")
    values = OPERATORS[name].read(column, scanner)
    if not scanner.group and not scanner.done:
        raise scanner.mistake(f"unexpected {scanner.peek()!r}")
    found = Place(scanner.parameter, place + 1, tuple(value.at + 1 for value in values))
    return Condition(column, name, tuple(value.text for value in values), negated, found)


def _operator(scanner: Scanner) -> str:
    place = scanner.at
    name = scanner.until(".(,)")
    quantifier = QUANTIFIER.match(scanner.text, scanner.at)
    if name in UNSUPPORTED or (name in OPERATORS and quantifier):
        asked = name + (quantifier[0] if quantifier else "")
        raise scanner.mistake(f"{asked} is not offered", at=place, kind=Unsupported)
    if name not in OPERATORS:
        known = ", ".join(OPERATORS)
        message = f"{name!r} is not an operator; there are {known}; expected one"
        raise scanner.mistake(message, at=place)
    return name


def check_value(column: Column, value: str) -> bool:
    """Whether ``value`` can be one of ``column``; what has no rule here the database decides."""
    spelling = SPELLINGS.get(column.kind)
    fits = spelling is None or spelling.fullmatch(value) is not None
    if fits and column.kind is Kind.INTEGER and column.bits:
        bound = 2 ** (column.bits - 1)
        fits = len(value) <= MAX_INTEGER_TEXT and -bound <= int(value) < bound
    return fits


def _checked(column: Column, scanner: Scanner, value: Word) -> Word:
    if not check_value(column, value.text):
        message = f"{value.text!r} is not a value of type {column.type}"
        raise scanner.mistake(message, at=value.at, value=value.text)
    return value


def _read_expression(column: Column, scanner: Scanner) -> list[Word]:
    del column
    at = scanner.at
    return [Word(scanner.value(), at)]


def _read_value(column: Column, scanner: Scanner) -> list[Word]:
    return [_checked(column, scanner, value) for value in _read_expression(column, scanner)]


def _read_pattern(column: Column, scanner: Scanner) -> list[Word]:
    (value,) = _read_expression(column, scanner)
    if ODD_BACKSLASHES.search(value.text):
        raise scanner.mistake("a pattern cannot end in a single backslash", at=value.at)
    return [Word(value.text.replace("*", "%"), value.at)]


def _read_list(column: Column, scanner: Scanner) -> list[Word]:
    scanner.expect("(")
    values: list[Word] = []
    for word in scanner.listed():
        if len(values) == MAX_VALUES:
            message = f"in takes at most {MAX_VALUES} values; there are more"
            raise scanner.mistake(message, at=word.at)
        values.append(_checked(column, scanner, word))
    return values


def _read_is(column: Column, scanner: Scanner) -> list[Word]:
    at = scanner.at
    word = scanner.until(",)" if scanner.group else "").lower()
    boolean = column.kind is Kind.BOOLEAN
    if word not in IS_VALUES or (word in ("true", "false", "unknown") and not boolean):
        offered = "null, not_null" + (", true, false, unknown" if boolean else "")
        raise scanner.mistake(f"is takes {offered}, not {word!r},", at=at)
    return [Word(word, at)]


def _compare(compare: Callable[[Any, Any], Any]) -> Operator:
    def clause(
        dialect: Dialect, column: Column, expression: Expression, operand: Operand
    ) -> Clause:
        made: Clause = compare(expression, dialect.value(column, operand[0]))
        return made

    return Operator(_read_value, clause)


def _like(*, insensitive: bool) -> Operator:
    return Operator(
        _read_pattern,
        lambda dialect, _, expression, operand: dialect.like(
            expression, operand[0], insensitive=insensitive
        ),
    )


def _matches(*, insensitive: bool) -> Operator:
    return Operator(
        _read_expression,
        lambda dialect, _, expression, operand: dialect.matches(
            expression, operand[0], insensitive=insensitive
        ),
    )


def _within(dialect: Dialect, column: Column, expression: Expression, operand: Operand) -> Clause:
    return dialect.within(column, expression, operand) if operand else NEVER


def _distinct(dialect: Dialect, column: Column, expression: Expression, operand: Operand) -> Clause:
    return dialect.distinct(column, expression, operand[0])


def _is(dialect: Dialect, column: Column, expression: Expression, operand: Operand) -> Clause:
    del dialect, column
    return IS_VALUES[operand[0]](expression)


OPERATORS: dict[str, Operator] = {
    "eq": _compare(operator.eq),
    "neq": _compare(operator.ne),
    "gt": _compare(operator.gt),
    "gte": _compare(operator.ge),
    "lt": _compare(operator.lt),
    "lte": _compare(operator.le),
    "like": _like(insensitive=False),
    "ilike": _like(insensitive=True),
    "match": _matches(insensitive=False),
    "imatch": _matches(insensitive=True),
    "in": Operator(_read_list, _within),
    "is": Operator(_read_is, _is),
    "isdistinct": Operator(_read_value, _distinct),
}
PATTERNS = frozenset({"like", "ilike"})
EXPRESSIONS = frozenset({"match", "imatch"})
