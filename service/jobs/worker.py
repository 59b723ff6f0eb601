"""The worker: takes exports from the queue and runs several attempts at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import time
import traceback
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from service.database import AWAY
from service.errors import AttemptLost, Cancelled, RecordsUnavailable
from service.jobs.attempt import Attempt, Tools, WorkerStopping
from service.jobs.beat import Sign, beat
from service.jobs.log import ids_of
from service.jobs.queue import Entry, Queue
from service.jobs.tables import workers
from service.jobs.upkeep import Upkeep
from service.observe import Swept, Unexpected, WorkerWaiting

BEAT_SECONDS = 0.25  # between two reports of progress, for as long as PATIENCE of them
RAREST_BEAT = 5.0  # seconds, for an export that has run for PATIENCE of those
PATIENCE = 240
TAKE_SECONDS = 1.0  # between two looks at the queue that nobody hinted at
SWEEP_SECONDS = 2.0  # with a pause and a look at the queue, what is lost begins again in 5
SEEN_SECONDS = 5.0  # between two signs of life of the worker itself
OUTAGE_PAUSE = 1.0  # seconds
AWAY_OR_SAID_SO = (*AWAY, RecordsUnavailable)


class Worker:
    """``max_jobs`` bounds the exports of each source over all workers, ``concurrency`` ours.

    ``pulse`` is for the heartbeat alone, which must not wait behind exports that begin and end.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        pulse: AsyncEngine,
        queue: Queue,
        upkeep: Upkeep,
        tools: Tools,
        *,
        max_jobs: Mapping[str, int],
        concurrency: int,
    ) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._engine = engine
        self._pulse = pulse
        self._queue = queue
        self._upkeep = upkeep
        self._tools = tools
        self._max_jobs = dict(max_jobs)
        self._concurrency = concurrency
        self._lease = timedelta(seconds=tools.limits.lease)
        self._attempts: dict[str, Attempt] = {}
        self._entries: dict[str, Entry] = {}
        self._following: dict[str, Entry] = {}
        self._runs: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._stopping = False
        self._kept = self._seen = 0.0

    def hint(self, payload: str | None) -> None:
        """Something may be in the queue."""
        del payload
        self._wake.set()

    def cancel(self, payload: str | None) -> None:
        """Somebody asked to stop an export; where nobody tells which, the next beat does."""
        for export_id in ids_of(payload) or ():
            if export_id in self._attempts:
                self._attempts[export_id].stop(Cancelled("Somebody asked to stop it."))

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop``, then give what runs ``drain_timeout`` to end, then let go of it."""
        loops = [
            asyncio.create_task(self._again(step, pause), name=name)
            for name, step, pause in (
                ("take", self._take, 0.0),
                ("beat", self._beat, BEAT_SECONDS),
                ("sweep", self._sweep, min(SWEEP_SECONDS, self._tools.limits.lease / 2)),
            )
        ]
        await stop.wait()
        self._stopping = True
        drain = self._tools.limits.drain_timeout
        with contextlib.suppress(TimeoutError):
            # What has been claimed has its attempt then, which can be put back.
            await asyncio.wait_for(self._claiming.acquire(), drain)
        loops.pop(0).cancel()
        if self._runs:
            await asyncio.wait(self._runs, timeout=drain)
        for attempt in self._attempts.values():
            attempt.stop(WorkerStopping("The worker was stopped; another one goes on."))
        if self._runs:
            await asyncio.wait(self._runs)
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        with contextlib.suppress(*AWAY):
            async with self._engine.begin() as connection:
                await connection.execute(sa.delete(workers).where(workers.c.name == self.name))

    async def _again(self, step: Any, pause: float) -> None:
        while True:
            try:
                began = time.monotonic()
                await step()
                await asyncio.sleep(max(pause - (time.monotonic() - began), 0.0))
            except AWAY_OR_SAID_SO as error:
                self._tools.observe(WorkerWaiting(repr(error)))
                await asyncio.sleep(OUTAGE_PAUSE)
            except Exception:  # noqa: BLE001 - a worker that no longer beats loses all its exports
                self._tools.observe(Unexpected("worker", traceback.format_exc()))
                await asyncio.sleep(OUTAGE_PAUSE)

    async def _take(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), TAKE_SECONDS)
        self._wake.clear()
        while (free := self._concurrency - len(self._attempts)) > 0 and not self._stopping:
            entries = await self._queue.take(
                self._max_jobs, most=free, lease=self._lease.total_seconds()
            )
            for entry in entries:
                async with self._claiming:
                    await self._begin(entry)
            if not entries:
                return

    async def _begin(self, entry: Entry) -> None:
        if entry.export_id in self._attempts:
            self._begin_later(entry)
            return
        ledger, artifact = self._tools.ledger, self._tools.folder.new_name()
        record = await ledger.claim(entry.export_id, self.name, artifact, self._lease)
        if record is None:
            await self._queue.done(entry)
            return
        attempt = Attempt(record, self._tools)
        self._attempts[record.id], self._entries[record.id] = attempt, entry
        run = asyncio.create_task(self._run(attempt, entry), name=f"run {record.id}")
        self._runs.add(run)
        run.add_done_callback(self._runs.discard)

    def _begin_later(self, entry: Entry) -> None:
        """Once our own attempt has ended, which may not have heard yet that it is lost."""
        self._following[entry.export_id] = self._entries[entry.export_id] = entry
        # The next heartbeat asks whether it still counts.
        ours, asked = self._attempts[entry.export_id], self._lease.total_seconds() / 4
        ours.renewed = min(ours.renewed, time.monotonic() - asked)

    async def _run(self, attempt: Attempt, entry: Entry) -> None:
        try:
            await attempt.run()
            with contextlib.suppress(*AWAY):
                await self._queue.done(entry)
        except Exception:  # noqa: BLE001 - its lease ends, and another attempt begins
            self._tools.observe(Unexpected(f"export {attempt.record.id}", traceback.format_exc()))
        finally:
            del self._attempts[attempt.record.id], self._entries[attempt.record.id]
            self._wake.set()
        following = self._following.pop(attempt.record.id, None)
        if following is not None and not self._stopping:
            with contextlib.suppress(*AWAY_OR_SAID_SO):  # the entry is stale after a lease
                await self._begin(following)

    async def _beat(self) -> None:
        now = time.monotonic()
        self._give_up_unheard(now)
        attempts = dict(self._attempts)
        signs = {key: self._sign(attempt, now) for key, attempt in attempts.items()}
        due = {key: sign for key, sign in signs.items() if sign is not None}
        if due:
            heard = await beat(self._pulse, self.name, self._lease, list(due.values()))
            for key, sign in due.items():
                self._hear(attempts[key], sign, now, heard.kept, heard.stopping)
        await self._keep_entries(now)
        await self._be_seen(now)

    def _sign(self, attempt: Attempt, now: float) -> Sign | None:
        """What is to be written of it; None while there is nothing new and its lease is fresh."""
        current = attempt.current()
        due = now - attempt.reported_at >= _pause(now - attempt.began)
        moved = due and (current.rows, current.bytes) != attempt.reported
        renew = now - attempt.renewed > self._lease.total_seconds() / 5
        return Sign(current, moved) if moved or renew else None

    def _hear(
        self,
        attempt: Attempt,
        sign: Sign,
        now: float,
        kept: frozenset[str],
        stopping: frozenset[str],
    ) -> None:
        key = attempt.record.id
        if key not in kept:
            attempt.stop(AttemptLost("Another attempt has taken over."))
            return
        attempt.renewed = now
        if sign.moved:
            attempt.reported = (sign.record.rows, sign.record.bytes)
            attempt.reported_at = now
        if key in stopping:
            attempt.stop(Cancelled("Somebody asked to stop it."))

    def _give_up_unheard(self, now: float) -> None:
        """Others may believe that we are gone: what has lost its lease is not ours any more."""
        for attempt in self._attempts.values():
            if now - attempt.renewed > self._lease.total_seconds():
                attempt.stop(AttemptLost("The lease could not be renewed in time."))

    async def _keep_entries(self, now: float) -> None:
        if now - self._kept > self._lease.total_seconds() / 3:
            self._kept = now
            await self._queue.keep(list(self._entries.values()))

    async def _be_seen(self, now: float) -> None:
        if now - self._seen < SEEN_SECONDS:
            return
        self._seen = now
        told = {"running": len(self._attempts), "concurrency": self._concurrency}
        statement = insert(workers).values(name=self.name, **told)
        async with self._engine.begin() as connection:
            await connection.execute(
                statement.on_conflict_do_update(
                    index_elements=[workers.c.name], set_={**told, "seen_at": sa.func.now()}
                )
            )

    async def _sweep(self) -> None:
        found = await self._upkeep.sweep()
        if found:
            self._tools.observe(Swept(found))
            self._wake.set()


def _pause(age: float) -> float:
    """Seconds between two reports of an export that has run for ``age`` seconds.

    Each leaves an old version of the row, which cannot go while an export holds a snapshot of the
    same database: a long one must not write thousands of them.
    """
    return min(max(age / PATIENCE, BEAT_SECONDS / 2), RAREST_BEAT)
