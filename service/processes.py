"""Processes of ours: started together, started again when they die, ended with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

import structlog

LOOK_SECONDS = 1.0  # between looks at children that nobody hears of
FIRST_PAUSE = 0.1  # seconds before the first restart; doubled before each further one
LONGEST_PAUSE = 30.0
HEALTHY_SECONDS = 60.0  # a child that has lived that long begins with the first pause again


@dataclass(frozen=True, slots=True)
class Job:
    """What a child runs; ``target`` is a function of a module, since children are spawned."""

    name: str
    target: Callable[..., None]
    arguments: tuple[Any, ...]


class Child:
    """One process and its successors."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.process: BaseProcess | None = None
        self.due = 0.0  # monotonic time of the next start
        self._started = 0.0
        self._pause = FIRST_PAUSE

    def start(self, now: float) -> None:
        context = multiprocessing.get_context("spawn")
        arguments = (self.job.target, self.job.arguments)
        self.process = context.Process(target=_run, args=arguments, name=self.job.name)
        self.process.start()
        self._started = now

    def look(self, now: float) -> None:
        """Notice its end, and start it again when that is due."""
        if self.process is not None and self.process.exitcode is not None:
            structlog.get_logger("tailrace").error(
                "process ended", process=self.job.name, exitcode=self.process.exitcode
            )
            self.process.close()
            self.process = None
            if now - self._started > HEALTHY_SECONDS:
                self._pause = FIRST_PAUSE
            self.due = now + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        if self.process is None and now >= self.due:
            self.start(now)


class Children:
    """``watch`` restarts them until ``stop``, which tells them to end and waits."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._children = [Child(job) for job in jobs]
        self._stopping = threading.Event()
        self._looking = threading.Lock()

    def start(self) -> None:
        for child in self._children:
            child.start(time.monotonic())

    def watch(self) -> None:
        """Start those again that die (blocking, until ``stop``)."""
        while not self._stopping.is_set():
            running = [child.process for child in self._children if child.process is not None]
            now = time.monotonic()
            due = [child.due - now for child in self._children if child.process is None]
            pause = max(0.0, min([LOOK_SECONDS, *due]))
            if running:
                wait([process.sentinel for process in running], timeout=pause)
            else:
                self._stopping.wait(pause)
            with self._looking:
                for child in self._children if not self._stopping.is_set() else ():
                    child.look(time.monotonic())

    def terminate(self) -> None:
        """Tell all to end, and start none again; returns at once."""
        self._stopping.set()
        with self._looking:
            for child in self._children:
                if child.process is not None:
                    child.process.terminate()

    def join(self) -> None:
        """Wait for their ends."""
        for child in self._children:
            if child.process is not None:
                child.process.join()


def supervise(jobs: Sequence[Job], *, stop: Callable[[], None]) -> None:
    """Run ``jobs`` until SIGTERM or SIGINT, then wait for their drain.

    ``stop`` is called first: what the children share with us is not to outlive them.
    """
    children = Children(jobs)
    stopping = threading.Event()
    handled = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: stopping.set()) for number in handled}
    children.start()
    threading.Thread(target=children.watch, daemon=True).start()
    try:
        while not stopping.wait(LOOK_SECONDS):
            pass
    finally:
        stop()
        children.terminate()
        children.join()
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    target(*arguments)


def _end_with_parent() -> None:
    """The pipe to our parent is closed: an orphan would hold the port, and nobody restarts it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
