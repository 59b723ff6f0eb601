"""Thousands of readers of one event stream: how late an event comes, and what a reader costs."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from urllib.request import Request, urlopen

import orjson
import psutil

from bench.environment import Unavailable
from bench.jobs import Jobs
from bench.pulse import Pulse, pulse
from bench.result import Measured, Row, left_out
from bench.rivals import nchan
from bench.service_under_test import Bench, serve
from bench.subscribers import audience, descriptors
from bench.tables import own_tables
from bench.timing import SLOW_RUNS, percentile
from service.database import utcnow
from service.embedded import EmbeddedPostgres
from service.jobs.log import event_data

READERS = 5_000
EVENTS = 10
EVERY = 1.0  # seconds
SETTLED_SECONDS = 1.0  # behind the last connect, until memory is looked at
KIBIBYTE = 1024
WHAT = f"{READERS:,} readers of one event stream, an event a second"
NCHAN = "nginx's nchan"


@dataclass(frozen=True, slots=True)
class Heard:
    """The delays of all events, and the KiB by which the process grew for each reader."""

    delays: list[float]
    memory: float


def events(bench: Bench, runs: int) -> Iterator[Measured]:
    """One process with five thousand readers of one job, beside one worker process of nginx.

    Ours comes by way of the log of events in PostgreSQL, nchan's from its own memory.
    """
    ours: list[Heard] = []
    theirs: list[Heard] = []
    without = ""
    try:
        with descriptors(READERS), ExitStack() as stack:
            own = stack.enter_context(EmbeddedPostgres(bench.folder / "records"))
            asyncio.run(own_tables(own.url))
            told = stack.enter_context(pulse(own.url))
            for _ in range(min(runs, SLOW_RUNS)):
                ours.append(_tailrace(bench, own.url, told))
                try:
                    theirs.append(_nchan(bench, told))
                except Unavailable as why:
                    without = str(why)
    except Unavailable as why:
        yield left_out(WHAT, why)
        return
    if not theirs:
        yield left_out(NCHAN, without)
    delay = _delays(ours, 99)
    yield Row(f"{WHAT}: delay", _late(ours), _beside(theirs, _late), delay, 300)
    memory = _memory(ours)
    yield Row(f"{WHAT}: memory each", _grown(ours), _beside(theirs, _grown), memory, 20)


def _tailrace(bench: Bench, database_url: str, told: Pulse) -> Heard:
    with serve(bench.folder / "readers", database_url, "", "--no-worker") as served:
        url = Jobs(served.base).events(told.id)
        return _heard(url, served.process.pid, lambda: told.beat(EVENTS, EVERY))


def _nchan(bench: Bench, told: Pulse) -> Heard:
    with nchan(bench) as server:
        publish = f"{server.base}/publish"
        return _heard(f"{server.base}/events", server.worker, lambda: _publish(publish, told))


def _publish(url: str, told: Pulse) -> None:
    """The same data as our events have, at the same times."""
    due = time.monotonic()
    for number in range(EVENTS):
        record = replace(told.record, rows=number, bytes=time.monotonic_ns())
        data = orjson.dumps(event_data("progress", record, utcnow()))
        headers = {"Content-Type": "application/json", "X-EventSource-Event": "progress"}
        with urlopen(Request(url, data, headers), timeout=30) as answer:
            answer.read()
        due += EVERY
        time.sleep(max(0.0, due - time.monotonic()))


def _heard(url: str, pid: int, tell: Callable[[], None]) -> Heard:
    process = psutil.Process(pid)
    before = process.memory_info().rss
    with audience(url, READERS) as readers:
        time.sleep(SETTLED_SECONDS)
        tell()
        grown = process.memory_info().rss - before
        delays = readers.leave()
    assert len(delays) == READERS * EVENTS, f"{len(delays)} events came"
    return Heard(delays, grown / KIBIBYTE / READERS)


def _delays(heard: list[Heard], share: int) -> float:
    """A percentile of each run's delays, in milliseconds: the median of the runs."""
    return statistics.median(percentile(run.delays, share) for run in heard) * 1000


def _memory(heard: list[Heard]) -> float:
    return statistics.median(run.memory for run in heard)


def _late(heard: list[Heard]) -> str:
    return f"p50 {_delays(heard, 50):.0f} ms, p99 {_delays(heard, 99):.0f} ms"


def _grown(heard: list[Heard]) -> str:
    return f"{_memory(heard):.1f} KiB"


def _beside(theirs: list[Heard], told: Callable[[list[Heard]], str]) -> str:
    return f"{NCHAN}: {told(theirs)}" if theirs else "-"
