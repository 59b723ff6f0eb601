"""Two hundred exports at once: whether their progress is what keeps the database busy."""

from __future__ import annotations

import asyncio
import shutil
import statistics
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import asyncpg

from bench.jobs import Jobs
from bench.pulse import NOBODYS
from bench.result import Measured, Row, rate_row
from bench.roomy import Postmaster, RoomyPostgres, seconds_of
from bench.service_under_test import Bench, serve
from bench.tables import own_tables
from bench.timing import SLOW_RUNS, Rounds, Way, percentile
from tests.job_desk import desk
from tests.postgres import libpq_url, run_sql
from tests.waiting import eventually

EXPORTS, FEW = 200, 4
ASKING = 8  # clients that ask for them
ALONE = 100  # beats that nothing disturbs
PATIENCE = 120  # seconds

# Every export's statement waits at this lock before its first row, so that all begin at once.
# The planner does not ask for it, so that no POST waits.
GATE = 2_013
OPEN = f"(SELECT pg_advisory_xact_lock_shared({GATE})) IS NOT NULL"
FAST_ROWS, SLOW_ROWS = 20_000, 10_000
SLOW_PART, PAUSE = 400, 0.2  # rows between two pauses, and seconds: five of them in all
PAUSING = f"CASE WHEN i % {SLOW_PART} = 0 THEN pg_sleep({PAUSE}) IS NOT NULL ELSE true END"
SERIES = """
[datasets.{name}]
sql = '''
    SELECT i AS id, 'name ' || i AS name, i % 1000 / 10.0 AS score
    FROM (SELECT generate_series(1, {rows}) AS i) AS s WHERE {where}
'''
"""
CONFIG = "".join(
    (
        f"[sources.main]\nmax_connections = {EXPORTS}\nmax_jobs = {EXPORTS}\n",
        SERIES.format(name="fast", rows=FAST_ROWS, where=OPEN),
        SERIES.format(name="slow", rows=SLOW_ROWS, where=f"{OPEN} AND {PAUSING}"),
    )
)
SETTINGS = {"limits__prime_timeout": f"{PATIENCE}s", "limits__max_queued_per_caller": "1000"}

PREPARE = """
    TRUNCATE tailrace.exports, tailrace.export_events, tailrace.queue;
    ALTER DATABASE tailrace SET log_min_duration_statement = 0;
    ALTER DATABASE tailrace SET log_parameter_max_length = 0;
"""
WAITING = f"SELECT count(*) FROM pg_locks WHERE objid = {GATE} AND NOT granted"
ENDED = "SELECT count(*) FROM tailrace.exports WHERE state NOT IN ('queued', 'running')"
MADE = "SELECT count(*) FROM tailrace.exports WHERE state = 'succeeded' AND rows = $1"
EVENTS = "SELECT count(*) FROM tailrace.export_events WHERE name = 'progress'"
OUR_BACKENDS = """
    SELECT pid FROM pg_stat_activity
    WHERE application_name IN ('tailrace service', 'tailrace listener')
"""


@dataclass(frozen=True, slots=True)
class Passed:
    """A run: progress events, milliseconds of each beat, CPU seconds of the database.

    ``ours`` are those of its backends that work on Tailrace's own tables.
    """

    seconds: float
    events: int
    beats: list[float]
    ours: float
    all: float


class Crowd:
    """Runs of ``EXPORTS`` exports, ``at_once`` of them at a time."""

    def __init__(self, bench: Bench, own: RoomyPostgres, dataset: str, at_once: int) -> None:
        self.passed: list[Passed] = []
        self._own = own
        self._dataset = dataset
        self._rows = {"fast": FAST_ROWS, "slow": SLOW_ROWS}[dataset]
        self._at_once = at_once
        self._folder = bench.folder / "crowd"
        self._postmaster = Postmaster(self._folder)

    def run(self) -> float:
        """The seconds from the moment when the first may go on to the end of the last."""
        run_sql(self._own.url, PREPARE)
        settings = {**SETTINGS, "worker__concurrency": str(self._at_once)}
        shutil.rmtree(self._folder / "service", ignore_errors=True)
        with serve(self._folder / "service", self._own.url, CONFIG, **settings) as served:
            self.passed.append(asyncio.run(self._passed(Jobs(served.base))))
        return self.passed[-1].seconds

    def alone(self) -> list[float]:
        """Milliseconds of the statement for all of them while nothing else goes on."""
        run_sql(self._own.url, PREPARE)
        logged = self._postmaster.said()
        asyncio.run(_beat(self._own.url))
        return self._postmaster.beats(logged)

    async def _passed(self, jobs: Jobs) -> Passed:
        connection = await asyncpg.connect(libpq_url(self._own.url))
        try:
            await connection.execute(f"SELECT pg_advisory_lock({GATE})")
            await asyncio.to_thread(self._ask, jobs)
            await _until(connection, WAITING, self._at_once)
            return await self._open_gate(connection)
        finally:
            await connection.close()

    def _ask(self, jobs: Jobs) -> None:
        # The same request again would have to wait until the one before is entered.
        with ThreadPoolExecutor(ASKING) as threads:
            list(
                threads.map(
                    lambda number: jobs.start(self._dataset, filename=f"{number}.csv"),
                    range(EXPORTS),
                )
            )

    async def _open_gate(self, connection: asyncpg.Connection) -> Passed:
        logged, all_before = self._postmaster.said(), self._postmaster.seconds()
        ours, events = await _used(connection), await connection.fetchval(EVENTS)
        started = time.perf_counter()
        await connection.execute(f"SELECT pg_advisory_unlock({GATE})")
        await _until(connection, ENDED, EXPORTS)
        seconds = time.perf_counter() - started
        made = await connection.fetchval(MADE, self._rows)
        assert made == EXPORTS, f"{made} exports succeeded"
        used = await _used(connection)
        return Passed(
            seconds,
            await connection.fetchval(EVENTS) - events,
            self._postmaster.beats(logged),
            sum(now - ours.get(pid, 0.0) for pid, now in used.items()),
            self._postmaster.seconds() - all_before,
        )


def crowd(bench: Bench, runs: int) -> Iterator[Measured]:
    """Two hundred at once beside four at once, and the statement that tells of their progress.

    Flat out they want all of the machine; the slow ones leave some, and move between any two
    beats.
    """
    runs = min(runs, SLOW_RUNS)
    with RoomyPostgres(bench.folder / "crowd") as own:
        asyncio.run(own_tables(own.url))
        many, few = (Crowd(bench, own, "fast", at_once) for at_once in (EXPORTS, FEW))
        slow = Crowd(bench, own, "slow", EXPORTS)
        ours, theirs = f"{EXPORTS} at once", f"{FEW} at once"
        ways = ((ours, many), (theirs, few))
        rounds = Rounds(
            *(Way(name, it.run, EXPORTS * FAST_ROWS, slow=True) for name, it in ways), runs=runs
        )
        for _ in range(runs):
            slow.run()
        alone = slow.alone()
    what = f"{EXPORTS} exports of {FAST_ROWS:,} rows, flat out"
    yield rate_row(rounds, what, ours, theirs)
    yield _share(f"{what}: our tables' part of the database's CPU", many, theirs, few)
    yield _progress(slow, alone)


def _share(what: str, many: Crowd, theirs: str, few: Crowd) -> Row:
    ours, others = (
        statistics.median(run.ours / run.all for run in crowd.passed) for crowd in (many, few)
    )
    return Row(what, f"{ours:.0%}", f"{theirs}: {others:.0%}", ours)


def _progress(slow: Crowd, alone: list[float]) -> Row:
    beats = [milliseconds for run in slow.passed for milliseconds in run.beats]
    seconds, events, ours = (
        sum(getattr(run, name) for run in slow.passed) for name in ("seconds", "events", "ours")
    )
    figure = (
        f"{_told(beats)}; {len(beats) / seconds:.1f}/s for {events / seconds:.0f} events/s, "
        f"{ours / seconds:.0%} of a core"
    )
    what = f"{EXPORTS} slow exports at once: the statement of their progress"
    return Row(what, figure, f"nothing else: {_told(alone)}", percentile(beats, 99))


async def _until(connection: asyncpg.Connection, count: str, wanted: int) -> None:
    async def reached() -> bool:
        return bool(await connection.fetchval(count) == wanted)

    await eventually(reached, within=PATIENCE, what=f"{wanted}: {count}")


async def _used(connection: asyncpg.Connection) -> Mapping[int, float]:
    """CPU seconds so far of each backend that works on our own tables."""
    ids = [record["pid"] for record in await connection.fetch(OUR_BACKENDS)]
    return {pid: seconds_of(pid) for pid in ids}


async def _beat(database_url: str) -> None:
    async with desk(database_url) as at:
        records = [await at.running(source=NOBODYS) for _ in range(EXPORTS)]
        for _ in range(ALONE):
            kept, _ = await at.beat(*records)
            assert len(kept) == EXPORTS


def _told(milliseconds: list[float]) -> str:
    p50, p99 = (percentile(milliseconds, share) for share in (50, 99))
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"
