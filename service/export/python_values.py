"""The text of Python's own values, for rows that come from no database. Pure.

Taken are None, bool, int, float, Decimal, str, bytes, datetime, date, time, UUID, and dict, list
and tuple as JSON; their text is what PostgreSQL makes of the same values (``docs/formats.md``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from json.encoder import encode_basestring
from types import NoneType
from typing import Any
from uuid import UUID

INFINITIES = {math.inf: "Infinity", -math.inf: "-Infinity"}
ToText = Callable[[Any], Any]


class Makers(dict[type, ToText]):
    """What makes the text of a value, by its type: ``makers[type(value)](value)``.

    A subclass is made as its nearest parent is: datetime is a date, bool an int. Raises TypeError
    for a type that has none.
    """

    def __missing__(self, kind: type) -> ToText:
        for parent in kind.__mro__:
            if parent in self:
                self[kind] = self[parent]
                return self[kind]
        raise TypeError(f"A cell cannot be a {kind.__name__}.")


def _boolean(value: bool) -> str:  # noqa: FBT001 - the value itself
    return "true" if value else "false"


def _real(value: float) -> str:
    # Not repr(): subclasses, such as numpy's, spell themselves otherwise.
    return "NaN" if math.isnan(value) else INFINITIES.get(value) or float.__repr__(value)


def _decimal(value: Decimal) -> str:
    return str(value) if value.is_finite() or value.is_infinite() else "NaN"


def _raw(value: bytes) -> str:
    return "\\x" + bytes(value).hex()


def _moment(value: datetime) -> str:
    return value.isoformat(" ")


def _day_or_time(value: date | time) -> str:
    return value.isoformat()


def _number_or_string(text: str) -> str:
    # NaN and the infinities are the only ones that end in a letter.
    return f'"{text}"' if text[-1].isalpha() else text


def _array(value: list[Any] | tuple[Any, ...]) -> str:
    return "[" + ",".join([JSON_TEXTS[type(item)](item) for item in value]) + "]"


def _object(value: dict[str, Any]) -> str:
    members = (
        f"{encode_basestring(name)}:{JSON_TEXTS[type(item)](item)}" for name, item in value.items()
    )
    return "{" + ",".join(members) + "}"


# The cell of a CSV file before quoting; None is NULL.
CSV_TEXTS = Makers(
    {
        NoneType: lambda _: None,
        str: str.__str__,  # not str(), which spells an enum's member otherwise
        bool: _boolean,
        int: int.__repr__,
        float: _real,
        Decimal: _decimal,
        bytes: _raw,
        bytearray: _raw,
        memoryview: _raw,
        datetime: _moment,
        date: _day_or_time,
        time: _day_or_time,
        UUID: str,
        dict: _object,
        list: _array,
        tuple: _array,
    }
)
# JSON text (RFC 8259) without line feeds. What JSON has no number for is a string; the keys of a
# dict are str.
JSON_TEXTS = Makers(
    {
        **CSV_TEXTS,
        NoneType: lambda _: "null",
        str: encode_basestring,
        float: lambda value: _number_or_string(_real(value)),
        Decimal: lambda value: _number_or_string(_decimal(value)),
        bytes: lambda value: encode_basestring(_raw(value)),
        bytearray: lambda value: encode_basestring(_raw(value)),
        memoryview: lambda value: encode_basestring(_raw(value)),
        datetime: lambda value: f'"{value.isoformat()}"',
        date: lambda value: f'"{value.isoformat()}"',
        time: lambda value: f'"{value.isoformat()}"',
        UUID: lambda value: f'"{value}"',
    }
)
