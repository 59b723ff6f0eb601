"""Whether a row costs the same among a hundred thousand and among ten million."""

from __future__ import annotations

from collections.abc import Iterator

from bench.result import Measured, Row
from bench.service_under_test import POWERS, Bench
from bench.timing import SLOW_RUNS, Rounds, Way, curl, repeated

NAMES = {power: f"10^{power}" for power in POWERS}
LEAST, *_, MOST = NAMES.values()
SHORTEST_ROWS = 1_000_000  # of a run; smaller series are downloaded several times
MICRO = 1_000_000


def sizes(bench: Bench, runs: int) -> Iterator[Measured]:
    """The time of a row in the largest series over that in the smallest, lane by lane."""
    for lane, prefix, most in (("COPY", "", SLOW_RUNS), ("rows", "rows_", 1)):
        for suffix in ("csv", "ndjson"):
            ways = (_way(bench, power, f"{prefix}ten_to_{power}.{suffix}") for power in POWERS)
            rounds = Rounds(*ways, runs=min(runs, most))
            yield _row(rounds, f"time of a row, {suffix.upper()}, {lane} lane")


def _way(bench: Bench, power: int, path: str) -> Way:
    times = max(1, SHORTEST_ROWS // 10**power)
    run = repeated(curl(bench.rows(path)), times)
    return Way(NAMES[power], run, times * 10**power, slow=NAMES[power] == MOST)


def _row(rounds: Rounds, what: str) -> Row:
    each = ", ".join(f"{MICRO / rounds.rate(name):.2f}" for name in NAMES.values())
    ratio = rounds.ratio(MOST, LEAST)
    figure = f"{each} µs among {', '.join(NAMES.values())} rows; {ratio:.2f} x"
    return Row(what, figure, f"{LEAST} rows", ratio, 1.1)
