"""SQLite: text built inside it, and Python's encoder, against Datasette and SQLite's own shell."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from bench.environment import Unavailable
from bench.measures.copy_lane import http_way
from bench.measures.rows_lane import COPY, FEW
from bench.result import Measured, left_out, rate_row, ratio_row, speeds
from bench.rivals import datasette
from bench.service_under_test import Bench, serve
from bench.sqlite_file import sqlite_flights
from bench.tables import FLIGHT_BYTES, FLIGHTS3
from bench.timing import FEW_RUNS, Rounds, Way, command, curl

TEXT, ROWS = "Tailrace, SQLite builds the text", "Tailrace, Python encodes"
SHELL, DATASETTE = "sqlite3's shell, no service between", "Datasette"
CONFIG = """
[sources.main]
expose = ["public.*"]
[sources.file]
url = "sqlite:///{file}"
expose = ["main.*"]
[sources.file_rows]
url = "sqlite:///{file}"
lane = "rows"
expose = ["main.*"]
"""


def sqlite(bench: Bench, runs: int) -> Iterator[Measured]:
    """CSV and NDJSON from one file."""
    file = sqlite_flights(bench).absolute()
    with ExitStack() as stack:
        config = CONFIG.format(file=file)
        served = stack.enter_context(serve(bench.folder / "sqlite", bench.url, config))
        others, missing = _others(bench, stack, file)
        yield from missing
        for suffix in ("csv", "ndjson"):
            ways = _ours(bench, served.base, suffix)
            rounds = Rounds(*ways, *(others if suffix == "csv" else ()), runs=min(runs, FEW_RUNS))
            yield from _compared(rounds, suffix.upper())


def _compared(rounds: Rounds, format_: str) -> Iterator[Measured]:
    yield rate_row(rounds, f"{format_} from SQLite, text against Python", TEXT, ROWS)
    if DATASETTE in rounds.ways:
        yield rate_row(rounds, f"{format_} from SQLite, text", TEXT, DATASETTE)
        yield rate_row(rounds, f"{format_} from SQLite, Python encodes", ROWS, DATASETTE)
    if SHELL in rounds.ways:
        yield ratio_row(rounds, f"{format_} from SQLite, text", TEXT, SHELL)
    names = [name for name in rounds.ways if name != COPY]
    yield from speeds(rounds, names, COPY, format_=format_, database="SQLite")


def _ours(bench: Bench, base: str, suffix: str) -> list[Way]:
    return [
        http_way(bench, COPY, f"flights3.{suffix}"),
        Way(TEXT, curl(f"{base}/v1/rows/file.flights3.{suffix}"), FLIGHTS3),
        Way(ROWS, curl(f"{base}/v1/rows/file_rows.flights3.{suffix}"), FLIGHTS3, slow=True),
    ]


def _others(bench: Bench, stack: ExitStack, file: Path) -> tuple[list[Way], list[Measured]]:
    """The other programs that can be had, and a line for each that cannot."""
    ways: list[Way] = []
    missing: list[Measured] = []
    if shell := shutil.which("sqlite3"):
        arguments = (shell, "-readonly", "-csv", "-header", file, "SELECT * FROM flights3")
        ways.append(Way(SHELL, command(*arguments), FLIGHTS3))
    else:
        missing.append(left_out(SHELL, "sqlite3 is not installed"))
    try:
        url = stack.enter_context(datasette(bench, file))
        asked = f"{url}/flights3.csv?_stream=on&id__lte={FEW}"
        ways.append(Way(DATASETTE, curl(asked, least=FEW * FLIGHT_BYTES), FEW, slow=True))
    except Unavailable as why:
        missing.append(left_out(DATASETTE, why))
    return ways, missing
