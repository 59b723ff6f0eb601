"""The events of one generation in their order, and the text so far. Pure."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from typing import Any

from service.chat.model import Event, Generation, State
from service.chat.provider import Finished, Note, ProviderFailed

TOKENS_BETWEEN_PROGRESS = 10
CLOSE = "close"
UNSTORABLE = re.compile("[\0\ud800-\udfff]")
MOST_COUNTED = 2**53 - 1  # what a double, and so JavaScript, counts exactly


class Transcript:
    """Begins with ``start``; ``token``s follow, and one of ``done``, ``failed``, ``cancelled``.

    ``tokens`` and ``chars`` count what has come.

    A result, such as ``draft``, stands in the place of ``done``. Each gives the events that it
    makes. ``close`` is always the last of all.
    """

    def __init__(self, generation: Generation) -> None:
        self.events: list[Event] = []
        self.tokens = self.chars = 0
        self._generation = generation
        self._first_token_at: datetime | None = None
        self._parts: list[str] = []
        shown = ("id", "provider", "model")
        self._add("start", {name: getattr(generation, name) for name in shown})

    @property
    def generation(self) -> Generation:
        """As it is now, with its text."""
        return replace(self.summary, text="".join(self._parts))

    @property
    def summary(self) -> Generation:
        """The same without its text, which would be put together for it."""
        return replace(
            self._generation,
            tokens=self.tokens,
            chars=self.chars,
            first_token_at=self._first_token_at,
            seq=self.seq,
        )

    @property
    def state(self) -> State:
        return self._generation.state

    @property
    def seq(self) -> int:
        """The number of the last event."""
        return len(self.events)

    def behind(self, seq: int) -> list[Event]:
        """The events behind that number."""
        return self.events[seq:]

    def token(self, text: str, now: datetime) -> list[Event]:
        """A piece of text has come."""
        text = storable(text)
        self._first_token_at = self._first_token_at or now
        self.tokens += 1
        self.chars += len(text)
        self._parts.append(text)
        made = [self._add("token", {"t": text, "n": self.tokens})]
        if self.tokens % TOKENS_BETWEEN_PROGRESS == 0:
            made.append(self._add("progress", self._counts()))
        return made

    def note(self, note: Note) -> list[Event]:
        """Something else is told between the tokens."""
        return [self._add(note.name, note.data)]

    def done(self, finished: Finished, now: datetime) -> list[Event]:
        """The model has come to its end."""
        usage = {
            "prompt_tokens": _counted(finished.usage.prompt_tokens),
            "completion_tokens": _counted(finished.usage.completion_tokens),
        }
        told = {"finish_reason": finished.reason.value, "usage": usage}
        end = finished.result or Note("done", told | self._counts())
        return self._ended(State.SUCCEEDED, end.name, end.data, now, **told)

    def failed(self, error: ProviderFailed, now: datetime) -> list[Event]:
        """It could not go on."""
        told = {
            "code": error.failure.value,
            "message": storable(error.detail),
            "retry": error.retry,
        }
        return self._ended(State.FAILED, "error", told, now, error=told)

    def cancelled(self, now: datetime) -> list[Event]:
        """Somebody stopped it, or nobody read it any more."""
        return self._ended(State.CANCELLED, "cancelled", {}, now)

    def _ended(
        self, state: State, name: str, data: dict[str, Any], now: datetime, **changes: Any
    ) -> list[Event]:
        self._generation = replace(self._generation, state=state, finished_at=now, **changes)
        return [self._add(name, data), self._add(CLOSE, {})]

    def _counts(self) -> dict[str, Any]:
        return {"tokens": self.tokens, "chars": self.chars}

    def _add(self, name: str, data: dict[str, Any]) -> Event:
        event = Event(len(self.events) + 1, name, data)
        self.events.append(event)
        return event


def storable(text: str) -> str:
    """``text`` with U+FFFD for what PostgreSQL cannot hold: NUL, and halves of characters.

    What a model says passes through here alone, so that it is told as it will be kept.
    """
    return UNSTORABLE.sub("\ufffd", text)


def _counted(tokens: int | None) -> int | None:
    return tokens if tokens is not None and 0 <= tokens <= MOST_COUNTED else None
