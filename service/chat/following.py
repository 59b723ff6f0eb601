"""Who reads generations: the events as a stream that goes on, wherever the generation runs.

In its own process a reader is told each event at once. Elsewhere one look into the tables tells
all readers of this process: hinted at by a notification, and taken now and then in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import orjson

from service.chat.live import Live
from service.chat.model import Event
from service.chat.store import Store
from service.chat.transcript import CLOSE
from service.database import AWAY
from service.errors import RecordsUnavailable
from service.jobs.log import ids_of
from service.jobs.outbox import Readers
from service.jobs.watching import EventStream
from service.line import chunk
from service.observe import EventsUnread, Observer
from service.sse import frame, json_data

LOOK_SECONDS = 2.0
STOP_SECONDS = 5.0


class Follower(Protocol):
    """Somebody who reads a generation that runs elsewhere; ``seq`` is the last event it has."""

    seq: int

    def told(self, events: Sequence[Event]) -> None: ...


class Tails:
    """The generations of other processes that are read here."""

    def __init__(self, store: Store, observe: Observer) -> None:
        self._store = store
        self._observe = observe
        self._followed: dict[str, dict[Follower, None]] = {}
        self._hinted: set[str] = set()
        self._everything = self._stopping = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="tails of generations")

    async def stop(self) -> None:
        """Returns behind the look under way."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=STOP_SECONDS)
            self._task.cancel()
            await asyncio.wait({self._task})

    def hint(self, payload: str | None) -> None:
        """A notification came: which generations have new events, None for all."""
        ids = ids_of(payload)
        if ids is None:
            self._everything = True
        else:
            self._hinted |= ids
        self._wake.set()

    async def ask_to_stop(self, generation_id: str, within: float) -> None:
        """Tell the process that runs it, and wait for its end for so many seconds."""
        await self._store.ask_to_stop(generation_id)
        ended = Ended()
        with self.follow(generation_id, ended), contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.over.wait(), within)

    @contextmanager
    def follow(self, generation_id: str, follower: Follower) -> Iterator[None]:
        """Tell ``follower`` of every event behind its ``seq``, until the block ends."""
        self._followed.setdefault(generation_id, {})[follower] = None
        self.hint(generation_id)
        try:
            yield
        finally:
            left = self._followed[generation_id]
            del left[follower]
            if not left:
                del self._followed[generation_id]

    async def _run(self) -> None:
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), LOOK_SECONDS)
            everything = self._everything or not self._wake.is_set()
            wanted = set(self._followed) if everything else self._hinted & self._followed.keys()
            self._wake.clear()
            self._hinted, self._everything = set(), False
            try:
                for generation_id in wanted:
                    await self._look(generation_id)
            except (RecordsUnavailable, *AWAY) as error:
                self._observe(EventsUnread(repr(error)))

    async def _look(self, generation_id: str) -> None:
        followers = list(self._followed.get(generation_id, ()))
        if not followers:
            return
        events = await self._store.behind(generation_id, min(item.seq for item in followers))
        for follower in followers:
            if new := [event for event in events if event.seq > follower.seq]:
                follower.told(new)


class Ended:
    """Waits for the last event."""

    def __init__(self) -> None:
        self.seq = 0
        self.over = asyncio.Event()

    def told(self, events: Sequence[Event]) -> None:
        self.seq = events[-1].seq
        if events[-1].name == CLOSE:
            self.over.set()


class GenerationEvents(EventStream):
    """The events of one generation behind the number ``after``, then each as it comes.

    ``reset`` says that the client's number is not known any more, so that it begins anew.
    ``live`` is the generation where it runs in this process.
    """

    def __init__(
        self,
        generation_id: str,
        after: int,
        *,
        live: Live | None,
        tails: Tails,
        readers: Readers,
        reset: bool = False,
    ) -> None:
        super().__init__(readers)
        self.seq = after
        self._id = generation_id
        self._live = live
        self._tails = tails
        self._reset = reset
        self._closed = False

    async def _first(self) -> bytes:
        if self._live is not None:
            self._open.callback(self._detach, self._live)
            self._live.attach(self, self.seq)
        else:
            self._open.enter_context(self._tails.follow(self._id, self))
        return frame("reset", b"{}") if self._reset else b""

    def told(self, events: Sequence[Event]) -> None:
        self.seq = events[-1].seq
        self.outbox.put(chunk(b"".join(map(event_frame, events))))
        if events[-1].name == CLOSE:
            self._closed = True
            self.outbox.close()

    def _detach(self, live: Live) -> None:
        # Where this process ends its readers, they come back to another one.
        live.detach(self, left=not (self._closed or self._readers.closed))


def event_frame(event: Event) -> bytes:
    """One event on the wire."""
    return frame(event.name, json_data(orjson.dumps(event.data)), id=event.seq)
