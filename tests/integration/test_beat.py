"""A worker's heartbeat, and the events that it and everything else writes at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import asyncpg
import pytest

from service.errors import AttemptLost
from service.jobs.beat import Sign, beat
from service.jobs.log import EVENTS
from service.jobs.model import Record
from service.jobs.transitions import Transition, cancelled, failed, put_back, succeeded
from tests.job_desk import ANOTHERS, COPY, LEASE, MINE, RECEIPT, Desk, desk, gapless
from tests.postgres import libpq_url

LOST = AttemptLost("The worker was not heard of in time.")
SNAPSHOT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MADE: dict[str, Any] = {
    "rows": 500,
    "bytes": 4_000,
    "total_rows": 1_000,
    "total_kind": "estimate",
    "rows_per_s": 50.0,
    "bytes_per_s": 400.5,
    "eta_s": 10.25,
    "snapshot_at": SNAPSHOT,
}
DATA = "SELECT data FROM tailrace.export_events WHERE name = 'progress' ORDER BY export_id, seq"


@pytest.fixture
async def here(module_database_url: str) -> AsyncIterator[Desk]:
    async with desk(module_database_url) as opened:
        await opened.empty()
        yield opened


@pytest.fixture
async def there(module_database_url: str) -> AsyncIterator[Desk]:
    """Another worker."""
    async with desk(module_database_url) as opened:
        yield opened


class Hints:
    """What is told on the channel of events, each with who was told it."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._told: asyncio.Queue[str] = asyncio.Queue()

    def hear(self, _: Any, __: int, ___: str, payload: Any) -> None:
        self._told.put_nowait(payload)

    async def all(self) -> list[str]:
        """All payloads so far: PostgreSQL tells them in the order of the commits."""
        await self._connection.execute(f"NOTIFY {EVENTS}, 'the end'")
        told = []
        async with asyncio.timeout(20):
            while (payload := await self._told.get()) != "the end":
                told.append(payload)
        return told


@asynccontextmanager
async def hinted(url: str) -> AsyncIterator[Hints]:
    connection = await asyncpg.connect(libpq_url(url))
    hints = Hints(connection)
    await connection.add_listener(EVENTS, hints.hear)
    try:
        yield hints
    finally:
        await connection.close()


async def test_the_progress_of_several_is_one_statement_and_one_hint(
    here: Desk, module_database_url: str
) -> None:
    records = [await here.running() for _ in range(3)]
    moved = [replace(record, rows=10 * place) for place, record in enumerate(records, 1)]
    async with hinted(module_database_url) as hints:
        kept, stopping = await here.beat(*moved)
        (payload,) = await hints.all()
    assert kept == sorted(record.id for record in records)
    assert stopping == []
    assert sorted(payload.split()) == kept
    stored = [(await here.row(record.id)).rows for record in records]
    assert stored == [10, 20, 30]
    for record in records:
        assert (await here.log(record.id))[-1] == (3, "progress")


async def test_all_figures_are_written_and_told(here: Desk) -> None:
    running = await here.running()
    await here.beat(replace(running, **MADE))
    row = await here.row(running.id)
    assert {name: getattr(row, name) for name in MADE} == MADE
    assert row.lease_until - row.heartbeat_at == LEASE
    ((data,),) = await here.rows(DATA)
    assert data == {
        "attempt": 1,
        "rows": 500,
        "bytes": 4_000,
        "total_rows": 1_000,
        "total_kind": "estimate",
        "total_bytes": None,
        "fraction": 0.5,
        "rows_per_s": 50.0,
        "bytes_per_s": 400.5,
        "eta_s": 10.25,
    }


async def test_what_has_not_moved_only_keeps_its_lease(
    here: Desk, module_database_url: str
) -> None:
    running = await here.running()
    await here.execute("UPDATE tailrace.exports SET lease_until = now() + interval '1 second'")
    async with hinted(module_database_url) as hints:
        heard = await beat(here.engine, MINE, LEASE, [Sign(running, moved=False)])
        assert await hints.all() == []
    assert heard.kept == {running.id}
    row = await here.row(running.id)
    assert row.lease_until - row.heartbeat_at == LEASE
    assert (row.event_seq, await here.log(running.id)) == (2, [(1, "state"), (2, "state")])


async def test_lost_attempts_are_told_and_not_written(here: Desk) -> None:
    mine, theirs = await here.running(), await here.running(worker=ANOTHERS)
    older, ended = await here.running(), await here.running()
    again = put_back(older, LOST, datetime.now(UTC), pause=0.0)
    await here.ledger.apply(older, again)
    await here.claimed(older)
    await here.ledger.apply(ended, succeeded(RECEIPT, datetime.now(UTC), LEASE))
    before = [await here.row(record.id) for record in (theirs, older, ended)]
    signs = [replace(record, **MADE) for record in (mine, theirs, older, ended)]
    assert await here.beat(*signs) == ([mine.id], [])
    assert [await here.row(record.id) for record in (theirs, older, ended)] == before
    assert len(await here.rows(DATA)) == 1


async def test_a_deleted_one_is_lost(here: Desk) -> None:
    running = await here.running()
    await here.execute("DELETE FROM tailrace.exports")
    assert await here.beat(running) == ([], [])


async def test_who_is_asked_to_stop_hears_it(here: Desk) -> None:
    stopping, other = await here.running(), await here.running()
    await here.ledger.ask_to_stop(stopping.id)
    kept, told = await here.beat(stopping, other)
    assert kept == sorted([stopping.id, other.id])
    assert told == [stopping.id]


async def test_more_than_fit_into_a_hint_are_told_in_a_word(
    here: Desk, module_database_url: str
) -> None:
    running = await here.running()
    await here.execute(COPY.format(300))
    everything = await here.rows("TABLE tailrace.exports")
    records = [replace(running, id=str(row.id)) for row in everything]
    async with hinted(module_database_url) as hints:
        kept, _ = await here.beat(*records)
        assert await hints.all() == ["*"]
    assert len(kept) == len(records) == 301


class Story:
    """One export on its way through everything, by whoever knows it well or badly."""

    def __init__(self, record: Record, dice: Random) -> None:
        self.known = [record]
        self._dice = dice

    async def go_on(self, here: Desk) -> None:
        """To its end, with attempts that are lost on the way."""
        record = self.known[0]
        for _ in range(self._dice.randint(0, 3)):
            await self._wander()
            record = await self._next(here, record)
        await self._wander()
        assert await here.ledger.apply(record, self._end(record)) is not None

    async def _next(self, here: Desk, record: Record) -> Record:
        again = put_back(record, LOST, datetime.now(UTC), pause=0.0)
        assert await here.ledger.apply(record, again) is not None
        worker = self._dice.choice((MINE, ANOTHERS))
        claimed = await here.claimed(record, worker)
        self.known.append(claimed)
        return claimed

    async def _wander(self) -> None:
        for _ in range(self._dice.randrange(6)):
            await asyncio.sleep(0)

    def _end(self, record: Record) -> Transition:
        now = datetime.now(UTC)
        return self._dice.choice(
            (
                succeeded(RECEIPT, now, timedelta(days=1)),
                failed(record, LOST, None, now),
                cancelled(None, None, now),
            )
        )


async def beats(here: Desk, stories: list[Story], dice: Random, worker: str) -> None:
    """Signs of life of any attempts that ever were, also of those that are lost."""
    for number in range(15):
        some = dice.sample(stories, dice.randint(1, len(stories)))
        signs = [replace(dice.choice(story.known), rows=number) for story in some]
        await here.beat(*signs, worker=worker)


async def watches(here: Desk, stories: list[Story], over: asyncio.Event) -> None:
    """What is seen of a log never has a gap, and only ever grows."""
    seen: dict[str, list[tuple[int, str]]] = {}
    while not over.is_set():
        for story in stories:
            key = story.known[0].id
            log = await here.log(key)
            assert gapless(log)
            assert log[: len(seen.get(key, []))] == seen.get(key, [])
            seen[key] = log


@pytest.mark.parametrize("seed", range(3))
async def test_events_have_no_gaps_whoever_writes_them(here: Desk, there: Desk, seed: int) -> None:
    dice = Random(seed)
    stories = [Story(await here.running(), dice) for _ in range(6)]
    over = asyncio.Event()
    watching = asyncio.create_task(watches(there, stories, over))
    beating = [
        beats(process, stories, dice, worker)
        for process in (here, there)
        for worker in (MINE, ANOTHERS)
    ]
    await asyncio.gather(*beating, *(story.go_on(here) for story in stories))
    over.set()
    await watching
    for story in stories:
        await check(here, story)


async def check(here: Desk, story: Story) -> None:
    """Its log is whole: two states for each attempt but the first, one end, nothing behind it."""
    row, log = await here.row(story.known[0].id), await here.log(story.known[0].id)
    names = [name for _, name in log]
    assert gapless(log)
    assert row.event_seq == len(log)
    assert names.count("state") == 2 * len(story.known)
    assert names[-2:] == [row.state, "close"]
    assert names.count("close") == 1
    assert row.attempt == len(story.known)
