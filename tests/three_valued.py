"""The read grammar's conditions evaluated in Python: three-valued logic, PostgreSQL's comparisons."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from operator import itemgetter
from typing import Any

Value = int | str | bool | float | date | None
Row = Mapping[str, Value]
Truth = bool | None  # None is UNKNOWN


def both(truths: Iterable[Truth]) -> Truth:
    """SQL's AND."""
    found = list(truths)
    if False in found:
        return False
    return None if None in found else True


def negation(truth: Truth) -> Truth:
    """SQL's NOT."""
    return None if truth is None else not truth


def either(truths: Iterable[Truth]) -> Truth:
    """SQL's OR."""
    return negation(both(map(negation, truths)))


def rank(value: Value) -> Any:
    """What PostgreSQL compares: NaN is the largest number, text in COLLATE "C" its bytes."""
    if isinstance(value, float):
        return (math.isnan(value), 0.0 if math.isnan(value) else value)
    return value.encode() if isinstance(value, str) else value


def compared(compare: Callable[[Any, Any], bool]) -> Callable[[Value, Value], Truth]:
    def truth(value: Value, other: Value) -> Truth:
        if value is None or other is None:
            return None
        return compare(rank(value), rank(other))

    return truth


def distinct(value: Value, other: Value) -> bool:
    """IS DISTINCT FROM."""
    return (value is None) != (other is None) or rank(value) != rank(other)


def like(pattern: str, *, insensitive: bool) -> re.Pattern[str]:
    """LIKE's pattern (with PostgREST's ``*``) as a regular expression for a full match."""
    parts = re.findall(r"\\.|.", pattern.replace("*", "%"), re.DOTALL)
    wild = {"%": ".*", "_": "."}
    text = "".join(wild.get(part) or re.escape(part[-1]) for part in parts)
    return re.compile(text, re.DOTALL | re.ASCII | (re.IGNORECASE if insensitive else 0))


Ordered = tuple[str, str, str | None]  # a column, asc or desc, nullsfirst or nullslast or neither


def in_order(rows: Iterable[Row], order: Sequence[Ordered]) -> list[Row]:
    """ORDER BY, with the key ``id`` behind it; without a word NULL is the largest value."""
    found = sorted(rows, key=lambda row: rank(row["id"]))
    for name, direction, nulls in reversed(order):
        first = nulls == "nullsfirst" if nulls else direction == "desc"
        absent = [row for row in found if row[name] is None]
        ranked = [(rank(row[name]), row) for row in found if row[name] is not None]
        ranked.sort(key=itemgetter(0), reverse=direction == "desc")
        present = [row for _, row in ranked]
        found = absent + present if first else present + absent
    return found
