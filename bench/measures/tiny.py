"""Many exports of one row: how many a second, and what the record behind each costs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.load import Load
from bench.result import Measured, Row
from bench.rivals import tutorial
from bench.service_under_test import Bench, serve
from bench.tables import FLIGHTS3, own_tables
from bench.timing import Rounds, Way
from service.embedded import EmbeddedPostgres

KEPT, LOST = "own database answers", "own database is away"
HEAD, TUTORIAL = "HEAD", "tutorial, JSON of one row"
CONFIG = """
[sources.main]
url = "{url}"
expose = ["public.flights3"]
max_connections = 16
"""


def tiny(bench: Bench, runs: int) -> Iterator[Measured]:
    """One row by its key on one connection and on sixteen, from a JSON that no cache knows.

    A record cannot be switched off. What it costs is what a service gains whose own database,
    a cluster apart from the source, has gone away: it keeps records in memory, or drops them.
    HEAD is all but the query and the record.
    """
    with ExitStack() as stack:
        config = CONFIG.format(url=bench.url)
        kept = stack.enter_context(EmbeddedPostgres(bench.folder / "records"))
        with_records = stack.enter_context(_served(bench.folder / "kept", kept, config))
        with EmbeddedPostgres(bench.folder / "away") as away:
            without = stack.enter_context(_served(bench.folder / "lost", away, config))
        theirs = stack.enter_context(tutorial(bench))
        query = "/v1/rows/flights3.json?limit=1&id=eq."
        for connections in (1, 16):
            loads = {
                KEPT: Load(f"{with_records}{query}", connections, keys=FLIGHTS3),
                LOST: Load(f"{without}{query}", connections, keys=FLIGHTS3),
                HEAD: Load(f"{with_records}{query}", connections, keys=FLIGHTS3, method="HEAD"),
                TUTORIAL: Load(f"{theirs}/flight?id=", connections, keys=FLIGHTS3),
            }
            yield from _compared(loads, connections, runs)


@contextmanager
def _served(folder: Path, own: EmbeddedPostgres, config: str) -> Iterator[str]:
    asyncio.run(own_tables(own.url))
    with serve(folder, own.url, config) as served:
        yield served.base


def _compared(loads: Mapping[str, Load], connections: int, runs: int) -> Iterator[Row]:
    ways = (Way(name, load.run, 1) for name, load in loads.items())
    rounds = Rounds(*ways, runs=runs)
    what = f"one row by its key, {connections} connection{'s' if connections > 1 else ''}"
    for ours, theirs in ((KEPT, TUTORIAL), (KEPT, LOST), (KEPT, HEAD)):
        times = 1 / rounds.ratio(ours, theirs)
        figure = f"{_told(rounds, loads, ours)}; {times:.2f} x"
        yield Row(what, figure, f"{theirs}: {_told(rounds, loads, theirs)}", times)


def _told(rounds: Rounds, loads: Mapping[str, Load], name: str) -> str:
    load = loads[name]
    latencies = f"p50 {load.percentile(50):.1f} ms, p99 {load.percentile(99):.1f} ms"
    return f"{rounds.rate(name):,.0f}/s, {latencies}"
