"""The rows of jobs: each write changes nothing once another attempt counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from service.errors import AttemptLost
from service.jobs.ledger import LIVE_VALUES
from service.jobs.model import Record, State
from service.jobs.transitions import (
    Transition,
    asked_again,
    cancelled,
    claimed,
    expired,
    failed,
    put_back,
    succeeded,
)
from tests.job_desk import ANOTHERS, LEASE, MINE, RECEIPT, Desk, desk, job
from tests.waiting import eventually

KEPT = timedelta(days=7)
LOST = AttemptLost("The worker was not heard of in time.")
PROOF: dict[str, Any] = {"backend_gone": True, "latency_ms": 3.5, "rows_written": 7}


@pytest.fixture
async def here(module_database_url: str) -> AsyncIterator[Desk]:
    async with desk(module_database_url) as opened:
        await opened.empty()
        yield opened


def now() -> datetime:
    return datetime.now(UTC)


def done() -> Transition:
    return succeeded(RECEIPT, now(), KEPT)


def again(record: Record, pause: float = 0.0) -> Transition:
    return put_back(record, LOST, now(), pause=pause)


async def everything(here: Desk) -> tuple[list[Any], ...]:
    """All that a refused write must leave as it is."""
    tables = ("exports ORDER BY id", "export_events ORDER BY export_id, seq", "queue ORDER BY id")
    return tuple([[list(row) for row in await here.rows(f"TABLE tailrace.{it}")] for it in tables])


async def test_a_new_one_waits_with_its_first_event_and_its_entry(here: Desk) -> None:
    made = await here.waiting(priority=30, source="other", total_rows=5, total_kind="estimate")
    row = await here.row(made.id)
    assert (row.state, row.attempt, row.event_seq, row.worker) == ("queued", 1, 1, None)
    assert made == replace(made, event_seq=1, heartbeat_at=row.heartbeat_at)
    assert await here.log(made.id) == [(1, "state")]
    assert await here.entries() == [(made.id, "other", "queued", 30)]


async def test_what_is_read_is_what_was_entered(here: Desk) -> None:
    wanted = job(filename="f.csv", request={"dataset": "numbers", "where": {"a": "eq.'"}})
    entered = (await here.enter(wanted)).record
    assert entered is not None
    assert entered == await here.ledger.get(wanted.id)
    assert entered == replace(wanted, event_seq=1, heartbeat_at=entered.heartbeat_at)
    assert await here.ledger.get(job().id) is None


async def test_a_claimed_one_runs_for_its_worker(here: Desk) -> None:
    waiting = await here.waiting()
    made = await here.ledger.claim(waiting.id, MINE, "ab" * 16, LEASE)
    assert made is not None
    row = await here.row(made.id)
    assert (row.state, row.attempt, row.worker, row.artifact) == ("running", 1, MINE, "ab" * 16)
    assert row.lease_until - row.heartbeat_at == LEASE
    assert made.started_at == row.started_at
    assert await here.log(made.id) == [(1, "state"), (2, "state")]


async def test_one_of_many_claims_at_once_wins(here: Desk) -> None:
    waiting = await here.waiting()
    names = [f"host:{number}:cccccccc" for number in range(12)]
    claims = (here.ledger.claim(waiting.id, name, f"{name}'s", LEASE) for name in names)
    won = [made for made in await asyncio.gather(*claims) if made is not None]
    row = await here.row(waiting.id)
    assert [(made.worker, made.artifact) for made in won] == [(row.worker, row.artifact)]
    assert row.artifact == f"{row.worker}'s"
    assert await here.log(waiting.id) == [(1, "state"), (2, "state")]


async def test_who_looked_before_another_claimed_comes_too_late(here: Desk) -> None:
    waiting = await here.waiting()
    async with here.engine.begin() as first:
        begun = claimed(MINE, "a", now())
        assert await here.ledger.apply_in(first, waiting, begun) is not None
        second = asyncio.create_task(here.ledger.claim(waiting.id, ANOTHERS, "b", LEASE))
        # It has read that the export waits, and waits for the row.
        await eventually(here.blocked, within=20, what="the claim waits for the row")
    assert await second is None
    assert (await here.row(waiting.id)).worker == MINE


async def test_an_end_takes_the_entry_with_it(here: Desk) -> None:
    running = await here.running()
    made = await here.ledger.apply(running, done())
    assert made is not None
    row = await here.row(running.id)
    assert (row.state, row.rows, row.bytes, row.receipt) == ("succeeded", 7, 70, RECEIPT)
    assert row.expires_at - row.finished_at == KEPT
    assert (row.lease_until, row.artifact) == (None, running.artifact)
    assert await here.entries() == []
    names = ["state", "state", "succeeded", "close"]
    assert await here.log(running.id) == list(enumerate(names, 1))


async def test_what_is_put_back_waits_under_a_new_entry(here: Desk) -> None:
    running = await here.running(priority=20)
    (entry,) = await here.queue.take({"main": 1}, most=1, lease=60)
    made = await here.ledger.apply(running, again(running, pause=600.0))
    assert made is not None
    assert (made.state, made.attempt, made.artifact) == (State.QUEUED, 2, None)
    assert [told["code"] for told in made.attempts or []] == ["attempt_lost"]
    assert await here.entries() == [(running.id, "main", "queued", 20)]
    assert await here.queue.take({"main": 1}, most=1, lease=60) == []
    await here.queue.done(entry)
    assert len(await here.entries()) == 1


ZOMBIES: dict[str, dict[str, Any]] = {
    "another attempt": {"attempt": 2},
    "another worker": {"worker": ANOTHERS},
    "no worker": {"worker": None},
}


@pytest.mark.parametrize("zombie", ZOMBIES)
@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled", "put back"])
async def test_a_zombie_changes_nothing(here: Desk, zombie: str, end: str) -> None:
    running = replace(await here.running(), **ZOMBIES[zombie])
    transitions = {
        "succeeded": done(),
        "failed": failed(running, LOST, None, now()),
        "cancelled": cancelled(PROOF, None, now()),
        "put back": again(running),
    }
    before = await everything(here)
    assert await here.ledger.apply(running, transitions[end]) is None
    assert await everything(here) == before


async def test_the_attempt_that_was_lost_cannot_publish(here: Desk) -> None:
    zombie = await here.running()
    assert await here.ledger.apply(zombie, again(zombie)) is not None
    waiting = await everything(here)
    assert await here.ledger.apply(zombie, done()) is None
    assert await everything(here) == waiting
    # The same worker took it up again: the number of the attempt is what tells the two apart.
    await here.claimed(zombie, MINE)
    running = await everything(here)
    assert await here.ledger.apply(zombie, done()) is None
    assert await everything(here) == running


ENDED: dict[str, Callable[[Record], Transition]] = {
    "succeeded": lambda _: done(),
    "failed": lambda record: failed(record, LOST, None, now()),
    "cancelled": lambda _: cancelled(PROOF, None, now()),
}


@pytest.mark.parametrize("second", ENDED)
@pytest.mark.parametrize("first", ENDED)
async def test_the_first_end_stays(here: Desk, first: str, second: str) -> None:
    running = await here.running()
    assert await here.ledger.apply(running, ENDED[first](running)) is not None
    before = await everything(here)
    assert await here.ledger.apply(running, ENDED[second](running)) is None
    assert await everything(here) == before


async def test_a_transition_and_its_entry_are_rolled_back_together(here: Desk) -> None:
    running = await here.running()
    before = await everything(here)
    async with here.engine.connect() as connection:
        made = await here.ledger.apply_in(connection, running, again(running))
        assert made is not None
        entries = await connection.execute(sa.text("SELECT status FROM tailrace.queue"))
        assert list(entries.scalars()) == ["queued"]
        await connection.rollback()
    assert await everything(here) == before


async def test_what_waits_is_stopped_at_once(here: Desk) -> None:
    waiting = await here.waiting()
    made = await here.ledger.ask_to_stop(waiting.id)
    assert made is not None
    assert made.state is State.CANCELLED
    assert made.cancel == {"backend_gone": True, "latency_ms": 0.0, "rows_written": 0}
    assert await here.entries() == []
    assert await here.log(waiting.id) == [(1, "state"), (2, "cancelled"), (3, "close")]


async def test_what_runs_is_told_to_stop_and_goes_on_counting(here: Desk) -> None:
    running = await here.running()
    made = await here.ledger.ask_to_stop(running.id)
    assert made is not None
    assert (made.state, made.event_seq) == (State.RUNNING, 2)
    asked = made.cancel_requested_at
    assert asked is not None
    again = await here.ledger.ask_to_stop(running.id)
    assert again is not None
    assert again.cancel_requested_at == asked


async def test_what_has_ended_is_not_stopped(here: Desk) -> None:
    running = await here.running()
    await here.ledger.apply(running, done())
    before = await everything(here)
    made = await here.ledger.ask_to_stop(running.id)
    assert made is not None
    assert (made.state, made.cancel_requested_at) == (State.SUCCEEDED, None)
    assert await everything(here) == before
    assert await here.ledger.ask_to_stop(job().id) is None


async def test_a_failed_one_waits_again_with_its_past(here: Desk) -> None:
    running = await here.running()
    broken = await here.ledger.apply(running, failed(running, LOST, RECEIPT, now()))
    assert broken is not None
    made = await here.ledger.apply(broken, asked_again(broken, 3))
    assert made is not None
    assert (made.state, made.attempt, made.attempts_until) == (State.QUEUED, 2, 4)
    assert (made.error, made.receipt, made.finished_at) == (None, None, None)
    assert [told["attempt"] for told in made.attempts or []] == [1]
    assert await here.entries() == [(running.id, "main", "queued", 10)]
    names = ["state", "state", "failed", "close", "state"]
    assert await here.log(running.id) == list(enumerate(names, 1))
    assert await here.ledger.apply(broken, asked_again(broken, 3)) is None


async def test_what_expires_has_no_event(here: Desk) -> None:
    running = await here.running()
    made = await here.ledger.apply(running, done())
    assert made is not None
    old = await here.ledger.apply(made, expired())
    assert old is not None
    assert (old.state, old.artifact, old.receipt) == (State.EXPIRED, None, RECEIPT)
    assert [name for _, name in await here.log(running.id)][-2:] == ["succeeded", "close"]


@pytest.mark.parametrize("state", LIVE_VALUES)
async def test_what_lives_is_not_deleted(here: Desk, state: str) -> None:
    record = await (here.waiting() if state == "queued" else here.running())
    before = await everything(here)
    assert await here.ledger.delete(record) is False
    assert await everything(here) == before


async def test_what_has_ended_is_deleted_with_its_events(here: Desk) -> None:
    running, other = await here.running(), await here.running()
    await here.ledger.apply(running, done())
    assert await here.ledger.delete(running) is True
    assert await here.row(running.id) is None
    assert await here.log(running.id) == []
    assert await here.log(other.id) == [(1, "state"), (2, "state")]
    assert await here.ledger.delete(running) is False
