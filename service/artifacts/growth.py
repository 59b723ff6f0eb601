"""Telling followers of growing files when there is more."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from service.artifacts.reading import ArtifactReader
from service.errors import StorageFailed

SHORTEST_PAUSE = 0.010  # seconds between two looks at a file that grows
LONGEST_PAUSE = 0.100  # seconds, reached by doubling while it does not


class Growth:
    """The growing files that somebody in this process waits for; one for a process.

    It looks at their sizes again and again. The kernel tells no one about what another machine
    writes, and the folder may be on a network file system, so inotify would miss it. However
    many wait for a file, there is one look at it; and none at a file that nobody waits for.
    """

    def __init__(self) -> None:
        self._watches: dict[str, _Watch] = {}

    def __len__(self) -> int:
        """The files that are watched."""
        return len(self._watches)

    async def beyond(self, reader: ArtifactReader, key: str, offset: int) -> None:
        """Return once the file is longer than ``offset``; ``key`` is the same for all its readers.

        Raises StorageFailed where its size cannot be told.
        """
        if (size := reader.size()) > offset:
            return
        watch = self._watches.setdefault(key, _Watch(size))
        try:
            await watch.beyond(reader, offset)
        finally:
            if not len(watch):
                self._watches.pop(key, None)


@dataclass(frozen=True, slots=True)
class _Waiting:
    reader: ArtifactReader
    offset: int
    told: asyncio.Future[None]


class _Watch:
    """One file, by the descriptor of whoever waits: the one who came first may leave first."""

    def __init__(self, size: int) -> None:
        self._all: list[_Waiting] = []
        self._size = size
        self._pause = SHORTEST_PAUSE
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._all)

    async def beyond(self, reader: ArtifactReader, offset: int) -> None:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(reader, offset, loop.create_future())
        self._all.append(waiting)
        if self._timer is None:
            self._look_later()
        try:
            await waiting.told
        finally:
            self._all.remove(waiting)
            if not self._all and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._pause, self._look)

    def _look(self) -> None:
        self._timer = None
        undecided = [waiting for waiting in self._all if not waiting.told.done()]
        if not undecided:
            return
        try:
            self._tell(undecided, undecided[0].reader.size())
        except StorageFailed as error:
            for waiting in undecided:
                waiting.told.set_exception(error)
        self._look_later()

    def _tell(self, undecided: list[_Waiting], size: int) -> None:
        grew, self._size = size > self._size, size
        self._pause = SHORTEST_PAUSE if grew else min(2 * self._pause, LONGEST_PAUSE)
        for waiting in undecided:
            if waiting.offset < size:
                waiting.told.set_result(None)
