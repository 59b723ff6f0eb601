"""Whose mistake an error of PostgreSQL is: the request's, if it stands at one of its values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError

from service.database import source_error
from service.errors import InvalidParameter, TailraceError
from service.grammar.filters import EXPRESSIONS, PATTERNS
from service.grammar.query import RowsQuery
from service.grammar.scanner import mistake

# Class 22 is a value that its type does not take; 42883 an operator that the type lacks; 0A000 a
# type that has no input. PostgreSQL's manual, appendix A.
CALLERS_MISTAKES = ("22", "42883", "42725", "42804", "0A000")
NO_OPERATOR = "42"
INVALID_EXPRESSION, NOT_SUPPORTED = "2201B", "0A000"
STRINGS = re.compile(r"""'(?:[^']|'')*+'|"(?:[^"]|"")*+\"""", re.DOTALL)


@contextmanager
def blaming(
    query: RowsQuery | None, text: str, literals: Mapping[str, str], prefix: int = 0
) -> Iterator[None]:
    """Errors of the statement ``text`` leave as ours.

    ``prefix`` is how many characters the driver puts in front of ``text``.
    """
    try:
        yield
    except asyncpg.PostgresError as error:
        raise _blamed(error, query, text, literals, prefix) from error
    except DBAPIError as error:
        cause = error.orig.__cause__ if error.orig is not None else None
        if not isinstance(cause, asyncpg.PostgresError):
            raise
        raise _blamed(cause, query, text, literals, prefix) from error


def _blamed(
    error: asyncpg.PostgresError,
    query: RowsQuery | None,
    text: str,
    literals: Mapping[str, str],
    prefix: int,
) -> TailraceError:
    """The caller's mistake if the error is about one of the filters, else the source's.

    The server gives a position only for what it meets while it reads the statement: a value in
    the data that cannot be computed has none, and neither has a wrong regular expression.
    """
    position = getattr(error, "position", None)
    found: TailraceError | None = None
    if query is not None and position is None:
        found = _wrong_pattern(error, query)
    elif query is not None and (error.sqlstate or "").startswith(CALLERS_MISTAKES):
        start = int(position or 0) - 1 - prefix
        found = _wrong_value(error, query, text, start, literals) or _wrong_order(
            error, query, text, start
        )
    return found or source_error(error)


def _wrong_value(
    error: asyncpg.PostgresError,
    query: RowsQuery,
    text: str,
    start: int,
    literals: Mapping[str, str],
) -> InvalidParameter | None:
    """The error stands at a value, or at the operator in front of it.

    The operands are the last string constants of every statement, in their order, so those that
    follow say which one it is, however often the same value stands there.
    """
    following = [found for found in STRINGS.findall(text, start) if found[0] == "'"]
    if not following:
        return None
    operands = [
        (condition, place, value)
        for condition in query.conditions()
        if condition.operator != "is"
        for place, value in zip(condition.place.values, condition.operand, strict=True)
    ]
    index = len(operands) - len(following)
    if index >= 0:
        condition, character, value = operands[index]
        if not literals[value].endswith(following[0]):
            return None
        if (error.sqlstate or "").startswith(NO_OPERATOR):
            character = condition.place.operator
        return mistake(condition.place.parameter, error.args[0], character, value=value)
    values = query.after.values if query.after else ()
    if any(literals.get(str(value), "").endswith(following[0]) for value in values):
        return mistake("after", f"this cursor does not fit any more ({error.args[0]})", 1)
    return None


def _wrong_order(
    error: asyncpg.PostgresError, query: RowsQuery, text: str, start: int
) -> InvalidParameter | None:
    clause = text.rfind("ORDER BY", 0, start)
    place = STRINGS.sub("", text[clause:start]).count(",")
    if clause < 0 or place >= len(query.order):
        return None
    return mistake("order", error.args[0], query.order[place].character)


def _wrong_pattern(error: asyncpg.PostgresError, query: RowsQuery) -> InvalidParameter | None:
    """The regular expression that the server does not take; it does not say which one."""
    collation = error.sqlstate == NOT_SUPPORTED and "nondeterministic" in error.args[0]
    if error.sqlstate != INVALID_EXPRESSION and not collation:
        return None
    operators = EXPRESSIONS | PATTERNS if collation else EXPRESSIONS
    asked = [item for item in query.conditions() if item.operator in operators]
    if not asked:
        return None
    first = asked[0]
    others = f" (one of {len(asked)} patterns)" if len(asked) > 1 else ""
    message = f"{error.args[0]}{others}"
    return mistake(first.place.parameter, message, first.place.values[0], value=first.operand[0])
