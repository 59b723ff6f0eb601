"""Generations of a test's own: providers that do as they are told, and whoever reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import uuid_utils.compat as uuid_utils

from service.chat.live import Live, Patience
from service.chat.model import Event, Generation, OnDisconnect
from service.chat.provider import (
    Answers,
    ChatMessage,
    ChatRequest,
    Delta,
    Finished,
    FinishReason,
    Note,
    Piece,
    Usage,
)
from service.database import utcnow
from tests.waiting import eventually

WITHIN = 20.0  # seconds
AT_ONCE = 1.0  # seconds in which a provider is let go of
FOREVER = 3_600.0
PATIENT = Patience(first_token=60.0, stall=60.0, max_duration=60.0, retries=0)
END = Finished(FinishReason.STOP, Usage(3, 2))
Step = Piece | Note | Exception | float


def words(*texts: str) -> list[Delta]:
    return [Delta(text) for text in texts]


def request(max_tokens: int) -> ChatRequest:
    return ChatRequest("m", [ChatMessage("user", "Hi")], max_tokens)


@dataclass(eq=False)
class Scripted:
    """Each call plays the next script, the last one again and again.

    Pieces are given, exceptions raised, and seconds waited for; ``closing`` is how many seconds
    its end takes. ``opened`` counts the calls, ``open`` those that have not been closed, and
    ``broken`` those whose closing was broken into.
    """

    scripts: Sequence[Sequence[Step]]
    closing: float = 0.0
    kind: str = "scripted"
    opened: int = 0
    open: int = 0
    broken: int = 0

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Piece | Note, None]:
        del request
        script = self.scripts[min(self.opened, len(self.scripts) - 1)]
        self.opened += 1
        self.open += 1
        try:
            for step in script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, float):
                    await asyncio.sleep(step)
                    continue
                await asyncio.sleep(0)
                yield step
        finally:
            self.broken += 1
            await asyncio.sleep(self.closing)
            self.broken -= 1
            self.open -= 1

    async def close(self) -> None:
        """Nothing is kept."""


@dataclass(eq=False)
class Reader:
    """Whoever reads a generation, and all that it is told; a follower, too."""

    seq: int = 0
    seen: list[Event] = field(default_factory=list)

    def told(self, events: Sequence[Event]) -> None:
        self.seen += events
        self.seq = events[-1].seq

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.seen if event.name != "progress"]

    @property
    def text(self) -> str:
        return "".join(event.data["t"] for event in self.seen if event.name == "token")

    @property
    def end(self) -> Event:
        """What stands before ``close``."""
        assert self.seen[-1].name == "close"
        return self.seen[-2]

    @property
    def error(self) -> Any:
        assert self.end.name == "error", self.end
        return self.end.data

    async def reach(self, count: int) -> None:
        """Until so many events have been told."""

        async def there() -> bool:
            return len(self.seen) >= count

        await eventually(there, within=WITHIN, what=f"{count} events, after {self.seen}")


def generation(**values: Any) -> Generation:
    fixed: dict[str, Any] = {
        "id": str(uuid_utils.uuid7()),
        "owner": "anonymous",
        "provider": "default",
        "model": "m",
        "asked": {"messages": 1},
        "created_at": utcnow(),
    }
    return Generation(**fixed | values)


def live_of(
    provider: Answers,
    *,
    patience: Patience = PATIENT,
    on_disconnect: OnDisconnect = OnDisconnect.CANCEL,
    changed: Callable[[Live], None] = lambda _: None,
    max_tokens: int = 1_000_000,
    **values: Any,
) -> Live:
    """A generation that has not been started."""
    return Live(
        generation(**values), provider, request(max_tokens), patience, on_disconnect, changed
    )


def started(live: Live) -> Reader:
    """Whoever has read it from its first event on."""
    reader = Reader()
    live.attach(reader, 0)
    live.start()
    return reader


async def ended(live: Live, within: float = WITHIN) -> Reader:
    """All its events, once it has ended."""
    assert await live.ended(within), f"not within {within} s"
    reader = Reader()
    live.attach(reader, 0)
    assert [event.seq for event in reader.seen] == list(range(1, len(reader.seen) + 1))
    return reader


def talks(times: int, *end: Step) -> Scripted:
    """A token every ten milliseconds."""
    token: list[Step] = [*words("a"), 0.01]
    return Scripted([[*(token * times), *end]])
