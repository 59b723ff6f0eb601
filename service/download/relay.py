"""A relay as a stream: an upstream's download, whole or in part, with its record and receipt."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from service.database import utcnow
from service.download.answer import NOT_MODIFIED, OK, PARTIAL, Answer
from service.download.continuing import Download
from service.download.digesting import ThreadMeter
from service.download.forwarding import SAFEGUARDS, disposition, response_fields
from service.download.lines import JsonLines
from service.download.proving import receipt_of, stopped
from service.download.upstream import Asked, Upstream
from service.errors import TailraceError, UpstreamError
from service.export.chunk import Chunker
from service.export.receipt import Outcome, Receipt
from service.jobs.model import Record
from service.jobs.telling import Telling

LINES_TYPE = "application/x-ndjson"
UNKNOWN_TYPE = "application/octet-stream"  # so that no browser guesses
UNCODED = ("", "identity")
SLICE = 128 * 1024  # bytes whose lines are looked at at once: about a millisecond


@dataclass(frozen=True, slots=True)
class Manner:
    """How the bytes are passed on: in blocks of ``chunk_size`` bytes, None as they come.

    ``lines`` frames JSON lines anew; one that is bad or longer than ``max_line`` bytes is left
    out where ``skip`` says so, and else breaks the stream.
    """

    chunk_size: int | None = None
    lines: bool = False
    skip: bool = False
    max_line: int = 0


class RelayStream:
    """What ``streaming.StreamResponse`` sends: the upstream's status, head and bytes.

    It has a record if the download is one, an answer to GET of status 200 or 206. ``path`` is
    what it is of, for its name; ``announced`` are headers that tell of the record.
    """

    def __init__(
        self,
        upstream: Upstream,
        asked: Asked,
        manner: Manner,
        telling: Telling,
        *,
        path: str,
        announced: Mapping[str, str],
        query_sha256: str,
    ) -> None:
        self.telling = telling
        self._upstream = upstream
        self._asked = asked
        self._path = path
        self._announced = announced
        self._query_sha256 = query_sha256
        self._download = Download(upstream, asked, telling.observe)
        self._lines = JsonLines(manner.max_line, skip=manner.skip) if manner.lines else None
        self._chunker = Chunker(manner.chunk_size) if manner.chunk_size else None
        self._meter = ThreadMeter()
        self._unframed: deque[bytes] = deque()
        self._ready: deque[bytes] = deque()
        self._begun = self._finished = False
        self._proof: dict[str, Any] | None = None

    @property
    def status(self) -> int:
        return self._head.status if self._begun else OK

    async def open(self) -> None:
        await self._download.open()
        self._begun = True
        if self._reframed and self._coding not in UNCODED:
            raise UpstreamError(
                f"{self._upstream.name} sent lines that are coded ({self._coding})."
            )
        if self._reframed and self._head.status == PARTIAL:
            raise UpstreamError(f"{self._upstream.name} sent a part where the whole was asked for.")
        await self._advance()

    async def read(self) -> bytes | None:
        while not self._ready and not self._finished:
            await self._advance()
        return self._ready.popleft() if self._ready else None

    async def close(self) -> None:
        await self._download.close()
        await self._meter.settle()
        self._proof = stopped(self.telling, self._lines.rows if self._lines else 0)

    def headers(self) -> Mapping[str, str]:
        head = self._head
        passed = response_fields(head.fields, lines=self._reframed)
        if head.length is None or head.status == NOT_MODIFIED:
            passed.pop("content-length", None)
        if self._reframed:
            passed["content-type"] = LINES_TYPE
        given = head.headers.get("content-disposition")
        own = SAFEGUARDS | {"Content-Disposition": disposition(given, self._path)}
        passed.setdefault("content-type", UNKNOWN_TYPE)
        announced = self._announced if self._recorded else {}
        return {**passed, **own, **announced}

    def started(self) -> None:
        if self._recorded:
            length = None if self._reframed else self._head.length
            self.telling.record = replace(self.telling.record, total_bytes=length)
            self.telling.started(self._progress)

    def ended(self, outcome: Outcome, error: TailraceError | None) -> None:
        if self._recorded:
            now = utcnow()
            receipt = self._receipt(outcome, now).as_dict()
            self.telling.ended(receipt, outcome, now, error)

    @property
    def _head(self) -> Answer:
        return self._download.head

    @property
    def _coding(self) -> str:
        return str(self._head.headers.get("content-encoding", "")).lower()

    @property
    def _is_download(self) -> bool:
        return self._head.status in (OK, PARTIAL)

    @property
    def _reframed(self) -> bool:
        """Errors of the upstream pass as they are."""
        return self._lines is not None and self._is_download

    @property
    def _recorded(self) -> bool:
        return self._begun and self._asked.method == "GET" and self._is_download

    async def _advance(self) -> None:
        """Take the next bytes in, and make ready what they complete."""
        block = await self._taken()
        made = self._framed(block)
        if made:
            await self._meter.feed(made)
            self._ready.extend([made] if self._chunker is None else self._chunker.feed(made))
        if block is None or (self._download.whole and not self._reframed):
            # However long the client takes for the last of it.
            await self._download.close()
            await self._meter.settle()
            if self._chunker is not None:
                self._ready.extend(filter(None, [self._chunker.rest()]))
            self._finished = True

    async def _taken(self) -> bytes | None:
        if self._unframed:
            return self._unframed.popleft()
        block = await self._download.read()
        if block is None or not self._reframed:
            return block
        slices = (block[start : start + SLICE] for start in range(0, len(block), SLICE))
        self._unframed.extend(slices)
        return self._unframed.popleft() if self._unframed else b""

    def _framed(self, block: bytes | None) -> bytes:
        if self._lines is None or not self._reframed:
            return block or b""
        return self._lines.finish() if block is None else self._lines.feed(block)

    def _progress(self, record: Record) -> Record:
        return replace(record, rows=self._lines.rows if self._lines else 0, bytes=self._meter.bytes)

    def _receipt(self, outcome: Outcome, now: datetime) -> Receipt:
        return receipt_of(
            self.telling,
            outcome,
            now,
            sent=self._meter.bytes,
            sha256=self._meter.sha256,
            coded=self._coding not in UNCODED,
            query_sha256=self._query_sha256,
            cancel=self._proof,
            download=self._told(),
            rows=self._lines.rows if self._lines else None,
            format="ndjson" if self._reframed else None,
        )

    def _told(self) -> dict[str, Any]:
        head = self._head
        return {
            "upstream": self._upstream.name,
            "path": self._path,
            "status": head.status,
            "etag": head.headers.get("etag"),
            "content_range": head.headers.get("content-range"),
            "content_encoding": head.headers.get("content-encoding"),
            "framing": head.framing,
            "reconnects": self._download.reconnects,
            "skipped_lines": self._lines.skipped if self._lines else None,
        }
