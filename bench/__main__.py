"""``make bench``: starts everything itself, prints one table, writes it as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.service_under_test import Bench, running
from bench.timing import Ratio, command, compare, first_byte, rss_growth, table

ROWS = 1_010_328
MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the result: what, how much, against what, and the target."""

    what: str
    figure: str
    baseline: str
    value: float
    target: float | None
    met: bool | None


def main() -> None:
    options = _options()
    with running(options.folder) as bench:
        chosen = [make for name, make in MEASURES.items() if options.only in name]
        rows = [row for make in chosen for row in make(bench, options.runs)]
    print(table(["what", "measured", "against", "target", "met"], [_cells(row) for row in rows]))
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(
        f"\nMedians of {options.runs} runs in turn, one machine, one run of this command; {machine}."
    )
    options.json.write_text(
        json.dumps(
            {"machine": machine, "runs": options.runs, "rows": [asdict(r) for r in rows]}, indent=1
        )
    )
    print(f"Also in {options.json}.")


def direct(bench: Bench, runs: int) -> Iterator[Row]:
    """CSV and NDJSON over HTTP against psql's COPY of the same SELECT."""
    columns = _columns(bench)
    csv = _psql(bench, f"COPY (SELECT {columns} FROM flights3) TO STDOUT (FORMAT csv, HEADER)")
    yield _row(
        compare(
            "CSV over HTTP",
            _curl(bench, "flights3.csv"),
            csv,
            against="psql COPY CSV",
            runs=runs,
            target=1.10,
        )
    )
    ndjson = _psql(
        bench, f"COPY (SELECT row_to_json(t) FROM (SELECT {columns} FROM flights3) t) TO STDOUT"
    )
    yield _row(
        compare(
            "NDJSON over HTTP",
            _curl(bench, "flights3.ndjson"),
            ndjson,
            against="psql COPY row_to_json",
            runs=runs,
            target=0.55,
        )
    )
    yield _row(
        compare(
            "JSON over HTTP",
            _curl(bench, "flights3.json"),
            ndjson,
            against="psql COPY row_to_json",
            runs=runs,
            target=None,
        )
    )


def compression(bench: Bench, runs: int) -> Iterator[Row]:
    """Compressed CSV against plain CSV, both over HTTP."""
    plain = _curl(bench, "flights3.csv")
    for coding, target in (("zstd", 1.10), ("gzip", 1.25)):
        ours = _curl(bench, f"flights3.csv?compression={coding}")
        yield _row(
            compare(
                f"{coding} CSV over HTTP",
                ours,
                plain,
                against="plain CSV over HTTP",
                runs=runs,
                target=target,
            )
        )


def beginning(bench: Bench, runs: int) -> Iterator[Row]:
    """The time to the first byte of a million rows."""
    seconds = first_byte(f"{bench.base}/v1/rows/flights3.csv", max(runs, 20))
    milliseconds = seconds * 1000
    yield Row(
        "first byte of 1 M rows of CSV",
        f"{milliseconds:.1f} ms",
        "-",
        milliseconds,
        20,
        milliseconds <= 20,
    )


def memory(bench: Bench, runs: int) -> Iterator[Row]:
    """How much the service grows while ten million rows leave."""
    del runs
    _curl(bench, "scores.csv")()
    grown = rss_growth(bench.pid, _curl(bench, "ten_million.csv")) / MEBIBYTE
    yield Row("growth of memory over 10 M rows", f"{grown:.1f} MiB", "idle", grown, 32, grown <= 32)


def naive(bench: Bench, runs: int) -> Iterator[Row]:
    """The tutorial's generator, a row at a time, on a third of the rows."""
    with _tutorial(bench) as url:
        theirs = command("curl", "-sS", "-o", "/dev/null", url)
        ratio = compare(
            "NDJSON over HTTP, 336,776 rows",
            _curl(bench, "flights.ndjson"),
            theirs,
            against="row-by-row generator",
            runs=min(runs, 2),  # each takes most of a minute
            target=None,
        )
    yield _row(ratio)


MEASURES: dict[str, Callable[[Bench, int], Iterator[Row]]] = {
    "direct": direct,
    "compression": compression,
    "first byte": beginning,
    "memory": memory,
    "naive": naive,
}


def _row(ratio: Ratio) -> Row:
    figure = f"{ratio.ours:.2f} s, {ratio.ratio:.2f} x"
    baseline = f"{ratio.baseline_name}: {ratio.baseline:.2f} s"
    met = None if ratio.target is None else ratio.ratio <= ratio.target
    return Row(ratio.name, figure, baseline, ratio.ratio, ratio.target, met)


def _cells(row: Row) -> list[str]:
    target = "-" if row.target is None else f"≤ {row.target:g}"
    return [
        row.what,
        row.figure,
        row.baseline,
        target,
        {True: "yes", False: "no", None: "-"}[row.met],
    ]


def _curl(bench: Bench, path: str) -> Callable[[], float]:
    return command("curl", "-sS", "-f", "-o", "/dev/null", f"{bench.base}/v1/rows/{path}")


def _psql(bench: Bench, statement: str) -> Callable[[], float]:
    return command(str(bench.psql), bench.dsn, "-qc", statement)


def _columns(bench: Bench) -> str:
    ask = (
        "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute "
        "WHERE attrelid = 'flights3'::regclass AND attnum > 0"
    )
    found = subprocess.run(
        [str(bench.psql), bench.dsn, "-Atc", ask], check=True, capture_output=True, text=True
    )
    return found.stdout.strip()


@contextmanager
def _tutorial(bench: Bench) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "bench.tutorial", bench.url, str(port)])
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/flights.ndjson"
    finally:
        process.terminate()
        process.wait()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each, in turn [5]")
    parser.add_argument("--only", default="", help="only measures whose name contains this")
    parser.add_argument(
        "--folder", type=Path, default=Path(".tailrace/bench"), help="data [.tailrace/bench]"
    )
    parser.add_argument(
        "--json", type=Path, default=Path(".tailrace/bench.json"), help="result as JSON"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
