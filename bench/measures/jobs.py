"""Jobs against direct streams, their first byte, and fifty who want the same export at once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from bench.jobs import Jobs, first_byte_since
from bench.measures.copy_lane import http_way
from bench.result import Measured, Row, ratio_row
from bench.service_under_test import Bench
from bench.tables import FLIGHTS3
from bench.timing import FEW_RUNS, Rounds, Way

TABLE = "flights3"
FOLLOWERS = 50
# PostgreSQL's counter of whole reads of the table: each query for an export makes one. A backend
# tells what it has counted some seconds later, or when it ends.
END_IDLE = """
    SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
    WHERE application_name = 'tailrace export' AND state = 'idle'
"""
SCANS = f"SELECT seq_scan FROM pg_stat_user_tables WHERE relname = '{TABLE}'"


def job_against_direct(bench: Bench, runs: int) -> Iterator[Measured]:
    """From the POST to the finished artifact, against a direct stream of the same rows."""
    jobs = Jobs(bench.base)
    for format_ in ("csv", "ndjson"):
        job, direct = f"job, {format_.upper()}", f"direct {format_.upper()}"
        rounds = Rounds(
            Way(job, partial(jobs.make, TABLE, format_, FLIGHTS3), FLIGHTS3),
            http_way(bench, direct, f"{TABLE}.{format_}"),
            runs=runs,
        )
        yield ratio_row(rounds, f"{job}: POST to finished artifact", job, direct, 1.15)


def job_beginning(bench: Bench, runs: int) -> Iterator[Measured]:
    """From the POST to the first byte of the content, beside a direct stream's first byte."""
    jobs, direct = Jobs(bench.base), bench.rows(f"{TABLE}.csv")
    followed, streamed = [], []
    for _ in range(max(runs, 10) + 1):
        followed.append(jobs.first_byte(TABLE))
        streamed.append(first_byte_since(time.perf_counter(), direct))
    ours, theirs = (statistics.median(times[1:]) * 1000 for times in (followed, streamed))
    what = "job, 1 M rows of CSV: POST to the first follower's first byte"
    yield Row(what, f"{ours:.1f} ms", f"direct stream: {theirs:.1f} ms", ours)


def followers(bench: Bench, runs: int) -> Iterator[Measured]:
    """Fifty clients that ask for the same export at once and follow it, beside one alone."""
    one, many = Crowd(bench, 1), Crowd(bench, FOLLOWERS)
    alone, together = "one follower", f"{FOLLOWERS} followers"
    ways = (Way(together, many.run, FLIGHTS3), Way(alone, one.run, FLIGHTS3))
    rounds = Rounds(*ways, runs=min(runs, FEW_RUNS))
    yield ratio_row(rounds, f"{together} of one export, until all have all of it", together, alone)
    made, scans = max(many.made), max(many.scans)
    figure = f"exports {made}, reads of the table {scans}"
    what = f"{FOLLOWERS} requests for one export: database queries"
    yield Row(what, figure, "-", max(made, scans), 1)


class Crowd:
    """``made`` and ``scans`` tell of each run how many exports and how many queries it took."""

    def __init__(self, bench: Bench, size: int) -> None:
        self._bench = bench
        self._jobs = Jobs(bench.base)
        self._size = size
        self.made: list[int] = []
        self.scans: list[int] = []

    def run(self) -> float:
        """The seconds until every client has followed its export to the end."""
        before = self._scans()
        with ThreadPoolExecutor(self._size) as threads:
            started = time.perf_counter()
            asked = [threads.submit(self._follow) for _ in range(self._size)]
            found = [following.result() for following in asked]
            seconds = time.perf_counter() - started
        for export_id, got in found:
            assert got == self._jobs.receipt(export_id), "the bytes are not those of the receipt"
        made = {export_id for export_id, _ in found}
        self.made.append(len(made))
        self.scans.append(self._scans() - before)
        for export_id in made:
            self._jobs.remove(export_id)
        return seconds

    def _follow(self) -> tuple[str, tuple[int, str]]:
        export_id = self._jobs.start(TABLE, fresh=False)
        return export_id, self._jobs.follow(export_id)

    def _scans(self) -> int:
        self._bench.value(END_IDLE)
        return int(self._bench.value(SCANS))
