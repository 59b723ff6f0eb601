"""How long others wait while an export runs flat out: readers of events, and ``/livez``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bench.jobs import Jobs
from bench.probe import meanwhile, probing
from bench.pulse import Pulse, pulse
from bench.result import Measured, Row
from bench.service_under_test import Bench
from bench.subscribers import audience
from bench.tables import FLIGHTS3
from bench.timing import SLOW_RUNS, curl, percentile, percentiles

EVENTS, EVERY = 40, 0.25  # as often as a job tells at most: a percentile wants many
IDLE = "nothing else"
JOB, DIRECT = "a job, CSV", "a direct stream, CSV"


@dataclass(frozen=True, slots=True)
class Waited:
    """Seconds: from an event to its reader, and for an answer of ``/livez``."""

    events: list[float] = field(default_factory=list)
    livez: list[float] = field(default_factory=list)


def beside_an_export(bench: Bench, runs: int) -> Iterator[Measured]:
    """Another job's events and ``/livez`` while exports of a million rows follow each other."""
    jobs = Jobs(bench.base)
    works: dict[str, Callable[[], object] | None] = {
        IDLE: None,
        JOB: lambda: jobs.make("flights3", "csv", FLIGHTS3),
        DIRECT: curl(bench.rows("flights3.csv")),
    }
    waited = {name: Waited() for name in works}
    with pulse(bench.url) as told:
        for _ in range(min(runs, SLOW_RUNS)):
            for name, work in works.items():
                _listen(bench, jobs, told, work, waited[name])
    idle = waited[IDLE]
    for name in (JOB, DIRECT):
        target = 50 if name == JOB else None
        yield _row(f"delay of an event beside {name}", waited[name].events, idle.events, target)
        yield _row(f"/livez beside {name}", waited[name].livez, idle.livez, target)


def _listen(
    bench: Bench, jobs: Jobs, told: Pulse, work: Callable[[], object] | None, waited: Waited
) -> None:
    with audience(jobs.events(told.id), 1) as reader, meanwhile(work):
        with probing(f"{bench.base}/livez", waited.livez):
            told.beat(EVENTS, EVERY)
        delays = reader.leave()
    assert len(delays) == EVENTS, f"{len(delays)} events came"
    waited.events.extend(delays)


def _row(what: str, ours: list[float], idle: list[float], target: float | None) -> Row:
    value = percentile(ours, 99) * 1000
    return Row(what, percentiles(ours), f"{IDLE}: {percentiles(idle)}", value, target)
