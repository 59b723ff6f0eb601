"""Following an artifact while it grows.

A follower reads the one file that the worker writes, at its own speed; nothing that it does is
felt by the worker or the database. It ends cleanly only where the export's row says that all is
there, and breaks where the attempt has come to nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus

from service.artifacts.growth import Growth
from service.artifacts.reading import ArtifactReader
from service.errors import AttemptLost, Conflict, Gone
from service.jobs.model import Record, State
from service.jobs.watching import Watch
from service.ranges import VERY_LARGE, content_range

CHUNK = 256 * 1024  # bytes
NO_END = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes from ``first`` to ``last``, both included; NO_END is wherever the artifact ends."""

    first: int = 0
    last: int = NO_END
    asked: bool = False

    @property
    def needed(self) -> int:
        """The byte that has to be there before the answer can begin.

        Of a part with an end all has to be there: a client would take a shorter one for whole.
        """
        return self.first if self.last == NO_END else self.last


class Sight:
    """The export as it is now, seen by one who follows ``attempt``, or whichever counts if None."""

    def __init__(self, watch: Watch, record: Record, attempt: int | None) -> None:
        self.record = record
        self.followed = (
            False  # an attempt whose bytes have been read may not be changed for another
        )
        self._watch = watch
        self._attempt = attempt

    async def change(self) -> None:
        """Wait until the row changes. Raises Gone, Conflict or AttemptLost if there is no content."""
        await self._watch.change()
        self._take_over()

    def look(self) -> None:
        """Take over what has changed already; raises as ``change``."""
        if self._watch.changed():
            self._take_over()

    def _take_over(self) -> None:
        newest, before = self._watch.record, self.record
        if newest is None:
            raise Gone("The export has been deleted.")
        require_attempt(newest, self._attempt)
        if self.followed and newest.attempt != before.attempt:
            message = f"Attempt {before.attempt} came to nothing: it is {newest.state}."
            raise AttemptLost(message, headers={"Retry-After": "1"})
        if self.followed and newest.state is State.EXPIRED:
            # It had succeeded, and who has the file open still gets all of it.
            newest = replace(newest, state=State.SUCCEEDED)
        require_content(newest)
        self.record = newest


class Following:
    """A part of a growing artifact, as it comes; ``reader`` is closed with it."""

    def __init__(self, sight: Sight, reader: ArtifactReader, growth: Growth, part: Part) -> None:
        self._sight = sight
        self._reader = reader
        self._growth = growth
        self._part = part
        self._offset = part.first

    @property
    def status(self) -> int:
        return HTTPStatus.PARTIAL_CONTENT if self._part.asked else HTTPStatus.OK

    def headers(self) -> Mapping[str, str]:
        if not self._part.asked:
            return {}
        last = VERY_LARGE if self._part.last == NO_END else self._part.last
        return {"Content-Range": content_range(self._part.first, last, None)}

    async def until(self, offset: int) -> None:
        """Wait for the byte at ``offset``, or for the end of the attempt."""
        while self._sight.record.state is State.RUNNING and self._reader.size() <= offset:
            await self._more(offset)

    async def read(self) -> bytes | None:
        while self._offset <= self._part.last:
            length = min(CHUNK, self._part.last + 1 - self._offset)
            # Before the file: once the row is final, the file has all its bytes.
            self._sight.look()
            record = self._sight.record
            data = await self._reader.read(self._offset, length)
            if data:
                self._offset += len(data)
                return data
            if record.state is State.SUCCEEDED:
                self._require_all(record)
                break
            await self._more(self._offset)
        return None

    async def close(self) -> None:
        self._reader.close()

    async def _more(self, offset: int) -> None:
        """Wait until the file is longer than ``offset``, or until the export's row changes."""
        key = self._sight.record.artifact or ""
        growing = asyncio.ensure_future(self._growth.beyond(self._reader, key, offset))
        changing = asyncio.ensure_future(self._sight.change())
        both = {growing, changing}
        try:
            done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
        for task in done:
            task.result()

    def _require_all(self, record: Record) -> None:
        """Raise unless what was sent ends where the export's receipt says."""
        if self._offset != record.bytes:
            raise AttemptLost("The artifact is not as long as its record says.")


def require_attempt(record: Record, attempt: int | None) -> None:
    """Raise Gone where an address names another attempt than the one that counts."""
    if attempt is not None and attempt != record.attempt:
        raise Gone(f"Attempt {attempt} is over; attempt {record.attempt} counts.")


def require_content(record: Record) -> None:
    """Raise Conflict or Gone where there is no content and will be none."""
    if record.state is State.FAILED:
        error = record.error or {}
        raise Conflict(
            f"The export has failed: {error.get('detail', 'nobody knows why')}",
            members={"error": error},
        )
    if record.state in (State.CANCELLED, State.EXPIRED):
        raise Gone(f"The export is {record.state}; its content is not there any more.")
