"""Requests for exports that come at the same time: one key, one flight, and room for so many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.errors import KeyReused, QueueFull, StorageFull, TooManyQueued
from service.jobs.ledger import Answer, Entered, Key, Room
from service.jobs.model import Kind, Record, State
from service.jobs.transitions import failed
from tests.job_desk import MINE, ROOM, Desk, desk, job, told

AT_ONCE = 20
JOIN = timedelta(seconds=10)
KEY = Key("nightly", "ab" * 32)
COUNT = "SELECT count(*) FROM tailrace.exports"
HELD = "SELECT key, request_sha256, answer FROM tailrace.idempotency_keys ORDER BY key"
OLD = "UPDATE tailrace.idempotency_keys SET created_at = now() - interval '24 hours 1 second'"


@pytest.fixture
async def here(module_database_url: str) -> AsyncIterator[Desk]:
    async with desk(module_database_url) as opened:
        await opened.empty()
        yield opened


@pytest.fixture
async def there(module_database_url: str) -> AsyncIterator[Desk]:
    """Another process."""
    async with desk(module_database_url) as opened:
        yield opened


async def count(here: Desk) -> int:
    return int((await here.rows(COUNT))[0][0])


def same(**values: Any) -> Record:
    """A job as many ask for it."""
    return job(**{"fingerprint": "one file"} | values)


def ids(entered: Iterable[Entered]) -> list[str]:
    """The exports that those who asked were led to."""
    return [one.record.id if one.record else (one.answer or {})["body"]["id"] for one in entered]


async def test_equal_requests_at_once_are_one_flight(here: Desk, there: Desk) -> None:
    asking = [
        process.enter(same(), join=JOIN) for process in (here, there) for _ in range(AT_ONCE // 2)
    ]
    entered = await asyncio.gather(*asking)
    assert len(set(ids(entered))) == 1
    assert sorted(one.joined for one in entered) == [False] + [True] * (AT_ONCE - 1)
    assert await count(here) == 1
    assert len(await here.entries()) == 1
    assert await here.log(ids(entered)[0]) == [(1, "state")]


async def test_whoever_wants_it_fresh_gets_one_of_his_own(here: Desk) -> None:
    first = await here.enter(same(), join=JOIN)
    entered = await asyncio.gather(*(here.enter(same()) for _ in range(5)))
    assert [one.joined for one in entered] == [False] * 5
    assert len({*ids(entered), *ids([first])}) == 6
    newest = max(entered, key=lambda one: one.record.created_at if one.record else 0)
    assert ids([await here.enter(same(), join=JOIN)]) == ids([newest])


@pytest.mark.parametrize(
    "other",
    [{"owner": "bert"}, {"fingerprint": "another file"}],
    ids=["another owner", "another file"],
)
async def test_what_differs_flies_alone(here: Desk, other: dict[str, Any]) -> None:
    first = await here.enter(same(owner="anna"), join=JOIN)
    second = await here.enter(same(**{"owner": "anna"} | other), join=JOIN)
    assert (first.joined, second.joined) == (False, False)
    assert await count(here) == 2


async def snapshot_of(here: Desk, running: Record, seconds: float) -> None:
    await here.execute(
        f"UPDATE tailrace.exports SET snapshot_at = now() - interval '{seconds} seconds' "
        f"WHERE id = '{running.id}'"
    )


@pytest.mark.parametrize(
    ("seconds", "joined"), [(None, True), (1, True), (600, False)], ids=["none", "new", "old"]
)
async def test_a_running_one_is_joined_while_its_snapshot_is_new(
    here: Desk, seconds: float | None, *, joined: bool
) -> None:
    running = await here.running(fingerprint="one file")
    if seconds is not None:
        await snapshot_of(here, running, seconds)
    entered = await here.enter(same(), join=JOIN)
    assert entered.joined is joined
    assert (ids([entered]) == [running.id]) is joined


@pytest.mark.parametrize("how", ["ended", "about to stop", "no job"])
async def test_nobody_joins_what_makes_no_file_for_him(here: Desk, how: str) -> None:
    running = await here.running(fingerprint="one file")
    if how == "ended":
        end = failed(running, StorageFull("full"), None, datetime.now(UTC))
        assert await here.ledger.apply(running, end) is not None
    elif how == "about to stop":
        assert await here.ledger.ask_to_stop(running.id) is not None
    else:
        await here.execute(f"UPDATE tailrace.exports SET kind = '{Kind.STREAM}'")
    entered = await here.enter(same(), join=JOIN)
    assert entered.joined is False
    assert ids([entered]) != [running.id]


async def test_a_key_at_once_is_one_export(here: Desk, there: Desk) -> None:
    asking = [
        process.enter(job(), key=KEY) for process in (here, there) for _ in range(AT_ONCE // 2)
    ]
    entered = await asyncio.gather(*asking)
    assert len(set(ids(entered))) == 1
    assert [one.record is None for one in entered].count(False) == 1
    assert await count(here) == 1
    (row,) = await here.rows(HELD)
    assert tuple(row) == ("nightly", "ab" * 32, answer_of(entered))


def answer_of(entered: Iterable[Entered]) -> Answer:
    """The one answer that all those were given who were given an old one."""
    (answer, *others) = [one.answer for one in entered if one.answer is not None]
    assert all(other == answer for other in others)
    return answer


async def test_a_key_remembers_the_answer_word_for_word(here: Desk) -> None:
    first = await here.enter(same(), key=KEY, join=JOIN)
    assert first.record is not None
    again = await here.enter(same(), key=KEY, join=JOIN)
    assert again == Entered(None, answer=told(first.record, joined=False))
    joining = await here.enter(same(), key=replace(KEY, text="another"), join=JOIN)
    assert joining.joined is True
    again = await here.enter(same(), key=replace(KEY, text="another"), join=JOIN)
    assert again == Entered(None, answer=told(first.record, joined=True))


async def test_a_later_answer_takes_the_place_of_the_first(here: Desk) -> None:
    first = await here.enter(job(), key=KEY)
    assert first.record is not None
    later = {"status": 200, "headers": {}, "body": {"id": first.record.id, "state": "succeeded"}}
    await here.ledger.remember("anonymous", KEY, later)
    assert await here.enter(job(), key=KEY) == Entered(None, answer=later)


async def test_a_key_with_another_body_is_refused_and_enters_nothing(here: Desk) -> None:
    await here.enter(job(), key=KEY)
    with pytest.raises(KeyReused) as caught:
        await here.enter(job(), key=Key(KEY.text, "cd" * 32))
    assert caught.value.status == 422
    assert "'nightly'" in caught.value.detail
    assert await count(here) == 1


async def test_a_key_with_another_body_at_once_is_one_export(here: Desk) -> None:
    keys = [Key(KEY.text, f"{number:064}") for number in range(AT_ONCE)]
    asking = (here.enter(job(), key=key) for key in keys)
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(one) for one in found if not isinstance(one, Entered)] == [KeyReused] * 19
    assert await count(here) == 1


async def test_a_key_is_of_one_owner(here: Desk) -> None:
    one = await here.enter(job(owner="anna"), key=KEY)
    other = await here.enter(job(owner="bert"), key=Key(KEY.text, "cd" * 32))
    assert len(set(ids([one, other]))) == 2


async def test_a_key_is_forgotten_after_a_day(here: Desk) -> None:
    first = await here.enter(job(), key=KEY)
    await here.execute(OLD)
    second = await here.enter(job(), key=Key(KEY.text, "cd" * 32))
    assert second.record is not None
    assert ids([first]) != ids([second])
    assert [row.request_sha256 for row in await here.rows(HELD)] == ["cd" * 32]


async def test_a_request_that_failed_leaves_its_key_free(here: Desk) -> None:
    with pytest.raises(QueueFull):
        await here.enter(job(), Room(all=0, caller=10), key=KEY)
    assert await here.rows(HELD) == []
    entered = await here.enter(job(), key=Key(KEY.text, "cd" * 32))
    assert entered.record is not None


async def test_the_queue_takes_so_many(here: Desk) -> None:
    room = Room(all=3, caller=10)
    for owner in ("anna", "bert", "carl"):
        await here.enter(job(owner=owner), room)
    with pytest.raises(QueueFull) as caught:
        await here.enter(job(owner="dora"), room)
    assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "10"})
    assert caught.value.detail == "3 exports are waiting; try again later."
    assert await count(here) == 3


async def test_no_more_than_there_is_room_for_when_all_come_at_once(
    here: Desk, there: Desk
) -> None:
    room = Room(all=3, caller=3)
    asking = [process.enter(job(), room) for process in (here, there) for _ in range(AT_ONCE // 2)]
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert sorted(type(one).__name__ for one in found) == ["Entered"] * 3 + ["QueueFull"] * 17
    assert await count(here) == 3


async def test_a_caller_may_have_so_many_wait(here: Desk) -> None:
    room = Room(all=10, caller=2)
    for owner in ("anna", "anna", "bert"):
        await here.enter(job(owner=owner), room)
    with pytest.raises(TooManyQueued) as caught:
        await here.enter(job(owner="anna"), room)
    assert (caught.value.status, caught.value.headers) == (429, {"Retry-After": "10"})
    assert caught.value.detail == "2 exports of yours are waiting already."
    await here.enter(job(owner="bert"), room)
    assert await count(here) == 4


async def test_what_runs_or_has_ended_takes_no_room(here: Desk) -> None:
    await here.running()
    stopped = await here.waiting()
    await here.ledger.ask_to_stop(stopped.id)
    await here.execute("UPDATE tailrace.exports SET kind = 'stream' WHERE state = 'cancelled'")
    await here.execute("UPDATE tailrace.exports SET state = 'queued' WHERE kind = 'stream'")
    entered = await here.enter(job(), Room(all=1, caller=1))
    assert entered.record is not None


async def test_who_joins_needs_no_room_and_no_storage(here: Desk) -> None:
    def full() -> None:
        raise StorageFull("0 bytes are free for artifacts.")

    first = await here.enter(same(), Room(all=1, caller=1), join=JOIN)
    joined = await here.ledger.enter(
        same(), Room(all=1, caller=1), join=JOIN, key=None, storage=full, answer=told
    )
    assert (joined.joined, ids([joined])) == (True, ids([first]))
    with pytest.raises(StorageFull):
        await here.ledger.enter(job(), ROOM, join=JOIN, key=KEY, storage=full, answer=told)
    assert await count(here) == 1
    assert await here.rows(HELD) == []


async def test_a_flight_that_has_landed_leaves_the_next_alone(here: Desk) -> None:
    first = await here.running(fingerprint="one file")
    again = await here.enter(same(), join=JOIN)
    assert again.joined is True
    assert (again.record or first).state is State.RUNNING
    assert (again.record or first).worker == MINE
    await here.execute("UPDATE tailrace.exports SET state = 'succeeded'")
    assert (await here.enter(same(), join=JOIN)).joined is False
