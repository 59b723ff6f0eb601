"""Tailrace's stream for other FastAPI and Starlette applications: rows of their own iterators.

    streams = RowStreams(at_once=8)
    app = FastAPI(exception_handlers=handlers(log))

    @app.get("/squares.{suffix}")
    async def squares(request: Request, suffix: str) -> Response:
        rows = partial(made, 1_000_000)
        return streams.threaded(request, "squares", suffix, ("n", "square"), rows)

``handlers`` are those of ``service.api.problems``. ``examples/generators.py`` is a whole one.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from typing import Any

import uuid_utils.compat as uuid_utils
from starlette.requests import Request

from service.database import utcnow
from service.errors import InvalidParameter, NotFound, TailraceError
from service.export.compress import COMPRESSIONS
from service.export.encode import FORMATS, FrameOptions
from service.export.items import RowText, values
from service.export.iterate import AsyncRows, IteratorLane, ThreadRows
from service.export.pipeline import END_MEMBER, Description, Export, Patience, Stages
from service.export.receipt import Outcome, Receipt
from service.jobs.model import Kind
from service.observe import Observer, StreamEnded, StreamStarted, log
from service.representation import (
    PARAMETERS,
    Representation,
    parse_representation,
)
from service.settings import LimitSettings
from service.slots import Slots
from service.streaming import ActiveStreams, StreamResponse

ProofTaker = Callable[[Receipt], None]
OFFERED = PARAMETERS - {"profile"}  # a sheet's rows are counted beforehand, and iterators cannot be


class RowStreams:
    """What the streams of one application share; at most ``at_once`` run, others get Busy.

    ``limits`` are those of the configuration. ``prove`` is given the receipt of every stream
    that has begun, however it ended: for a complete one before its last byte leaves.
    """

    def __init__(
        self,
        limits: LimitSettings | None = None,
        *,
        at_once: int = 8,
        observe: Observer = log,
        prove: ProofTaker | None = None,
    ) -> None:
        self.active = ActiveStreams()
        self._limits = limits or LimitSettings()
        self._slots = Slots("the iterators", at_once, self._limits.slot_timeout)
        self._observe = observe
        self._prove = prove

    def threaded(
        self,
        request: Request,
        name: str,
        suffix: str,
        labels: Sequence[str],
        make: Callable[[], Iterable[Any]],
    ) -> StreamResponse:
        """The rows of the iterator that ``make`` gives, which is stepped and closed in a thread.

        ``suffix`` is csv, ndjson or json; the query string may hold ``compression``, ``end``,
        ``delimiter``, ``header`` and ``chunk_size``. Rows are what ``export.items.values`` takes.
        Raises NotFound for another suffix, InvalidParameter for a wrong parameter.
        """
        asked = self._asked(request, suffix, labels)
        lane = ThreadRows("thread", make, _text(asked, labels), self._slots)
        return self._response(name, labels, asked, lane)

    def asynchronous(
        self,
        request: Request,
        name: str,
        suffix: str,
        labels: Sequence[str],
        make: Callable[[], AsyncIterable[Any]],
    ) -> StreamResponse:
        """The same for an asynchronous iterator, which is stepped and closed in a task."""
        asked = self._asked(request, suffix, labels)
        lane = AsyncRows("async", make, _text(asked, labels), self._slots)
        return self._response(name, labels, asked, lane)

    def _asked(self, request: Request, suffix: str, labels: Sequence[str]) -> Representation:
        if suffix not in FORMATS:
            raise NotFound(f"{suffix!r} is none of {', '.join(FORMATS)}.")
        given = request.query_params.multi_items()
        asked = parse_representation(
            FORMATS[suffix],
            [item for item in given if item[0] in OFFERED],
            accept_encoding=request.headers.get("accept-encoding", ""),
            chunk_size=self._limits.chunk_size,
        )
        if asked.end and END_MEMBER in labels:
            raise InvalidParameter("end", f"end: a column is called {END_MEMBER} itself.")
        return asked

    def _response(
        self, name: str, labels: Sequence[str], asked: Representation, lane: IteratorLane
    ) -> StreamResponse:
        export_id = str(uuid_utils.uuid7())
        limits = self._limits
        export = Export(
            Description(export_id, asked.format.name, asked.compression, utcnow()),
            lane,
            _stages(asked, labels),
            asked.chunk_size,
            Patience(
                prime=limits.prime_timeout,
                max_duration=limits.max_duration,
                flush=limits.flush_interval,
                close=limits.close_timeout,
            ),
        )
        return StreamResponse(
            IteratorStream(export, name, self._observe, self._prove),
            self.active,
            headers={**asked.headers(name), "X-Export-Id": export_id},
            max_duration=limits.max_duration,
        )


class IteratorStream:
    """A stream without a record: what is to be known of it is in the log, and in its receipt."""

    status = 200

    def __init__(
        self, export: Export, name: str, observe: Observer, prove: ProofTaker | None
    ) -> None:
        self._export = export
        self._observe = observe
        self._prove = prove
        self._created = self._started = time.monotonic()
        self._told = {
            "export_id": export.description.export_id,
            "kind": Kind.STREAM.value,
            "dataset": name,
            "format": export.description.format,
            "lane": export.lane,
        }

    async def open(self) -> None:
        await self._export.open()

    async def read(self) -> bytes | None:
        return await self._export.read()

    async def close(self) -> None:
        await self._export.close()

    def headers(self) -> Mapping[str, str]:
        return {}

    def started(self) -> None:
        self._started = time.monotonic()
        self._observe(StreamStarted(**self._told, first_byte_seconds=self._started - self._created))

    def ended(self, outcome: Outcome, error: TailraceError | None) -> None:
        receipt = self._export.receipt(outcome, utcnow())
        if self._prove is not None:
            self._prove(receipt)
        self._observe(
            StreamEnded(
                **self._told,
                outcome=outcome.value,
                rows=receipt.rows or 0,
                bytes=receipt.bytes or 0,
                seconds=time.monotonic() - self._started,
                error=error.detail if error else None,
            )
        )


def _text(asked: Representation, labels: Sequence[str]) -> RowText:
    return values(asked.format.rows, labels, asked.delimiter)


def _stages(asked: Representation, labels: Sequence[str]) -> Stages:
    compression = COMPRESSIONS.get(asked.compression)
    encoding = COMPRESSIONS.get(asked.encoding or "")
    return Stages(
        frame=asked.format.frame(FrameOptions(tuple(labels), asked.delimiter, asked.header)),
        compression=compression.stage() if compression else None,
        encoding=encoding.stage() if encoding else None,
        trailer=asked.end,
    )
