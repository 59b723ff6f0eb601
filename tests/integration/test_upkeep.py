"""What keeps jobs true although processes die: each step alone, twice, and from two at once."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.artifacts.folder import ArtifactFolder
from service.errors import AttemptLost
from service.jobs.ledger import Key
from service.jobs.model import Kind, Record
from service.jobs.transitions import failed, put_back, succeeded
from service.jobs.upkeep import Upkeep
from service.settings import LimitSettings
from tests.job_desk import COPY, MINE, RECEIPT, Desk, desk, job

LIMITS = LimitSettings(record_ttl=30 * 86_400.0)
LOST = AttemptLost("The worker was not heard of in time.")
LATE = "UPDATE tailrace.exports SET lease_until = now() - interval '1 ms'"
OVER = "UPDATE tailrace.exports SET expires_at = now() - interval '1 ms'"
KEYS = "SELECT key FROM tailrace.idempotency_keys ORDER BY key"
WORKERS = "SELECT name FROM tailrace.workers ORDER BY name"
Sweep = Callable[[], Awaitable[dict[str, int]]]


@dataclass(frozen=True, slots=True)
class House:
    """A desk with its folder of artifacts."""

    desk: Desk
    folder: ArtifactFolder
    upkeep: Upkeep

    async def sweep(self) -> dict[str, int]:
        return await self.upkeep.sweep()

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.path.iterdir())

    def write(self, name: str | None, *, age: float = 0.0) -> Path:
        """A file of the folder, last written to ``age`` seconds ago."""
        path = self.folder.path / str(name)
        path.write_bytes(b"id\n1\n")
        os.utime(path, (time.time() - age,) * 2)
        return path

    async def finished(self, **values: Any) -> Record:
        """A job that has been made, with its file."""
        running = await self.desk.running(**values)
        self.write(running.artifact)
        transition = succeeded(RECEIPT, datetime.now(UTC), timedelta(days=7))
        made = await self.desk.ledger.apply(running, transition)
        assert made is not None
        return made


@asynccontextmanager
async def house(url: str, path: Path, limits: LimitSettings = LIMITS) -> AsyncIterator[House]:
    async with desk(url) as here:
        folder = ArtifactFolder(path)
        folder.prepare()
        yield House(here, folder, Upkeep(here.engine, here.ledger, here.queue, folder, limits))


@pytest.fixture
async def home(module_database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    async with house(module_database_url, tmp_path / "artifacts") as opened:
        await opened.desk.empty()
        yield opened


@pytest.fixture
async def neighbour(module_database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """Another worker that shares the database and the folder."""
    async with house(module_database_url, tmp_path / "artifacts") as opened:
        yield opened


@pytest.fixture(params=["once", "twice", "two at once"])
def sweep(request: pytest.FixtureRequest, home: House, neighbour: House) -> Sweep:
    """All ways to sweep: what was found in all is always the same."""

    async def swept() -> dict[str, int]:
        if request.param == "two at once":
            return total(await asyncio.gather(home.sweep(), neighbour.sweep()))
        first = await home.sweep()
        return total([first, await home.sweep()]) if request.param == "twice" else first

    return swept


def total(found: Sequence[dict[str, int]]) -> dict[str, int]:
    keys = {key for one in found for key in one}
    return {key: sum(one.get(key, 0) for one in found) for key in sorted(keys)}


async def test_there_is_nothing_to_do(home: House, sweep: Sweep) -> None:
    waiting, running = await home.desk.waiting(), await home.desk.running()
    made = await home.finished()
    assert await sweep() == {}
    states = [await home.desk.state(one.id) for one in (waiting, running, made)]
    assert states == ["queued", "running", "succeeded"]
    assert home.files() == [made.artifact]


async def test_a_lost_lease_is_the_next_attempt(home: House, sweep: Sweep) -> None:
    running = await home.desk.running(priority=20)
    home.write(f"{running.artifact}.part")
    await home.desk.execute(LATE)
    assert await sweep() == {"lost": 1}
    row = await home.desk.row(running.id)
    assert (row.state, row.attempt, row.worker, row.artifact) == ("queued", 2, None, None)
    (told,) = row.attempts
    assert (told["attempt"], told["code"], told["worker"]) == (1, "attempt_lost", MINE)
    assert told["reason"] == "The worker was not heard of in time."
    assert home.files() == []
    assert await home.desk.entries() == [(running.id, "main", "queued", 20)]
    assert await home.desk.log(running.id) == [(1, "state"), (2, "state"), (3, "state")]


async def test_a_lease_that_runs_is_left_alone(home: House, sweep: Sweep) -> None:
    running = await home.desk.running()
    await home.desk.execute("UPDATE tailrace.exports SET lease_until = now() + interval '1 hour'")
    assert await sweep() == {}
    assert await home.desk.state(running.id) == "running"


async def test_the_last_lost_lease_is_the_end(home: House, sweep: Sweep) -> None:
    running = await home.desk.running(attempts_until=2)
    lost = put_back(running, LOST, datetime.now(UTC), pause=0.0)
    await home.desk.ledger.apply(running, lost)
    second = await home.desk.claimed(running)
    home.write(f"{second.artifact}.part")
    await home.desk.execute(LATE)
    assert await sweep() == {"lost": 1}
    row = await home.desk.row(running.id)
    assert (row.state, row.attempt, row.error["code"]) == ("failed", 2, "attempt_lost")
    assert [told["attempt"] for told in row.attempts] == [1, 2]
    assert (row.receipt, row.artifact, home.files()) == (None, None, [])
    assert [name for _, name in await home.desk.log(running.id)][-2:] == ["failed", "close"]
    assert await home.desk.entries() == []


async def test_what_was_to_stop_is_cancelled_when_its_worker_is_dead(
    home: House, sweep: Sweep
) -> None:
    running = await home.desk.running()
    await home.desk.beat(replace(running, rows=12))
    await home.desk.ledger.ask_to_stop(running.id)
    home.write(f"{running.artifact}.part")
    await home.desk.execute(LATE)
    assert await sweep() == {"lost": 1}
    row = await home.desk.row(running.id)
    assert (row.state, row.attempt, row.artifact) == ("cancelled", 1, None)
    # Nobody looked whether its query is gone, so nobody says that it is.
    assert row.cancel == {"backend_gone": None, "latency_ms": None, "rows_written": 12}
    assert home.files() == []
    assert [name for _, name in await home.desk.log(running.id)][-2:] == ["cancelled", "close"]


async def test_direct_streams_are_not_its_business(home: House, sweep: Sweep) -> None:
    running = await home.desk.running()
    await home.desk.execute(LATE)
    await home.desk.execute(f"UPDATE tailrace.exports SET kind = '{Kind.STREAM}'")
    assert await sweep() == {}
    assert await home.desk.state(running.id) == "running"


async def test_a_lost_entry_is_made_again(home: House, sweep: Sweep) -> None:
    lost, there = await home.desk.waiting(priority=30), await home.desk.waiting()
    await home.desk.execute(f"DELETE FROM tailrace.queue WHERE dedupe_key = '{lost.id}'")
    assert (await sweep()).keys() == {"entered_again"}
    assert sorted(await home.desk.entries()) == sorted(
        [(lost.id, "main", "queued", 30), (there.id, "main", "queued", 10)]
    )
    assert await home.desk.log(lost.id) == [(1, "state")]


async def test_an_entry_that_is_taken_is_not_lost(home: House, sweep: Sweep) -> None:
    await home.desk.waiting()
    assert len(await home.desk.queue.take({"main": 1}, most=1, lease=60)) == 1
    assert await sweep() == {}
    assert [status for _, _, status, _ in await home.desk.entries()] == ["picked"]


async def test_an_artifact_expires_and_its_record_stays(home: House, sweep: Sweep) -> None:
    old, young = await home.finished(), await home.finished()
    await home.desk.execute(f"{OVER} WHERE id = '{old.id}'")
    assert await sweep() == {"expired": 1}
    row = await home.desk.row(old.id)
    assert (row.state, row.artifact, row.receipt) == ("expired", None, RECEIPT)
    assert home.files() == [young.artifact]
    assert await home.desk.log(old.id) == [
        (1, "state"),
        (2, "state"),
        (3, "succeeded"),
        (4, "close"),
    ]


async def test_whoever_reads_an_expired_artifact_reads_on(home: House) -> None:
    made = await home.finished()
    with (home.folder.path / str(made.artifact)).open("rb") as reading:
        await home.desk.execute(OVER)
        assert await home.sweep() == {"expired": 1}
        assert reading.read() == b"id\n1\n"
    assert home.files() == []


@pytest.mark.parametrize(
    ("state", "artifact", "kept"),
    [
        ("failed", None, False),
        ("cancelled", None, False),
        ("expired", None, False),
        ("succeeded", None, False),
        ("succeeded", "ab" * 16, True),
        ("queued", None, True),
        ("running", None, True),
    ],
)
async def test_old_records_are_forgotten(
    home: House, sweep: Sweep, state: str, artifact: str | None, *, kept: bool
) -> None:
    record = await home.desk.waiting()
    named = f"'{artifact}'" if artifact else "NULL"
    await home.desk.execute(
        f"UPDATE tailrace.exports SET state = '{state}', artifact = {named}, "
        "finished_at = now() - interval '30 days 1 second', expires_at = now() + interval '1 day'"
    )
    await home.desk.execute("DELETE FROM tailrace.export_events")
    assert await sweep() == ({} if kept else {"forgotten": 1})
    assert (await home.desk.row(record.id) is not None) is kept


async def test_records_of_every_kind_are_forgotten_with_their_events(
    home: House, sweep: Sweep
) -> None:
    for kind in Kind:
        made = await home.finished()
        await home.desk.execute(
            f"UPDATE tailrace.exports SET kind = '{kind}', artifact = NULL WHERE id = '{made.id}'"
        )
    young = await home.finished()
    await home.desk.execute(
        "UPDATE tailrace.exports SET finished_at = now() - interval '31 days' "
        f"WHERE id <> '{young.id}'"
    )
    assert (await sweep())["forgotten"] == len(Kind)
    assert [str(row.id) for row in await home.desk.rows("TABLE tailrace.exports")] == [young.id]
    assert len(await home.desk.rows("TABLE tailrace.export_events")) == 4


async def test_events_are_kept_for_an_hour_after_the_end(home: House, sweep: Sweep) -> None:
    old, young = await home.finished(), await home.finished()
    await home.desk.execute(
        "UPDATE tailrace.exports SET finished_at = now() - interval '61 minutes' "
        f"WHERE id = '{old.id}'"
    )
    assert await sweep() == {"events": 4}
    assert (await home.desk.log(old.id), len(await home.desk.log(young.id))) == ([], 4)
    assert (await home.desk.row(old.id)).event_seq == 4


async def test_of_a_long_export_only_old_progress_is_pruned(home: House, sweep: Sweep) -> None:
    running = await home.desk.running()
    await home.desk.beat(running)
    await home.desk.beat(running)
    await home.desk.execute(
        "UPDATE tailrace.export_events SET at = now() - interval '11 minutes' WHERE seq <= 3"
    )
    assert await sweep() == {"events": 1}
    assert await home.desk.log(running.id) == [(1, "state"), (2, "state"), (4, "progress")]


async def test_strangers_files_are_removed_but_not_young_ones(home: House, sweep: Sweep) -> None:
    made, running = await home.finished(), await home.desk.running()
    home.write(made.artifact, age=10_000)
    home.write(f"{running.artifact}.part", age=10_000)
    for name, age in (("ab" * 16, 310), ("cd" * 16 + ".part", 310), ("ef" * 16, 200)):
        home.write(name, age=age)
    home.write("README", age=10_000)
    assert (await sweep()).keys() == {"strangers"}
    kept = [str(made.artifact), f"{running.artifact}.part", "ef" * 16, "README"]
    assert home.files() == sorted(kept)


async def test_keys_are_forgotten_after_a_day(home: House, sweep: Sweep) -> None:
    for name in ("old", "young"):
        await home.desk.enter(job(), key=Key(name, "ab" * 32))
    await home.desk.execute(
        "UPDATE tailrace.idempotency_keys SET created_at = now() - interval '24 hours 1 second' "
        "WHERE key = 'old'"
    )
    assert await sweep() == {}
    assert [row.key for row in await home.desk.rows(KEYS)] == ["young"]


async def test_workers_that_are_gone_are_forgotten(home: House, sweep: Sweep) -> None:
    await home.desk.execute(
        "INSERT INTO tailrace.workers (name, seen_at, running, concurrency) "
        "VALUES ('gone', now() - interval '61 s', 0, 4), ('there', now() - interval '50 s', 0, 4)"
    )
    assert await sweep() == {}
    assert [row.name for row in await home.desk.rows(WORKERS)] == ["there"]


async def test_what_waits_long_goes_before_what_is_small(home: House, sweep: Sweep) -> None:
    old = await home.desk.waiting(priority=10)
    await home.desk.execute("UPDATE tailrace.queue SET created = now() - interval '61 s'")
    new = await home.desk.waiting(priority=30)
    assert await sweep() == {}
    assert [entry[::3] for entry in await home.desk.entries()] == [(old.id, 100), (new.id, 30)]


async def test_a_failed_one_that_is_tried_again_is_nobodys_loss(home: House, sweep: Sweep) -> None:
    running = await home.desk.running(attempts_until=1)
    ended = await home.desk.ledger.apply(running, failed(running, LOST, None, datetime.now(UTC)))
    assert ended is not None
    await home.desk.execute(LATE)
    assert await sweep() == {}
    assert await home.desk.state(running.id) == "failed"


async def test_many_are_found_in_several_sweeps(home: House) -> None:
    await home.desk.running()
    await home.desk.execute(COPY.format(150))
    await home.desk.execute(LATE)
    counts = [await home.sweep() for _ in range(3)]
    assert counts == [{"lost": 100}, {"lost": 51}, {}]
    assert len(await home.desk.entries()) == 151
