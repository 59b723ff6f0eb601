"""The generations of this process, written in batches behind them.

A token costs no transaction, and none waits for one. What is not written yet is answered from
memory; losing the database costs what a crash then loses, and no generation.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.exc import StatementError

from service.chat.live import Live
from service.chat.model import Generation
from service.chat.store import Batch, Store
from service.database import AWAY, refused
from service.jobs.log import ids_of
from service.observe import Observer, RecordsDropped, RecordsNotWritten

BATCH_SECONDS = 0.1  # how far the tables may lag behind
HEARTBEAT_SECONDS = 2.0
LOST_AFTER = timedelta(seconds=30)
NEVER = timedelta(days=36_500)
SWEEP_SECONDS = 15.0
MAX_BACKOFF = 5.0  # seconds
STOP_SECONDS = 5.0
WRITTEN_SECONDS = 1.0  # in which another process has written what it has told
YOUNG_SECONDS = 10.0  # until then an id that nobody has written may be; clocks differ
MAX_ENDED = 10_000  # that wait for the database while it is away


class Journal:
    """Keeps what runs here until its end has been written; ``keep`` is how long that stays."""

    def __init__(self, store: Store, observe: Observer, keep: timedelta) -> None:
        self._store = store
        self._observe = observe
        self._keep = keep
        self._live: dict[str, Live] = {}
        self._written: dict[str, int] = {}
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._lost_after = LOST_AFTER
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        loops = (
            self._write_behind(),
            _again(HEARTBEAT_SECONDS, self._beat),
            _again(SWEEP_SECONDS, self._sweep),
        )
        self._tasks = [asyncio.create_task(loop) for loop in loops]

    async def stop(self) -> None:
        """Stop, after one last attempt to write what has come."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(*AWAY, TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await self._write()

    def live(self, generation_id: str) -> Live | None:
        """A generation of this process whose end has not been written."""
        return self._live.get(generation_id)

    def running(self) -> list[Live]:
        """Those that go on."""
        return [live for live in self._live.values() if not live.transcript.state.final]

    def changed(self, live: Live) -> None:
        """It has new events."""
        self._live[live.id] = live
        self._dirty[live.id] = None
        self._wake.set()

    def stop_named(self, payload: str | None) -> None:
        """Somebody asked some process to stop these; where nobody tells which, the beat looks."""
        for generation_id in (ids_of(payload) or frozenset()) & self._live.keys():
            self._live[generation_id].cancel()

    async def get(self, generation_id: str, seq: int = 1) -> Generation | None:
        """As it is now; of another process's, as far as it has been written.

        Where somebody knows of it, or of its event number ``seq``, and the tables do not, its
        process is about to write it.
        """
        live = self._live.get(generation_id)
        if live is not None:
            return live.transcript.generation
        over = time.monotonic() + WRITTEN_SECONDS
        found = await self._store.get(generation_id)
        while _behind(found, generation_id, seq) and time.monotonic() < over:
            await asyncio.sleep(BATCH_SECONDS)
            found = await self._store.get(generation_id)
        return found

    async def has(self, found: Generation, seq: int) -> bool:
        """Whether a client may have its event number ``seq``; everybody has what is before all."""
        if found.id in self._live or seq <= 0:
            return 0 <= seq <= found.seq
        return await self._store.has(found.id, seq)

    async def _write_behind(self) -> None:
        pause = BATCH_SECONDS
        while True:
            await self._wake.wait()
            await asyncio.sleep(pause)
            try:
                await self._write()
                pause = BATCH_SECONDS
            except AWAY as error:
                self._drop()
                self._observe(RecordsNotWritten(len(self._dirty), repr(error)))
                pause = min(pause * 2, MAX_BACKOFF)

    def _drop(self) -> None:
        """Forget the oldest of those that have ended, where too many wait for the database."""
        ended = [key for key, live in self._live.items() if live.transcript.state.final]
        excess = ended[: max(0, len(ended) - MAX_ENDED)]
        for key in excess:
            self._forget(key)
        if excess:
            self._observe(RecordsDropped(len(excess)))

    async def _write(self) -> None:
        async with self._writing:
            self._wake.clear()
            batch = [self._new(key) for key in self._dirty]
            if not batch:
                return
            try:
                await self._store_all(batch)
            except BaseException:
                self._wake.set()
                raise
            for generation, _ in batch:
                self._done(generation)

    async def _store_all(self, batch: list[Batch]) -> None:
        try:
            await self._store.write(batch)
        except StatementError as error:
            if not refused(error):
                raise
            # One that the database will never take must not hold up the others.
            for one in batch:
                await self._store_one(one)

    async def _store_one(self, one: Batch) -> None:
        try:
            await self._store.write([one])
        except StatementError as error:
            if not refused(error):
                raise
            self._observe(RecordsDropped(1))

    def _new(self, key: str) -> Batch:
        transcript = self._live[key].transcript
        # The text of one that runs is in its events.
        whole = transcript.state.final
        shown = transcript.generation if whole else transcript.summary
        return shown, transcript.behind(self._written.get(key, 0))

    def _done(self, generation: Generation) -> None:
        key = generation.id
        self._written[key] = generation.seq
        if self._live[key].transcript.seq == generation.seq:
            del self._dirty[key]
            if generation.state.final:
                self._forget(key)

    def _forget(self, key: str) -> None:
        for kept in (self._live, self._written, self._dirty):
            kept.pop(key, None)

    async def _beat(self) -> None:
        # Two that lock the same rows in different orders would wait for each other.
        async with self._writing:
            running = [live.id for live in self.running()]
            stopping = await self._store.alive(running) if running else []
        for generation_id in self._live.keys() & stopping:
            self._live[generation_id].cancel()

    async def _sweep(self) -> None:
        # After an outage nobody has a heartbeat, until all have been able to write one.
        lost_after, self._lost_after = self._lost_after, NEVER
        await self._store.sweep(lost_after, self._keep, list(self._live))
        self._lost_after = LOST_AFTER


def _behind(found: Generation | None, generation_id: str, seq: int) -> bool:
    if found is None:
        return abs(time.time() - _made(generation_id)) < YOUNG_SECONDS
    return not found.state.final and found.seq < seq


def _made(generation_id: str) -> float:
    """When an id was made, in seconds since 1970 (UUIDv7; RFC 9562, section 5.7)."""
    return (UUID(generation_id).int >> 80) / 1_000


async def _again(pause: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    while True:
        await asyncio.sleep(pause)
        with contextlib.suppress(*AWAY):
            await work()
