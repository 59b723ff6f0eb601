"""A file of a root as a stream: whole, in part, or only its head, and of one version alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson

from service.artifacts.ahead import Ahead
from service.database import utcnow
from service.download.decision import Decision, FileRequest, decide
from service.download.proving import receipt_of, stopped
from service.download.reading import Blocks, Parts
from service.download.share import Share
from service.errors import TailraceError
from service.export.receipt import Outcome, Receipt
from service.file_part import FilePart, SourceFile
from service.jobs.model import Record
from service.jobs.telling import Telling
from service.ranges import Body

SMALL = 256 * 1024  # bytes; what is not more is read whole before its first byte leaves


class FileStream:
    """What ``streaming.StreamResponse`` sends; it decides in ``open`` what that is.

    With a recorder behind ``telling`` there is a record, which ``announced`` are headers of, and
    all is read, digested and handed on in blocks. Else the server sends large files by itself,
    unless the client asks for a size of blocks.
    """

    def __init__(
        self, share: Share, request: FileRequest, telling: Telling, announced: Mapping[str, str]
    ) -> None:
        self.telling = telling
        self._share = share
        self._request = request
        self._announced = announced
        self._decision: Decision | None = None
        self._source: SourceFile | None = None
        self._ahead: Ahead[bytes | FilePart] | None = None
        self._read: Blocks | Parts | None = None
        self._slots = 0
        self._proof: dict[str, Any] | None = None

    @property
    def status(self) -> int:
        return self._decision.status if self._decision is not None else 200

    async def open(self) -> None:
        """Raises NotFound, PreconditionFailed, RangeNotSatisfiable, Busy and FileChanged."""
        request, share = self._request, self._share
        chosen = await share.open_file(request.path, request.headers.get("accept-encoding", ""))
        opened = chosen.opened
        self._source = SourceFile(opened.file, opened.unchanged, share.threads)
        varies = share.settings.precompressed
        self._decision = decide(request, chosen, utcnow(), varies=varies)
        body = self._decision.body
        if body is not None and not request.head:
            await share.slots.acquire()
            self._slots += 1
            self._read = self._reader(self._source, body)
            self._ahead = Ahead(self._read.read())
            await self._ahead.prime()

    async def read(self) -> bytes | FilePart | None:
        return None if self._ahead is None else await self._ahead.read()

    async def close(self) -> None:
        if self._ahead is not None:
            await self._ahead.close()
        if self._source is not None:
            self._source.close()
        while self._slots:
            self._slots -= 1
            self._share.slots.release()
        self._proof = stopped(self.telling)

    def headers(self) -> Mapping[str, str]:
        told = self._decision.headers() if self._decision is not None else {}
        return {**told, **self._announced} if self._ahead is not None else told

    def started(self) -> None:
        if self._ahead is not None and self._decision is not None and self._decision.body:
            total = self._decision.body.length
            self.telling.record = replace(self.telling.record, total_bytes=total)
            self.telling.started(self._progress)

    def ended(self, outcome: Outcome, error: TailraceError | None) -> None:
        if self._read is not None and self._decision is not None:
            now = utcnow()
            receipt = self._receipt(self._read, self._decision, outcome, now).as_dict()
            self.telling.ended(receipt, outcome, now, error)

    def _progress(self, record: Record) -> Record:
        return replace(record, bytes=self._read.bytes if self._read is not None else 0)

    def _reader(self, source: SourceFile, body: Body) -> Blocks | Parts:
        recorded, size = self.telling.recorder is not None, self._request.chunk_size
        if not recorded and size is None and body.length > SMALL:
            return Parts(source, body)
        return Blocks(source, body, size or SMALL, digested=recorded)

    def _receipt(
        self, read: Blocks | Parts, decision: Decision, outcome: Outcome, now: datetime
    ) -> Receipt:
        headers, root = decision.headers(), self._share.root.name
        return receipt_of(
            self.telling,
            outcome,
            now,
            sent=read.bytes,
            sha256=read.sha256,
            coded=decision.chosen.encoding is not None,
            query_sha256=hashlib.sha256(orjson.dumps(self._request.shown(root))).hexdigest(),
            cancel=self._proof,
            download={
                "root": root,
                "path": self._request.path,
                "etag": headers["ETag"],
                "content_range": headers.get("Content-Range"),
                "content_encoding": headers.get("Content-Encoding"),
            },
        )
