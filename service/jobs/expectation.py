"""What an export will come to, as far as that can be told within moments."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from service.databases.source import Source
from service.errors import RequestError, TailraceError
from service.export.assembly import Asked, assemble
from service.export.pipeline import Export
from service.grammar.cursor import Cursors
from service.preferences import Count
from service.settings import LimitSettings

SECONDS = 2.0  # for the planner, and for the sample
SAMPLE = 1_000  # rows
SMALL, MIDDLING = 10_000, 1_000_000  # rows
PRIORITIES = {SMALL: 30, MIDDLING: 20}
LOWEST = 10


@dataclass(frozen=True, slots=True)
class Rows:
    """How many, and how sure that is: exact, estimate or unknown."""

    rows: int | None
    kind: str

    @property
    def priority(self) -> int:
        """Higher ones run first: small before large, and what nobody knows last."""
        if self.rows is None:
            return LOWEST
        return next((p for most, p in PRIORITIES.items() if self.rows <= most), LOWEST)


async def expected_rows(asked: Asked, source: Source, tools: tuple[Cursors, LimitSettings]) -> Rows:
    """The planner's guess, which also has the source look at every value of the request.

    Raises InvalidParameter for those that it refuses. A source that is busy, slow or away is
    no reason to refuse an export that can wait for it.
    """
    query, dataset = asked.query, asked.dataset
    whole = not (query.where or query.offset or query.after)
    if query.limit == 0:
        return Rows(0, "exact")
    if whole and dataset.estimated_rows is not None and not asked.representation.excel:
        return _bounded(dataset.estimated_rows, query.limit)
    if source.kind != "postgresql":
        return Rows(None, "unknown")
    cursors, limits = tools
    probe = replace(asked, count=Count.ESTIMATE)
    export = assemble(probe, source, cursors, limits, "estimate", unread=True)
    try:
        async with asyncio.timeout(SECONDS):
            await _opened(export)
    except RequestError:
        raise
    except (TailraceError, TimeoutError):
        return Rows(None, "unknown")
    total = export.total
    return _bounded(total.rows, query.limit) if total else Rows(None, "unknown")


async def sample_bytes(
    asked: Asked, source: Source, tools: tuple[Cursors, LimitSettings], rows: int | None
) -> int | None:
    """About how many bytes ``rows`` of it make, by those of its first ones; None if unknown."""
    cursors, limits = tools
    most = min(SAMPLE, SAMPLE if asked.query.limit is None else asked.query.limit)
    few = replace(asked, query=replace(asked.query, limit=most), count=None)
    export = assemble(few, source, cursors, limits, "sample")
    try:
        async with asyncio.timeout(SECONDS):
            await whole_of(export)
    except TimeoutError:
        return None
    made = export.stages
    if not made.frame.rows or rows is None:
        return made.file.bytes if rows == 0 else None
    return round(made.file.bytes * max(rows / made.frame.rows, 1.0))


async def whole_of(export: Export) -> bytes:
    """All the bytes of a small export."""
    parts = []
    try:
        await export.open()
        while (chunk := await export.read()) is not None:
            parts.append(chunk)
    finally:
        await export.close()
    return b"".join(parts)


async def _opened(export: Export) -> None:
    try:
        await export.open()
    finally:
        await export.close()


def _bounded(rows: int, limit: int | None) -> Rows:
    return Rows(rows if limit is None else min(rows, limit), "estimate")
