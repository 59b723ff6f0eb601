"""An answer as it comes, of whichever API: its text, and in the end why it ended."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from service.chat.characters import Characters
from service.chat.failures import Sdk, broken_off, translated
from service.chat.provider import (
    Delta,
    Failure,
    Finished,
    FinishReason,
    Piece,
    ProviderFailed,
    Usage,
)


@dataclass(slots=True)
class Answer:
    """``reason`` is None until the provider gives one.

    ``ended`` tells whether it said that it is done, ``refused`` whether its text is a refusal.
    """

    reason: FinishReason | None = None
    ended: bool = False
    refused: bool = False
    usage: Usage = field(default_factory=Usage)
    _characters: Characters = field(default_factory=Characters)

    def count(self, prompt: object, completion: object) -> None:
        """Tokens as the provider counts them; what it leaves out stays as it was."""
        if isinstance(prompt, int):
            self.usage = replace(self.usage, prompt_tokens=prompt)
        if isinstance(completion, int):
            self.usage = replace(self.usage, completion_tokens=completion)

    def add(self, text: str) -> Delta | None:
        """What can be given of it, if anything."""
        whole = self._characters.feed(text)
        return Delta(whole) if whole else None

    def rest(self) -> Delta | None:
        whole = self._characters.finish()
        return Delta(whole) if whole else None

    def survives(self, failed: ProviderFailed) -> bool:
        """Whether it is whole, though its stream broke behind it."""
        return self.reason is not None and failed.failure is Failure.UPSTREAM_UNAVAILABLE

    def finished(self) -> Finished:
        """Raises ProviderFailed where the stream ended and the answer did not."""
        if self.reason is None and not self.ended:
            raise broken_off()
        if self.refused:
            return Finished(FinishReason.CONTENT_FILTER, self.usage)
        return Finished(self.reason or FinishReason.UNKNOWN, self.usage)


async def pieces(
    answer: Answer, texts: AsyncGenerator[str, None], sdk: Sdk, secret: str | None
) -> AsyncGenerator[Piece, None]:
    """``texts`` as they come from an SDK, and the end. Raises ProviderFailed.

    Closed, it closes them. ``secret`` is the key that is sent.
    """
    try:
        with translated(sdk, secret):
            async with aclosing(texts):
                async for text in texts:
                    if delta := answer.add(text):
                        yield delta
    except ProviderFailed as failed:
        if not answer.survives(failed):
            raise
    if delta := answer.rest():
        yield delta
    yield answer.finished()
