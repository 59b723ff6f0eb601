"""The iterator lanes: rows that Python code yields, asynchronously or in a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from service.errors import TailraceError
from service.export.held import Held
from service.export.items import RowText
from service.export.lane import Reading, Sink
from service.slots import Slots

SLICE = 0.005  # seconds after which an iterator that never waits lets others run
NOTHING_LEFT = "The iterator was cancelled from within."


class IteratorLane(ABC):
    """What both have in common: each reading calls ``make`` once, and closes what it gave.

    ``name`` stands in the log, the metrics and the record; ``slots`` bounds how many run at once.
    """

    query_sha256 = ""

    def __init__(self, name: str, make: Callable[[], Any], text: RowText, slots: Slots) -> None:
        self.name = name
        self._make = make
        self._text = text
        self._slots = slots

    @property
    def slots(self) -> Slots:
        return self._slots

    @asynccontextmanager
    async def reading(self, *, max_seconds: float, lock_seconds: float) -> AsyncIterator[Reading]:
        del max_seconds, lock_seconds  # nothing here can be told of them
        let_go = threading.Event()
        yield Reading(None, partial(self._carry, let_go), let_go.set)

    @abstractmethod
    def _begin(self) -> tuple[Held, asyncio.Future[None], Callable[[], object]]:
        """What it fills, the end of that, and what makes it end soon."""

    async def _carry(self, let_go: threading.Event, sink: Sink) -> int:
        held, ending, stop = self._begin()
        rows = 0
        try:
            while batch := await held.take():
                await sink(self._text.encode(batch))
                rows += len(batch)
        finally:
            stop()
            await _ended(ending, let_go)
        return rows


class AsyncRows(IteratorLane):
    """Rows of an asynchronous iterator; cancelled and closed when nobody reads it any more.

    A step that blocks blocks the whole process: what cannot await belongs into ThreadRows.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], AsyncIterable[Any]],
        text: RowText,
        slots: Slots,
    ) -> None:
        super().__init__(name, make, text, slots)

    def _begin(self) -> tuple[Held, asyncio.Future[None], Callable[[], object]]:
        room = asyncio.Event()
        held = Held(room)
        filling = asyncio.create_task(self._fill(held, room), name=f"rows of {self.name}")
        return held, filling, filling.cancel

    async def _fill(self, held: Held, room: asyncio.Event) -> None:
        failure: Exception | None = TailraceError(NOTHING_LEFT)
        try:
            await self._step(held, room)
            failure = None
        except Exception as error:  # noqa: BLE001 - whoever takes the rows raises it
            failure = error
        finally:
            held.end(failure)

    async def _step(self, held: Held, room: asyncio.Event) -> None:
        iterator = aiter(self._make())
        until = time.monotonic() + SLICE
        try:
            async for item in iterator:
                if not held.add(self._text.cells(item)):
                    await room.wait()
                elif time.monotonic() < until:
                    continue
                else:
                    await asyncio.sleep(0)
                until = time.monotonic() + SLICE
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()


class ThreadRows(IteratorLane):
    """Rows of an ordinary iterator, stepped in a thread of its own.

    The thread waits while what it made is not taken, and closes the iterator itself. What blocks
    inside of the iterator cannot be interrupted: the thread is let go then, and its slot is free
    when it has ended.
    """

    def __init__(
        self, name: str, make: Callable[[], Iterable[Any]], text: RowText, slots: Slots
    ) -> None:
        super().__init__(name, make, text, slots)

    def _begin(self) -> tuple[Held, asyncio.Future[None], Callable[[], object]]:
        room = threading.Event()
        held = Held(room)
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        run = partial(contextvars.copy_context().run, self._run, held, room)

        def thread() -> None:
            run()
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
                loop.call_soon_threadsafe(ended.set_result, None)

        # A daemon, so that a step that never returns cannot keep the process from ending.
        threading.Thread(target=thread, name=f"rows of {self.name}", daemon=True).start()
        return held, ended, held.stop

    def _run(self, held: Held, room: threading.Event) -> None:
        failure: Exception | None = None
        try:
            self._step(held, room)
        except Exception as error:  # noqa: BLE001 - whoever takes the rows raises it
            failure = error
        except BaseException as error:  # noqa: BLE001 - SystemExit would end this thread alone
            failure = TailraceError(f"The iterator raised {type(error).__name__}.")
        held.end(failure)

    def _step(self, held: Held, room: threading.Event) -> None:
        iterator = iter(self._make())
        try:
            for item in iterator:
                if not held.add(self._text.cells(item)):
                    room.wait()
                if held.stopped:
                    break
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()


async def _ended(ending: asyncio.Future[None], let_go: threading.Event) -> None:
    """Wait for it however often this task is cancelled, unless it has been let go."""
    cancelled: asyncio.CancelledError | None = None
    while not ending.done():
        try:
            await asyncio.wait({ending})
        except asyncio.CancelledError as error:
            if let_go.is_set():
                raise
            cancelled = error
    if cancelled is not None:
        raise cancelled
