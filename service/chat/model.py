"""A generation: what a language model was asked for, how far it is, and how the API shows it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from service.export.receipt import rfc3339


class OnDisconnect(StrEnum):
    """What becomes of a generation whose client leaves."""

    CANCEL = "cancel"
    CONTINUE = "continue"


class State(StrEnum):
    """Where a generation is in its life."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self is not State.RUNNING


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a generation; ``seq`` counts from 1 without gaps."""

    seq: int
    name: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation as it is stored; ``asked`` and ``error`` are plain data for JSON.

    What was said to the model is not kept, only what it said. ``seq`` is the number of the last
    event, ``chars`` counts characters of ``text``.
    """

    id: str
    owner: str
    provider: str
    model: str
    asked: dict[str, Any]
    created_at: datetime
    state: State = State.RUNNING
    text: str = field(default="", repr=False)
    tokens: int = 0
    chars: int = 0
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    first_token_at: datetime | None = None
    finished_at: datetime | None = None
    seq: int = 0


def describe(generation: Generation, base: str) -> dict[str, Any]:
    """The generation as the API shows it; ``base`` is the address up to ``/v1``."""
    here = f"{base}/v1/generations/{generation.id}"
    return {
        "id": generation.id,
        "owner": generation.owner,
        "provider": generation.provider,
        "model": generation.model,
        "request": generation.asked,
        "state": generation.state.value,
        "text": generation.text,
        "tokens": generation.tokens,
        "chars": generation.chars,
        "finish_reason": generation.finish_reason,
        "usage": generation.usage,
        "error": generation.error,
        "created_at": rfc3339(generation.created_at),
        "first_token_at": _time(generation.first_token_at),
        "finished_at": _time(generation.finished_at),
        "links": {"self": here, "events": f"{here}/events", "cancel": f"{here}/cancel"},
    }


def _time(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment else None
