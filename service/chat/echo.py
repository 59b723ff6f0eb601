"""A stand-in for a language model: no key, no network, and the same answer each time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from itertools import islice

from service.chat.provider import (
    ChatRequest,
    Delta,
    Finished,
    FinishReason,
    Piece,
    ProviderFailed,
    Usage,
)

OPENING = "This is a stand-in, and no language model. You wrote: "
TOKEN = re.compile(r"\s*\S+\s?|\s+")  # a word with the space behind it

# What is given, raised or, as seconds, waited for.
Script = Sequence[Piece | ProviderFailed | float]


class Echo:
    """Answers with the last words of the user, a word a token.

    It waits ``pace`` seconds before each token. Where there is a ``script``, for tests, that is
    played instead, whatever is asked.
    """

    kind = "echo"

    def __init__(self, *, pace: float = 0.0, script: Script | None = None) -> None:
        self._pace = pace
        self._script = script

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        for step in _script(request) if self._script is None else self._script:
            if isinstance(step, ProviderFailed):
                raise step
            if isinstance(step, int | float):
                await asyncio.sleep(step)
                continue
            # Even without a pace others get their turn, and a cancellation its moment.
            await asyncio.sleep(self._pace if isinstance(step, Delta) else 0)
            yield step

    async def close(self) -> None:
        """Nothing is open."""


def tokens(text: str) -> list[str]:
    """``text`` in words; together they are ``text``."""
    return TOKEN.findall(text)


def _script(request: ChatRequest) -> Iterator[Piece]:
    words = next((turn.content for turn in reversed(request.messages) if turn.role == "user"), "")
    answer = tokens(OPENING + words)
    yield from map(Delta, islice(answer, request.max_tokens))
    usage = Usage(
        prompt_tokens=sum(len(tokens(turn.content)) for turn in request.messages),
        completion_tokens=min(len(answer), request.max_tokens),
    )
    whole = len(answer) <= request.max_tokens
    yield Finished(FinishReason.STOP if whole else FinishReason.LENGTH, usage)
