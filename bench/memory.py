"""The memory of a process while something runs."""

from __future__ import annotations

import threading

import psutil

from bench.timing import Run

MEBIBYTE = 1024 * 1024
LOOK_SECONDS = 0.02


def rss_growth(pid: int, run: Run) -> float:
    """By how many MiB the process grows at most, over idle, while ``run`` runs."""
    process = psutil.Process(pid)
    idle = process.memory_info().rss
    seen: list[int] = [idle]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(LOOK_SECONDS):
            seen.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run()
    finally:
        done.set()
        watcher.join()
    return (max(seen) - idle) / MEBIBYTE
