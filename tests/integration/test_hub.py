"""Those who watch exports are told: by a notification, by a look, after an outage, on any replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from sqlalchemy.engine import make_url

from service.jobs import hub as module
from service.jobs.hub import Happening, Hub
from service.jobs.model import Record, State
from service.jobs.watching import until_final
from service.observe import Event, EventsUnread, Unexpected
from tests.hubs import LISTENERS, WITHIN, Notes, hub_at, listening
from tests.job_desk import RECEIPT, Desk, desk
from tests.outage import away
from tests.postgres import Databases, run_sql
from tests.waiting import eventually, wait_until

NEVER = 3_600.0  # seconds
HANG_UP = LISTENERS.replace("SELECT pid", "SELECT pg_terminate_backend(pid)")


@pytest.fixture
async def here(module_database_url: str) -> AsyncIterator[Desk]:
    async with desk(module_database_url) as opened:
        await opened.empty()
        yield opened


@pytest.fixture
def no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a notification makes it look."""
    monkeypatch.setattr(module, "POLL_SECONDS", NEVER)


@pytest.fixture
def fast_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.05)


async def test_a_notification_tells(here: Desk, module_database_url: str, no_poll: None) -> None:
    waiting, notes = await here.waiting(), Notes()
    async with hub_at(module_database_url) as hub, listening(module_database_url, hub):
        with hub.watch(waiting, notes):
            running = await here.claimed(waiting)
            await notes.reach("state")
            await here.beat(running)
            await notes.reach("state", "progress")
            await here.ended(running)
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
            await here.ended(running)
            await notes.reach("state", "succeeded", "close")


async def test_a_listener_that_was_hung_up_on_misses_nothing(
    databases: Databases, here: Desk, module_database_url: str, no_poll: None
) -> None:
    waiting, notes = await here.waiting(), Notes()
    async with hub_at(module_database_url) as hub, listening(module_database_url, hub):
        with hub.watch(waiting, notes):
            running = await here.claimed(waiting)
            await notes.reach("state")
            async with closed_to_others(databases, module_database_url):
                await here.rows(HANG_UP)
                await eventually(
                    lambda: nobody_listens(here), within=WITHIN, what="nobody listens any more"
                )
                await here.beat(running)
                assert notes.seen == [(2, "state")]
            await notes.reach("state", "progress")


@asynccontextmanager
async def closed_to_others(databases: Databases, url: str) -> AsyncIterator[None]:
    """The connections that there are go on, and there are no new ones until the block ends."""
    change = f"ALTER DATABASE {make_url(url).database} ALLOW_CONNECTIONS"
    await asyncio.to_thread(run_sql, databases.server_url, f"{change} false")
    try:
        yield
    finally:
        await asyncio.to_thread(run_sql, databases.server_url, f"{change} true")


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
    done, notes = await here.ended(await here.running()), Notes()
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
            await here.ended(running)
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
                await here.ended(running)
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
        done = await here.ended(running)
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
