"""Takes generations on: which provider, how many at once, and who is told how they go."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass

import uuid_utils.compat as uuid_utils

from service.chat.asking import Asked
from service.chat.following import Tails
from service.chat.journal import Journal
from service.chat.live import Live, Patience
from service.chat.model import Generation
from service.chat.provider import Provider
from service.database import utcnow
from service.errors import Draining, InvalidParameter, ProviderMissing
from service.observe import Event, GenerationEnded, GenerationStarted, Observer, Unexpected
from service.settings import ProviderSettings
from service.slots import Slots
from service.streaming import ActiveStreams

DEFAULT = "default"  # the provider that is asked where none is named; else the first


@dataclass(frozen=True, slots=True)
class Offered:
    """A configured provider; None where it cannot be used, and ``missing`` says what it lacks."""

    settings: ProviderSettings
    slots: Slots
    provider: Provider | None
    missing: str = ""


class Desk:
    """``offered`` are the providers by name."""

    def __init__(
        self,
        offered: Mapping[str, Offered],
        journal: Journal,
        tails: Tails,
        active: ActiveStreams,
        observe: Observer,
    ) -> None:
        self.offered = offered
        self.journal = journal
        self.tails = tails
        self._active = active
        self._observe = observe

    def start(self) -> None:
        self.journal.start()
        self.tails.start()

    async def stop(self) -> None:
        """Returns once everything has ended, for which a drain under way gives it time."""
        for live in self.journal.running():
            if not self._active.draining:
                live.break_off(Draining())
            # No connection waits for one that nobody reads: only we do.
            await live.ended(None)
        await self.tails.stop()
        await self.journal.stop()
        every = [item.provider for item in self.offered.values() if item.provider is not None]
        await asyncio.gather(*(provider.close() for provider in every))

    async def begin(self, asked: Asked, owner: str) -> Live:
        """A generation that runs. Raises InvalidParameter, ProviderMissing, Busy and Draining."""
        name = self._named(asked.provider)
        offered = self.offered[name]
        if offered.provider is None:
            raise ProviderMissing(f"The provider {name} cannot be used: {offered.missing}")
        request = asked.request(offered.settings.model, offered.settings.max_tokens)
        await offered.slots.acquire()
        generation = Generation(
            id=str(uuid_utils.uuid7()),
            owner=owner,
            provider=name,
            model=request.model,
            asked=asked.shown(),
            created_at=utcnow(),
        )
        live = Live(
            generation,
            asked.answers(offered.provider),
            request,
            patience_of(offered.settings),
            asked.on_disconnect,
            Watch(self, offered.slots).changed,
        )
        try:
            self._active.enter(live)
        except BaseException:
            offered.slots.release()
            raise
        live.start()
        return live

    async def cancel(self, generation_id: str, within: float) -> Generation | None:
        """The generation once it has ended, or as it is after so many seconds."""
        live = self.journal.live(generation_id)
        if live is not None:
            live.cancel()
            await live.ended(within)
        else:
            await self.tails.ask_to_stop(generation_id, within)
        return await self.journal.get(generation_id)

    def left(self, live: Live, slots: Slots) -> None:
        """It has ended."""
        slots.release()
        self._active.leave(live)

    def tell(self, event: Event) -> None:
        self._observe(event)

    def _named(self, name: str | None) -> str:
        if not self.offered:
            raise ProviderMissing("No provider of language models is configured ([llm.NAME]).")
        if name is None:
            return DEFAULT if DEFAULT in self.offered else next(iter(self.offered))
        if name not in self.offered:
            known = ", ".join(self.offered)
            raise InvalidParameter("provider", f"provider: {name!r} is not one of {known}.")
        return name


class Watch:
    """Has one generation written down, tells the log and the metrics, and frees its slot."""

    def __init__(self, desk: Desk, slots: Slots) -> None:
        self._desk = desk
        self._slots = slots
        self._began = time.monotonic()
        self._waits = True

    def changed(self, live: Live) -> None:
        """``live`` has new events."""
        self._desk.journal.changed(live)
        transcript = live.transcript
        if self._waits and transcript.tokens:
            self._waits = False
            self._desk.tell(self._started(transcript.summary))
        if transcript.state.final:
            if live.bug is not None:
                trace = "".join(traceback.format_exception(live.bug))
                self._desk.tell(Unexpected(f"generation {live.id}", trace))
            self._desk.tell(self._ended(transcript.summary))
            self._desk.left(live, self._slots)

    def _started(self, generation: Generation) -> GenerationStarted:
        return GenerationStarted(
            generation_id=generation.id,
            provider=generation.provider,
            model=generation.model,
            first_token_seconds=time.monotonic() - self._began,
        )

    def _ended(self, generation: Generation) -> GenerationEnded:
        return GenerationEnded(
            generation_id=generation.id,
            provider=generation.provider,
            model=generation.model,
            outcome=generation.state.value,
            tokens=generation.tokens,
            chars=generation.chars,
            seconds=time.monotonic() - self._began,
            code=(generation.error or {}).get("code"),
        )


def patience_of(settings: ProviderSettings) -> Patience:
    return Patience(
        first_token=settings.first_token_timeout,
        stall=settings.stall_timeout,
        max_duration=settings.max_duration,
        retries=settings.retries,
    )
