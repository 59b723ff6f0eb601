"""Which parameters a model's server takes, learnt from what it refuses (pure).

The limit of an answer is ``max_tokens`` to every server that speaks this API. OpenAI itself
deprecates it and, for models that reason, refuses it for ``max_completion_tokens``, which others
ignore without a word and then generate without a limit. So the first is sent until a server asks
for the second. Who refuses ``stream_options`` is not asked for usage, and who refuses a
``temperature`` answers with its own. Only what was taken in the end is remembered: an error may
repeat what somebody wrote.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from service.chat.provider import ChatRequest

Answered = TypeVar("Answered")
REFUSED = frozenset({400, 422})  # statuses


@dataclass(frozen=True, slots=True)
class Parameters:
    """What is sent; in the beginning everything, in the spelling that most servers know."""

    limit: str = "max_tokens"
    stream_options: bool = True
    temperature: bool = True

    def instead(self, error: Exception) -> Parameters | None:
        """What to send after ``error``, an SDK's; None where it names nothing to do without."""
        if getattr(error, "status_code", None) not in REFUSED:
            return None
        told = str(getattr(error, "body", None))
        if self.limit == "max_tokens" and "max_completion_tokens" in told:
            return replace(self, limit="max_completion_tokens")
        if self.stream_options and "stream_options" in told:
            return replace(self, stream_options=False)
        if self.temperature and "temperature" in told:
            return replace(self, temperature=False)
        return None

    def of(self, request: ChatRequest) -> dict[str, Any]:
        """As arguments."""
        sent: dict[str, Any] = {self.limit: request.max_tokens}
        if self.stream_options:
            sent["stream_options"] = {"include_usage": True}
        if self.temperature and request.temperature is not None:
            sent["temperature"] = request.temperature
        return sent


EVERYTHING = Parameters()


class Learnt:
    """What a server has taken after a refusal, for each model; ``first`` is what to begin with."""

    MOST = 100  # models: their names may come from anybody

    def __init__(self, first: Parameters = EVERYTHING) -> None:
        self._first = first
        self._taken: dict[str, Parameters] = {}

    def __getitem__(self, model: str) -> Parameters:
        return self._taken.get(model, self._first)

    def __setitem__(self, model: str, taken: Parameters) -> None:
        if taken == self[model]:
            return
        if len(self._taken) >= self.MOST:
            self._taken.clear()
        self._taken[model] = taken

    async def until_taken(
        self,
        model: str,
        refusal: type[Exception],
        ask: Callable[[Parameters], Awaitable[Answered]],
    ) -> Answered:
        """What ``ask`` gives with parameters that the server takes.

        Raises the ``refusal`` that names none to do without.
        """
        sent = self[model]
        while True:
            try:
                answered = await ask(sent)
            except refusal as error:
                instead = sent.instead(error)
                if instead is None:
                    raise
                sent = instead
            else:
                self[model] = sent
                return answered
