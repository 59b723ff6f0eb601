"""What the answer to a request for an open file is: its status, its headers, which bytes."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any

from service.download.media_types import media_type
from service.download.roots import OpenFile
from service.download.share import Chosen
from service.errors import RangeNotSatisfiable
from service.export.compress import COMPRESSIONS
from service.preconditions import not_modified, use_range
from service.ranges import Body, Span, spans
from service.representation import content_disposition

NOT_MODIFIED = 304
SETTLED = timedelta(seconds=2)
CACHING = {"Cache-Control": "private, no-cache, no-transform"}
SAFEGUARDS = {
    "X-Content-Type-Options": "nosniff",
    # A page or drawing that somebody stored must not run as if it were one of ours.
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


@dataclass(frozen=True, slots=True)
class FileRequest:
    """What is asked of a root. ``headers`` are the client's, by lower-case names.

    ``chunk_size`` None leaves the blocks to the server.
    """

    path: str
    headers: Mapping[str, str]
    head: bool = False
    chunk_size: int | None = None

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def shown(self, root: str) -> dict[str, Any]:
        """As it stands in a record."""
        asked = {name: self.headers[name] for name in ("range",) if name in self.headers}
        return {"root": root, "path": self.path, **asked}


@dataclass(frozen=True, slots=True)
class Decision:
    """``body`` is None where the client has the file already."""

    chosen: Chosen
    name: str
    modified: datetime
    body: Body | None
    varies: bool

    @property
    def status(self) -> int:
        return NOT_MODIFIED if self.body is None else self.body.status

    def headers(self) -> dict[str, str]:
        """To a client that has the file, only what RFC 9110, section 15.4.5, asks for."""
        told = {
            **CACHING,
            "ETag": self.chosen.opened.etag(),
            "Last-Modified": format_datetime(self.modified, usegmt=True),
        }
        if self.varies:
            told["Vary"] = "Accept-Encoding"
        if self.body is None:
            return told
        if self.chosen.encoding is not None:
            told["Content-Encoding"] = COMPRESSIONS[self.chosen.encoding].coding
        disposition = {"Content-Disposition": content_disposition(self.name)}
        return told | SAFEGUARDS | disposition | self.body.headers()


def decide(request: FileRequest, chosen: Chosen, now: datetime, *, varies: bool) -> Decision:
    """The answer of ``now``. Raises PreconditionFailed and RangeNotSatisfiable.

    Files of precompressed roots ``varies`` with what the client accepts.
    """
    opened = chosen.opened
    # A time in the future would be none of which the file can be said not to have changed since
    # (RFC 9110, section 8.8.2.1).
    modified = min(opened.modified, now)
    body = None
    if not not_modified(request.headers, opened.etag(), modified):
        asked = _spans(request, opened, now)
        body = Body(opened.size, media_type(request.name), asked, secrets.token_hex(16))
    return Decision(chosen, request.name, modified, body, varies)


def _spans(request: FileRequest, opened: OpenFile, now: datetime) -> tuple[Span, ...] | None:
    """Which bytes are asked for. ``Range`` is for GET alone (RFC 9110, section 14.2).

    A date in ``If-Range`` counts once the second that it names is over (section 8.8.2.2), and
    a little more, since file systems stamp with the time of their last tick.
    """
    strong = opened.modified if now - opened.modified > SETTLED else None
    if request.head or not use_range(request.headers, opened.etag(), strong):
        return None
    try:
        return spans(request.headers.get("range"), opened.size)
    except RangeNotSatisfiable as error:
        error.headers["ETag"] = opened.etag()
        raise
