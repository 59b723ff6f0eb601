"""What is to be sent to one reader of events: bounded, however slowly it reads.

What a newer event supersedes is replaced where it waits; what nothing supersedes waits its turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from service.line import Line, chunk
from service.sse import PING

MOST_WAITING = 10_000  # events that nothing supersedes: the reader is given up
PINGED = chunk(PING)


class Outbox:
    """Events for one reader, as chunks; ``quiet_since`` is the monotonic time of the last one.

    It keeps what comes before its line is there. ``gone`` is called once the reader has left.
    """

    __slots__ = ("_closed", "_gone", "_line", "_places", "_waiting", "quiet_since")

    def __init__(self, gone: Callable[[], None]) -> None:
        self.quiet_since = time.monotonic()
        self._gone = gone
        self._line: Line | None = None
        self._waiting: list[bytes] = []
        self._places: dict[Hashable, int] | None = None
        self._closed = False

    def attach(self, line: Line) -> None:
        """From now on the events go out on ``line``."""
        self._line = line
        self.resumed()

    def put(self, event: bytes, supersedes: Hashable | None = None) -> None:
        """Send ``event``, a chunk, in place of one with the same key that still waits."""
        line = self._line
        if line is not None and not line.paused and not self._waiting:
            line.write(event)
            self.quiet_since = time.monotonic()
        else:
            self._keep(event, supersedes)

    def seal(self, key: Hashable) -> None:
        """What waits under ``key`` stays as it is: what comes next stands behind it."""
        if self._places is not None:
            self._places.pop(key, None)

    def close(self) -> None:
        """The stream ends behind what waits."""
        self._closed = True
        if self._line is not None and not self._waiting:
            self._line.end()

    def resumed(self) -> None:
        """Send what has waited."""
        line = self._line
        if line is None or line.paused:
            return
        if self._waiting:
            line.write(b"".join(self._waiting))
            self._waiting, self._places = [], None
            self.quiet_since = time.monotonic()
        if self._closed:
            line.end()

    def lost(self) -> None:
        self._line = None
        self._gone()

    def _keep(self, event: bytes, supersedes: Hashable | None) -> None:
        if supersedes is not None:
            self._places = self._places or {}
            place = self._places.setdefault(supersedes, len(self._waiting))
            if place < len(self._waiting):
                self._waiting[place] = event
                return
        self._waiting.append(event)
        if len(self._waiting) > MOST_WAITING and self._line is not None:
            self._line.abort()


class Readers:
    """The outboxes of this process: kept alive by pings, and closed when it stops."""

    def __init__(self, ping_interval: float) -> None:
        self._interval = ping_interval
        self._outboxes: dict[Outbox, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._outboxes)

    @property
    def closed(self) -> bool:
        """Whether the process ends them all."""
        return self._closed

    def start(self) -> None:
        self._task = asyncio.create_task(self._ping(), name="pings")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    @contextmanager
    def reading(self, outbox: Outbox) -> Iterator[None]:
        """Ping ``outbox`` whenever it has been quiet, until the block ends."""
        self._outboxes[outbox] = None
        if self._closed:
            outbox.close()
        try:
            yield
        finally:
            del self._outboxes[outbox]

    def close(self) -> None:
        """End every stream of events, without saying that their exports have ended."""
        self._closed = True
        for outbox in list(self._outboxes):
            outbox.close()

    async def _ping(self) -> None:
        # A timer for each reader would cost more than to look at all of them.
        pause = min(self._interval / 4, 1.0)
        while True:
            await asyncio.sleep(pause)
            due = time.monotonic() - self._interval + pause
            for outbox in list(self._outboxes):
                if outbox.quiet_since < due:
                    outbox.put(PINGED, PINGED)
