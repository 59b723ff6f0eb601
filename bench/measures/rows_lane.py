"""The rows lane on PostgreSQL against data7 and the tutorial, and the COPY lane beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from bench.environment import Unavailable
from bench.measures.copy_lane import http_way
from bench.result import Measured, left_out, rate_row, speeds
from bench.rivals import data7, tutorial
from bench.service_under_test import Bench
from bench.tables import FLIGHT_BYTES, FLIGHTS
from bench.timing import FEW_RUNS, Rounds, Way, curl

COPY, ROWS = "Tailrace, COPY lane", "Tailrace, rows lane"
DATA7, TUTORIAL = "data7", "tutorial's generator"
FEW = 100_000  # rows for what needs half a minute for a million


def rows_lane(bench: Bench, runs: int) -> Iterator[Measured]:
    """CSV against data7, NDJSON against the tutorial's generator."""
    with ExitStack() as stack:
        ways = _ours(bench, "csv")
        try:
            url = stack.enter_context(data7(bench))
            ways.append(
                Way(
                    DATA7,
                    curl(f"{url}/flights.csv", least=FLIGHTS * FLIGHT_BYTES),
                    FLIGHTS,
                    slow=True,
                )
            )
        except Unavailable as why:
            yield left_out(DATA7, why)
        rounds = Rounds(*ways, runs=min(runs, FEW_RUNS))
        if DATA7 in rounds.ways:
            yield rate_row(rounds, "CSV, rows lane", ROWS, DATA7, 3)
    yield from speeds(rounds, rounds.ways, COPY, format_="CSV", database="PostgreSQL")
    with tutorial(bench) as url:
        slow = Way(
            TUTORIAL,
            curl(f"{url}/flights.ndjson?rows={FEW}", least=FEW * FLIGHT_BYTES),
            FEW,
            slow=True,
        )
        rounds = Rounds(*_ours(bench, "ndjson"), slow, runs=min(runs, FEW_RUNS))
    yield rate_row(rounds, "NDJSON, rows lane", ROWS, TUTORIAL)
    yield from speeds(rounds, rounds.ways, COPY, format_="NDJSON", database="PostgreSQL")


def _ours(bench: Bench, suffix: str) -> list[Way]:
    return [
        http_way(bench, COPY, f"flights.{suffix}", FLIGHTS),
        http_way(bench, ROWS, f"rows.flights.{suffix}", FLIGHTS),
    ]
