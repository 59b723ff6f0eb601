"""Rows of two hundred columns and cells of a million characters, against psql; and the memory."""

from __future__ import annotations

from collections.abc import Iterator

from bench.measures.copy_lane import CSV, NDJSON, http_way, psql_ways
from bench.memory import rss_growth
from bench.result import Measured, Row, ratio_row
from bench.service_under_test import Bench
from bench.tables import LONG, WIDE, WIDE_COLUMNS
from bench.timing import FEW_RUNS, Rounds, curl

SHAPES = (
    ("wide", WIDE, f"{WIDE:,} rows of {WIDE_COLUMNS} columns"),
    ("long", LONG, f"{LONG} cells of 1 MB"),
)


def shapes(bench: Bench, runs: int) -> Iterator[Measured]:
    """The COPY lane and the rows lane, CSV and NDJSON."""
    for table, count, called in SHAPES:
        csv, ndjson = psql_ways(bench, table, count)
        for suffix, ours, psql in (("csv", CSV, csv), ("ndjson", NDJSON, ndjson)):
            lanes = {
                "COPY lane": http_way(bench, f"{ours}, COPY lane", f"{table}.{suffix}", count),
                "rows lane": http_way(bench, f"{ours}, rows lane", f"rows.{table}.{suffix}", count),
            }
            rounds = Rounds(*lanes.values(), psql, runs=min(runs, FEW_RUNS))
            for way in lanes.values():
                yield ratio_row(rounds, f"{way.name}, {called}", way.name, psql.name)
        yield from _growth(bench, table, called)


def _growth(bench: Bench, table: str, called: str) -> Iterator[Row]:
    for lane, prefix in (("COPY", ""), ("rows", "rows.")):
        grown = rss_growth(bench.pid, curl(bench.rows(f"{prefix}{table}.ndjson")))
        what = f"growth of memory over {called}, {lane} lane"
        yield Row(what, f"{grown:.1f} MiB", "idle", grown, 32)
