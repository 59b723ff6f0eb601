"""Whose mistake an error of MariaDB or MySQL is, and what the others mean.

Source: MariaDB's manual, "Error Codes"; MySQL's error reference.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.errors import (
    DeadlineExceeded,
    InvalidParameter,
    SourceError,
    SourceUnavailable,
)
from service.grammar.filters import EXPRESSIONS, Condition
from service.grammar.query import RowsQuery
from service.grammar.scanner import mistake

UNAVAILABLE = frozenset(
    {1040, 1042, 1043, 1044, 1045, 1049, 1053, 1129, 1130, 1152, 1158, 1159, 1160, 1161}
    | {1184, 1203, 1205, 1226, 1251, 1698, 1927, 3032, 3118, 3159, 4031}
    | {2002, 2003, 2005, 2006, 2013, 2026, 2055, 2059, 2061}
)
DEADLINE = frozenset({1969, 3024})  # max_statement_time, max_execution_time
# What a dataset is not any more: no such table or column, a view of something that is gone.
CHANGED = {1146: "42S02", 1051: "42S02", 1356: "42S02", 1054: "42S22"}
WRONG_PATTERN = frozenset({1139, *range(3685, 3701)})
WRONG_CHARACTERS = frozenset({1267, 1270, 1271, 1366, 3854, 3988, 3995})
WRONG_VALUE = frozenset({1292, 1411, 1525, 3037, 3140, 3141})
OUT_OF_RANGE, OUR_SUM = 1690, "18446744073709551615 + octet_length"
TOO_LONG = "A value is longer than the texts that the server makes (max_allowed_packet)."


def number_of(error: BaseException) -> int:
    """The number that the server or the driver gives an error; 0 if it has none."""
    number = error.args[0] if error.args else 0
    return number if isinstance(number, int) else 0


def source_error(error: BaseException) -> SourceError:
    """What a driver's error means for the one who asked."""
    if isinstance(error, OSError | EOFError | TimeoutError):
        return SourceUnavailable("The database cannot be reached, or the connection was lost.")
    number = number_of(error)
    message = str(error.args[1]) if len(error.args) > 1 else str(error)
    if number in DEADLINE:
        return DeadlineExceeded(f"The database ended the query: {message}.")
    if number in UNAVAILABLE or not number:
        return SourceUnavailable(f"The database is not available (error {number}).")
    if number == OUT_OF_RANGE and OUR_SUM in message:
        return SourceError(TOO_LONG)
    members = {"sqlstate": CHANGED[number]} if number in CHANGED else None
    return SourceError(f"{message.rstrip('.')} (error {number}).", members=members)


def blamed(error: BaseException, query: RowsQuery) -> InvalidParameter | None:
    """The caller's mistake, if the error can be one of the filters' values.

    The server does not tell which value it means: one that its message quotes, or the first
    that can have been.
    """
    number = number_of(error)
    conditions = list(query.conditions())
    if number in WRONG_PATTERN:
        suspects = [item for item in conditions if item.operator in EXPRESSIONS]
    elif number in WRONG_CHARACTERS:
        suspects = [item for item in conditions if not "".join(item.operand).isascii()]
    else:
        suspects = conditions if number in WRONG_VALUE else []
    message = str(error.args[1]) if len(error.args) > 1 else ""
    return _mistake(suspects, message)


def _mistake(suspects: Sequence[Condition], message: str) -> InvalidParameter | None:
    told = [item for item in suspects if any(value in message for value in item.operand)]
    chosen = (told or suspects)[:1]
    for item in chosen:
        values = item.place.values or (item.place.operator,)
        others = f" (one of {len(suspects)} values)" if len(suspects) > 1 and not told else ""
        return mistake(item.place.parameter, f"{message.rstrip('.')}{others}", values[0])
    return None
