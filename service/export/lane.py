"""What a lane is: a way for rows to leave a source as text. Lanes differ in speed only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from service.databases.source import Snapshot, Source
from service.grammar.query import RowsQuery
from service.slots import Slots

Sink = Callable[[bytes], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Reading:
    """A lane that is open: ``carry`` sends every row's text into a sink and gives their number.

    ``snapshot`` is None for rows that come from no database; those that can be let go of in the
    middle bring ``let_go``.
    """

    snapshot: Snapshot | None
    carry: Callable[[Sink], Awaitable[int]]
    let_go: Callable[[], None] | None = None

    def abort(self) -> None:
        """Wait no longer for what does not stop."""
        if self.let_go is not None:
            self.let_go()
        elif self.snapshot is not None:
            self.snapshot.abort()


class Lane(Protocol):
    """``slots`` bound how many exports of its source run at once."""

    name: str
    query_sha256: str

    @property
    def slots(self) -> Slots: ...

    def reading(
        self, *, max_seconds: float, lock_seconds: float
    ) -> AbstractAsyncContextManager[Reading]:
        """Take what it needs, for as long as the block lasts."""
        ...


@asynccontextmanager
async def reading_from(
    source: Source,
    run: Callable[[Any, Sink], Awaitable[int]],
    *,
    texts: Sequence[str],
    query: RowsQuery,
    max_seconds: float,
    lock_seconds: float,
) -> AsyncIterator[Reading]:
    """A reading of a snapshot of ``source``; ``run`` carries its rows into a sink."""
    async with source.snapshot(
        texts=texts, query=query, max_seconds=max_seconds, lock_seconds=lock_seconds
    ) as snapshot:
        yield Reading(snapshot, partial(run, snapshot))


class Unread:
    """A lane whose snapshot is opened, and whose rows nobody asks for."""

    query_sha256 = ""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self.name = lane.name

    @property
    def slots(self) -> Slots:
        return self._lane.slots

    @asynccontextmanager
    async def reading(self, *, max_seconds: float, lock_seconds: float) -> AsyncIterator[Reading]:
        async with self._lane.reading(
            max_seconds=max_seconds, lock_seconds=lock_seconds
        ) as reading:
            yield Reading(reading.snapshot, _nothing)


async def _nothing(_: Sink) -> int:
    return 0
