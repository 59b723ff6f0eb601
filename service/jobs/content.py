"""The bytes of a job's artifact, finished or still growing, as one stream (API: content).

A follower reads the one file that the worker writes, at its own speed; nothing that it does is
felt by the worker or the database. It ends cleanly only where the export's row says that all is
there, and breaks where that attempt has come to nothing.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from http import HTTPStatus

from service.artifacts.finished import FinishedFile
from service.artifacts.folder import ArtifactFolder
from service.artifacts.growth import Growth
from service.artifacts.reading import ArtifactReader
from service.errors import (
    AttemptLost,
    Conflict,
    Gone,
    NotYet,
    RangeNotSatisfiable,
    TailraceError,
)
from service.export.receipt import Outcome
from service.jobs.hub import Hub
from service.jobs.model import Record, State
from service.jobs.watching import Watch, watching
from service.preconditions import not_modified, use_range
from service.ranges import VERY_LARGE, content_range, live_span, spans

CHUNK = 256 * 1024  # bytes
FIRST_BYTE_SECONDS = 15.0
RETRY_AFTER = {"Retry-After": "5"}


@dataclass(frozen=True, slots=True)
class ContentRequest:
    """``headers`` are the client's; ``attempt`` is the one that the address names, if any."""

    headers: Mapping[str, str]
    attempt: int | None
    media_type: str


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where this process finds artifacts, and how it learns of changes."""

    folder: ArtifactFolder
    growth: Growth
    hub: Hub


def etag_of(record: Record) -> str:
    """The same from an attempt's first byte to its finished artifact, and never of another."""
    return f'"{record.id.replace("-", "")}.{record.attempt}"'


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


def finished_reader(folder: ArtifactFolder, record: Record) -> ArtifactReader:
    """The finished artifact, open. Raises Gone where it has just been removed."""
    file = folder.open_growing_or_finished(record.artifact or "") if record.artifact else None
    if file is None:
        raise Gone("The artifact is not there any more.")
    return ArtifactReader(file)


def last_modified(record: Record) -> datetime | None:
    return record.finished_at if record.state is State.SUCCEEDED else None


def validators(record: Record) -> dict[str, str]:
    """ETag and, once it is finished, Last-Modified and the digest (RFC 9530)."""
    told = {"ETag": etag_of(record)}
    finished, receipt = last_modified(record), record.receipt
    if finished is not None and receipt is not None:
        told["Last-Modified"] = format_datetime(finished, usegmt=True)
        digest = base64.b64encode(bytes.fromhex(receipt["sha256"])).decode()
        told["Repr-Digest"] = f"sha-256=:{digest}:"
    return told


class Content:
    """What ``streaming.StreamResponse`` sends; it decides in ``open`` what that is."""

    status = 200

    def __init__(self, record: Record, request: ContentRequest, shelf: Shelf) -> None:
        self._record = record
        self._request = request
        self._shelf = shelf
        self._open = AsyncExitStack()
        self._watch: Watch | None = None
        self._reader: ArtifactReader | None = None
        self._finished: FinishedFile | None = None
        self._first, self._last = 0, _OPEN_END
        self._offset = 0
        self._size: int | None = None

    async def open(self) -> None:
        self._watch = await self._open.enter_async_context(watching(self._shelf.hub, self._record))
        await self._await_first_byte()
        if self._record.state is State.SUCCEEDED:
            await self._send_finished()

    async def read(self) -> bytes | None:
        if self._finished is not None:
            return await self._finished.read()
        while self._offset <= self._last:
            length = min(CHUNK, self._last + 1 - self._offset)
            data = await self._following().read(self._offset, length)
            if data:
                self._offset += len(data)
                return data
            if self._size is not None:
                self._require_all(self._size)
                return None
            await self._more(self._offset)
        return None

    async def close(self) -> None:
        if self._finished is not None:
            await self._finished.close()
        elif self._reader is not None:
            self._reader.close()
        await self._open.aclose()

    def headers(self) -> Mapping[str, str]:
        told = {"Accept-Ranges": "bytes", **validators(self._record)}
        if self._finished is not None:
            return {**told, **self._finished.headers()}
        if self.status == HTTPStatus.PARTIAL_CONTENT:
            last = VERY_LARGE if self._last == _OPEN_END else self._last
            told["Content-Range"] = content_range(self._first, last, None)
        return told

    def started(self) -> None:
        """The job has a record; who reads it has none."""

    def ended(self, outcome: Outcome, error: TailraceError | None) -> None:
        """The job's receipt stands, whoever reads it how far."""

    async def _await_first_byte(self) -> None:
        """Wait for the attempt, and for the byte at which the client wants to begin."""
        try:
            async with asyncio.timeout(FIRST_BYTE_SECONDS):
                while self._record.state is State.QUEUED:
                    await self._change()
                if self._record.state is State.RUNNING:
                    await self._open_growing()
                    if self._first == 0:
                        await self._until_longer(0)
        except TimeoutError as error:
            raise NotYet("The first byte is not made yet.", headers=RETRY_AFTER) from error
        if self._record.state is State.RUNNING:
            # Whoever has some of it already can wait for more.
            await self._until_longer(self._first if self._last == _OPEN_END else self._last)

    async def _open_growing(self) -> None:
        """The worker makes the file a moment after it has said what the file is called."""
        while self._record.state is State.RUNNING and self._reader is None:
            file = self._shelf.folder.open_growing_or_finished(self._record.artifact or "")
            if file is not None:
                self._reader = ArtifactReader(file)
            else:
                await self._pause_or_change()
        self._choose_range()

    def _choose_range(self) -> None:
        """Which part of a growing artifact; the whole where attempts could be mixed up."""
        headers = self._request.headers
        tag = etag_of(self._record)
        asked = live_span(headers.get("range"))
        # Without If-Range and without an attempt in the address, nobody knows of which attempt
        # the client has the beginning.
        mixed = (
            self._record.attempt > 1 and self._request.attempt is None and "if-range" not in headers
        )
        if asked is None or mixed or not use_range(headers, tag):
            return
        self.status = HTTPStatus.PARTIAL_CONTENT.value
        self._first = self._offset = asked[0]
        self._last = _OPEN_END if asked[1] is None else asked[1]

    async def _until_longer(self, offset: int) -> None:
        while self._record.state is State.RUNNING and self._size is None:
            if self._following().size() > offset:
                return
            await self._more(offset)

    async def _more(self, offset: int) -> None:
        """Wait until the file is longer than ``offset``, or until the export's row changes."""
        assert self._watch is not None  # noqa: S101 - open() has made it
        key = self._record.artifact or ""
        growing = asyncio.ensure_future(self._shelf.growth.beyond(self._following(), key, offset))
        changing = asyncio.ensure_future(self._watch.change())
        try:
            await asyncio.wait({growing, changing}, return_when=asyncio.FIRST_COMPLETED)
            changed = changing.done()
        finally:
            growing.cancel()
            changing.cancel()
        if changed:
            self._look()

    async def _pause_or_change(self) -> None:
        try:
            async with asyncio.timeout(0.02):
                await self._change()
        except TimeoutError:
            pass

    async def _change(self) -> None:
        assert self._watch is not None  # noqa: S101 - open() has made it
        await self._watch.change()
        self._look()

    def _look(self) -> None:
        """Take the newest record over. Raises what keeps this from going on."""
        assert self._watch is not None  # noqa: S101 - open() has made it
        newest, before = self._watch.record, self._record
        if newest is None:
            raise Gone("The export has been deleted.")
        require_attempt(newest, self._request.attempt)
        if self._reader is not None and newest.artifact != before.artifact:
            raise AttemptLost(f"Attempt {before.attempt} came to nothing: it is {newest.state}.")
        require_content(newest)
        self._record = newest
        if newest.state is State.SUCCEEDED:
            self._size = newest.bytes

    def _require_all(self, size: int) -> None:
        """Raise unless what was sent ends where the export's receipt says."""
        if self._offset != size:
            raise AttemptLost("The artifact is not as long as its record says.")

    async def _send_finished(self) -> None:
        """It has been finished, maybe while this one waited."""
        record = self._record
        if self._reader is None:
            self._reader = finished_reader(self._shelf.folder, record)
        headers, tag = self._request.headers, etag_of(record)
        unchanged = use_range(headers, tag, last_modified(record))
        try:
            asked = spans(headers.get("range"), record.bytes) if unchanged else None
        except RangeNotSatisfiable as error:
            error.headers["ETag"] = tag
            raise
        self._finished = FinishedFile(self._reader, record.bytes, self._request.media_type, asked)
        await self._finished.open()
        self.status = self._finished.status

    def _following(self) -> ArtifactReader:
        assert self._reader is not None  # noqa: S101 - _open_growing() has made it
        return self._reader


_OPEN_END = 2**63 - 1


def has_it_already(record: Record, headers: Mapping[str, str]) -> bool:
    """Whether the client has the finished artifact, so that 304 is the answer.

    Raises PreconditionFailed. Of one that grows nobody can have all.
    """
    known = not_modified(headers, etag_of(record), last_modified(record))
    return known and record.state is State.SUCCEEDED
