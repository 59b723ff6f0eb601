"""Several server processes on one socket, restarted when they crash."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import structlog

RESTART_SECONDS = 1.0  # between looks at the children, and so between restarts


def supervise(
    count: int, target: Callable[..., None], arguments: tuple[Any, ...], *, stop: Callable[[], None]
) -> None:
    """Run ``count`` processes of ``target`` until SIGTERM or SIGINT, then wait for their drain.

    ``stop`` is called first: what the children share with us is not to outlive them.
    """
    context = multiprocessing.get_context("spawn")
    stopping = threading.Event()
    handled = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: stopping.set()) for number in handled}

    def start() -> BaseProcess:
        child = context.Process(target=_run, args=(target, arguments))
        child.start()
        return child

    children = [start() for _ in range(count)]
    try:
        while not stopping.wait(RESTART_SECONDS):
            for place, child in enumerate(children):
                if child.exitcode is not None:
                    structlog.get_logger("tailrace").error("process ended", exitcode=child.exitcode)
                    children[place] = start()
    finally:
        stop()
        for child in children:
            child.terminate()
        for child in children:
            child.join()
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    target(*arguments)


def _end_with_parent() -> None:
    """An orphan would hold the port, and nobody would restart it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
