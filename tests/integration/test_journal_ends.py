"""Generations that somebody else ends: stopped by another process, given up as lost, or too old."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest

from service.chat import following, journal
from service.chat.model import Event, State
from service.chat.store import LOST, MOST_UNWRITTEN
from service.observe import RecordsDropped
from tests.generations import (
    END,
    FOREVER,
    WITHIN,
    Reader,
    Scripted,
    ended,
    talks,
    words,
)
from tests.journals import Process, process
from tests.postgres import run_sql
from tests.waiting import eventually

NOW = timedelta(0)
LATER = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens for notifications here."""
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.05)


@pytest.fixture
def database_url(module_database_url: str) -> str:
    """The database of this module, in which no generation is left."""
    run_sql(module_database_url, "TRUNCATE tailrace.generations CASCADE")
    return module_database_url


@pytest.fixture
async def one(database_url: str) -> AsyncIterator[Process]:
    async with process(database_url) as made:
        yield made


@pytest.fixture
async def another(database_url: str) -> AsyncIterator[Process]:
    async with process(database_url) as made:
        yield made


async def test_another_process_stops_it_where_no_notification_comes(
    database_url: str, another: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "HEARTBEAT_SECONDS", 0.05)
    provider = Scripted([[*words("a"), FOREVER]])
    async with process(database_url) as owner:
        live, reader = owner.begin(provider)
        await owner.written(live, 2)
        await another.tails.ask_to_stop(live.id, WITHIN)
        assert reader.end.name == "cancelled"
        stored = await another.journal.get(live.id)
        assert stored is not None
        assert (stored.state, stored.text, provider.open) == (State.CANCELLED, "a", 0)


async def test_a_notification_that_names_it_stops_it(one: Process) -> None:
    live, _ = one.begin(Scripted([[*words("a"), FOREVER]]))
    spared, _ = one.begin(Scripted([[*words("a"), FOREVER]]))
    for payload in (None, "*", "", str(uuid4())):
        one.journal.stop_named(payload)
    assert not await live.ended(0.05)
    one.journal.stop_named(live.id)
    assert (await ended(live)).end.name == "cancelled"
    assert spared.transcript.state is State.RUNNING


async def test_asking_to_stop_what_has_ended_changes_nothing(one: Process) -> None:
    live, _ = one.begin(Scripted([[*words("a"), END]]))
    stored = await one.written(live)
    await one.store.ask_to_stop(live.id)
    assert await one.store.get(live.id) == stored


async def test_one_whose_process_is_gone_ends_behind_what_it_had_written(
    one: Process, another: Process
) -> None:
    live, reader = one.begin(Scripted([[*words("a", "b"), 0.2, *words("c"), FOREVER]]))
    written = await one.written(live, 3)
    one.store.dead = True
    await reader.reach(4)
    follower = Reader()
    with another.tails.follow(live.id, follower):
        await follower.reach(3)
        assert await another.store.sweep(NOW, LATER, []) == 1
        another.tails.hint(live.id)
        await follower.reach(5)
    last = 3 + MOST_UNWRITTEN + 2
    assert follower.seen == [
        *reader.seen[:3],
        Event(last - 1, "error", LOST),
        Event(last, "close", {}),
    ]
    found = await another.journal.get(live.id)
    assert found is not None
    assert (found.state, found.error, found.seq) == (State.FAILED, LOST, last)
    assert (found.text, found.tokens) == ("ab", written.tokens)
    assert found.finished_at is not None
    # Who was told the third token has a number that nobody knows, and neither is it an end.
    assert [await another.journal.has(found, seq) for seq in (3, 4, 5, last - 1, last)] == [
        True,
        False,
        False,
        True,
        True,
    ]
    assert await another.store.sweep(NOW, LATER, []) == 0
    assert await another.events(live) == follower.seen


async def test_what_was_given_up_stays_so(one: Process, another: Process) -> None:
    live, reader = one.begin(talks(10_000))
    await one.written(live, 3)
    assert await another.store.sweep(-LATER, LATER, []) == 1
    before = await another.events(live)
    live.cancel()
    await reader.reach(len(reader.seen))

    async def believed() -> bool:
        return one.journal.live(live.id) is None

    await eventually(believed, within=WITHIN, what="its process has tried to write it")
    assert await another.events(live) == before
    stored = await another.journal.get(live.id)
    assert stored is not None
    assert stored.error == LOST


async def test_a_process_does_not_give_up_its_own(one: Process) -> None:
    live, _ = one.begin(Scripted([[*words("a"), FOREVER]]))
    await one.written(live, 2)
    assert await one.store.sweep(-LATER, LATER, [live.id]) == 0


async def test_one_that_shows_signs_of_life_is_not_lost(one: Process, another: Process) -> None:
    live, _ = one.begin(Scripted([[*words("a"), FOREVER]]))
    await one.written(live, 2)
    age = "UPDATE tailrace.generations SET heartbeat_at = now() - interval '1 hour'"
    await one.execute(age)
    assert await one.store.alive([live.id]) == []
    assert await another.store.sweep(timedelta(seconds=30), LATER, []) == 0
    await one.execute(age)
    assert await another.store.sweep(timedelta(seconds=30), LATER, []) == 1


async def test_behind_an_outage_nobody_is_given_up_at_once(
    database_url: str, one: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(journal, "LOST_AFTER", -LATER)
    lost: list[timedelta] = []

    live, _ = one.begin(Scripted([[*words("a"), FOREVER]]))
    await one.written(live, 2)
    async with process(database_url) as sweeper:
        sweeper.store.dead = True
        sweep = sweeper.store.sweep

        async def noted(lost_after: timedelta, keep: timedelta, own: list[str]) -> int:
            lost.append(lost_after)
            return await sweep(lost_after, keep, own)

        monkeypatch.setattr(sweeper.store, "sweep", noted)

        async def swept() -> bool:
            stored = await one.store.get(live.id)
            return stored is not None and stored.state.final

        async def tried() -> bool:
            return len(lost) >= 2

        await eventually(tried, within=WITHIN, what="a sweep has failed")
        sweeper.store.dead = False
        failed = len(lost)
        await eventually(swept, within=WITHIN, what="it is given up")
    assert lost[failed] == journal.NEVER
    assert lost[failed + 1] == -LATER


async def test_what_is_old_is_removed_with_its_events(one: Process) -> None:
    done, _ = one.begin(Scripted([[*words("a"), END]]))
    running, reader = one.begin(Scripted([[*words("a"), FOREVER]]))
    await one.written(done)
    await one.written(running, 2)
    assert await one.store.sweep(LATER, LATER, []) == 0
    assert await one.store.get(done.id) is not None
    assert await one.store.sweep(LATER, NOW, []) == 0
    assert await one.store.get(done.id) is None
    assert await one.events(done) == []
    assert await one.events(running) == reader.seen


async def test_no_more_wait_for_the_database_than_fit(
    one: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MAX_ENDED", 3)
    one.store.dead = True
    running, _ = one.begin(Scripted([[*words("a"), FOREVER]]))
    lives = [one.begin(Scripted([[*words("a"), END]]))[0] for _ in range(8)]
    for live in lives:
        await ended(live)

    async def dropped() -> bool:
        return sum(item.count for item in one.told if isinstance(item, RecordsDropped)) == 5

    await eventually(dropped, within=WITHIN, what="five are given up")
    assert [one.journal.live(live.id) is not None for live in lives] == [False] * 5 + [True] * 3
    assert one.journal.live(running.id) is running
    one.store.dead = False
    for live in lives[-3:]:
        await one.written(live)


async def test_the_last_word_is_written_when_a_process_stops(
    database_url: str, another: Process
) -> None:
    async with process(database_url) as stopping:
        live, reader = stopping.begin(Scripted([[*words("a"), FOREVER]]))
        await reader.reach(2)
    stored = await another.store.get(live.id)
    assert stored is not None
    assert stored.state is State.CANCELLED
    assert await another.events(live) == reader.seen
