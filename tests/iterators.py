"""Exports of iterators, without a service or a socket around them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service.database import utcnow
from service.export.encode import FORMATS, FrameOptions, Rows
from service.export.items import values
from service.export.iterate import AsyncRows, IteratorLane, ThreadRows
from service.export.pipeline import Description, Export, Patience, Stages
from service.slots import Slots
from tests.waiting import eventually

LABELS = ("n", "text")
Made = Callable[[], Iterator[Any]]
KINDS = ("async", "thread")
CLOSE = 0.3  # seconds
PROMPTLY = 5.0  # seconds, far below what the iterators would last
each_kind = pytest.mark.parametrize("kind", KINDS)


def lane_of(kind: str, make: Made, slots: Slots | None = None) -> IteratorLane:
    """The same rows, stepped in a task or in a thread."""
    text, free = values(Rows.NDJSON, LABELS), slots or Slots("tests", 1, 0.1)
    if kind == "thread":
        return ThreadRows("thread", make, text, free)

    async def asynchronous() -> AsyncIterator[Any]:
        iterator = make()
        try:
            for row in iterator:
                yield row
        finally:
            iterator.close()  # type: ignore[attr-defined]  # they are generators

    return AsyncRows("async", asynchronous, text, free)


@asynccontextmanager
async def exporting(lane: IteratorLane, max_duration: float = 60.0) -> AsyncIterator[Export]:
    export = Export(
        Description("an export", "ndjson", "none", utcnow()),
        lane,
        Stages(FORMATS["ndjson"].frame(FrameOptions(LABELS)), trailer=True),
        4096,
        Patience(prime=0.1, max_duration=max_duration, flush=0.05, close=CLOSE),
    )
    try:
        await export.open()
        yield export
    finally:
        await export.close()


async def rest(export: Export, read: bytearray | None = None) -> bytes:
    """Everything to the end; ``read`` has what came if that raises."""
    taken = bytearray() if read is None else read
    while (chunk := await export.read()) is not None:
        taken += chunk
    return bytes(taken)


class Numbers:
    """Rows that count how many were made; ``closed`` is set by the generator's own finally."""

    def __init__(self, rows: int | None = None, width: int = 10) -> None:
        self.made = 0
        self.closed = threading.Event()
        self.thread: threading.Thread | None = None
        self._rows, self._text = rows, "x" * width

    def __call__(self) -> Iterator[tuple[int, str]]:
        self.thread = threading.current_thread()
        numbers = itertools.count() if self._rows is None else range(self._rows)
        try:
            for number in numbers:
                self.made += 1
                yield number, self._text
        finally:
            self.closed.set()


async def no_thread(made: Numbers) -> None:
    async def ended() -> bool:
        return made.thread is threading.main_thread() or not (
            made.thread and made.thread.is_alive()
        )

    await eventually(ended, within=PROMPTLY, what="the thread has ended")
