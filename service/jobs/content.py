"""The bytes of a job's artifact, finished or still growing, as one stream (API: content)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

from service.artifacts.finished import FinishedFile
from service.artifacts.folder import ArtifactFolder
from service.artifacts.growth import Growth
from service.artifacts.reading import ArtifactReader
from service.errors import Gone, NotYet, RangeNotSatisfiable, TailraceError
from service.export.receipt import Outcome
from service.jobs.following import NO_END, Following, Part, Sight
from service.jobs.hub import Hub
from service.jobs.model import Record, State
from service.jobs.watching import watching
from service.preconditions import not_modified, use_range
from service.ranges import live_span, spans

FIRST_BYTE_SECONDS = 15.0
FILE_SECONDS = 0.02  # between two looks for a file that is about to be made
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


class Content:
    """What ``streaming.StreamResponse`` sends; it decides in ``open`` what that is."""

    status = 200

    def __init__(self, record: Record, request: ContentRequest, shelf: Shelf) -> None:
        self._record = record
        self._request = request
        self._shelf = shelf
        self._watched = contextlib.AsyncExitStack()
        self._sent: Following | FinishedFile | None = None

    async def open(self) -> None:
        """Wait for the first byte that is asked for.

        Raises NotYet where none is made in time, RangeNotSatisfiable, and Gone, Conflict or
        AttemptLost where the export ends without content.
        """
        watch = await self._watched.enter_async_context(watching(self._shelf.hub, self._record))
        sight = Sight(watch, self._record, self._request.attempt)
        following = await self._begun(sight)
        if following is not None:
            await following.until(self._part(sight.record).needed)
        self._record = sight.record
        if self._record.state is State.SUCCEEDED:
            await self._open_finished()
        if self._sent is not None:
            self.status = self._sent.status

    async def read(self) -> bytes | None:
        return await self._sent.read() if self._sent is not None else None

    async def close(self) -> None:
        if self._sent is not None:
            await self._sent.close()
        await self._watched.aclose()

    def headers(self) -> Mapping[str, str]:
        special = self._sent.headers() if self._sent is not None else {}
        return {"Accept-Ranges": "bytes", **validators(self._record), **special}

    def started(self) -> None:
        """The job has a record; who reads it has none."""

    def ended(self, outcome: Outcome, error: TailraceError | None) -> None:
        """The job's receipt stands, whoever reads it how far."""

    async def _begun(self, sight: Sight) -> Following | None:
        """The growing artifact with its first byte; None where it is finished by then."""
        try:
            async with asyncio.timeout(FIRST_BYTE_SECONDS):
                reader = await self._growing(sight)
                if reader is None:
                    return None
                part = self._part(sight.record)
                following = Following(sight, reader, self._shelf.growth, part)
                self._sent, sight.followed = following, True
                await following.until(0)
                return following
        except TimeoutError as error:
            raise NotYet("The first byte is not made yet.", headers=RETRY_AFTER) from error

    async def _growing(self, sight: Sight) -> ArtifactReader | None:
        """The worker makes the file a moment after it has said what the file is called.

        An attempt may come to nothing before that, and the export waits for the next one.
        """
        while not sight.record.state.final:
            running = sight.record.state is State.RUNNING
            name = sight.record.artifact or ""
            file = self._shelf.folder.open_growing_or_finished(name) if running else None
            if file is not None:
                return ArtifactReader(file)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FILE_SECONDS if running else None):
                    await sight.change()
        return None

    def _part(self, record: Record) -> Part:
        """Which part of a growing artifact."""
        headers = self._request.headers
        asked = live_span(headers.get("range"))
        # Without If-Range and without an attempt in the address, nobody knows of which attempt
        # the client has the beginning.
        mixed = record.attempt > 1 and self._request.attempt is None and "if-range" not in headers
        if asked is None or mixed or not use_range(headers, etag_of(record)):
            return Part()
        first, last = asked
        return Part(first, NO_END if last is None else last, asked=True)

    async def _open_finished(self) -> None:
        """It is finished, maybe since this one waited."""
        record = self._record
        if self._sent is not None:
            await self._sent.close()
        reader, self._sent = finished_reader(self._shelf.folder, record), None
        try:
            asked = spans(self._range(record), record.bytes)
        except RangeNotSatisfiable as error:
            reader.close()
            error.headers["ETag"] = etag_of(record)
            raise
        self._sent = FinishedFile(reader, record.bytes, self._request.media_type, asked)
        await self._sent.open()

    def _range(self, record: Record) -> str | None:
        """The range that is asked for; None where two attempts could be joined by it.

        Without If-Range and without an attempt in the address, nobody knows of which attempt the
        client has the beginning.
        """
        headers, named = self._request.headers, self._request.attempt is not None
        known = named or record.attempt == 1 or "if-range" in headers
        applies = known and use_range(headers, etag_of(record), last_modified(record))
        return headers.get("range") if applies else None


def etag_of(record: Record) -> str:
    """The same from an attempt's first byte to its finished artifact, and never of another."""
    return f'"{record.id.replace("-", "")}.{record.attempt}"'


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


def finished_reader(folder: ArtifactFolder, record: Record) -> ArtifactReader:
    """The finished artifact, open. Raises Gone where it has just been removed."""
    file = folder.open_growing_or_finished(record.artifact or "") if record.artifact else None
    if file is None:
        raise Gone("The artifact is not there any more.")
    return ArtifactReader(file)


def has_it_already(record: Record, headers: Mapping[str, str]) -> bool:
    """Whether the client has the finished artifact, so that 304 is the answer.

    Raises PreconditionFailed. Of one that grows nobody can have all.
    """
    known = not_modified(headers, etag_of(record), last_modified(record))
    return known and record.state is State.SUCCEEDED
