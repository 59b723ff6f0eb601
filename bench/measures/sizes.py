"""Whether a row costs the same among a hundred thousand and among ten million."""

from __future__ import annotations

from collections.abc import Iterator

from bench.measures.copy_lane import http_way
from bench.result import Measured, Row
from bench.service_under_test import POWERS, Bench
from bench.timing import SLOW_RUNS, Rounds

NAMES = {power: f"10^{power} rows" for power in POWERS}
LEAST, *_, MOST = NAMES.values()
MICRO = 1_000_000


def sizes(bench: Bench, runs: int) -> Iterator[Measured]:
    """The time of a row in the largest series over that in the smallest, lane by lane."""
    for lane, prefix, most in (("COPY", "", SLOW_RUNS), ("rows", "rows_", 1)):
        for suffix in ("csv", "ndjson"):
            ways = [
                http_way(
                    bench, name, f"{prefix}ten_to_{power}.{suffix}", 10**power, slow=name == MOST
                )
                for power, name in NAMES.items()
            ]
            rounds = Rounds(*ways, runs=min(runs, most))
            yield _row(rounds, f"time of a row, {suffix.upper()}, {lane} lane")


def _row(rounds: Rounds, what: str) -> Row:
    each = ", ".join(f"{MICRO / rounds.rate(name):.2f}" for name in NAMES.values())
    ratio = rounds.ratio(MOST, LEAST)
    return Row(
        what, f"{each} µs among {', '.join(NAMES.values())}; {ratio:.2f} x", LEAST, ratio, 1.1
    )
