"""The queue of jobs: what is taken in which order, how much of it, and by whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest
import sqlalchemy as sa

from service.database import service_engine
from service.jobs.queue import Entry, Queue
from service.jobs.tables import exports
from tests.job_desk import Desk, desk

MINUTE = 60.0  # seconds
FAR = {"main": 1_000, "other": 1_000}


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


async def put(
    here: Desk, *names: str, source: str = "main", priority: int = 10, delay: float = 0.0
) -> None:
    """Enter these names one after the other, each in a transaction of its own."""
    for name in names:
        async with here.engine.begin() as connection:
            await connection.execute(sa.text("SELECT 1"))
            await here.queue.put(connection, source, name, priority=priority, delay=delay)


async def take(queue: Queue, most: int = 100, lease: float = MINUTE) -> list[str]:
    return names(await queue.take(FAR, most=most, lease=lease))


def names(entries: Sequence[Entry]) -> list[str]:
    return [entry.export_id for entry in entries]


async def silent_for(here: Desk, seconds: float) -> None:
    """Those that are taken have not been heard of for so long."""
    await here.execute(f"UPDATE tailrace.queue SET heartbeat = now() - interval '{seconds} s'")


async def test_what_is_put_is_taken_once(here: Desk, there: Desk) -> None:
    await put(here, "a")
    assert await take(there.queue) == ["a"]
    assert await take(here.queue) == []
    assert await take(there.queue) == []


async def test_an_entry_is_rolled_back_with_its_export(here: Desk) -> None:
    async with here.engine.connect() as connection:
        await connection.execute(sa.text("SELECT 1"))
        await here.queue.put(connection, "main", "a", priority=1)
        inside = await connection.execute(sa.text("SELECT count(*) FROM tailrace.queue"))
        assert inside.scalar_one() == 1
        # Nobody else sees it before the commit.
        assert await here.entries() == []
        assert await take(here.queue) == []
        await connection.rollback()
    assert await here.entries() == []


async def test_an_entry_is_removed_with_its_export(here: Desk) -> None:
    await put(here, "a", "b", "c")
    async with here.engine.connect() as connection:
        await connection.execute(sa.text("SELECT 1"))
        await here.queue.remove(connection, ["a", "b", "nobody's"])
        await connection.rollback()
    assert await here.queue.depth() == 3
    async with here.engine.begin() as connection:
        await here.queue.remove(connection, ["a", "b", "nobody's"])
    assert await take(here.queue) == ["c"]


async def test_higher_priorities_first_and_then_the_older(here: Desk) -> None:
    await put(here, "low, old", "low, new", priority=10)
    await put(here, "high, old", "high, new", priority=30)
    await put(here, "middle", priority=20)
    order = ["high, old", "high, new", "middle", "low, old", "low, new"]
    taken = [await take(here.queue, most=1) for _ in order]
    assert taken == [[name] for name in order]


async def test_several_at_once_come_in_that_order(here: Desk) -> None:
    await put(here, "a", priority=10)
    await put(here, "b", "c", priority=30)
    assert await take(here.queue, most=2) == ["b", "c"]
    assert await take(here.queue, most=2) == ["a"]


async def test_what_is_put_twice_is_there_once_with_the_higher_priority(here: Desk) -> None:
    await put(here, "a", priority=10)
    await put(here, "b", priority=20)
    await put(here, "a", priority=30)
    await put(here, "a", priority=5)
    assert [(name, priority) for name, _, _, priority in await here.entries()] == [
        ("a", 30),
        ("b", 20),
    ]
    assert await take(here.queue) == ["a", "b"]


async def test_what_is_delayed_is_not_taken_yet(here: Desk) -> None:
    await put(here, "later", delay=600.0)
    await put(here, "now")
    assert await take(here.queue) == ["now"]
    assert await here.queue.depth() == 1
    await here.execute("UPDATE tailrace.queue SET execute_after = now() - interval '1 second'")
    assert await take(here.queue) == ["later"]


async def test_only_the_sources_that_are_asked_for(here: Desk) -> None:
    await put(here, "a", source="main")
    await put(here, "b", source="other")
    await put(here, "c", source="unknown")
    assert names(await here.queue.take({"other": 5}, most=10, lease=MINUTE)) == ["b"]
    assert await take(here.queue) == ["a"]
    assert await here.queue.depth() == 1


async def test_a_source_has_so_many_out_over_all_workers(here: Desk, there: Desk) -> None:
    await put(here, *(f"m{number}" for number in range(6)), source="main")
    await put(here, *(f"o{number}" for number in range(3)), source="other")
    limits = {"main": 3, "other": 2}
    first = await here.queue.take(limits, most=2, lease=MINUTE)
    assert names(first) == ["m0", "m1"]
    assert names(await there.queue.take(limits, most=10, lease=MINUTE)) == ["m2", "o0", "o1"]
    assert names(await here.queue.take(limits, most=10, lease=MINUTE)) == []
    await here.queue.done(first[0])
    assert names(await there.queue.take(limits, most=10, lease=MINUTE)) == ["m3"]


async def test_a_limit_holds_when_all_take_at_once(module_database_url: str, here: Desk) -> None:
    await put(here, *(f"m{number}" for number in range(30)))
    engines = [service_engine(module_database_url) for _ in range(4)]
    queues = [Queue(engine) for engine in engines for _ in range(2)]
    try:
        taking = (queue.take({"main": 5}, most=4, lease=MINUTE) for queue in queues)
        taken = [name for entries in await asyncio.gather(*taking) for name in names(entries)]
    finally:
        await asyncio.gather(*(engine.dispose() for engine in engines))
    assert len(taken) == len(set(taken))
    rest = names(await here.queue.take({"main": 5}, most=10, lease=MINUTE))
    assert sorted([*taken, *rest]) == [f"m{number}" for number in range(5)]


async def test_nothing_is_taken_twice_when_all_take_at_once(here: Desk, there: Desk) -> None:
    await put(here, *(f"{number:02}" for number in range(24)))
    taking = (take(queue, most=2) for _ in range(10) for queue in (here.queue, there.queue))
    taken = [name for some in await asyncio.gather(*taking) for name in some]
    taken += await take(here.queue)
    assert sorted(taken) == [f"{number:02}" for number in range(24)]


async def test_what_a_worker_keeps_is_not_taken_from_it(here: Desk, there: Desk) -> None:
    await put(here, "a", "b")
    entries = await here.queue.take(FAR, most=2, lease=MINUTE)
    await silent_for(here, 61)
    await here.queue.keep(entries[:1])
    assert await take(there.queue) == ["b"]
    await here.queue.keep([])


async def test_stale_entries_are_taken_again(here: Desk, there: Desk) -> None:
    await put(here, "a")
    assert await take(here.queue) == ["a"]
    await silent_for(here, 59)
    assert await take(there.queue) == []
    await silent_for(here, 61)
    assert await take(there.queue) == ["a"]
    assert await take(here.queue) == []


async def test_a_stale_entry_keeps_its_place_under_the_limit(here: Desk, there: Desk) -> None:
    await put(here, "a", "b")
    assert names(await here.queue.take({"main": 1}, most=5, lease=MINUTE)) == ["a"]
    await silent_for(here, 61)
    assert names(await there.queue.take({"main": 1}, most=5, lease=MINUTE)) == ["a"]
    assert names(await there.queue.take({"main": 1}, most=5, lease=MINUTE)) == []


async def test_what_a_zombie_has_done_is_still_anothers(here: Desk, there: Desk) -> None:
    await put(here, "a")
    (mine,) = await here.queue.take(FAR, most=1, lease=MINUTE)
    await silent_for(here, 61)
    (theirs,) = await there.queue.take(FAR, most=1, lease=MINUTE)
    assert mine == theirs
    await here.queue.done(mine)
    assert [(name, status) for name, _, status, _ in await here.entries()] == [("a", "picked")]
    await there.queue.done(theirs)
    assert await here.entries() == []
    await there.queue.done(theirs)


async def test_done_is_of_one_entry_and_not_of_its_successor(here: Desk) -> None:
    await put(here, "a")
    (first,) = await here.queue.take(FAR, most=1, lease=MINUTE)
    async with here.engine.begin() as connection:
        await here.queue.remove(connection, ["a"])
        await here.queue.put(connection, "main", "a", priority=1)
    await here.queue.done(first)
    assert [(name, status) for name, _, status, _ in await here.entries()] == [("a", "queued")]


async def test_depth_is_of_those_that_wait(here: Desk) -> None:
    assert await here.queue.depth() == 0
    await put(here, "a", "b", "c")
    await take(here.queue, most=1)
    assert await here.queue.depth() == 2


async def test_what_has_waited_long_goes_first(here: Desk) -> None:
    await put(here, "old", priority=10)
    await here.execute("UPDATE tailrace.queue SET created = now() - interval '61 s'")
    await put(here, "small", priority=30)
    await put(here, "young", priority=10)
    async with here.engine.begin() as connection:
        await here.queue.prefer_old(connection, timedelta(seconds=60), 100)
    assert [(name, priority) for name, _, _, priority in await here.entries()] == [
        ("old", 100),
        ("small", 30),
        ("young", 10),
    ]
    assert await take(here.queue) == ["old", "small", "young"]


async def test_the_librarys_own_log_is_forgotten(here: Desk) -> None:
    await put(here, "a")
    await take(here.queue)
    logged = "SELECT count(*) FROM tailrace.queue_log"
    assert (await here.rows(logged))[0][0] > 0
    async with here.engine.begin() as connection:
        await here.queue.tidy(connection)
    assert (await here.rows(logged))[0][0] == 0


async def test_which_exports_have_no_entry(here: Desk) -> None:
    there, lost = await here.waiting(), await here.waiting()
    await here.execute(f"DELETE FROM tailrace.queue WHERE dedupe_key = '{lost.id}'")
    query = sa.select(exports.c.id).where(here.queue.without_entry(exports.c.id))
    async with here.engine.connect() as connection:
        found = [str(found) for found in (await connection.execute(query)).scalars()]
    assert found == [lost.id]
    assert [name for name, _, _, _ in await here.entries()] == [there.id]


async def test_its_tables_survive_a_crash_of_the_server(here: Desk) -> None:
    kinds = "SELECT DISTINCT relpersistence::text FROM pg_class WHERE relnamespace = 'tailrace'::regnamespace"
    assert [row[0] for row in await here.rows(kinds)] == ["p"]
