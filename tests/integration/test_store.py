"""The recorder against a real table: batches behind the streams, and what is lost or kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import uuid_utils.compat as uuid_utils
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.database import service_engine
from service.errors import RecordsUnavailable
from service.export.receipt import Outcome
from service.jobs import store
from service.jobs.model import Kind, Record, State
from service.jobs.store import MAX_PENDING, Recorder
from service.observe import Event, RecordsDropped, RecordsNotWritten
from tests.outage import away
from tests.postgres import Databases
from tests.waiting import eventually

WITHIN = 30.0  # seconds
CLOSED_PORT = "postgresql+asyncpg://nobody@127.0.0.1:1/nothing"
RECEIPT = {"outcome": "complete", "rows": 7, "bytes": 70}


def record(**values: Any) -> Record:
    """A running direct stream, made now."""
    fixed = Record(
        id=str(uuid_utils.uuid7()),
        kind=Kind.STREAM,
        owner="anonymous",
        dataset="numbers",
        source="main",
        lane="copy",
        format="csv",
        compression="none",
        profile="machine",
        request={"query": [["limit", "7"]], "format": "csv"},
        created_at=datetime.now(UTC),
    )
    return replace(fixed, **values)


def nobody() -> None:
    """Nobody stops these streams."""


def finished(running: Record, outcome: Outcome = Outcome.COMPLETE) -> Record:
    receipt = RECEIPT | {"outcome": outcome.value}
    return running.finished(receipt, outcome, datetime.now(UTC), None)


@asynccontextmanager
async def recording(
    url: str, observe: Callable[[Event], None] = lambda _: None, *, started: bool = True
) -> AsyncIterator[Recorder]:
    engine = service_engine(url)
    recorder = Recorder(engine, observe)
    if started:
        await recorder.start()
    try:
        yield recorder
    finally:
        await recorder.stop()
        await engine.dispose()


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """To look at the table with, past the recorder."""
    made = service_engine(database_url)
    yield made
    await made.dispose()


async def row(engine: AsyncEngine, export_id: str) -> Any:
    query = text("SELECT * FROM tailrace.exports WHERE id = CAST(:id AS uuid)")
    async with engine.connect() as connection:
        return (await connection.execute(query, {"id": export_id})).one_or_none()


async def reaches(engine: AsyncEngine, export_id: str, state: State) -> None:
    async def there() -> bool:
        found = await row(engine, export_id)
        return found is not None and found.state == state.value

    await eventually(there, within=WITHIN, what=f"{export_id} is {state}")


async def execute(engine: AsyncEngine, sql: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(sql))


@asynccontextmanager
async def away_meanwhile(databases: Databases, url: str) -> AsyncIterator[None]:
    """``away`` in a thread: it runs an event loop of its own."""
    outage = away(databases, url)
    await asyncio.to_thread(outage.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(outage.__exit__, None, None, None)


async def test_a_record_is_known_at_once_and_in_the_table_soon(
    database_url: str, engine: AsyncEngine
) -> None:
    running = record(total_rows=9, total_kind="estimate")
    async with recording(database_url) as recorder:
        recorder.begin(lambda: replace(running, rows=3), nobody)
        found = await recorder.get(running.id)
        assert found is not None
        assert found.rows == 3
        await reaches(engine, running.id, State.RUNNING)
        done = finished(running)
        recorder.finish(done)
        assert await recorder.get(running.id) == done
        await reaches(engine, running.id, State.SUCCEEDED)
    stored = await row(engine, running.id)
    assert (stored.rows, stored.bytes, stored.receipt) == (7, 70, RECEIPT)
    assert (stored.request, stored.total_rows) == (running.request, 9)
    async with recording(database_url) as other:
        again = await other.get(running.id)
        # The state, and the two events of its end.
        assert again == replace(done, heartbeat_at=stored.heartbeat_at, event_seq=3)


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.RELAY])
async def test_a_download_has_no_dataset_and_a_total_in_bytes(
    database_url: str, engine: AsyncEngine, kind: Kind
) -> None:
    """What it lacks is NULL and comes back as None, larger than four gigabytes though it is."""
    nothing = dict.fromkeys(("dataset", "lane", "format", "compression", "profile"))
    size = 5 * 1024**3
    running = record(kind=kind, source="archive", total_bytes=size, **nothing)
    receipt = RECEIPT | {"rows": None, "bytes": None, "encoded_bytes": size}
    done = running.finished(receipt, Outcome.COMPLETE, datetime.now(UTC), None)
    async with recording(database_url) as recorder:
        recorder.finish(done)
        await reaches(engine, running.id, State.SUCCEEDED)
    stored = await row(engine, running.id)
    assert {name: getattr(stored, name) for name in nothing} == nothing
    assert (stored.kind, stored.source) == (kind.value, "archive")
    assert (stored.total_bytes, stored.rows, stored.bytes) == (size, 0, size)
    async with recording(database_url) as other:
        again = await other.get(running.id)
        assert again == replace(done, heartbeat_at=stored.heartbeat_at, event_seq=2)
        assert await other.newest(owner="anonymous", kind=kind) == [again]
        assert await other.newest(owner="anonymous", dataset="archive") == []


async def test_what_is_pending_is_written_by_stop(database_url: str, engine: AsyncEngine) -> None:
    done = [finished(record()) for _ in range(1000)]
    async with recording(database_url, started=False) as recorder:
        for item in done:
            recorder.finish(item)
        assert await row(engine, done[0].id) is None
    for item in (done[0], done[-1]):
        assert (await row(engine, item.id)).state == "succeeded"


async def test_a_live_record_stays_fresh(
    database_url: str, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress and heartbeat reach the table, where other processes see them."""
    monkeypatch.setattr(store, "HEARTBEAT_SECONDS", 0.05)
    running = record()
    rows = iter(range(1_000_000))
    async with recording(database_url) as recorder:
        recorder.begin(lambda: replace(running, rows=next(rows)), nobody)
        await reaches(engine, running.id, State.RUNNING)
        first = await row(engine, running.id)

        async def later() -> bool:
            now = await row(engine, running.id)
            return bool(now.rows > first.rows and now.heartbeat_at > first.heartbeat_at)

        await eventually(later, within=WITHIN, what="a later heartbeat")
        recorder.finish(finished(running))


@pytest.mark.parametrize("state", [state for state in State if state.final])
async def test_a_final_state_stays(database_url: str, engine: AsyncEngine, state: State) -> None:
    """A late write of the same or of another process does not make it run again."""
    running = record()
    final = replace(running, state=state, finished_at=datetime.now(UTC), receipt=RECEIPT, rows=7)
    async with recording(database_url) as recorder, recording(database_url) as late:
        recorder.finish(final)
        await reaches(engine, final.id, state)
        for written in (running, replace(running, state=State.QUEUED), finished(running)):
            late.finish(replace(written, rows=1, receipt=None))
            await late.newest(owner="anonymous", limit=1)
            stored = await row(engine, final.id)
            assert (stored.state, stored.rows, stored.receipt) == (state.value, 7, RECEIPT)


async def test_a_live_state_changes(database_url: str, engine: AsyncEngine) -> None:
    queued = record(state=State.QUEUED)
    async with recording(database_url) as recorder:
        for written in (queued, replace(queued, state=State.RUNNING), finished(queued)):
            recorder.finish(written)
            await reaches(engine, queued.id, written.state)


async def test_newest_gives_the_owner_what_matches(database_url: str) -> None:
    now = datetime.now(UTC)
    records = [
        record(created_at=now - timedelta(seconds=place), dataset=dataset, owner=owner)
        for place, (dataset, owner) in enumerate(
            [("a", "me"), ("b", "me"), ("a", "you"), ("a", "me"), ("b", "me")]
        )
    ]
    async with recording(database_url) as recorder:
        for item in records:
            recorder.finish(finished(item))

        async def ids(**filters: Any) -> list[int]:
            known = [item.id for item in records]
            return [known.index(item.id) for item in await recorder.newest(**filters)]

        assert await ids(owner="me") == [0, 1, 3, 4]
        assert await ids(owner="you") == [2]
        assert await ids(owner="nobody") == []
        assert await ids(owner="me", dataset="a") == [0, 3]
        assert await ids(owner="me", limit=2) == [0, 1]
        assert await ids(owner="me", kind=Kind.JOB) == []
        assert await ids(owner="me", state=State.FAILED) == []
        place = (records[1].created_at, records[1].id)
        assert await ids(owner="me", before=place) == [3, 4]


async def test_the_backlog_is_bounded_and_keeps_the_newest() -> None:
    events: list[Event] = []
    records = [finished(record()) for _ in range(MAX_PENDING + 25)]
    async with recording(CLOSED_PORT, events.append) as recorder:
        for item in records:
            recorder.finish(item)
        dropped = [event.count for event in events if isinstance(event, RecordsDropped)]
        assert sum(dropped) == 25
        assert await recorder.get(records[-1].id) == records[-1]
        assert await recorder.get(records[25].id) == records[25]
        with pytest.raises(RecordsUnavailable):
            await recorder.get(records[24].id)
        with pytest.raises(RecordsUnavailable):
            await recorder.newest(owner="anonymous")


async def test_a_backlog_is_written_when_the_database_is_back(
    databases: Databases, database_url: str, engine: AsyncEngine
) -> None:
    events: list[Event] = []

    async def told() -> bool:
        return any(isinstance(event, RecordsNotWritten) for event in events)

    async with recording(database_url, events.append) as recorder:
        async with away_meanwhile(databases, database_url):
            records = [finished(record()) for _ in range(500)]
            for item in records:
                recorder.finish(item)
            await eventually(told, within=WITHIN, what="the failure is told")
            assert await recorder.get(records[0].id) == records[0]
        for item in records:
            await reaches(engine, item.id, State.SUCCEEDED)


async def test_streams_of_a_lost_process_are_ended(database_url: str, engine: AsyncEngine) -> None:
    """Those that are fresh, final or jobs are left alone."""
    lost, queued, job = record(), record(state=State.QUEUED), record(kind=Kind.JOB)
    done, fresh = finished(record()), record()
    async with recording(database_url) as recorder:
        for item in (lost, queued, job, done):
            recorder.finish(item)
        for item in (lost, queued, job, done):
            await reaches(engine, item.id, item.state)
        old = "UPDATE tailrace.exports SET heartbeat_at = now() - interval '2 minutes'"
        await execute(engine, old)
        recorder.finish(fresh)
        await reaches(engine, fresh.id, State.RUNNING)
        assert await recorder.end_lost(timedelta(minutes=1)) == 1
        assert await recorder.end_lost(timedelta(minutes=1)) == 0
        for item in (queued, job, done, fresh):
            assert (await row(engine, item.id)).state == item.state.value
        ended = await recorder.get(lost.id)
    assert ended is not None
    assert (ended.state, ended.receipt) == (State.FAILED, None)
    assert ended.error is not None
    assert ended.error["code"] == "process_lost"
    assert ended.finished_at is not None


async def test_a_start_ends_what_was_lost_before(
    database_url: str, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = record()
    async with recording(database_url, started=False) as killed:
        killed.finish(lost)
    await reaches(engine, lost.id, State.RUNNING)
    monkeypatch.setattr(store, "LOST_AFTER", timedelta(seconds=-60))
    async with recording(database_url):
        await reaches(engine, lost.id, State.FAILED)


async def test_a_process_never_gives_its_own_streams_up(
    database_url: str, engine: AsyncEngine
) -> None:
    """After a long outage the sweep may come before the first heartbeat."""
    running = record()
    async with recording(database_url) as recorder:
        recorder.begin(lambda: running, nobody)
        await reaches(engine, running.id, State.RUNNING)
        await execute(
            engine, "UPDATE tailrace.exports SET heartbeat_at = now() - interval '2 minutes'"
        )
        assert await recorder.end_lost(timedelta(minutes=1)) == 0
        recorder.finish(finished(running))
        await reaches(engine, running.id, State.SUCCEEDED)


async def test_a_stream_that_was_given_up_wrongly_keeps_its_receipt(
    database_url: str, engine: AsyncEngine
) -> None:
    """Another process may have swept while this one could not write; the truth comes last."""
    running = record()
    async with recording(database_url) as recorder, recording(database_url) as other:
        recorder.begin(lambda: running, nobody)
        await reaches(engine, running.id, State.RUNNING)
        assert await other.end_lost(timedelta(seconds=-60)) == 1
        await reaches(engine, running.id, State.FAILED)
        recorder.finish(finished(running))
        await reaches(engine, running.id, State.SUCCEEDED)
        stored = await row(engine, running.id)
        assert (stored.receipt, stored.error) == (RECEIPT, None)


async def test_two_processes_sweep_without_waiting_for_each_other(
    database_url: str, engine: AsyncEngine
) -> None:
    lost = record()
    async with recording(database_url) as recorder:
        recorder.finish(lost)
        await reaches(engine, lost.id, State.RUNNING)
        async with engine.begin() as holder:
            await holder.execute(text("SELECT 1 FROM tailrace.exports FOR UPDATE"))
            assert await recorder.end_lost(timedelta(seconds=-60)) == 0
        assert await recorder.end_lost(timedelta(seconds=-60)) == 1


async def test_a_record_that_the_table_refuses_does_not_hold_up_the_others(
    database_url: str, engine: AsyncEngine
) -> None:
    events: list[Event] = []
    refused, taken = record(total_kind="no such kind"), record()
    async with recording(database_url, events.append, started=False) as recorder:
        recorder.finish(finished(refused))
        recorder.finish(finished(taken))
    async with engine.connect() as connection:
        stored = await connection.scalars(text("SELECT id::text FROM tailrace.exports"))
        assert stored.all() == [taken.id]
    assert [event.count for event in events if isinstance(event, RecordsDropped)] == [1]
