"""The events of exports as streams: one export from its state to its end, or all of a caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from service.database import utcnow
from service.jobs.hub import OF_OWNERS, Happening, Hub
from service.jobs.log import TERMINAL, event_data
from service.jobs.model import CLOSE, Record, State, describe, linked
from service.jobs.outbox import Outbox, Readers
from service.jobs.rows import answered, record_of
from service.jobs.tables import export_events, exports
from service.line import chunk
from service.sse import MEDIA_TYPE, frame, json_data, retry

RETRY_MS = 3_000
REPLAYED_PROGRESS = 1_000  # the newest; older ones are superseded
HEADERS = {
    "Content-Type": f"{MEDIA_TYPE}; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would collect events before it passes them on
    "X-Content-Type-Options": "nosniff",
}
PROGRESS = "progress"
WITH_EXPORT = frozenset({"state", *TERMINAL.values()})


def event_chunk(happening: Happening, base: str) -> bytes:
    """The event as a chunk, made once for all readers that came here by the same address."""
    if base not in happening.made:
        made = event_frame(happening.name, happening.data, happening.seq, base)
        happening.made[base] = chunk(made)
    return happening.made[base]


def event_frame(name: str, data: dict[str, Any], seq: int, base: str) -> bytes:
    """One event of the log on the wire; ``base`` is what the links of its export begin with."""
    shown = linked(data, base) if name in WITH_EXPORT else data
    return frame(name, json_data(orjson.dumps(shown)), id=seq)


class EventStream:
    """What both kinds share: what is sent first, and an outbox for what comes then."""

    def __init__(self, readers: Readers) -> None:
        self._open = ExitStack()
        self.outbox = Outbox(self._open.close)
        self._readers = readers

    async def begin(self) -> bytes:
        """Register, and give what is sent first; ``outbox.lost`` is to be called in the end."""
        self._open.enter_context(self._readers.reading(self.outbox))
        try:
            return retry(RETRY_MS) + await self._first()
        except BaseException:
            self._open.close()
            raise

    async def _first(self) -> bytes:
        raise NotImplementedError


class ExportEvents(EventStream):
    """The events of one export behind ``last``, the id of the last one that the client has."""

    events = True

    def __init__(
        self,
        record: Record,
        last: int | None,
        base: str,
        *,
        engine: AsyncEngine,
        hub: Hub,
        readers: Readers,
    ) -> None:
        super().__init__(readers)
        self._record: Record | None = record
        self._last = last
        self._base = base
        self._engine = engine
        self._hub = hub
        self._sent = record.event_seq or 0

    async def _first(self) -> bytes:
        record, self._record = self._record, None  # it may be large, and is needed only here
        assert record is not None  # noqa: S101 - it begins once
        self._open.enter_context(self._hub.watch(record, self))
        if self._last is None:
            return self._now(record)
        missed = await self._missed(record, self._last)
        if missed and missed[0].seq == self._last:
            return self._replayed(missed[1:], record.event_seq or 0)
        return frame("reset", b"{}") + self._now(record)

    async def _missed(self, record: Record, last: int) -> list[Happening]:
        """The event ``last`` itself, if it is kept, and those behind it."""
        with answered():
            async with self._engine.connect() as connection:
                rows = await connection.execute(_missed(record, last))
                return [Happening(str(row.export_id), row.seq, row.name, row.data) for row in rows]

    def _replayed(self, happened: Sequence[Happening], seen: int) -> bytes:
        """What was missed up to the event ``seen``; the hub tells of what comes behind it."""
        self.told(None, [item for item in happened if item.seq > seen])
        kept = [item for item in happened if item.seq <= seen]
        if kept and kept[-1].name == CLOSE:
            self.outbox.close()
        return b"".join(event_frame(item.name, item.data, item.seq, self._base) for item in kept)

    def _now(self, record: Record) -> bytes:
        """The state as it is, and the end behind it where the export has ended."""
        now, seq = utcnow(), record.event_seq or 0
        if not record.state.final:
            return event_frame("state", event_data("state", record, now), seq, self._base)
        self.outbox.close()
        names = ("state", TERMINAL[record.state], CLOSE)
        return b"".join(
            event_frame(name, event_data(name, record, now), max(seq - 2 + place, 0), self._base)
            for place, name in enumerate(names)
        )

    def told(self, record: Record | None, happened: Sequence[Happening]) -> None:
        del record
        for item in happened:
            if item.seq <= self._sent:
                continue
            self._sent = item.seq
            progress = item.name == PROGRESS
            if not progress:
                # Progress that waits is of the state before, and keeps its place.
                self.outbox.seal(PROGRESS)
            self.outbox.put(event_chunk(item, self._base), PROGRESS if progress else None)
            if item.name == CLOSE:
                self.outbox.close()

    def deleted(self) -> None:
        self.outbox.put(chunk(frame(CLOSE, b"{}")))
        self.outbox.close()


class AllEvents(EventStream):
    """Every export of ``owner``: the live ones as they are, then each change."""

    def __init__(
        self, owner: str, base: str, *, engine: AsyncEngine, hub: Hub, readers: Readers
    ) -> None:
        super().__init__(readers)
        self.owner = owner
        self.base = base
        self._engine = engine
        self._hub = hub
        self._known: dict[str, tuple[int, State]] | None = None
        self._early: list[Callable[[], None]] = []

    async def _first(self) -> bytes:
        # First of all, so that no change falls between the two.
        self._open.enter_context(self._hub.oversee(self))
        query = OF_OWNERS.order_by(exports.c.created_at)
        with answered():
            async with self._engine.connect() as connection:
                rows = await connection.execute(query, {"owners": [self.owner]})
        found = [record_of(row) for row in rows]
        self._known = {record.id: (record.event_seq or 0, record.state) for record in found}
        for told in self._early:
            told()
        self._early.clear()
        return b"".join(
            export_frame(record, self.base) for record in found if not record.state.final
        )

    def told(self, record: Record, event: bytes) -> None:
        if self._known is None:
            self._early.append(partial(self.told, record, event))
            return
        # The hub's first look finds what was there before, too.
        now, known = (record.event_seq or 0, record.state), self._known.get(record.id)
        if known is not None and (now[0] < known[0] or now == known):
            return
        self._known.pop(record.id, None)
        final = record.state.final
        if final:
            self.outbox.seal(record.id)
        self.outbox.put(event, None if final else record.id)

    def gone(self, export_id: str) -> None:
        if self._known is None:
            self._early.append(partial(self.gone, export_id))
            return
        self.outbox.put(chunk(frame("deleted", orjson.dumps({"id": export_id}))))


def export_event(record: Record, base: str) -> bytes:
    """An export as it is, as a chunk of the stream of all of them."""
    return chunk(export_frame(record, base))


def export_frame(record: Record, base: str) -> bytes:
    """An export as it is, with its receipt once it has ended."""
    shown = describe(record, base, utcnow())
    if record.state.final:
        shown["receipt"] = record.receipt
    return frame("export", json_data(orjson.dumps(shown)))


def _missed(record: Record, last: int) -> sa.Select[Any]:
    c = export_events.c
    old = (record.event_seq or 0) - REPLAYED_PROGRESS
    wanted = sa.or_(c.seq == last, c.name != PROGRESS, c.seq > old)
    return (
        sa.select(export_events)
        .where(c.export_id == UUID(record.id), c.seq >= last, wanted)
        .order_by(c.seq)
    )


class Watch:
    """The newest record of one export, and a wait for the next; None once it is deleted."""

    events = False

    def __init__(self, record: Record) -> None:
        self.record: Record | None = record
        self._changed = asyncio.Event()

    def told(self, record: Record | None, happened: Sequence[Happening]) -> None:
        del happened
        self.record = record
        self._changed.set()

    def deleted(self) -> None:
        self.told(None, ())

    async def change(self) -> None:
        """Wait until there is something that this has not been asked about yet."""
        await self._changed.wait()
        self._changed.clear()

    def changed(self) -> bool:
        """Whether ``change`` would return at once; it has been asked about then."""
        was = self._changed.is_set()
        self._changed.clear()
        return was


@asynccontextmanager
async def watching(hub: Hub, record: Record) -> AsyncIterator[Watch]:
    """A watch over an export until the block ends."""
    watch = Watch(record)
    with hub.watch(record, watch):
        yield watch


async def until_final(hub: Hub, record: Record, within: float) -> Record | None:
    """The record once it is final, or as it is after ``within`` seconds; None if it is gone."""
    async with watching(hub, record) as watch:
        try:
            async with asyncio.timeout(within):
                while watch.record is not None and not watch.record.state.final:
                    await watch.change()
        except TimeoutError:
            pass
        return watch.record
