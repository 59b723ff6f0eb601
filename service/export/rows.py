"""The rows lane: SQLAlchemy streams rows, a batch encoder makes them text. For every database."""

from __future__ import annotations

import hashlib
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from service.databases.source import Snapshot, Source
from service.databases.stopping import stoppable
from service.export.batch import Encode
from service.export.lane import Reading, Sink, reading_from
from service.grammar.query import RowsQuery
from service.slots import Slots

FIRST_ROWS, MOST_ROWS = 1, 2000  # a row may hold megabytes, and the first one tells
GROWTH = 8  # times as many rows at most as in the batch before
BATCH_BYTES = 128 * 1024  # of text: encoding it takes the event loop some milliseconds


@dataclass(frozen=True, slots=True)
class Projection:
    """A SELECT, and what makes a batch of its rows the text of the format.

    ``texts`` are its values, where the source has to render them before it can be run.
    """

    statement: sa.Select[Any]
    encode: Encode
    texts: tuple[str, ...] = ()


class RowsLane:
    """One export through a cursor, in batches of about the same size in bytes.

    ``name`` tells who encodes: "rows" is Python, "lines" the database, which then gives whole
    lines.
    """

    def __init__(self, source: Source, query: RowsQuery, projection: Projection, name: str) -> None:
        self.name = name
        self.source = source
        self.query = query
        self.query_sha256 = ""
        self._projection = projection
        self.texts = projection.texts

    @property
    def slots(self) -> Slots:
        return self.source.slots

    def reading(
        self, *, max_seconds: float, lock_seconds: float
    ) -> AbstractAsyncContextManager[Reading]:
        return reading_from(
            self.source,
            self.run,
            texts=self.texts,
            query=self.query,
            max_seconds=max_seconds,
            lock_seconds=lock_seconds,
        )

    async def run(self, snapshot: Snapshot, sink: Sink) -> int:
        """Carry every row into ``sink`` and give their number."""
        statement, encode = self._projection.statement, self._projection.encode
        self.query_sha256 = hashlib.sha256(snapshot.text(statement).encode()).hexdigest()
        rows, size = 0, FIRST_ROWS
        async with snapshot.stream(statement) as result:
            # Batches of one number of rows would not bound memory: rows may be short, or hold a
            # megabyte each.
            while batch := await stoppable(snapshot, result.fetchmany(size)):
                data = encode(batch)
                await sink(data)
                rows += len(batch)
                size = max(1, min(MOST_ROWS, GROWTH * size, BATCH_BYTES * len(batch) // len(data)))
        return rows
