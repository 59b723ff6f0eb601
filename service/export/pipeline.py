"""Joins the stages: rows from a producer, framed, compressed, counted, digested, in chunks.

Direct streams and jobs run this same class; they differ in who reads it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from service.errors import TailraceError
from service.export.chunk import Chunker
from service.export.encode import Frame
from service.export.lane import Lane
from service.export.pipe import Pipe
from service.export.producer import Producer
from service.export.receipt import Meter, Outcome, Receipt, SnapshotMark
from service.export.stage import Pipeline, Stage
from service.export.survey import Survey
from service.preferences import Total

END_MEMBER = "_end"  # what marks the last line of NDJSON
BLOCK = 256 * 1024  # bytes that pass the stages at once
GONE_PAUSE = 0.02  # seconds between two questions after a query


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things may take, in seconds."""

    prime: float
    max_duration: float
    flush: float
    close: float


@dataclass(slots=True)
class Stages:
    """What the bytes pass: frame, compression of the file, coding of the transfer.

    With ``trailer`` a last line proves every byte before it.
    """

    frame: Frame
    compression: Stage | None = None
    encoding: Stage | None = None
    trailer: bool = False
    plain: Meter = field(default_factory=Meter)
    file: Meter = field(default_factory=Meter)
    wire: Meter = field(default_factory=Meter)

    @property
    def heavy(self) -> bool:
        """Whether a block costs enough to leave the event loop for it."""
        return self.compression is not None or self.encoding is not None

    def head(self) -> Pipeline:
        """What comes before the trailer."""
        return Pipeline([self.frame, self.plain] if self.trailer else [self.frame])

    def tail(self) -> Pipeline:
        """What the trailer passes too."""
        stages: list[Stage | None] = [self.compression, self.file, self.encoding]
        if self.encoding is not None:
            stages.append(self.wire)
        return Pipeline([stage for stage in stages if stage is not None])

    def last_line(self, next_cursor: str | None) -> bytes:
        """The ``_end`` line of NDJSON: its digest covers every byte before it."""
        if not self.trailer:
            return b""
        end = {
            "status": Outcome.COMPLETE.value,
            "rows": self.frame.rows,
            "sha256": self.plain.sha256,
            "next_cursor": next_cursor,
        }
        return orjson.dumps({END_MEMBER: end}, option=orjson.OPT_APPEND_NEWLINE)


@dataclass(frozen=True, slots=True)
class Description:
    """What a receipt says of an export beside what was measured."""

    export_id: str
    format: str
    compression: str
    started_at: datetime


class Export:
    """One export while it runs: ``open``, then ``read`` until None, then ``close``.

    ``open`` takes the source's slot and waits for the first rows, so that what can fail early
    fails there; ``close`` returns within its bound and frees the database.
    """

    def __init__(
        self,
        description: Description,
        lane: Lane,
        stages: Stages,
        chunk_size: int,
        patience: Patience,
        survey: Survey | None = None,
    ) -> None:
        self.description = description
        self.stages = stages
        self._survey = survey
        self._patience = patience
        self._head, self._tail = stages.head(), stages.tail()
        self._pipe = Pipe(BLOCK, patience.flush)
        self._producer = Producer(
            lane,
            self._pipe,
            survey=survey,
            max_seconds=patience.max_duration,
            # Shorter, so that a locked table is an error with a status and no broken stream.
            lock_seconds=patience.prime / 2,
            name=f"export {description.export_id}",
        )
        self._chunker = Chunker(chunk_size)
        self._ready: deque[bytes] = deque()
        self._withheld = False  # stages and chunker may hold bytes that have come
        self._finished = False

    async def open(self) -> None:
        """Start, and wait for the first rows; after ``prime`` seconds go on without them.

        Raises Busy, SourceError, or InvalidParameter for a value that the database refused.
        """
        await self._producer.start()
        await self._producer.surveyed()
        await self._pipe.primed(self._patience.prime)

    @property
    def lane(self) -> str:
        """The name of the lane that its rows take."""
        return self._producer.lane.name

    @property
    def total(self) -> Total | None:
        """How many rows there are in all, if that was asked."""
        return self._survey.total if self._survey else None

    @property
    def next_cursor(self) -> str | None:
        """The place behind the last row, once all have been read."""
        return self._survey.next_cursor if self._survey else None

    async def read(self) -> bytes | None:
        """The next chunk, or None after the last; raises what made the export fail."""
        while not self._ready and not self._finished:
            await self._advance()
        return self._ready.popleft() if self._ready else None

    async def close(self) -> None:
        """Stop the query if it still runs; its connection is free afterwards."""
        await self._producer.close(self._patience.close)

    async def gone(self, within: float) -> bool:
        """Whether the database says that the query is gone, asked until so or ``within`` seconds.

        To be asked after ``close``.
        """
        with contextlib.suppress(TimeoutError, TailraceError):
            async with asyncio.timeout(within):
                while not await self._producer.gone():  # noqa: ASYNC110 - what is waited for is elsewhere
                    await asyncio.sleep(GONE_PAUSE)
                return True
        return False

    @property
    def mark(self) -> SnapshotMark | None:
        """Which state of the data is read, once that is known."""
        return self._producer.mark

    def receipt(
        self, outcome: Outcome, finished_at: datetime, cancel: dict[str, Any] | None = None
    ) -> Receipt:
        """What can be proved of the stream as it stands; ``cancel`` is the proof of its stop."""
        stages, producer, description = self.stages, self._producer, self.description
        wire = stages.wire if stages.encoding is not None else None
        return Receipt(
            export_id=description.export_id,
            outcome=outcome,
            rows=stages.frame.rows,
            bytes=stages.file.bytes,
            sha256=stages.file.sha256,
            encoded_bytes=wire.bytes if wire else None,
            encoded_sha256=wire.sha256 if wire else None,
            format=description.format,
            compression=description.compression,
            query_sha256=producer.lane.query_sha256,
            snapshot=producer.mark,
            started_at=description.started_at,
            finished_at=finished_at,
            db_seconds_held=producer.seconds_held,
            next_cursor=self.next_cursor if outcome is Outcome.COMPLETE else None,
            cancel=cancel,
        )

    async def _advance(self) -> None:
        block = await self._pipe.read(pausing=self._withheld)
        slow = block is not None and len(block) < BLOCK and not self._pipe.ended
        if self.stages.heavy:
            made = await asyncio.to_thread(self._pass, block, slow=slow)
        else:
            made = self._pass(block, slow=slow)
        self._ready.extend(self._chunker.feed(made))
        if slow or block is None:
            self._ready.extend(filter(None, [self._chunker.rest()]))
        self._withheld = not slow
        self._finished = block is None

    def _pass(self, block: bytes | None, *, slow: bool) -> bytes:
        """One block through the stages; None is the end, ``slow`` asks for all that is held."""
        if block is None:
            return self._last()
        made = self._tail.feed(self._head.feed(block))
        return made + self._tail.feed(self._head.sync()) + self._tail.sync() if slow else made

    def _last(self) -> bytes:
        rows = self._producer.rows
        head = self._head.finish()
        if rows != self.stages.frame.rows:
            raise TailraceError(f"{self.stages.frame.rows} rows were sent, the source says {rows}.")
        return self._tail.feed(head + self.stages.last_line(self.next_cursor)) + self._tail.finish()
