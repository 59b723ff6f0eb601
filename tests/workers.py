"""Workers beside a service, each a ``tailrace worker``: to be killed, stopped and replaced."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.serving import Served
from tests.session import Session
from tests.waiting import wait_until

START_SECONDS = 60
STOP_SECONDS = 40
SEEN = "SELECT count(*) FROM tailrace.workers WHERE name LIKE '%:' || $1::int || ':%'"
LATELY = f"{SEEN} AND seen_at > $2::text::timestamptz"


class Crew:
    """The workers of one service, by their process ids."""

    def __init__(self, served: Served, database: Session) -> None:
        self._served = served
        self._database = database
        self._workers: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def pids(self) -> list[int]:
        return list(self._workers)

    def hire(self) -> int:
        """Start one more; gives its process id at once."""
        folder = self._served.log.parent
        options = ("--config", str(folder / "tailrace.toml"), "--data-dir", str(folder / "data"))
        with (folder / "workers.log").open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "service", "worker", *options],
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=self._served.environment,
            )
        self._workers[process.pid] = process
        return process.pid

    def ready(self) -> None:
        """Wait until all are at work."""
        for pid in self._workers:
            wait_until(
                lambda pid=pid: self._database.value(SEEN, pid),  # type: ignore[misc]  # mypy cannot infer a lambda with a default
                within=START_SECONDS,
                what=f"the worker {pid} is there",
            )

    def tell(self, pid: int, number: signal.Signals) -> None:
        self._workers[pid].send_signal(number)

    def kill(self, pid: int) -> None:
        """kill -9; returns when it is gone."""
        process = self._workers.pop(pid)
        process.kill()
        process.wait(STOP_SECONDS)

    def end(self, pid: int) -> int:
        """SIGTERM, and its exit code."""
        process = self._workers.pop(pid)
        process.send_signal(signal.SIGTERM)
        return process.wait(STOP_SECONDS)

    def awake(self, pid: int, since: str) -> bool:
        """Whether it has told of itself since then, which it does behind what it has to hear."""
        return bool(self._database.value(LATELY, pid, since))

    def close(self) -> None:
        for process in self._workers.values():
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
        for process in self._workers.values():
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


@contextmanager
def crew_of(served: Served, database: Session, count: int) -> Iterator[Crew]:
    """That many workers, which are at work."""
    crew = Crew(served, database)
    try:
        for _ in range(count):
            crew.hire()
        crew.ready()
        yield crew
    finally:
        crew.close()


def now(database: Session) -> str:
    """The database's clock."""
    return str(database.value("SELECT clock_timestamp()::text"))


def open_artifacts(pid: int) -> list[str]:
    """The artifacts that a process has open, unlinked ones included."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(link.readlink()))
    return [target for target in found if "/artifacts/" in target]
