"""What a provider of language models is asked, and what it gives: text as it comes, then an end.

``echo``, ``openai_api`` and ``anthropic_api`` are the providers. Whatever one of them fails with
is a ``ProviderFailed`` with a stable code, whose message holds no secrets.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol

from service.errors import TailraceError

Role = Literal["system", "user", "assistant"]


class FinishReason(StrEnum):
    """Why a model stopped; ``unknown`` where its provider did not say."""

    STOP = "stop"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"
    TOOL_USE = "tool_use"
    UNKNOWN = "unknown"


class Failure(StrEnum):
    """What a generation fails with, as clients see it."""

    RATE_LIMITED = "rate_limited"
    TIMEOUT = "timeout"
    UPSTREAM_UNAVAILABLE = "upstream_unavailable"
    CONTEXT_TOO_LONG = "context_too_long"
    CONTENT_FILTERED = "content_filtered"
    AUTHENTICATION = "authentication"
    INVALID_DRAFT = "invalid_draft"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a model is asked. ``max_tokens`` bounds its answer."""

    model: str
    messages: Sequence[ChatMessage]
    max_tokens: int
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counts them; None where it did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """Text that has come; never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Note:
    """What is told between tokens, as an event of that name: another answer begins behind it."""

    name: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of an answer, given once and last; ``result`` is told in the place of ``done``."""

    reason: FinishReason
    usage: Usage = field(default_factory=Usage)
    result: Note | None = None


Piece = Delta | Finished


STATUS = {Failure.RATE_LIMITED: 429, Failure.TIMEOUT: 504, Failure.CONTEXT_TOO_LONG: 413}


class ProviderFailed(TailraceError):
    """``failure`` is the stable code, ``retry`` says whether asking again may help.

    ``retry_after`` is the pause in seconds that the provider asks for, if it does.
    """

    status = 502
    code = "provider_failed"
    title = "The language model's provider failed"

    def __init__(
        self, failure: Failure, detail: str, *, retry: bool, retry_after: float | None = None
    ) -> None:
        pause = {} if retry_after is None else {"Retry-After": str(math.ceil(retry_after))}
        members = {"failure": failure.value, "retry": retry}
        super().__init__(detail, headers=pause, members=members)
        self.failure = failure
        self.retry = retry
        self.retry_after = retry_after

    def problem(self, request_id: str | None) -> dict[str, Any]:
        """With the status of its kind: 429, 413, 504, or else 502."""
        document = super().problem(request_id)
        return document | {"status": STATUS.get(self.failure, self.status)}


class Answers(Protocol):
    """Whatever a generation can be made of: a provider, or what asks one several times."""

    def stream(self, request: ChatRequest) -> AsyncGenerator[Piece | Note, None]: ...


class Provider(Protocol):
    """Streams answers. One for each ``[llm]`` section; its connections are shared."""

    @property
    def kind(self) -> str:
        """openai, anthropic or echo."""
        ...

    def stream(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        """Deltas, then Finished. Raises ProviderFailed.

        Closing it, or cancelling who waits for it, closes the connection to the provider at once.
        It neither retries nor times anything out: who asks does.
        """
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...
