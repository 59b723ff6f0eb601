"""The one response that every kind of stream uses: start, send, prove or break, always close.

What it guarantees, whatever is streamed:

- nothing is taken before the response runs, and everything is given back when it ends;
- what fails before the first byte is an ordinary error with a real status;
- what fails later breaks the connection: the last chunk is never sent;
- a client that leaves or stalls ends the stream's source within a bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from service.errors import Cancelled, DeadlineExceeded, Draining, StreamBroken, TailraceError
from service.export.receipt import Outcome
from service.file_part import FilePart

EXTENSION = "tailrace"  # the key in scope["extensions"] under which our server tells more
BLOCK = 256 * 1024  # bytes of a part of a file, where the server cannot send it by itself


class Stream(Protocol):
    """Something to send: opened, read until None, closed, told how it ended.

    ``status`` and ``headers()`` are looked at once it is open.
    """

    @property
    def status(self) -> int: ...

    async def open(self) -> None:
        """Take what it needs and prime; what it raises becomes an ordinary error response."""
        ...

    async def read(self) -> bytes | FilePart | None:
        """The next chunk, None at the end; what it raises breaks the connection.

        Nothing is known of a part of a file before all of it has left, so the last is to be bytes.
        """
        ...

    async def close(self) -> None:
        """Give everything back, within a bound. Called once, however it went."""
        ...

    def headers(self) -> Mapping[str, str]:
        """What is to be told beside the headers that were known before it was open."""
        ...

    def started(self) -> None:
        """The first byte is about to leave."""
        ...

    def ended(self, outcome: Outcome, error: TailraceError | None) -> None:
        """How it ended; for a complete one before its last byte leaves, else after close."""
        ...


class ClientLeft(TailraceError):
    code = "client_left"
    title = "The client closed the connection"


class ClientStalled(TailraceError):
    code = "client_stalled"
    title = "The client stopped reading"


SendPart = Callable[[FilePart], Awaitable[None]]


class Active(Protocol):
    """What a drain lets end, and then breaks off."""

    def break_off(self, reason: TailraceError) -> None: ...


class ActiveStreams:
    """The streams of this process that go on; a drain refuses new ones."""

    def __init__(self) -> None:
        self._streams: set[Active] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._told: list[Callable[[], None]] = []
        self.draining = False

    def __len__(self) -> int:
        return len(self._streams)

    def enter(self, stream: Active) -> None:
        """Raises Draining when no new stream may start."""
        if self.draining:
            raise Draining
        self._streams.add(stream)
        self._idle.clear()

    def leave(self, stream: Active) -> None:
        self._streams.discard(stream)
        if not self._streams:
            self._idle.set()

    def when_draining(self, told: Callable[[], None]) -> None:
        """Call ``told`` when the process is about to stop."""
        self._told.append(told)

    async def drain(self, within: float) -> None:
        """Let streams end for ``within`` seconds, then break the rest and wait for them."""
        self.draining = True
        for told in self._told:
            told()
        try:
            async with asyncio.timeout(within):
                await self._idle.wait()
        except TimeoutError:
            for stream in list(self._streams):
                stream.break_off(Draining())
        await self._idle.wait()


class StreamResponse(Response):
    """Sends ``stream``; ``max_duration`` in seconds bounds it from its first wait to its end."""

    def __init__(
        self,
        stream: Stream,
        active: ActiveStreams,
        *,
        headers: Mapping[str, str],
        max_duration: float | None,
    ) -> None:
        self.status_code = stream.status
        self.background = None
        self.init_headers(headers)
        self._stream = stream
        self._active = active
        self._max_duration = max_duration
        self._begun = self._complete = False
        self._delivery: asyncio.Task[None] | None = None
        self._reason: TailraceError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._active.enter(self)
        self._delivery = asyncio.create_task(self._deliver(scope, send))
        watch = asyncio.create_task(self._watch(scope, receive, self._delivery))
        try:
            await asyncio.wait({self._delivery})
        finally:
            watch.cancel()
            await _to_the_end(self._wind_up(self._delivery))
            self._active.leave(self)
        self._conclude(self._delivery)

    def break_off(self, reason: TailraceError) -> None:
        """End the stream for ``reason``: what has been sent is left without its end."""
        if self._delivery is not None and not self._complete:
            self._reason = self._reason or reason
            self._delivery.cancel()

    async def _deliver(self, scope: Scope, send: Send) -> None:
        try:
            async with asyncio.timeout(self._max_duration):
                await self._stream.open()
                await self._send(send, _part_sender(scope, send))
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"The stream took longer than {self._max_duration:g} s."
            ) from error

    async def _send(self, send: Send, send_part: SendPart) -> None:
        self.status_code = self._stream.status
        self.headers.update(self._stream.headers())
        self._begun = True
        self._stream.started()
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        left = int(self.headers.get("content-length", -1))
        while (chunk := await self._stream.read()) is not None:
            if isinstance(chunk, FilePart):
                left -= chunk.length
                await send_part(chunk)
            elif len(chunk) == left:
                await self._finish(chunk, send)
                return
            else:
                left -= len(chunk)
                await send(_body(chunk, more=True))
            # Neither a full pipe nor an empty socket makes the two awaits above yield.
            await asyncio.sleep(0)
        await self._finish(b"", send)

    async def _finish(self, last: bytes, send: Send) -> None:
        """To a client that knows the length, ``last`` is the end, whatever comes behind it."""
        self._complete = True
        self._stream.ended(Outcome.COMPLETE, None)
        await send(_body(last, more=False))

    async def _watch(self, scope: Scope, receive: Receive, delivery: asyncio.Task[None]) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if not delivery.done():
            told = scope.get("extensions", {}).get(EXTENSION, {})
            stalled = told.get("stalled", False)
            self.break_off(
                ClientStalled("The client read nothing for too long.")
                if stalled
                else ClientLeft("The client closed the connection.")
            )

    async def _wind_up(self, delivery: asyncio.Task[None]) -> None:
        delivery.cancel()
        await asyncio.wait({delivery})
        await self._stream.close()
        if self._begun and not self._complete:
            error = self._failure(delivery)
            self._stream.ended(_outcome(error), error)

    def _failure(self, delivery: asyncio.Task[None]) -> TailraceError:
        if self._reason is not None:
            return self._reason
        if delivery.cancelled():
            return Draining()
        error = delivery.exception()
        if isinstance(error, TailraceError):
            return error
        return TailraceError(f"Unexpected {type(error).__name__}.")

    def _conclude(self, delivery: asyncio.Task[None]) -> None:
        """Tell the server: nothing after a clean end, else the error before or after the start."""
        if isinstance(self._reason, ClientLeft | ClientStalled):
            return
        if not delivery.cancelled() and delivery.exception() is None:
            return
        cause = None if delivery.cancelled() else delivery.exception()
        if self._begun:
            raise StreamBroken(self._failure(delivery).detail) from cause
        raise cause or self._failure(delivery)


def _outcome(error: TailraceError) -> Outcome:
    if isinstance(error, Cancelled):
        return Outcome.CANCELLED
    gone = isinstance(error, ClientLeft | ClientStalled | Draining)
    return Outcome.TRUNCATED if gone else Outcome.FAILED


async def _to_the_end(winding_up: Awaitable[None]) -> None:
    """Run to the end even if the task that waits is cancelled meanwhile."""
    task = asyncio.ensure_future(winding_up)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


def _body(chunk: bytes, *, more: bool) -> Message:
    message: dict[str, Any] = {"type": "http.response.body", "body": chunk, "more_body": more}
    return message


def _part_sender(scope: Scope, send: Send) -> SendPart:
    """How parts of files are sent: by our server itself, by others as ordinary blocks."""
    told = scope.get("extensions", {}).get(EXTENSION, {})
    found: SendPart = told.get("send_part") or partial(_send_in_blocks, send)
    return found


async def _send_in_blocks(send: Send, part: FilePart) -> None:
    while part.left:
        await send(_body(await part.block(BLOCK), more=True))
