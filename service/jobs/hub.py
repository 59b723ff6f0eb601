"""What this process knows of exports that somebody watches: one look for all who do.

Each process looks for itself, so it does not matter which one runs an export. A notification
says that a look is worth while, and one is taken every ``POLL_SECONDS`` in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.database import AWAY
from service.jobs.log import ids_of
from service.jobs.model import LIVE, Record
from service.jobs.rows import record_of
from service.jobs.tables import export_events, exports
from service.observe import EventsUnread, Observer, Unexpected

POLL_SECONDS = 2.0
STOP_SECONDS = 5.0
LONGEST_PAUSE = 5.0  # seconds between looks while the database is away


@dataclass(frozen=True, slots=True)
class Happening:
    """One event of the log; ``data`` is what a client is sent, without links.

    ``made`` keeps what was made of it for all who came here by an address.
    """

    export_id: str
    seq: int
    name: str
    data: dict[str, Any]
    made: dict[str, bytes] = field(default_factory=dict, compare=False, repr=False)


class Watcher(Protocol):
    """Somebody who wants to know of one export; told in the event loop, so it returns at once."""

    events: bool  # whether it wants what is logged, or only the newest state

    def told(self, record: Record | None, happened: Sequence[Happening]) -> None:
        """``record`` is the row as it is now."""
        ...

    def deleted(self) -> None:
        """The row is gone."""
        ...


class Overseer(Protocol):
    """Somebody who wants to know of every export of ``owner``."""

    owner: str
    base: str

    def told(self, record: Record, event: bytes) -> None: ...

    def gone(self, export_id: str) -> None: ...


@dataclass(slots=True)
class Topic:
    """One export that is watched, and how much of it has been told."""

    record: Record | None = None
    logged: int = 0
    watchers: dict[Watcher, None] = field(default_factory=dict)

    @property
    def key(self) -> tuple[int, str]:
        """What differs when there is something new."""
        record = self.record
        return (record.event_seq or 0, record.state.value) if record else (-1, "")


class Hub:
    """``watch`` and ``oversee`` register until their block ends.

    ``event`` makes of a record what those are sent who came here by an address.
    """

    def __init__(
        self, engine: AsyncEngine, observe: Observer, event: Callable[[Record, str], bytes]
    ) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._event = event
        self._observe = observe
        self._topics: dict[str, Topic] = {}
        self._overseers: dict[Overseer, None] = {}
        self._seen: dict[str, tuple[float, int, str]] = {}
        self._hinted: set[str] = set()
        self._deleted: list[str] = []
        self._everything = True
        self._looking = self._stopping = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="event hub")

    async def stop(self) -> None:
        """Returns behind the look under way: cancelled, it would leave a connection behind."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=STOP_SECONDS)
            self._task.cancel()
            await asyncio.wait({self._task})

    def hint(self, payload: str | None) -> None:
        """A notification came: which exports changed, None for all."""
        ids = ids_of(payload)
        if ids is None:
            self._everything = True
        else:
            self._hinted |= ids
        self._wake.set()

    def deleted(self, payload: str | None) -> None:
        """A notification came: an export is gone, and this is whose it was."""
        if payload is not None:
            # Behind the look under way, which may have found it still there.
            self._deleted.append(payload)
            self._wake.set()

    @contextmanager
    def watch(self, record: Record, watcher: Watcher) -> Iterator[None]:
        """Tell ``watcher`` of every change behind ``record``, which it knows already."""
        topic = self._topics.get(record.id)
        if topic is None:
            topic = self._topics[record.id] = Topic(record, record.event_seq or 0)
        topic.watchers[watcher] = None
        told = max(topic.logged, (topic.record and topic.record.event_seq) or 0)
        if topic.record is None or (record.event_seq or 0) < told:
            # It knows less than the others: the next look tells all of them again.
            topic.record = record
            topic.logged = min(topic.logged, record.event_seq or 0)
            self.hint(record.id)
        elif len(topic.watchers) == 1 or self._looking:
            # What the look under way asked for did not have this one in mind.
            self.hint(record.id)
        try:
            yield
        finally:
            del topic.watchers[watcher]
            if not topic.watchers and self._topics.get(record.id) is topic:
                del self._topics[record.id]

    def known(self, export_id: str) -> Record | None:
        """The record of an export that somebody watches: what has come since is told to all."""
        topic = self._topics.get(export_id)
        return topic.record if topic is not None else None

    @contextmanager
    def oversee(self, overseer: Overseer) -> Iterator[None]:
        """Tell ``overseer`` of every change from now on."""
        self._overseers[overseer] = None
        try:
            yield
        finally:
            del self._overseers[overseer]
            if not self._overseers:
                self._seen.clear()

    async def _run(self) -> None:
        pause = POLL_SECONDS
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)
            everything = self._everything or not self._wake.is_set()
            ids, self._hinted, self._everything = self._hinted, set(), False
            deleted, self._deleted = self._deleted, []
            self._wake.clear()
            self._looking = True
            try:
                await self._look(None if everything else ids)
                self._tell_deleted(deleted)
                pause = POLL_SECONDS
            except AWAY as error:
                self._observe(EventsUnread(repr(error)))
                self._everything, self._deleted = True, deleted + self._deleted
                pause = LONGEST_PAUSE
            except Exception:  # noqa: BLE001 - those who watch are not to wait for ever
                self._observe(Unexpected("event hub", traceback.format_exc()))
                self._everything = True
            self._looking = False

    async def _look(self, ids: set[str] | None) -> None:
        topics = {key: topic for key, topic in self._topics.items() if ids is None or key in ids}
        if not topics and not self._overseers:
            return
        async with self._engine.connect() as connection:
            if topics:
                await self._look_at_topics(connection, topics)
            if self._overseers:
                await self._look_at_all(connection, ids)

    async def _look_at_topics(self, connection: AsyncConnection, topics: dict[str, Topic]) -> None:
        rows = await connection.execute(CHANGED, _keys(topics))
        changed = {str(row.asked): record_of(row) if row.id else None for row in rows}
        logged = {
            key: topic.logged
            for key, topic in topics.items()
            if any(watcher.events for watcher in topic.watchers)
        }
        happened: dict[str, list[Happening]] = {key: [] for key in logged}
        if logged:
            given = {"ids": [UUID(key) for key in logged], "seqs": list(logged.values())}
            for row in await connection.execute(LOGGED, given):
                key = str(row.export_id)
                happened[key].append(Happening(key, row.seq, row.name, row.data))
        for key, topic in topics.items():
            # Not where somebody who knows less has come meanwhile: all are told again then.
            kept = topic.logged == logged.get(key)
            self._tell(key, topic, changed, happened[key] if kept else [])

    def _tell(
        self,
        key: str,
        topic: Topic,
        changed: dict[str, Record | None],
        happened: list[Happening],
    ) -> None:
        if key in changed:
            topic.record = changed[key]
        if happened:
            topic.logged = happened[-1].seq
        elif topic.record is not None and not any(w.events for w in topic.watchers):
            topic.logged = topic.record.event_seq or 0
        if key in changed and topic.record is None:
            for watcher in list(topic.watchers):
                watcher.deleted()
        elif key in changed or happened:
            for watcher in list(topic.watchers):
                watcher.told(topic.record, happened)

    async def _look_at_all(self, connection: AsyncConnection, ids: set[str] | None) -> None:
        owners = {overseer.owner for overseer in self._overseers}
        if ids is None:
            rows = await connection.execute(OF_OWNERS, {"owners": list(owners)})
        else:
            rows = await connection.execute(NAMED, {"ids": [UUID(key) for key in ids]})
        found = [record_of(row) for row in rows]
        for record in found:
            if record.owner in owners:
                self._oversee(record)
        self._forget_old()

    def _oversee(self, record: Record) -> None:
        key = (record.event_seq or 0, record.state.value)
        known = self._seen.get(record.id, (0.0, -1, ""))[1:] == key
        self._seen[record.id] = (time.monotonic(), *key)
        if known:
            return
        made: dict[str, bytes] = {}
        for overseer in list(self._overseers):
            if overseer.owner == record.owner:
                event = made.get(overseer.base) or self._event(record, overseer.base)
                made[overseer.base] = event
                overseer.told(record, event)

    def _tell_deleted(self, payloads: Sequence[str]) -> None:
        for payload in payloads:
            export_id, _, owner = payload.partition(" ")
            self._seen.pop(export_id, None)
            for overseer in list(self._overseers):
                if overseer.owner == owner:
                    overseer.gone(export_id)

    def _forget_old(self) -> None:
        horizon = time.monotonic() - 4 * OVERLAP_SECONDS
        old = [key for key, (at, _, _) in self._seen.items() if at < horizon]
        for key in old:
            del self._seen[key]


OVERLAP_SECONDS = 15  # a transaction that commits later than that is not seen by the net alone


def _keys(topics: dict[str, Topic]) -> dict[str, list[Any]]:
    keys = [topic.key for topic in topics.values()]
    return {
        "ids": [UUID(key) for key in topics],
        "seqs": [seq for seq, _ in keys],
        "states": [state for _, state in keys],
    }


def _array(name: str, type_: Any) -> sa.BindParameter[Any]:
    return sa.bindparam(name, type_=ARRAY(type_))


_asked = (
    sa.func.unnest(_array("ids", sa.Uuid), _array("seqs", sa.BigInteger), _array("states", sa.Text))
    .table_valued("id", "seq", "state", name="asked")
    .render_derived()
)
CHANGED = (
    sa.select(_asked.c.id.label("asked"), *exports.c)
    .select_from(_asked.outerjoin(exports, exports.c.id == _asked.c.id))
    .where(
        sa.or_(
            exports.c.id.is_(None),
            exports.c.event_seq != _asked.c.seq,
            exports.c.state != _asked.c.state,
        )
    )
)
_told = (
    sa.func.unnest(_array("ids", sa.Uuid), _array("seqs", sa.BigInteger))
    .table_valued("id", "seq", name="told")
    .render_derived()
)
LOGGED = (
    sa.select(export_events)
    .join(
        _told,
        sa.and_(export_events.c.export_id == _told.c.id, export_events.c.seq > _told.c.seq),
    )
    .order_by(export_events.c.export_id, export_events.c.seq)
)
_recent = sa.func.now() - sa.text(f"interval '{OVERLAP_SECONDS} seconds'")
OF_OWNERS = sa.select(exports).where(
    exports.c.owner == sa.any_(_array("owners", sa.Text)),
    sa.or_(exports.c.state.in_([state.value for state in LIVE]), exports.c.finished_at > _recent),
)
NAMED = sa.select(exports).where(exports.c.id == sa.any_(_array("ids", sa.Uuid)))
