"""The response of streams that only say something now and then, to thousands of readers at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.errors import Draining
from service.line import Line
from service.streaming import EXTENSION, ActiveStreams


class Outlet(Protocol):
    """Where the rest of a response comes from; a ``line.Reader``."""

    def attach(self, line: Line) -> None: ...
    def resumed(self) -> None: ...
    def lost(self) -> None: ...


class Stream(Protocol):
    """What is sent: ``begin`` gives the first bytes, ``outbox`` all that follow."""

    @property
    def outbox(self) -> Outlet: ...

    async def begin(self) -> bytes: ...


class DetachedResponse(Response):
    """Sends the head and the first bytes, then leaves the connection to the stream.

    What fails in ``begin`` is an ordinary error with a real status. Our server alone can do this:
    others have no way to go on with a response whose application has returned.
    """

    def __init__(self, stream: Stream, active: ActiveStreams, headers: Mapping[str, str]) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(headers)
        self._stream = stream
        self._active = active

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        if self._active.draining:
            raise Draining
        first = await self._stream.begin()
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        try:
            await send(start)
            await send({"type": "http.response.body", "body": first, "more_body": True})
            line = scope["extensions"][EXTENSION]["detach"](self._stream.outbox)
        except BaseException:
            self._stream.outbox.lost()
            raise
        if line is not None:
            self._stream.outbox.attach(line)
