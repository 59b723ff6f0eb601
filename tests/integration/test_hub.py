"""Those who watch exports are told: by a notification, by a look, after an outage, on any replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.engine import make_url

from service.jobs import hub as module
from service.jobs.hub import Happening, Hub
from service.jobs.log import DELETED, EVENTS
from service.jobs.model import Record, State
from service.jobs.transitions import cancelled, succeeded
from service.jobs.watching import export_event, until_final
from service.listening import Listener
from service.observe import Event, EventsUnread, Unexpected
from tests.job_desk import RECEIPT, Desk, desk
from tests.outage import away
from tests.postgres import Databases, run_sql
from tests.waiting import eventually, wait_until

WITHIN = 30.0  # seconds
NEVER = 3_600.0  # seconds
LISTENERS = """
    SELECT pid FROM pg_stat_activity
    WHERE application_name = 'tailrace listener' AND query LIKE 'LISTEN%'
      AND datname = current_database()
"""
HANG_UP = LISTENERS.replace("SELECT pid", "SELECT pg_terminate_backend(pid)")
BASE = "http://here"


@pytest.fixture
async def here(module_database_url: str) -> AsyncIterator[Desk]:
    async with desk(module_database_url) as opened:
        await opened.empty()
        yield opened


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
        assert event == export_event(record, BASE) or record.state is State.RUNNING
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


@pytest.fixture
def no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a notification makes it look."""
    monkeypatch.setattr(module, "POLL_SECONDS", NEVER)


@pytest.fixture
def fast_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.05)


async def end(here: Desk, running: Record) -> Record:
    made = await here.ledger.apply(
        running, succeeded(RECEIPT, datetime.now(UTC), timedelta(days=1))
    )
    assert made is not None
    return made


async def test_a_notification_tells(here: Desk, module_database_url: str, no_poll: None) -> None:
    waiting, notes = await here.waiting(), Notes()
    async with hub_at(module_database_url) as hub, listening(module_database_url, hub):
        with hub.watch(waiting, notes):
            running = await here.claimed(waiting)
            await notes.reach("state")
            await here.beat(running)
            await notes.reach("state", "progress")
            await end(here, running)
            await notes.reach("state", "progress", "succeeded", "close")
    assert notes.seen == (await here.log(waiting.id))[1:]
    newest = notes.records[-1]
    assert newest is not None
    assert (newest.state, newest.receipt) == (State.SUCCEEDED, RECEIPT)


async def test_without_notifications_a_look_tells(
    here: Desk, module_database_url: str, fast_poll: None
) -> None:
    waiting, notes = await here.waiting(), Notes()
    async with hub_at(module_database_url) as hub:
        with hub.watch(waiting, notes):
            running = await here.claimed(waiting)
            await notes.reach("state")
            await end(here, running)
            await notes.reach("state", "succeeded", "close")


async def test_a_listener_that_was_hung_up_on_misses_nothing(
    databases: Databases, here: Desk, module_database_url: str, no_poll: None
) -> None:
    waiting, notes = await here.waiting(), Notes()
    async with hub_at(module_database_url) as hub, listening(module_database_url, hub):
        with hub.watch(waiting, notes):
            # The connections that there are go on, and the listener gets no new one.
            await allow(databases, module_database_url, "false")
            await here.rows(HANG_UP)
            await eventually(
                lambda: nobody_listens(here), within=WITHIN, what="nobody listens any more"
            )
            running = await here.claimed(waiting)
            assert notes.seen == []
            await allow(databases, module_database_url, "true")
            await notes.reach("state")
            await end(here, running)
            await notes.reach("state", "succeeded", "close")


async def allow(databases: Databases, url: str, new: str) -> None:
    """Whether there may be new connections."""
    sql = f"ALTER DATABASE {make_url(url).database} ALLOW_CONNECTIONS {new}"
    await asyncio.to_thread(run_sql, databases.server_url, sql)


async def nobody_listens(here: Desk) -> bool:
    return not await here.rows(LISTENERS)


async def test_what_has_come_before_the_watch_is_told(
    here: Desk, module_database_url: str, no_poll: None
) -> None:
    waiting = await here.waiting()
    await here.claimed(waiting)
    async with hub_at(module_database_url) as hub:
        notes = Notes()
        with hub.watch(waiting, notes):
            await notes.reach("state")
    assert notes.seen == [(2, "state")]


async def test_a_late_watcher_that_knows_less_is_told_all(
    here: Desk, module_database_url: str, no_poll: None
) -> None:
    waiting = await here.waiting()
    running = await here.claimed(waiting)
    early, late = Notes(), Notes()
    async with hub_at(module_database_url) as hub:
        with hub.watch(running, early):
            await here.beat(running)
            hub.hint(running.id)
            await early.reach("progress")
            with hub.watch(waiting, late):
                await late.reach("state", "progress")
    assert late.seen == [(2, "state"), (3, "progress")]


async def test_a_watcher_that_comes_during_a_look_misses_nothing(
    here: Desk, module_database_url: str, no_poll: None
) -> None:
    waiting = await here.waiting()
    running = await here.claimed(waiting)
    early, late = Notes(), Notes()
    async with hub_at(module_database_url) as hub:
        with hub.watch(running, early):
            await here.beat(running)
            hub.hint(running.id)
            await early.reach("progress")
            await here.beat(running)
            async with here.engine.begin() as connection:
                await connection.exec_driver_sql("LOCK TABLE tailrace.export_events")
                hub.hint(running.id)
                await eventually(here.blocked, within=WITHIN, what="the look waits for the log")
                watching = hub.watch(waiting, late)
                watching.__enter__()
            await late.reach("state", "progress", "progress")
            watching.__exit__(None, None, None)
    assert late.seen == [(2, "state"), (3, "progress"), (4, "progress")]


async def test_the_deleted_are_told_to_be(
    here: Desk, module_database_url: str, no_poll: None
) -> None:
    done, notes = await end(here, await here.running()), Notes()
    async with hub_at(module_database_url) as hub, listening(module_database_url, hub):
        with hub.watch(done, notes):
            assert await here.ledger.delete(done)

            async def told() -> bool:
                return notes.gone > 0

            await eventually(told, within=WITHIN, what="its deletion is told")
    assert notes.seen == []


async def test_two_replicas_see_the_same(
    here: Desk, module_database_url: str, no_poll: None
) -> None:
    waiting, one, other = await here.waiting(), Notes(), Notes()
    async with (
        hub_at(module_database_url) as first,
        hub_at(module_database_url) as second,
        listening(module_database_url, first),
        listening(module_database_url, second),
    ):
        with first.watch(waiting, one), second.watch(waiting, other):
            running = await here.claimed(waiting)
            for _ in range(3):
                await here.beat(running)
            await end(here, running)
            names = ["state", *["progress"] * 3, "succeeded", "close"]
            await one.reach(*names)
            await other.reach(*names)
    assert one.seen == other.seen == (await here.log(waiting.id))[1:]


async def test_a_database_that_was_away_is_looked_at_again(
    databases: Databases, database_url: str, fast_poll: None
) -> None:
    told: list[Event] = []
    async with desk(database_url) as here:
        waiting, notes = await here.waiting(), Notes()
        async with hub_at(database_url, told) as hub, listening(database_url, hub):
            with hub.watch(waiting, notes):
                await asyncio.to_thread(outage, databases, database_url, told)
                running = await here.claimed(waiting)
                await end(here, running)
                await notes.reach("state", "succeeded", "close")
    assert {type(event) for event in told} == {EventsUnread}


def outage(databases: Databases, url: str, told: Sequence[Event]) -> None:
    """Until a hub has told that it cannot look."""
    with away(databases, url):
        wait_until(lambda: told, within=WITHIN, what="it is noticed")


async def test_whoever_fails_to_listen_keeps_nobody_else_waiting(
    here: Desk, module_database_url: str, fast_poll: None
) -> None:
    class Deaf(Notes):
        def told(self, record: Record | None, happened: Sequence[Happening]) -> None:
            super().told(record, happened)
            raise ValueError("a bug")

    told: list[Event] = []
    waiting, deaf, notes = await here.waiting(), Deaf(), Notes()
    async with hub_at(module_database_url, told) as hub:
        with hub.watch(waiting, deaf), hub.watch(await here.waiting(), notes):
            await here.claimed(waiting)
            await deaf.reach("state")
            other = notes_of(hub, notes)
            await here.claimed(other)
            await notes.reach("state")
    assert {type(event) for event in told} == {Unexpected}


def notes_of(hub: Hub, notes: Notes) -> Record:
    """The record that ``notes`` watches."""
    (found,) = [topic.record for topic in hub._topics.values() if notes in topic.watchers]
    assert found is not None
    return found


async def test_all_of_an_owner_are_overseen(
    here: Desk, module_database_url: str, no_poll: None
) -> None:
    mine, others = Oversight(), Oversight(owner="bert")
    async with hub_at(module_database_url) as hub, listening(module_database_url, hub):
        with hub.oversee(mine), hub.oversee(others):
            waiting = await here.waiting()
            await mine.reach((waiting.id, "queued"))
            theirs = await here.waiting(owner="bert")
            await others.reach((theirs.id, "queued"))
            running = await here.claimed(waiting)
            await mine.reach((waiting.id, "queued"), (waiting.id, "running"))
            done = await end(here, running)
            states = [(waiting.id, state) for state in ("queued", "running", "succeeded")]
            await mine.reach(*states)
            assert await here.ledger.delete(done)
            await eventually(
                lambda: asyncio.sleep(0, mine.deleted), within=WITHIN, what="the deletion is told"
            )
    assert mine.deleted == [waiting.id]
    assert others.deleted == []
    assert others.seen == [(theirs.id, "queued")]


async def test_all_are_overseen_without_notifications(
    here: Desk, module_database_url: str, fast_poll: None
) -> None:
    mine = Oversight()
    async with hub_at(module_database_url) as hub:
        with hub.oversee(mine):
            waiting = await here.waiting()
            await mine.reach((waiting.id, "queued"))
            await here.ledger.apply(waiting, cancelled(None, None, datetime.now(UTC)))
            await mine.reach((waiting.id, "queued"), (waiting.id, "cancelled"))


async def test_who_waits_for_the_end_gets_it(
    here: Desk, module_database_url: str, no_poll: None
) -> None:
    running = await here.running()
    async with hub_at(module_database_url) as hub, listening(module_database_url, hub):
        waits = asyncio.create_task(until_final(hub, running, WITHIN))
        gone = asyncio.create_task(until_final(hub, await here.waiting(), WITHIN))
        await eventually(
            lambda: asyncio.sleep(0, len(hub._topics) == 2), within=WITHIN, what="both wait"
        )
        await here.beat(running)
        done = await end(here, running)
        assert await waits == done
        await here.execute("DELETE FROM tailrace.exports WHERE state = 'queued'")
        hub.hint(None)
        assert await gone is None
        waiting = await here.waiting()
        assert await until_final(hub, waiting, 0.01) == waiting


async def test_nobody_is_told_who_has_left(
    here: Desk, module_database_url: str, no_poll: None
) -> None:
    waiting, left, stays = await here.waiting(), Notes(), Notes()
    async with hub_at(module_database_url) as hub, listening(module_database_url, hub):
        with hub.watch(waiting, stays):
            with hub.watch(waiting, left):
                pass
            await here.claimed(waiting)
            await stays.reach("state")
        assert hub.known(waiting.id) is None
    assert left.seen == []
