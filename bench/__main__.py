"""``make bench``: starts everything itself, prints two tables, writes them as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

from bench.measures import MEASURES
from bench.result import ROW_HEADER, SPEED_HEADER, Measured, Row, Speed, as_json, table
from bench.service_under_test import Bench, running


def main() -> None:
    options = _options()
    measured: list[Measured] = []
    try:
        # Resolved, since some of the programs are started in folders of their own.
        with running(options.folder.resolve()) as bench:
            for name in MEASURES:
                if options.only in name:
                    measured += _measure(bench, name, options.runs)
    finally:
        _print(measured)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(f"\nMedians of {options.runs} runs in turn, slow ones of 2, one machine; {machine}.")
    result = {"machine": machine, "runs": options.runs, "rows": [as_json(it) for it in measured]}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1))
    print(f"Also in {options.json}.")


def _measure(bench: Bench, name: str, runs: int) -> list[Measured]:
    started = time.monotonic()
    print(f"{name} … ", end="", flush=True)
    found = list(MEASURES[name](bench, runs))
    print(f"{time.monotonic() - started:.0f} s")
    return found


def _print(measured: list[Measured]) -> None:
    rows = [item.cells() for item in measured if isinstance(item, Row)]
    print("\n" + table(ROW_HEADER, rows))
    fastest_first = sorted((item for item in measured if isinstance(item, Speed)), key=Speed.order)
    if fastest_first:
        print("\n" + table(SPEED_HEADER, [speed.cells() for speed in fastest_first]))


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
