"""Timing ways in turn, so that a machine that drifts drifts for all of them."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Run = Callable[[], float]

FEW_RUNS = 3  # where a round takes a quarter of a minute
SLOW_RUNS = 2  # of what takes most of a minute


@dataclass(frozen=True, slots=True)
class Way:
    """One way for rows to leave: ``run`` gives the seconds in which ``rows`` of them did.

    A slow way runs in the first rounds only, and is not warmed up.
    """

    name: str
    run: Run
    rows: int
    slow: bool = False


class Rounds:
    """Every way once a round: medians in seconds, and of the ratios of neighbouring runs."""

    def __init__(self, *ways: Way, runs: int) -> None:
        self.ways = {way.name: way for way in ways}
        for way in ways:
            if not way.slow:
                way.run()
        self._seconds = [_round(ways, number) for number in range(runs)]

    def seconds(self, name: str) -> float:
        """The median time of one run."""
        return statistics.median(round_[name] for round_ in self._seconds if name in round_)

    def rate(self, name: str) -> float:
        """Rows a second."""
        return self.ways[name].rows / self.seconds(name)

    def ratio(self, ours: str, theirs: str) -> float:
        """How many times as long a row takes one way as the other."""
        rows = self.ways[theirs].rows / self.ways[ours].rows
        return rows * statistics.median(
            round_[ours] / round_[theirs] for round_ in self._seconds if {ours, theirs} <= {*round_}
        )


def _round(ways: Sequence[Way], number: int) -> dict[str, float]:
    return {way.name: way.run() for way in ways if number < SLOW_RUNS or not way.slow}


def command(*arguments: str | Path) -> Run:
    """A run of a command whose output is thrown away; it has to succeed."""

    def run() -> float:
        started = time.perf_counter()
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started

    return run


def repeated(run: Run, times: int) -> Run:
    """``run`` several times as one, where a single one is too short to be told from noise."""
    return lambda: sum(run() for _ in range(times))


def curl(url: str, *, least: int = 1) -> Run:
    """A download that is thrown away; one that breaks, or is shorter than ``least`` bytes, fails.

    Not every service breaks a stream that went wrong: some write the error and end it well.
    """
    ask = ["curl", "-sS", "-f", "-o", "/dev/null", "-w", "%{size_download}", url]

    def run() -> float:
        started = time.perf_counter()
        done = subprocess.run(ask, check=True, stdout=subprocess.PIPE)
        seconds = time.perf_counter() - started
        assert int(done.stdout) >= least, f"{url} gave {done.stdout.decode()} bytes only"
        return seconds

    return run


def percentile(values: Sequence[float], share: int) -> float:
    """The least value that ``share`` per cent of them do not exceed."""
    return statistics.quantiles(values, n=100, method="inclusive")[share - 1]


def percentiles(seconds: Sequence[float]) -> str:
    """The middle of delays and the worst hundredth, for people."""
    p50, p99 = (percentile(seconds, share) * 1000 for share in (50, 99))
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def first_byte(url: str, runs: int) -> float:
    """The median of curl's time to the first byte of ``url``, in seconds."""
    ask = ["curl", "-sS", "-f", "-o", "/dev/null", "-m", "60", "-w", "%{time_starttransfer}", url]
    times = [
        float(subprocess.run(ask, check=True, capture_output=True, text=True).stdout)
        for _ in range(runs + 1)
    ]
    return statistics.median(times[1:])
