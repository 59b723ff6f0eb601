"""Records to rows of the table and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from service.database import AWAY
from service.errors import RecordsUnavailable
from service.jobs.model import Kind, Record, State

COLUMNS = tuple(field.name for field in fields(Record))


@contextmanager
def answered() -> Iterator[None]:
    """A database that is away is an answer of its own, not a bug of ours."""
    try:
        yield
    except AWAY as error:
        raise RecordsUnavailable from error


def row_of(record: Record) -> dict[str, Any]:
    """The values of the record's columns."""
    # Not asdict(), which copies what is inside of the values, too.
    row = {name: getattr(record, name) for name in COLUMNS}
    return row | {"id": UUID(record.id), "kind": record.kind.value, "state": record.state.value}


def record_of(row: sa.Row[Any]) -> Record:
    """The record that a row of the table holds."""
    values = {name: row._mapping[name] for name in COLUMNS}
    typed = {
        "id": str(values["id"]),
        "kind": Kind(values["kind"]),
        "state": State(values["state"]),
        "rows": values["rows"] or 0,
        "bytes": values["bytes"] or 0,
    }
    return Record(**{**values, **typed})
