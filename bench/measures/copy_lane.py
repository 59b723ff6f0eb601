"""The COPY lane against psql, its compression, its first byte and its memory."""

from __future__ import annotations

from collections.abc import Iterator

from bench.memory import rss_growth
from bench.result import Measured, Row, ratio_row, speeds
from bench.service_under_test import Bench
from bench.tables import FLIGHTS3
from bench.timing import Rounds, Way, curl, first_byte

CSV, NDJSON, JSON = "CSV over HTTP", "NDJSON over HTTP", "JSON over HTTP"
PSQL_CSV, PSQL_JSON = "psql COPY CSV", "psql COPY row_to_json"


def direct(bench: Bench, runs: int) -> Iterator[Measured]:
    """CSV, NDJSON and JSON over HTTP against psql's COPY of the same SELECT."""
    csv, ndjson = psql_ways(bench, "flights3", FLIGHTS3)
    rounds = Rounds(http_way(bench, CSV, "flights3.csv"), csv, runs=runs)
    yield ratio_row(rounds, CSV, CSV, PSQL_CSV, 1.10)
    yield from speeds(rounds, [PSQL_CSV], CSV, format_="CSV", database="PostgreSQL")
    lines, array = (
        http_way(bench, NDJSON, "flights3.ndjson"),
        http_way(bench, JSON, "flights3.json"),
    )
    rounds = Rounds(lines, array, ndjson, runs=runs)
    yield ratio_row(rounds, NDJSON, NDJSON, PSQL_JSON, 0.55)
    yield ratio_row(rounds, JSON, JSON, PSQL_JSON)
    yield from speeds(rounds, [PSQL_JSON], NDJSON, format_="NDJSON", database="PostgreSQL")


def compression(bench: Bench, runs: int) -> Iterator[Measured]:
    """Compressed CSV against plain CSV, both over HTTP."""
    plain, targets = "plain CSV over HTTP", {"zstd": 1.10, "gzip": 1.25}
    ways = [http_way(bench, coding, f"flights3.csv?compression={coding}") for coding in targets]
    rounds = Rounds(http_way(bench, plain, "flights3.csv"), *ways, runs=runs)
    for coding, target in targets.items():
        yield ratio_row(rounds, f"{coding} CSV over HTTP", coding, plain, target)


def beginning(bench: Bench, runs: int) -> Iterator[Measured]:
    """The time to the first byte of a million rows."""
    milliseconds = first_byte(bench.rows("flights3.csv"), max(runs, 10)) * 1000
    what = "first byte of 1 M rows of CSV"
    yield Row(what, f"{milliseconds:.1f} ms", "-", milliseconds, 20)


def memory(bench: Bench, runs: int) -> Iterator[Measured]:
    """How much the service grows while ten million rows leave, or a million the slower way."""
    del runs
    curl(bench.rows("scores.csv"))()
    for lane, name, rows in (("COPY", "ten_to_7", "10 M"), ("rows", "rows_ten_to_6", "1 M")):
        grown = rss_growth(bench.pid, curl(bench.rows(f"{name}.csv")))
        what = f"growth of memory over {rows} rows, {lane} lane"
        yield Row(what, f"{grown:.1f} MiB", "idle", grown, 32)


def http_way(bench: Bench, name: str, path: str, rows: int = FLIGHTS3) -> Way:
    """Tailrace's rows at ``path``."""
    return Way(name, curl(bench.rows(path)), rows)


def psql_ways(bench: Bench, table: str, rows: int) -> tuple[Way, Way]:
    """What PostgreSQL itself offers for CSV and for JSON lines, of the very same SELECT."""
    select = f"SELECT {bench.columns(table)} FROM {table}"
    csv = f"COPY ({select}) TO STDOUT (FORMAT csv, HEADER)"
    ndjson = f"COPY (SELECT row_to_json(t) FROM ({select}) AS t) TO STDOUT"
    return (
        Way(PSQL_CSV, bench.statement(csv), rows),
        Way(PSQL_JSON, bench.statement(ndjson), rows),
    )
