"""A generation as bare text: what ``streaming.StreamResponse`` sends to who wants no events."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from service.chat.live import Live
from service.chat.model import Event, State
from service.errors import Cancelled, TailraceError
from service.export.receipt import Outcome


class PlainText:
    """The text from its first token to its end; a generation that fails breaks it off."""

    status = 200

    def __init__(self, live: Live) -> None:
        self._live = live
        self._seq = 0
        self._first: str | None = None
        self._news = asyncio.Event()
        self._complete = False

    async def open(self) -> None:
        """Wait for the first token. Raises ProviderFailed where there is none."""
        self._live.attach(self, 0)
        self._first = await self._next()

    async def read(self) -> bytes | None:
        first, self._first = self._first, None
        text = await self._next() if first is None else first
        return text.encode() or None

    async def close(self) -> None:
        self._live.detach(self, left=not self._complete)

    def headers(self) -> Mapping[str, str]:
        return {}

    def started(self) -> None:
        """The generation tells of itself."""

    def ended(self, outcome: Outcome, error: TailraceError | None) -> None:
        del error
        self._complete = outcome is Outcome.COMPLETE

    def told(self, events: Sequence[Event]) -> None:
        del events
        self._news.set()

    async def _next(self) -> str:
        """What has come since; "" at the end. Raises ProviderFailed and Cancelled."""
        transcript = self._live.transcript
        while True:
            self._news.clear()
            new = transcript.behind(self._seq)
            self._seq += len(new)
            if text := "".join(event.data["t"] for event in new if event.name == "token"):
                return text
            if transcript.state is State.FAILED and self._live.failure is not None:
                raise self._live.failure
            if transcript.state is State.CANCELLED:
                raise Cancelled("Somebody asked to stop it.")
            if transcript.state is State.SUCCEEDED:
                return ""
            await self._news.wait()
