"""A generation that runs in this process: asked of its provider, told to whoever reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from service.chat.model import Event, Generation, OnDisconnect
from service.chat.provider import (
    Answers,
    ChatRequest,
    Failure,
    Finished,
    FinishReason,
    Note,
    Piece,
    ProviderFailed,
)
from service.chat.transcript import Transcript
from service.database import utcnow
from service.errors import TailraceError

FIRST_PAUSE = 0.5  # seconds before another try, where the provider asks for none
LONGEST_PAUSE = 10.0  # a provider that asks for more is not asked again
STARTED = 1  # event: that it has begun
MOST_PIECES = 8  # of text for each token of max_tokens: more, and the provider ignores the limit


class Listener(Protocol):
    """Somebody who reads a generation; told in the event loop, so it returns at once."""

    def told(self, events: Sequence[Event]) -> None: ...


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: until the first token, between two, and in all; and how often to ask again."""

    first_token: float
    stall: float
    max_duration: float
    retries: int


class Live:
    """Runs from ``start`` to its end, whoever reads it. ``changed`` is called after each event.

    ``failure`` is what it failed with, ``bug`` the exception behind one that is our own.
    """

    def __init__(
        self,
        generation: Generation,
        answers: Answers,
        request: ChatRequest,
        patience: Patience,
        on_disconnect: OnDisconnect,
        changed: Callable[[Live], None],
    ) -> None:
        self.id = generation.id
        self.transcript = Transcript(generation)
        self._answers = answers
        self._request = request
        self._patience = patience
        self._on_disconnect = on_disconnect
        self._changed = changed
        self.failure: ProviderFailed | None = None
        self.bug: Exception | None = None
        self._listeners: dict[Listener, None] = {}
        self._stopping = False
        self._reason: TailraceError | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"generation {self.id}")
        self._task.add_done_callback(self._over)
        self._changed(self)

    def cancel(self) -> None:
        """Stop it: the connection to its provider closes at once."""
        self._stop(None)

    def break_off(self, reason: TailraceError) -> None:
        """End it for ``reason``, which may pass: the process is about to stop."""
        self._stop(reason)

    async def ended(self, within: float | None) -> bool:
        """Whether it has ended within so many seconds; None waits for it."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=within)
        return self.transcript.state.final

    def attach(self, listener: Listener, after: int) -> None:
        """Tell ``listener`` of every event behind the number ``after``."""
        self._listeners[listener] = None
        if missed := self.transcript.behind(after):
            listener.told(missed)

    def detach(self, listener: Listener, *, left: bool) -> None:
        """``left`` says that its client is gone: nobody may be there to read on."""
        self._listeners.pop(listener, None)
        if left and not self._listeners and self._on_disconnect is OnDisconnect.CANCEL:
            self.cancel()

    def _stop(self, reason: TailraceError | None) -> None:
        # Only once: another cancellation would break into the closing of the connection.
        if self._task is not None and not (self._stopping or self.transcript.state.final):
            self._stopping, self._reason = True, reason
            self._task.cancel()

    def _over(self, task: asyncio.Task[None]) -> None:
        """A task that is cancelled before its first step never comes to say so itself."""
        if task.cancelled() and not self.transcript.state.final:
            self._tell(self._stopped())

    async def _run(self) -> None:
        whole = asyncio.timeout(self._patience.max_duration)
        try:
            async with whole:
                finished = await self._tried()
        except asyncio.CancelledError:
            self._tell(self._stopped())
        except TimeoutError as error:
            self._tell(self._late() if whole.expired() else self._broken(error))
        except ProviderFailed as error:
            self._tell(self._failed(error))
        except Exception as error:  # noqa: BLE001 - whoever reads it is told, and so is the log
            self._tell(self._broken(error))
        else:
            self._tell(self.transcript.done(finished, utcnow()))

    def _stopped(self) -> list[Event]:
        if self._reason is None:
            return self.transcript.cancelled(utcnow())
        return self._failed(ProviderFailed(Failure.UNKNOWN, self._reason.detail, retry=True))

    def _failed(self, error: ProviderFailed) -> list[Event]:
        self.failure = error
        return self.transcript.failed(error, utcnow())

    def _broken(self, error: Exception) -> list[Event]:
        self.bug = error
        detail = "The generation failed unexpectedly."
        return self._failed(ProviderFailed(Failure.UNKNOWN, detail, retry=False))

    def _late(self) -> list[Event]:
        detail = f"The generation took longer than {self._patience.max_duration:g} s."
        return self._failed(ProviderFailed(Failure.TIMEOUT, detail, retry=True))

    async def _tried(self) -> Finished:
        seconds = self._patience.first_token
        first = asyncio.timeout(seconds)
        try:
            async with first:
                return await self._until_answered(first)
        except TimeoutError as error:
            if not first.expired():
                raise
            detail = f"The model sent nothing within {seconds:g} s."
            raise ProviderFailed(Failure.TIMEOUT, detail, retry=True) from error

    async def _until_answered(self, first: asyncio.Timeout) -> Finished:
        """Ask, and ask again for as long as nothing has come; ``first`` is off once a token has."""
        pause, left = FIRST_PAUSE, self._patience.retries
        while True:
            try:
                return await self._asked(first)
            except ProviderFailed as error:
                wished = error.retry_after or pause
                again = left and error.retry and self.transcript.seq == STARTED
                if not again or _in_vain(first, wished):
                    raise
                left -= 1
                await asyncio.sleep(wished)
                pause *= 2

    async def _asked(self, first: asyncio.Timeout) -> Finished:
        async with aclosing(self._answers.stream(self._request)) as pieces:
            while True:
                piece = await self._next(pieces, first)
                if isinstance(piece, Finished):
                    return piece
                if isinstance(piece, Note):
                    self._tell(self.transcript.note(piece))
                    first.reschedule(_from_now(self._patience.first_token))
                    continue
                first.reschedule(None)
                self._tell(self.transcript.token(piece.text, utcnow()))
                if self._too_much():
                    return Finished(FinishReason.LENGTH)
                # What has arrived already is given without a pause: others have a turn in between.
                await asyncio.sleep(0)

    async def _next(
        self, pieces: AsyncGenerator[Piece | Note, None], first: asyncio.Timeout
    ) -> Piece | Note:
        if first.when() is not None:
            return await self._piece(pieces)
        try:
            async with asyncio.timeout(self._patience.stall):
                return await self._piece(pieces)
        except TimeoutError as error:
            detail = f"The model sent nothing for {self._patience.stall:g} s."
            raise ProviderFailed(Failure.TIMEOUT, detail, retry=True) from error

    async def _piece(self, pieces: AsyncGenerator[Piece | Note, None]) -> Piece | Note:
        try:
            return await anext(pieces)
        except StopAsyncIteration:
            return Finished(FinishReason.UNKNOWN)

    def _too_much(self) -> bool:
        return self.transcript.tokens >= MOST_PIECES * self._request.max_tokens

    def _tell(self, events: Sequence[Event]) -> None:
        for listener in list(self._listeners):
            listener.told(events)
        self._changed(self)


def _from_now(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def _in_vain(timeout: asyncio.Timeout, pause: float) -> bool:
    """Whether nobody would wait for what comes behind the pause."""
    over = timeout.when()
    return pause > LONGEST_PAUSE or (over is not None and _from_now(pause) > over)
