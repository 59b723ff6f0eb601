"""Cursors: where to continue after a row, as an opaque and signed text. Pure.

A cursor holds the values of the order's columns in one row, and belongs to one dataset, one
filter and one order; it does not depend on columns, limit, offset or format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from itsdangerous import BadData, URLSafeSerializer

from service.dialect import Scalar
from service.errors import InvalidParameter
from service.grammar.filters import Condition
from service.grammar.logic import Term
from service.grammar.ordering import Ordering
from service.grammar.scanner import mistake

PARAMETER = "after"
SALT = "tailrace.cursor.1"  # the version: another layout gets another number
MAX_LENGTH = 8192  # characters: a cursor has to fit into an address

Values = tuple[Scalar | None, ...]


@dataclass(frozen=True, slots=True)
class Cursor:
    """A row of ``dataset``; ``digest`` is that of the filter and the order."""

    dataset: str
    digest: str
    values: Values


class Cursors:
    """Signs and reads cursors with one secret; all processes of a service share it."""

    def __init__(self, secret: str | bytes) -> None:
        self._serializer = URLSafeSerializer(
            secret,
            salt=SALT,
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )

    def sign(self, cursor: Cursor) -> str | None:
        """The cursor as a text, or None where its values are too long for one."""
        text = str(self._serializer.dumps([cursor.dataset, cursor.digest, cursor.values]))
        return text if len(text) <= MAX_LENGTH else None

    def read(self, text: str, dataset: str, digest: str, columns: int) -> Values:
        """The values that ``text`` holds for a query of that dataset, filter and order.

        Raises InvalidParameter for what is not ours, or belongs to another query.
        """
        its_dataset, its_digest, values = self._held(text)
        if its_dataset != dataset:
            raise _refused("this cursor belongs to another dataset")
        if its_digest != digest or len(values) != columns:
            raise _refused("this cursor belongs to another filter or order")
        return tuple(values)

    def _held(self, text: str) -> tuple[str, str, list[Scalar | None]]:
        if len(text) > MAX_LENGTH:
            raise _refused(f"a cursor has at most {MAX_LENGTH} characters; this has more")
        try:
            # A text that is not ASCII is none of ours, and may not even have an encoding.
            dataset, digest, values = self._serializer.loads(text.encode("ascii"))
        except (BadData, UnicodeEncodeError) as error:
            raise _refused("this is not a cursor of this service, or not a whole one") from error
        return dataset, digest, values


def digest_of(where: Iterable[Term], order: Iterable[Ordering]) -> str:
    """What a cursor is tied to; conditions of one group may change places."""
    columns = [[item.column.name, item.descending, item.nulls_before] for item in order]
    text = orjson.dumps([_joined("and", where), columns])
    return hashlib.sha256(text).hexdigest()[:32]


def _joined(conjunction: str, terms: Iterable[Term]) -> list[Any]:
    """The canonical parts of one group; a group inside that only repeats it is dissolved."""
    parts: list[Any] = []
    for term in terms:
        if isinstance(term, Condition):
            parts.append([term.column.name, term.operator, _operand(term), term.negated])
        elif term.negated or (term.conjunction != conjunction and len(term.members) > 1):
            parts.append([term.conjunction, term.negated, _joined(term.conjunction, term.members)])
        else:
            parts.extend(_joined(conjunction, term.members))
    return sorted(parts, key=orjson.dumps)


def _operand(condition: Condition) -> Sequence[str]:
    listed = condition.operator == "in"
    return sorted(set(condition.operand)) if listed else condition.operand


def _refused(message: str) -> InvalidParameter:
    return mistake(PARAMETER, message, 1)
