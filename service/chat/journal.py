"""The generations of this process, written in batches behind them.

A token costs no transaction, and none waits for one. What is not written yet is answered from
memory; losing the database costs what a crash then loses, and no generation.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from service.chat.live import Live
from service.chat.model import Event, Generation
from service.chat.store import Store
from service.database import AWAY
from service.jobs.log import ids_of
from service.observe import Observer, RecordsNotWritten

BATCH_SECONDS = 0.1  # how far the tables may lag behind
HEARTBEAT_SECONDS = 2.0
LOST_AFTER = timedelta(seconds=30)
SWEEP_SECONDS = 15.0
MAX_BACKOFF = 5.0  # seconds
STOP_SECONDS = 5.0
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

    def __len__(self) -> int:
        return len(self.running())

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

    async def get(self, generation_id: str) -> Generation | None:
        """As it is now; of another process's, as far as it has been written."""
        live = self._live.get(generation_id)
        return live.transcript.generation if live else await self._store.get(generation_id)

    async def flush(self) -> None:
        """Write what has come, for those who are about to look elsewhere."""
        await self._write()

    async def _write_behind(self) -> None:
        pause = BATCH_SECONDS
        while True:
            await self._wake.wait()
            await asyncio.sleep(pause)
            try:
                await self._write()
                pause = BATCH_SECONDS
            except AWAY as error:
                self._observe(RecordsNotWritten(len(self._dirty), repr(error)))
                pause = min(pause * 2, MAX_BACKOFF)

    async def _write(self) -> None:
        async with self._writing:
            self._wake.clear()
            batch = [self._new(key) for key in self._dirty]
            if not batch:
                return
            try:
                await self._store.write(batch)
            except BaseException:
                self._wake.set()
                raise
            for generation, _ in batch:
                self._done(generation)

    def _new(self, key: str) -> tuple[Generation, list[Event]]:
        transcript = self._live[key].transcript
        return transcript.generation, transcript.behind(self._written.get(key, 0))

    def _done(self, generation: Generation) -> None:
        key = generation.id
        self._written[key] = generation.seq
        if self._live[key].transcript.seq == generation.seq:
            del self._dirty[key]
            if generation.state.final:
                del self._live[key], self._written[key]

    async def _beat(self) -> None:
        if running := [live.id for live in self.running()]:
            for generation_id in await self._store.alive(running):
                self._live[generation_id].cancel()

    async def _sweep(self) -> None:
        await self._store.sweep(LOST_AFTER, self._keep, list(self._live))


async def _again(pause: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    while True:
        await asyncio.sleep(pause)
        with contextlib.suppress(*AWAY):
            await work()
