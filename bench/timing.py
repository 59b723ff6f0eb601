"""Timing whole commands in turn, so that a machine that drifts drifts for both."""

from __future__ import annotations

import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

Run = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Medians in seconds, and the median of the ratios of neighbouring runs."""

    name: str
    ours: float
    baseline: float
    baseline_name: str
    ratio: float
    target: float | None


def compare(
    name: str, ours: Run, baseline: Run, *, against: str, runs: int, target: float | None
) -> Ratio:
    """Run both in turn ``runs`` times, after one warm-up of each."""
    ours(), baseline()
    pairs = [(ours(), baseline()) for _ in range(runs)]
    return Ratio(
        name=name,
        ours=statistics.median(pair[0] for pair in pairs),
        baseline=statistics.median(pair[1] for pair in pairs),
        baseline_name=against,
        ratio=statistics.median(pair[0] / pair[1] for pair in pairs),
        target=target,
    )


def command(*arguments: str) -> Run:
    """A run of a command whose output is thrown away; it has to succeed."""

    def run() -> float:
        started = time.perf_counter()
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started

    return run


def first_byte(url: str, runs: int) -> float:
    """The median of curl's time to the first byte of ``url``, in seconds."""
    ask = ["curl", "-sS", "-o", "/dev/null", "-m", "60", "-w", "%{time_starttransfer}", url]
    times = [
        float(subprocess.run(ask, check=True, capture_output=True, text=True).stdout)
        for _ in range(runs + 1)
    ]
    return statistics.median(times[1:])


def rss_growth(pid: int, run: Run) -> int:
    """By how many bytes the process grows at most, over idle, while ``run`` runs."""
    process = psutil.Process(pid)
    idle = process.memory_info().rss
    seen: list[int] = [idle]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            seen.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run()
    finally:
        done.set()
        watcher.join()
    return max(seen) - idle


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
