"""Services on one data directory, one after the other: the next one starts where one has ended."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from tests.serving import Served, serving
from tests.session import Session
from tests.waiting import wait_until
from tests.workers import SEEN

WORKER_SECONDS = 60


class Line:
    """Each serves until it is ended; its worker is at work."""

    def __init__(
        self,
        folder: Path,
        url: str,
        database: Session,
        *,
        config: str,
        settings: Mapping[str, str],
        stack: ExitStack,
    ) -> None:
        self._folder, self._url, self._database = folder, url, database
        self._config, self._settings = config, settings
        self._stack = stack
        self._served = self._next()

    @property
    def served(self) -> Served:
        """The one that serves; a new one where a test has left none behind."""
        if self._served.process.poll() is not None:
            self._served = self._next()
        return self._served

    def end(self, number: signal.Signals) -> tuple[int, float]:
        """Send a signal: the exit code, and how many seconds it took."""
        began = time.monotonic()
        code = self._served.stop(number)
        return code, time.monotonic() - began

    def next(self) -> Served:
        """Start the next one, where one has ended."""
        self._served = self._next()
        return self._served

    def worker(self) -> int:
        """The process id of the worker that the service has started."""
        return self._worker_of(self._served)

    def _worker_of(self, served: Served) -> int:
        """0 until it is at work."""
        children = psutil.Process(served.process.pid).children()
        there = [child.pid for child in children if self._database.value(SEEN, child.pid)]
        return there[0] if there else 0

    def _next(self) -> Served:
        served = self._stack.enter_context(
            serving(self._folder, self._url, config=self._config, **self._settings)  # type: ignore[arg-type]  # none of them is its "arguments"
        )
        wait_until(
            lambda: self._worker_of(served), within=WORKER_SECONDS, what="its worker is at work"
        )
        return served


@contextmanager
def line_of(
    folder: Path, url: str, database: Session, *, config: str, settings: Mapping[str, str]
) -> Iterator[Line]:
    with ExitStack() as stack:
        yield Line(folder, url, database, config=config, settings=settings, stack=stack)
