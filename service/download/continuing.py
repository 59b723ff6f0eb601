"""The body of an upstream's answer, continued where it breaks off, so that no client notices."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from service.download.answer import PARTIAL, Answer, ask, within
from service.download.forwarding import CONDITIONS
from service.download.upstream import Asked, Upstream
from service.errors import (
    TooLarge,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from service.observe import Observer, UpstreamFailed

FIRST_PAUSE = 0.1  # seconds before the first try to go on; each further one waits twice as long
LONGEST_PAUSE = 5.0
FINAL, CLIENT_ERROR, SERVER_ERROR, NO_STATUS = 200, 400, 500, 600


class Download:
    """What one request to an upstream gives: ``open`` the head, then ``read`` until None.

    Where the upstream breaks off or stalls, has a strong validator and sends ranges, the rest is
    asked for, at most ``retries`` times in all. ``received`` counts the bytes of the body.
    """

    def __init__(self, upstream: Upstream, asked: Asked, observe: Observer) -> None:
        self.received = 0
        self.reconnects = 0
        self._observe = observe
        self._upstream = upstream
        self._limits = upstream.limits
        self._asked = asked
        self._head: Answer | None = None
        self._now: Answer | None = None
        self._primed: list[bytes | None] = []
        self._expected: int | None = None
        self._slot = self._ended = False

    @property
    def head(self) -> Answer:
        """The first answer, whose head the client gets."""
        assert self._head is not None  # noqa: S101 - asked for only once it is open
        return self._head

    @property
    def whole(self) -> bool:
        """Whether all that was announced has come, so that nothing is left to ask for."""
        return self._expected is not None and self.received >= self._expected

    async def open(self) -> None:
        """Take a slot, and wait for the head and the first bytes of the body.

        Raises Busy, UpstreamError and what comes below it, AddressRefused, TooLarge.
        """
        await self._upstream.slots.acquire()
        self._slot = True
        seconds, name = self._limits.first_byte_timeout, self._upstream.name
        try:
            async with within(seconds, f"{name} sent no first byte within {seconds:g} s."):
                await self._begin()
        except UpstreamError as error:
            self._tell(error)
            raise

    async def _begin(self) -> None:
        self._now = self._head = head = await ask(self._upstream, self._asked)
        if not FINAL <= head.status < NO_STATUS:
            raise UpstreamError(f"{self._upstream.name} answered with a status that is none.")
        if not head.has_body:
            await head.read()  # so that the connection is of use again
            self._primed.append(None)
            return
        self._require_acceptable(head)
        self._expected = head.expected
        self._primed.append(await head.read())

    async def read(self) -> bytes | None:
        """The next block, None behind the last. Raises what made the body end early, TooLarge."""
        block = self._primed.pop() if self._primed else await self._block()
        if block is not None:
            self.received += len(block)
            self._require_small(self.received)
        return block

    async def close(self) -> None:
        """Let the connection go: closed where the body has not been read to its end."""
        try:
            await self._let_go()
        finally:
            if self._slot:
                self._slot = False
                self._upstream.slots.release()

    async def _block(self) -> bytes | None:
        while not self._ended:
            try:
                return await self._next()
            except UpstreamError as error:
                self._tell(error)
                await self._go_on(error)
        return None

    def _tell(self, error: UpstreamError) -> None:
        cause = error.__cause__
        why = f"{error.detail} {type(cause).__name__}: {cause}" if cause else error.detail
        self._observe(UpstreamFailed(self._upstream.name, error.code, why))

    async def _next(self) -> bytes | None:
        assert self._now is not None  # noqa: S101 - it is read only once it is open
        block = await self._now.read()
        # What httpx2 lets end too early: HTTP/2, and a server that sent less than was asked for.
        early = self._expected is not None and not self.whole
        if block is None and early:
            raise UpstreamUnavailable(f"{self._upstream.name} ended early.")
        return block

    async def _go_on(self, error: UpstreamError) -> None:
        """Ask for the rest. Raises ``error``, or that of the last try, where that cannot be had."""
        pause = FIRST_PAUSE
        while self.head.part is not None and self.head.etag and self._may_retry():
            self.reconnects += 1
            await self._let_go()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            try:
                self._now = await self._rest()
            except (UpstreamUnavailable, UpstreamTimeout) as again:
                self._tell(again)
                error = again
                continue
            if self._now.status < SERVER_ERROR:
                self._require_rest(self._now, error)
                return
        raise error

    def _may_retry(self) -> bool:
        return self.reconnects < self._limits.retries

    async def _let_go(self) -> None:
        if self._now is not None:
            await self._now.close()

    async def _rest(self) -> Answer:
        seconds = self._limits.first_byte_timeout
        otherwise = f"{self._upstream.name} did not go on within {seconds:g} s."
        async with within(seconds, otherwise):
            return await ask(self._upstream, self._asked_again())

    def _asked_again(self) -> Asked:
        part, etag = self.head.part, self.head.etag
        assert part is not None and etag is not None  # noqa: PT018, S101 - _go_on has looked
        last = "" if part.last is None else part.last
        wanted = [("range", f"bytes={part.first + self.received}-{last}"), ("if-range", etag)]
        kept = [field for field in self._asked.fields if field[0] not in CONDITIONS]
        return replace(self._asked, fields=[*kept, *wanted])

    def _require_rest(self, answer: Answer, error: UpstreamError) -> None:
        """Raise ``error`` unless ``answer`` holds just what follows, of the same version."""
        was, part = self.head.part, answer.part
        assert was is not None  # noqa: S101 - _go_on has looked
        place = was.first + self.received
        if was.last is None and answer.size_behind_which_nothing_is == place:
            self._ended = True  # all but the end of the body had come
            same = answer.headers.get("etag") in (None, self.head.etag)
        else:
            same = part is not None and part.follows(was, place) and self._is_same(answer)
        if not same:
            raise error
        if part is not None and part.size is not None and was.last is None:
            self._expected = part.size - was.first

    def _is_same(self, answer: Answer) -> bool:
        """Whether it is a part of the same version, in the same coding."""
        codings = {each.headers.get("content-encoding") for each in (answer, self.head)}
        return answer.status == PARTIAL and answer.etag == self.head.etag and len(codings) == 1

    def _require_acceptable(self, head: Answer) -> None:
        name = self._upstream.name
        unproved = head.framing == "close" and head.status < CLIENT_ERROR
        if unproved and not self._limits.unframed:
            raise UpstreamError(
                f"{name} does not tell where its answer ends, so nobody could tell whether it is "
                "whole; the setting unframed lets such answers pass."
            )
        self._require_small(head.length or 0)

    def _require_small(self, size: int) -> None:
        most = self._limits.max_size
        if most and size > most:
            raise TooLarge(f"The download is larger than the {most} bytes that may be relayed.")
