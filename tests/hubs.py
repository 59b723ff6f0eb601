"""Hubs of their own in a test's process, and those who watch and oversee there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from service.jobs.hub import Happening, Hub
from service.jobs.log import DELETED, EVENTS
from service.jobs.model import Record, State
from service.jobs.watching import export_event
from service.listening import Listener
from service.observe import Event
from tests.job_desk import desk
from tests.waiting import eventually

WITHIN = 30.0  # seconds
BASE = "http://here"
LISTENERS = """
    SELECT pid FROM pg_stat_activity
    WHERE application_name = 'tailrace listener' AND query LIKE 'LISTEN%deleted%'
      AND datname = current_database()
"""


@dataclass(eq=False)
class Notes:
    """Whoever watches, and all that it is told."""

    events: bool = True
    seen: list[tuple[int, str]] = field(default_factory=list)
    records: list[Record | None] = field(default_factory=list)
    gone: int = 0

    def told(self, record: Record | None, happened: Sequence[Happening]) -> None:
        self.records.append(record)
        self.seen += [(one.seq, one.name) for one in happened]

    def deleted(self) -> None:
        self.gone += 1

    async def reach(self, *names: str) -> None:
        """Until it has been told these, and in the end nothing else."""

        async def told() -> bool:
            return len(self.seen) >= len(names)

        await eventually(told, within=WITHIN, what=f"{names} are told, after {self.seen}")
        assert [name for _, name in self.seen] == list(names)


@dataclass(eq=False)
class Oversight:
    """Whoever oversees all exports of an owner."""

    owner: str = "anonymous"
    base: str = BASE
    seen: list[tuple[str, str]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def told(self, record: Record, event: bytes) -> None:
        # What runs has figures that the clock makes.
        assert record.state is State.RUNNING or event == export_event(record, BASE)
        self.seen.append((record.id, record.state.value))

    def gone(self, export_id: str) -> None:
        self.deleted.append(export_id)

    async def reach(self, *seen: tuple[str, str]) -> None:
        async def told() -> bool:
            return len(self.seen) >= len(seen)

        await eventually(told, within=WITHIN, what=f"{seen} are told, after {self.seen}")
        assert self.seen == list(seen)


@asynccontextmanager
async def hub_at(url: str, told: list[Event] | None = None) -> AsyncIterator[Hub]:
    """A hub that nobody tells of notifications."""
    async with desk(url) as process:
        hub = Hub(process.engine, (told if told is not None else []).append, export_event)
        hub.start()
        try:
            yield hub
        finally:
            await hub.stop()


@asynccontextmanager
async def listening(url: str, hub: Hub) -> AsyncIterator[None]:
    listener = Listener(url, {EVENTS: hub.hint, DELETED: hub.deleted})
    listener.start()
    try:
        async with desk(url) as process:
            await eventually(
                lambda: process.rows(LISTENERS), within=WITHIN, what="somebody listens"
            )
        yield
    finally:
        await listener.stop()
