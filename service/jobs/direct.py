"""A direct stream: an export that goes straight to the client, with a record behind it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from service.database import CHANGED, utcnow
from service.errors import SourceError, TailraceError
from service.export.pipeline import Export
from service.export.receipt import Outcome
from service.grammar.query import RowsQuery
from service.jobs.model import Record
from service.jobs.telling import Telling
from service.preferences import count_headers

GONE_SECONDS = 5.0  # in which a cancelled query is to be gone from its database


async def proof_of(export: Export, asked: float) -> dict[str, object]:
    """Whether the query of a closed ``export`` is gone, as its database says.

    ``asked`` is the monotonic time at which somebody asked to stop it.
    """
    gone = await export.gone(GONE_SECONDS)
    took = round((time.monotonic() - asked) * 1000, 1)
    return {
        "backend_gone": gone,
        "latency_ms": took,
        "rows_written": export.stages.frame.rows,
    }


@dataclass(slots=True)
class DirectStream:
    """What ``streaming.StreamResponse`` sends; it has a record from its first byte on.

    ``changed`` is called when the source turns out to be different from what the catalogue knows.
    """

    export: Export
    telling: Telling
    changed: Callable[[], None]
    query: RowsQuery
    status: int = 200
    proof: dict[str, object] | None = None

    async def open(self) -> None:
        try:
            await self.export.open()
        except SourceError as error:
            if error.members.get("sqlstate") in CHANGED:
                self.changed()
            raise

    async def read(self) -> bytes | None:
        return await self.export.read()

    async def close(self) -> None:
        await self.export.close()
        if self.telling.cancel_asked is not None:
            self.proof = await proof_of(self.export, self.telling.cancel_asked)

    def headers(self) -> Mapping[str, str]:
        return counted(self.export, self.query)

    def started(self) -> None:
        total = self.export.total
        if total is not None and self.query.limit is None:
            self.telling.record = replace(
                self.telling.record, total_rows=total.rows, total_kind=total.kind.value
            )
        self.telling.started(self._progress)

    def ended(self, outcome: Outcome, error: TailraceError | None) -> None:
        now = utcnow()
        receipt = self.export.receipt(outcome, now, self.proof).as_dict()
        self.telling.ended(receipt, outcome, now, error)

    def _progress(self, record: Record) -> Record:
        stages = self.export.stages
        return replace(record, rows=stages.frame.rows, bytes=stages.file.bytes)


@dataclass(slots=True)
class CountOnly:
    """HEAD with a count: the headers of a stream that is opened and never read."""

    export: Export
    query: RowsQuery
    status: int = 200

    async def open(self) -> None:
        await self.export.open()

    async def read(self) -> bytes | None:
        return None

    async def close(self) -> None:
        await self.export.close()

    def headers(self) -> Mapping[str, str]:
        return counted(self.export, self.query)

    def started(self) -> None:
        """It has no record."""

    def ended(self, outcome: Outcome, error: TailraceError | None) -> None:
        """It has no receipt."""


def counted(export: Export, query: RowsQuery) -> Mapping[str, str]:
    """The headers that tell the total, if it was asked for."""
    if export.total is None:
        return {}
    first = None if query.after else query.offset or 0
    return count_headers(export.total, first, query.limit)
